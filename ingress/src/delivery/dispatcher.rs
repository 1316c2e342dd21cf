//! One lock around the delivery state machine, shared by the workers and the threads of the client, the disk and the
//! supervisor.
//!
//! Only decisions are made under the lock. Records are sent, written and answered outside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use disk_log::{Delivered, DiskLog};
use event_log::Record;
use event_log::contract::{header, partition_of};
use kafka_log::{Fault, FaultReports, FaultScope, RawProducer, ReportError, Reports, SendError};
use primitives::clock::Clock;

use crate::delivery::reply::ReplyQueue;
use crate::delivery::state::{
    Batch, DeliveryState, Effects, Group, Input, ProducerState, Reply, Reported, Role, Rules, Span, Status, Waiter,
    Work,
};

mod client;
mod parked;

pub use client::Client;

/// Without news about the disk log, the supervisor checks other things this often.
const DRAIN_WAIT_MAX: Duration = Duration::from_millis(100);

/// Reports that are gathered at most before the state machine gets them.
const REPORTS_MAX: usize = 1_024;

/// Gets each input before the state machine does.
pub type Trace = Box<dyn Fn(&Input) + Send + Sync>;

/// A dispatcher as its workers use it, with any client.
pub trait WorkerSide: Send + Sync {
    fn register_worker(&self) -> (u32, Arc<ReplyQueue>);
    fn partition_of(&self, record: &Record) -> u32;
    /// Passes the inputs of one turn to the state machine.
    fn handle_turn(&self, inputs: &mut dyn Iterator<Item = Input>);
}

/// The delivery state machine with the client, the disk log and the workers that it drives.
pub struct Dispatcher<C = RawProducer> {
    partitions: u32,
    rules: Rules,
    state: Mutex<DeliveryState>,
    /// Reports of a batch, which the state machine gets together: with the last of them, or before its next input.
    reports: Mutex<Vec<Input>>,
    log: DiskLog,
    delivered: Delivered,
    clock: Clock,
    producer: RwLock<Option<Arc<C>>>,
    fault_reports: Arc<FaultReports>,
    /// Why the producer failed, until it is taken.
    failure: Mutex<Option<(Fault, String)>>,
    reply_queues: RwLock<Vec<Arc<ReplyQueue>>>,
    /// Signals records for the disk log.
    to_write: Condvar,
    /// Signals entries to read from the disk log.
    to_drain: Condvar,
    closed: AtomicBool,
    trace: Option<Trace>,
}

impl Dispatcher {
    /// Whether there is a producer, and it reaches no broker.
    pub fn is_lost(&self) -> bool {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        producer.as_ref().is_some_and(|producer| !producer.is_connected())
    }

    pub fn abandon(&self, fault: Fault, reason: String) {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = producer.as_ref() {
            producer.abandon(fault, reason);
        }
    }
}

impl<C: Client> Dispatcher<C> {
    /// The disk log may hold entries of an earlier run.
    pub fn new(log: DiskLog, delivered: Delivered, partitions: u32, rules: Rules) -> Self {
        let state = DeliveryState::new(rules, partitions, delivered.watermark(), log.bounds().1);
        Self {
            partitions,
            rules,
            state: Mutex::new(state),
            reports: Mutex::default(),
            clock: log.clock().clone(),
            log,
            delivered,
            producer: RwLock::new(None),
            fault_reports: Arc::default(),
            failure: Mutex::default(),
            reply_queues: RwLock::default(),
            to_write: Condvar::new(),
            to_drain: Condvar::new(),
            closed: AtomicBool::new(false),
            trace: None,
        }
    }

    #[must_use]
    pub fn traced(self, trace: Trace) -> Self {
        Self { trace: Some(trace), ..self }
    }

    /// Passes inputs to the state machine, and carries out what follows. They are made under the lock.
    ///
    /// The next batch is sent before replies are delivered, so that broker and workers are busy together.
    pub fn handle(&self, inputs: impl IntoIterator<Item = Input>) {
        let mut effects = Effects::default();
        let mut next = self.decide(inputs, &mut effects);
        while let Some(Work::Send(batch)) = next {
            next = self.decide(self.pass_on(batch), &mut effects);
        }
        self.post_replies(&effects.replies, effects.announce);
    }

    pub fn poll(&self, role: Role) -> Option<Work> {
        self.lock().poll(self.clock.now(), role)
    }

    /// Waits for a group; none once the dispatcher is closed and all is written.
    pub fn next_group(&self) -> Option<Group> {
        let mut state = self.lock();
        loop {
            let now = self.clock.now();
            if let Some(Work::Append(group)) = state.poll(now, Role::Append) {
                return Some(group);
            }
            if self.closed.load(Ordering::Acquire) && state.status(now).appends == 0 {
                return None;
            }
            state = self.to_write.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits a moment if there is nothing to drain.
    pub fn next_span(&self) -> Option<Span> {
        let is_idle = |state: &mut DeliveryState| state.poll(self.clock.now(), Role::Drain).is_none();
        let waited = self.to_drain.wait_timeout_while(self.lock(), DRAIN_WAIT_MAX, is_idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let Some(Work::Drain(span)) = state.poll(self.clock.now(), Role::Drain) else { return None };
        Some(span)
    }

    /// Sends entries of the disk log, those that still need it.
    pub fn drain(&self, entries: Vec<(u64, Record)>) {
        self.handle(entries.into_iter().map(|(offset, record)| {
            // Under the lock: an entry in flight may be delivered at any time.
            if self.delivered.is_delivered(offset) {
                return Input::Passed { offset };
            }
            Input::Drained { offset, partition: self.partition_of(&record), record: Arc::new(record) }
        }));
    }

    /// From now on records go to this producer.
    pub fn connected(&self, producer: Arc<C>) {
        *self.producer.write().unwrap_or_else(PoisonError::into_inner) = Some(producer);
        self.handle([Input::Connected { first_undelivered: self.delivered.watermark() }]);
    }

    /// Makes a failed producer report the records that it holds.
    pub fn give_up(&self, in_flight: bool) {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(producer) = producer {
            producer.give_up(in_flight);
        }
    }

    pub fn take_producer(&self) -> Option<Arc<C>> {
        self.producer.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why the producer has to be replaced; it gets no further record.
    pub fn failure(&self) -> Option<(Fault, String)> {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(fatal) = producer.and_then(|producer| producer.fatal()) {
            self.handle([Input::Failed]);
            self.fault_reports.note(fatal.0, fatal.1.clone());
            return Some(fatal);
        }
        let failing = self.status().producer == ProducerState::Failing;
        let reason = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failing.then(|| reason.unwrap_or_else(|| (Fault::Other, "a record was not taken".to_owned())))
    }

    pub fn fault_reports(&self) -> &Arc<FaultReports> {
        &self.fault_reports
    }

    pub fn status(&self) -> Status {
        self.lock().status(self.clock.now())
    }

    pub fn log(&self) -> &DiskLog {
        &self.log
    }

    pub fn delivered(&self) -> &Delivered {
        &self.delivered
    }

    /// No further record comes in: once all is written, [`Self::next_group`] ends.
    pub fn close(&self) {
        let state = self.lock();
        self.closed.store(true, Ordering::Release);
        drop(state);
        self.to_write.notify_all();
    }

    /// Returns what is to be sent next.
    fn decide(&self, inputs: impl IntoIterator<Item = Input>, effects: &mut Effects) -> Option<Work> {
        let now = self.clock.now();
        let mut state = self.lock();
        let reports = std::mem::take(&mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner));
        self.apply(&mut state, now, reports, effects);
        self.apply(&mut state, now, inputs, effects);
        let next = if std::mem::take(&mut effects.send) { state.poll(now, Role::Send) } else { None };
        drop(state);
        if std::mem::take(&mut effects.append) {
            self.to_write.notify_one();
        }
        if std::mem::take(&mut effects.drain) {
            self.to_drain.notify_one();
        }
        next
    }

    fn apply(
        &self,
        state: &mut DeliveryState,
        now: Instant,
        inputs: impl IntoIterator<Item = Input>,
        effects: &mut Effects,
    ) {
        for input in inputs {
            if let Some(trace) = &self.trace {
                trace(&input);
            }
            state.handle(now, input, effects);
        }
        // Under the lock: the drain must never see an entry that is neither in flight nor delivered.
        effects.delivered.drain(..).for_each(|offset| self.delivered.deliver(offset));
    }

    /// Passes a batch to the client and returns what became of it.
    fn pass_on(&self, Batch { partition, records }: Batch) -> impl Iterator<Item = Input> {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut records, mut refused, mut too_large, mut failed) = (records.into_iter(), vec![], vec![], None);
        while let Some((ticket, record)) = records.next() {
            match producer.as_ref().map_or(Err(SendError::Full), |producer| producer.send(partition, &record, ticket)) {
                Ok(()) => {}
                Err(SendError::TooLarge) => {
                    too_large.push(Input::Reported { ticket, reported: self.report_fault(refused_by_client()) });
                }
                Err(error @ (SendError::Full | SendError::Fatal)) => {
                    failed = (error == SendError::Fatal).then_some(Input::Failed);
                    refused = std::iter::once((ticket, record)).chain(records).collect();
                    break;
                }
            }
        }
        std::iter::once(Input::Sent { partition, refused }).chain(too_large).chain(failed)
    }

    fn post_replies(&self, replies: &[(Waiter, Reply)], announce: bool) {
        if replies.is_empty() && !announce {
            return;
        }
        let reply_queues = self.reply_queues.read().unwrap_or_else(PoisonError::into_inner);
        for (worker, reply_queue) in (0..).zip(reply_queues.iter()) {
            reply_queue.extend(replies.iter().copied().filter(|(waiter, _)| waiter.worker == worker));
            if announce {
                reply_queue.wake_worker();
            }
        }
    }

    fn report_fault(&self, ReportError { scope, fault, reason }: ReportError) -> Reported {
        self.fault_reports.note(fault, reason.clone());
        match scope {
            FaultScope::Record => Reported::Refused,
            FaultScope::Producer => {
                // The first cause is kept: the others follow from it.
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((fault, reason));
                Reported::Failed
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, DeliveryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Client> WorkerSide for Dispatcher<C> {
    fn register_worker(&self) -> (u32, Arc<ReplyQueue>) {
        let mut reply_queues = self.reply_queues.write().unwrap_or_else(PoisonError::into_inner);
        let reply_queue = Arc::new(ReplyQueue::default());
        reply_queues.push(Arc::clone(&reply_queue));
        (u32::try_from(reply_queues.len() - 1).expect("fewer workers than 4 billion"), reply_queue)
    }

    /// By the key, else by the id, as [`event_log::RawEvent::partition`] does.
    fn partition_of(&self, record: &Record) -> u32 {
        let id = || record.header(header::ID).and_then(|id| std::str::from_utf8(id).ok());
        record.key.as_deref().or_else(id).map_or(0, |text| partition_of(text, self.partitions))
    }

    fn handle_turn(&self, inputs: &mut dyn Iterator<Item = Input>) {
        self.handle(inputs);
    }
}

impl<C: Client> Reports for Dispatcher<C> {
    /// Workers are woken when a batch is complete; their tick finds the replies of an incomplete batch.
    fn reported(&self, ticket: u64, outcome: Result<(), ReportError>, last: bool) {
        let reported = match outcome {
            Ok(()) => Reported::Kept,
            Err(error) => self.report_fault(error),
        };
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.push(Input::Reported { ticket, reported });
        let is_due = last || reported != Reported::Kept || reports.len() >= REPORTS_MAX;
        drop(reports);
        if is_due {
            self.handle([]);
        }
    }
}

fn refused_by_client() -> ReportError {
    let reason = "the record is larger than the client's message.max.bytes".to_owned();
    ReportError { scope: FaultScope::Record, fault: Fault::TooLarge, reason }
}

#[cfg(test)]
mod tests {
    use disk_log::Options;
    use primitives::time::Timestamp;

    use super::*;
    use crate::delivery::state::Offer;

    const RULES: Rules = Rules {
        disk_first: false,
        deadline: Duration::from_secs(300),
        report_wait_max: Duration::from_secs(300),
        records_max: 100,
        bytes_max: 1024 * 1024,
        move_parked_above_bytes: 0,
    };

    struct TakesAll;

    impl Client for TakesAll {
        fn send(&self, _: u32, _: &Record, _: u64) -> Result<(), SendError> {
            Ok(())
        }

        fn fatal(&self) -> Option<(Fault, String)> {
            None
        }

        fn give_up(&self, _: bool) {}
    }

    fn offered(worker: u32, slot: u32) -> Input {
        let record = Arc::new(Record { key: None, value: None, headers: vec![], at: Timestamp::default() });
        Input::Offered(Offer { waiter: Waiter { worker, slot, generation: 0 }, partition: 0, record })
    }

    #[test]
    fn a_batch_is_answered_with_its_last_report_and_an_incomplete_one_with_the_next_tick() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = DiskLog::open(dir.path(), Options::spool(1024 * 1024)).expect("a log");
        let delivered = Delivered::load(&log).expect("nothing is delivered");
        let dispatcher = Dispatcher::new(log, delivered, 1, RULES);
        dispatcher.connected(Arc::new(TakesAll));
        let (worker, reply_queue) = dispatcher.register_worker();
        let answered = || {
            let mut replies = Vec::new();
            reply_queue.take(&mut replies);
            replies.iter().map(|(waiter, _)| waiter.slot).collect::<Vec<_>>()
        };

        dispatcher.handle([0, 1, 2].map(|slot| offered(worker, slot)));
        dispatcher.reported(0, Ok(()), false);
        dispatcher.reported(1, Ok(()), false);
        assert_eq!(answered(), [0; 0]);
        dispatcher.reported(2, Ok(()), true);
        assert_eq!(answered(), [0, 1, 2]);

        dispatcher.handle([3, 4].map(|slot| offered(worker, slot)));
        dispatcher.reported(3, Ok(()), false);
        assert_eq!(answered(), [0; 0]);
        dispatcher.handle([Input::Tick]);
        assert_eq!(answered(), [3]);
    }
}
