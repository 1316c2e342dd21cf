//! The records of one turn of a worker thread go to the dispatcher together, and their replies come back together.
//!
//! One task per worker runs after all connections that the same wake-up served. It passes their records to the dispatcher
//! under one lock, and puts replies into the slots of the waiting requests.

use std::cell::RefCell;
use std::iter;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use event_log::Record;
use tokio::time::{MissedTickBehavior, interval};

use crate::delivery::dispatcher::WorkerSide;
use crate::delivery::reply::{ReplyQueue, ReplySlots};
use crate::delivery::state::{Input, Offer, Reply, Waiter};

const TICK: Duration = Duration::from_millis(20);

pub struct Worker {
    dispatcher: Arc<dyn WorkerSide>,
    number: u32,
    reply_queue: Arc<ReplyQueue>,
    slots: RefCell<ReplySlots>,
    turn: RefCell<Vec<Offer>>,
}

impl Worker {
    /// The task runs on this thread.
    pub fn start(dispatcher: Arc<dyn WorkerSide>) -> Rc<Self> {
        let (number, reply_queue) = dispatcher.register_worker();
        let worker =
            Rc::new(Self { dispatcher, number, reply_queue, slots: RefCell::default(), turn: RefCell::default() });
        actix_web::rt::spawn(Rc::clone(&worker).serve());
        worker
    }

    /// Resolves once the record is kept, or could not be.
    pub fn keep(self: &Rc<Self>, record: Record) -> impl Future<Output = Reply> {
        let (slot, generation) = self.slots.borrow_mut().take();
        let waiter = Waiter { worker: self.number, slot, generation };
        let offer = Offer { waiter, partition: self.dispatcher.partition_of(&record), record: Arc::new(record) };
        let mut turn = self.turn.borrow_mut();
        if turn.is_empty() {
            self.reply_queue.worker.notify_one();
        }
        turn.push(offer);
        drop(turn);
        PendingReply { worker: Rc::clone(self), slot, over: false }
    }

    async fn serve(self: Rc<Self>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut replies = Vec::new();
        loop {
            tokio::select! {
                () = self.reply_queue.worker.notified() => {}
                _ = tick.tick() => self.dispatcher.handle_turn(&mut iter::once(Input::Tick)),
            }
            self.reply_queue.take(&mut replies);
            for (waiter, reply) in replies.drain(..) {
                self.slots.borrow_mut().reply(waiter, reply);
            }
            let mut turn = self.turn.borrow_mut();
            if !turn.is_empty() {
                self.dispatcher.handle_turn(&mut turn.drain(..).map(Input::Offered));
            }
        }
    }
}

struct PendingReply {
    worker: Rc<Worker>,
    slot: u32,
    over: bool,
}

impl Future for PendingReply {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let reply = self.worker.slots.borrow_mut().poll(self.slot, context.waker());
        self.over = reply.is_some();
        reply.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        if !self.over {
            self.worker.slots.borrow_mut().abandon(self.slot);
        }
    }
}
