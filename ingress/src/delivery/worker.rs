//! What one worker thread brings in a turn is handed over together, and its answers come back together.
//!
//! A request takes a slot and waits there: no channel, no timer and no call into the client of its own.
//! One task per worker runs behind all connections that the same wake-up brought, hands their records
//! over under one lock, and passes answers on to the slots.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::log::Record;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use crate::delivery::dispatcher::Dispatcher;
use crate::delivery::state::{Answer, Offer, Waiter};

/// How exactly the deadline is kept.
const TICK: Duration = Duration::from_millis(20);

/// Answers for the requests of one worker, and a bell.
#[derive(Debug, Default)]
pub struct Outbox {
    answers: Mutex<Vec<(Waiter, Answer)>>,
    /// There are answers of which the worker was not told.
    news: AtomicBool,
    bell: Notify,
}

impl Outbox {
    /// Adds an answer. Nobody is woken.
    pub fn put(&self, waiter: Waiter, answer: Answer) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((waiter, answer));
        self.news.store(true, Ordering::Release);
    }

    /// Wakes the worker if there is something for it.
    pub fn ring(&self) {
        if self.news.swap(false, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// Takes all answers that are there.
    pub fn take(&self, answers: &mut Vec<(Waiter, Answer)>) {
        self.news.store(false, Ordering::Release);
        std::mem::swap(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner), answers);
    }
}

/// One worker thread's part.
pub struct Worker {
    dispatcher: Arc<Dispatcher>,
    number: u32,
    outbox: Arc<Outbox>,
    slots: RefCell<Slots>,
    turn: RefCell<Vec<Offer>>,
}

impl Worker {
    /// Starts the worker's task on this thread.
    pub fn start(dispatcher: Arc<Dispatcher>) -> Rc<Self> {
        let (number, outbox) = dispatcher.register_worker();
        let worker = Rc::new(Self { dispatcher, number, outbox, slots: RefCell::default(), turn: RefCell::default() });
        actix_web::rt::spawn(Rc::clone(&worker).serve());
        worker
    }

    /// Resolves once the record is kept, or could not be.
    pub fn keep(self: &Rc<Self>, record: Record) -> impl Future<Output = Answer> {
        let (slot, generation) = self.slots.borrow_mut().take();
        let waiter = Waiter { worker: self.number, slot, generation };
        let offer = Offer { waiter, partition: self.dispatcher.partition_of(&record), record: Arc::new(record) };
        let mut turn = self.turn.borrow_mut();
        if turn.is_empty() {
            self.outbox.bell.notify_one();
        }
        turn.push(offer);
        drop(turn);
        Waiting { worker: Rc::clone(self), slot, over: false }
    }

    async fn serve(self: Rc<Self>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answers = Vec::new();
        loop {
            tokio::select! {
                () = self.outbox.bell.notified() => {}
                _ = tick.tick() => self.dispatcher.tick(),
            }
            self.outbox.take(&mut answers);
            for (waiter, answer) in answers.drain(..) {
                self.slots.borrow_mut().answer(waiter, answer);
            }
            let mut turn = self.turn.borrow_mut();
            if !turn.is_empty() {
                self.dispatcher.offer(&mut turn);
            }
        }
    }
}

/// A request that waits in its slot.
struct Waiting {
    worker: Rc<Worker>,
    slot: u32,
    over: bool,
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let answer = self.worker.slots.borrow_mut().poll(self.slot, context.waker());
        self.over = answer.is_some();
        answer.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            self.worker.slots.borrow_mut().abandon(self.slot);
        }
    }
}

/// The requests of one worker that wait.
#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    /// Counts up with every use, so that a late answer meets no other request.
    generation: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    Waiting(Option<Waker>),
    Answered(Answer),
    /// The client hung up. Its record is kept all the same.
    Abandoned,
}

impl Slots {
    fn take(&mut self) -> (u32, u32) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.all.push(Slot { generation: 0, state: State::Free });
            u32::try_from(self.all.len() - 1).expect("fewer requests than 4 billion")
        });
        let taken = &mut self.all[slot as usize];
        taken.state = State::Waiting(None);
        (slot, taken.generation)
    }

    fn answer(&mut self, waiter: Waiter, answer: Answer) {
        let Some(slot) = self.all.get_mut(waiter.slot as usize) else { return };
        if slot.generation != waiter.generation {
            return;
        }
        match &mut slot.state {
            State::Waiting(waker) => {
                let waker = waker.take();
                slot.state = State::Answered(answer);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Abandoned => self.release(waiter.slot),
            State::Free | State::Answered(_) => {}
        }
    }

    fn poll(&mut self, slot: u32, waker: &Waker) -> Option<Answer> {
        match &mut self.all[slot as usize].state {
            State::Answered(answer) => {
                let answer = *answer;
                self.release(slot);
                Some(answer)
            }
            State::Waiting(known) => {
                if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    *known = Some(waker.clone());
                }
                None
            }
            State::Free | State::Abandoned => None,
        }
    }

    fn abandon(&mut self, slot: u32) {
        match &mut self.all[slot as usize].state {
            State::Answered(_) => self.release(slot),
            state @ State::Waiting(_) => *state = State::Abandoned,
            State::Free | State::Abandoned => {}
        }
    }

    fn release(&mut self, slot: u32) {
        let released = &mut self.all[slot as usize];
        released.generation = released.generation.wrapping_add(1);
        released.state = State::Free;
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
    fn an_answer_reaches_the_request_that_waits_for_it_and_no_later_one() {
        let mut slots = Slots::default();
        let first = slots.take();
        assert_eq!(slots.poll(first.0, Waker::noop()), None);
        slots.answer(waiter(first), Answer::Kafka);
        assert_eq!(slots.poll(first.0, Waker::noop()), Some(Answer::Kafka));

        let second = slots.take();
        assert_eq!(second.0, first.0, "the slot is used again");
        slots.answer(waiter(first), Answer::Disk);
        assert_eq!(slots.poll(second.0, Waker::noop()), None);
    }

    #[test]
    fn the_slot_of_a_client_that_hung_up_is_free_once_its_answer_is_there() {
        let mut slots = Slots::default();
        let first = slots.take();
        slots.abandon(first.0);
        assert_ne!(slots.take().0, first.0);
        slots.answer(waiter(first), Answer::Disk);
        assert_eq!(slots.take().0, first.0);
    }
}
