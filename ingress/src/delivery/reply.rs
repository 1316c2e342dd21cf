//! Replies of the delivery state machine to the requests of one worker thread.
//!
//! A request takes a slot and waits there: no channel and no timer of its own. The dispatcher pushes replies to the
//! worker's queue; the worker puts them into the slots.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;

use crate::delivery::state::{Reply, Waiter};

#[derive(Debug, Default)]
pub struct ReplyQueue {
    replies: Mutex<Vec<(Waiter, Reply)>>,
    /// The worker was not woken for these replies yet.
    unannounced: AtomicBool,
    pub(super) worker: Notify,
}

impl ReplyQueue {
    /// Does not wake the worker.
    pub fn extend(&self, replies: impl Iterator<Item = (Waiter, Reply)>) {
        let mut queue = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        queue.extend(replies);
        if !queue.is_empty() {
            self.unannounced.store(true, Ordering::Release);
        }
    }

    pub fn wake_worker(&self) {
        if self.unannounced.swap(false, Ordering::AcqRel) {
            self.worker.notify_one();
        }
    }

    pub fn take(&self, replies: &mut Vec<(Waiter, Reply)>) {
        self.unannounced.store(false, Ordering::Release);
        std::mem::swap(&mut *self.replies.lock().unwrap_or_else(PoisonError::into_inner), replies);
    }
}

#[derive(Debug, Default)]
pub(super) struct ReplySlots {
    all: Vec<ReplySlot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct ReplySlot {
    /// Counts up with every use, so that a late reply does not reach a later request.
    generation: u32,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Free,
    Waiting(Option<Waker>),
    Replied(Reply),
    /// The client hung up. Its record is kept all the same.
    Abandoned,
}

impl ReplySlots {
    pub(super) fn take(&mut self) -> (u32, u32) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.all.push(ReplySlot { generation: 0, state: SlotState::Free });
            u32::try_from(self.all.len() - 1).expect("fewer requests than 4 billion")
        });
        let taken = &mut self.all[slot as usize];
        taken.state = SlotState::Waiting(None);
        (slot, taken.generation)
    }

    pub(super) fn reply(&mut self, waiter: Waiter, reply: Reply) {
        let Some(slot) = self.all.get_mut(waiter.slot as usize) else { return };
        if slot.generation != waiter.generation {
            return;
        }
        match &mut slot.state {
            SlotState::Waiting(waker) => {
                let waker = waker.take();
                slot.state = SlotState::Replied(reply);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            SlotState::Abandoned => self.release(waiter.slot),
            SlotState::Free | SlotState::Replied(_) => {}
        }
    }

    pub(super) fn poll(&mut self, slot: u32, waker: &Waker) -> Option<Reply> {
        match &mut self.all[slot as usize].state {
            SlotState::Replied(reply) => {
                let reply = *reply;
                self.release(slot);
                Some(reply)
            }
            SlotState::Waiting(known) => {
                if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    *known = Some(waker.clone());
                }
                None
            }
            SlotState::Free | SlotState::Abandoned => None,
        }
    }

    pub(super) fn abandon(&mut self, slot: u32) {
        match &mut self.all[slot as usize].state {
            SlotState::Replied(_) => self.release(slot),
            state @ SlotState::Waiting(_) => *state = SlotState::Abandoned,
            SlotState::Free | SlotState::Abandoned => {}
        }
    }

    fn release(&mut self, slot: u32) {
        let released = &mut self.all[slot as usize];
        released.generation = released.generation.wrapping_add(1);
        released.state = SlotState::Free;
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter((slot, generation): (u32, u32)) -> Waiter {
        Waiter { worker: 0, slot, generation }
    }

    #[test]
    fn a_reply_reaches_the_request_that_waits_for_it_and_no_later_one() {
        let mut slots = ReplySlots::default();
        let first = slots.take();
        assert_eq!(slots.poll(first.0, Waker::noop()), None);
        slots.reply(waiter(first), Reply::Kafka);
        assert_eq!(slots.poll(first.0, Waker::noop()), Some(Reply::Kafka));

        let second = slots.take();
        assert_eq!(second.0, first.0, "the slot is used again");
        slots.reply(waiter(first), Reply::Disk);
        assert_eq!(slots.poll(second.0, Waker::noop()), None);
    }

    #[test]
    fn the_slot_of_a_client_that_hung_up_is_free_once_its_reply_is_there() {
        let mut slots = ReplySlots::default();
        let first = slots.take();
        slots.abandon(first.0);
        assert_ne!(slots.take().0, first.0);
        slots.reply(waiter(first), Reply::Disk);
        assert_eq!(slots.take().0, first.0);
    }
}
