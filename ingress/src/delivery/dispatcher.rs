//! One lock around the delivery state machine, shared by the workers and the threads of the client, the disk and the
//! supervisor.
//!
//! Only decisions are made under the lock. Records are sent, written and answered outside it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use disk_log::{Delivered, DiskLog};
use event_log::Record;
use event_log::contract::{header, partition_of};
use kafka_log::{Fault, FaultReports, FaultScope, RawProducer, ReportError, Reports, SendError};
use primitives::clock::Clock;

use crate::delivery::reply::ReplyQueue;
use crate::delivery::state::{
    Batch, DeliveryState, Effects, Offer, ProducerState, QueuedRecord, Reply, Reported, Rules, Waiter,
};

mod client;
mod parked;

pub use client::Client;

/// Without news about the disk log, the supervisor checks other things this often.
const LINK_WAIT_MAX: Duration = Duration::from_millis(100);
/// The delivery state machine with the client, the disk log and the workers that it drives.
pub struct Dispatcher<C = RawProducer> {
    partitions: u32,
    rules: Rules,
    state: Mutex<DeliveryState>,
    log: DiskLog,
    delivered: Delivered,
    clock: Clock,
    producer: RwLock<Option<Arc<C>>>,
    fault_reports: Arc<FaultReports>,
    /// Why the producer failed, until it is taken.
    failure: Mutex<Option<(Fault, String)>>,
    producers_renewed: AtomicU64,
    reply_queues: RwLock<Vec<Arc<ReplyQueue>>>,
    /// Signals records for the disk log.
    to_write: Condvar,
    /// Signals entries to read from the disk log.
    to_drain: Condvar,
    closed: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Whether Kafka acknowledges what is sent.
    pub kafka_up: bool,
    /// Whether new events go straight to Kafka.
    pub direct: bool,
    pub connected: bool,
    /// Events that Kafka rejects permanently; they stay on disk.
    pub parked: usize,
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
            clock: log.clock().clone(),
            log,
            delivered,
            producer: RwLock::new(None),
            fault_reports: Arc::default(),
            failure: Mutex::default(),
            producers_renewed: AtomicU64::new(0),
            reply_queues: RwLock::default(),
            to_write: Condvar::new(),
            to_drain: Condvar::new(),
            closed: AtomicBool::new(false),
        }
    }

    pub fn register_worker(&self) -> (u32, Arc<ReplyQueue>) {
        let mut reply_queues = self.reply_queues.write().unwrap_or_else(PoisonError::into_inner);
        let reply_queue = Arc::new(ReplyQueue::default());
        reply_queues.push(Arc::clone(&reply_queue));
        (u32::try_from(reply_queues.len() - 1).expect("fewer workers than 4 billion"), reply_queue)
    }

    /// By the key, else by the id, as [`event_log::RawEvent::partition`] does.
    pub fn partition_of(&self, record: &Record) -> u32 {
        let id = || record.header(header::ID).and_then(|id| std::str::from_utf8(id).ok());
        record.key.as_deref().or_else(id).map_or(0, |text| partition_of(text, self.partitions))
    }

    pub fn offer(&self, offers: &mut Vec<Offer>) {
        let now = self.clock.now();
        let mut state = self.lock();
        for offer in offers.drain(..) {
            state.offer(now, offer);
        }
        self.go_on(state, now);
    }

    pub fn tick(&self) {
        let now = self.clock.now();
        let mut effects = Effects::default();
        let mut state = self.lock();
        state.tick(now, &mut effects);
        self.deliver(&effects);
        self.go_on(state, now);
        self.post_replies(effects.replies);
        self.wake_workers();
    }

    /// The group to write now, if there is one and none is being written.
    pub fn group(&self) -> Option<Vec<(Arc<Record>, bool)>> {
        self.lock().next_append()
    }

    /// Waits for a group; none once the dispatcher is closed and all is written.
    pub fn next_group(&self) -> Option<Vec<(Arc<Record>, bool)>> {
        let mut state = self.lock();
        loop {
            if let Some(group) = state.next_append() {
                return Some(group);
            }
            if self.closed.load(Ordering::Acquire) && state.nothing_to_write() {
                return None;
            }
            state = self.to_write.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The group is in the disk log, its first record at `first`.
    pub fn appended(&self, first: u64) {
        self.written(|state, effects| state.appended(first, effects));
        self.to_drain.notify_one();
    }

    pub fn not_appended(&self, group: Vec<(Arc<Record>, bool)>) {
        self.written(|state, effects| state.not_appended(group, effects));
    }

    /// Where to read on in the disk log, how many entries may be sent now, and where to stop. Waits
    /// a moment if there is nothing to do.
    pub fn drainable(&self) -> Option<(u64, usize, u64)> {
        let drainable = |state: &DeliveryState| state.drainable().map(|(next, room)| (next, room, state.known_end()));
        let state = self.lock();
        if let Some(found) = drainable(&state) {
            return Some(found);
        }
        let waited = self.to_drain.wait_timeout(state, LINK_WAIT_MAX);
        drainable(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Whether [`Self::drainable`] has an answer now.
    pub fn is_drainable(&self) -> bool {
        self.lock().drainable().is_some()
    }

    /// Sends entries of the disk log, those that still need it.
    pub fn drain(&self, entries: Vec<(u64, Record)>) {
        let now = self.clock.now();
        let mut state = self.lock();
        for (offset, mut record) in entries {
            let wanted = if self.delivered.is_delivered(offset) { None } else { state.wants(offset) };
            let Some(resent) = wanted else {
                state.pass(offset);
                continue;
            };
            if resent {
                flag(&mut record);
            }
            let partition = self.partition_of(&record);
            state.drain(now, offset, partition, Arc::new(record));
        }
        self.go_on(state, now);
    }

    /// From now on records go to this producer.
    pub fn connected(&self, producer: Arc<C>) {
        *self.producer.write().unwrap_or_else(PoisonError::into_inner) = Some(producer);
        let mut state = self.lock();
        match state.producer() {
            ProducerState::Connecting => state.connected(),
            ProducerState::Failing => {
                self.producers_renewed.fetch_add(1, Ordering::Relaxed);
                state.renewed(self.delivered.watermark());
            }
            ProducerState::Up => {}
        }
        drop(state);
        self.to_drain.notify_one();
    }

    /// Stops sending; the disk log takes the waiting records.
    pub fn fail(&self) {
        let mut state = self.lock();
        state.fail();
        self.go_on(state, self.clock.now());
    }

    pub fn is_empty_after_failure(&self) -> bool {
        self.lock().is_empty_after_failure()
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
            self.fail();
            self.fault_reports.note(fatal.0, fatal.1.clone());
            return Some(fatal);
        }
        let failing = self.lock().producer() == ProducerState::Failing;
        let reason = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failing.then(|| reason.unwrap_or_else(|| (Fault::Other, "a record was not taken".to_owned())))
    }

    pub fn fault_reports(&self) -> &Arc<FaultReports> {
        &self.fault_reports
    }

    pub fn producers_renewed(&self) -> u64 {
        self.producers_renewed.load(Ordering::Relaxed)
    }

    pub fn open(&self) -> usize {
        self.lock().open()
    }

    pub fn status(&self) -> Status {
        let now = self.clock.now();
        let state = self.lock();
        let connected = state.producer() == ProducerState::Up;
        let kafka_up = connected && !state.is_stalled(now) && !state.on_probation();
        Status { kafka_up, direct: kafka_up && state.is_direct(), connected, parked: state.parked() }
    }

    /// How long the oldest record in flight has not been reported.
    pub fn silence(&self) -> Duration {
        self.lock().silence(self.clock.now())
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

    fn written(&self, what: impl FnOnce(&mut DeliveryState, &mut Effects)) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        what(&mut state, &mut effects);
        self.deliver(&effects);
        drop(state);
        self.post_replies(effects.replies);
        self.wake_workers();
    }

    fn go_on(&self, mut state: MutexGuard<'_, DeliveryState>, now: Instant) {
        let (batch, write) = (state.next_batch(now), state.has_appends());
        drop(state);
        if write {
            self.to_write.notify_one();
        }
        self.send(batch);
    }

    fn send(&self, mut next: Option<Batch>) {
        while let Some(Batch { partition, records }) = next {
            let Passed { back, too_large, error } = self.pass_on(partition, records);
            let mut state = self.lock();
            state.sent(partition, back);
            if !too_large.is_empty() {
                drop(state);
                for ticket in too_large {
                    self.reported(ticket, Err(refused_by_client()));
                }
                state = self.lock();
            }
            match error {
                None => next = state.next_batch(self.clock.now()),
                // The next tick tries again.
                Some(SendError::Full | SendError::TooLarge) => return,
                Some(SendError::Fatal) => {
                    state.fail();
                    return self.go_on(state, self.clock.now());
                }
            }
        }
    }

    fn pass_on(&self, partition: u32, records: Vec<QueuedRecord>) -> Passed {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut passed = Passed::default();
        let mut records = records.into_iter();
        let Some(producer) = producer else {
            return Passed { back: records.collect(), error: Some(SendError::Full), ..passed };
        };
        while let Some((ticket, record)) = records.next() {
            match producer.send(partition, &record, ticket) {
                Ok(()) => {}
                Err(SendError::TooLarge) => passed.too_large.push(ticket),
                Err(error @ (SendError::Full | SendError::Fatal)) => {
                    passed.back = std::iter::once((ticket, record)).chain(records).collect();
                    passed.error = Some(error);
                    break;
                }
            }
        }
        passed
    }

    /// Under the lock: the drain must never see an entry that is neither in flight nor delivered.
    fn deliver(&self, effects: &Effects) {
        effects.delivered.iter().for_each(|offset| self.delivered.deliver(*offset));
    }

    fn post_replies(&self, replies: Vec<(Waiter, Reply)>) {
        if replies.is_empty() {
            return;
        }
        let reply_queues = self.reply_queues.read().unwrap_or_else(PoisonError::into_inner);
        for (waiter, reply) in replies {
            if let Some(reply_queue) = reply_queues.get(waiter.worker as usize) {
                reply_queue.push(waiter, reply);
            }
        }
    }

    fn wake_workers(&self) {
        let reply_queues = self.reply_queues.read().unwrap_or_else(PoisonError::into_inner);
        reply_queues.iter().for_each(|reply_queue| reply_queue.wake_worker());
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

impl<C: Client> Reports for Dispatcher<C> {
    /// The next batch is sent before replies are delivered, so that broker and workers are busy together.
    /// Workers are woken when a batch is complete; their tick finds the replies of an incomplete batch.
    fn reported(&self, ticket: u64, outcome: Result<(), ReportError>) {
        let now = self.clock.now();
        let reported = match outcome {
            Ok(()) => Reported::Kept,
            Err(error) => self.report_fault(error),
        };
        let mut effects = Effects::default();
        let mut state = self.lock();
        let last = state.reported(now, ticket, reported, &mut effects);
        self.deliver(&effects);
        if last || reported == Reported::Failed {
            self.go_on(state, now);
        } else {
            drop(state);
        }
        self.post_replies(effects.replies);
        if last {
            self.wake_workers();
        }
    }
}

#[derive(Default)]
struct Passed {
    /// Records that did not fit into the client's queue.
    back: Vec<QueuedRecord>,
    /// Tickets of records that the client never takes.
    too_large: Vec<u64>,
    error: Option<SendError>,
}

fn refused_by_client() -> ReportError {
    let reason = "the record is larger than the client's message.max.bytes".to_owned();
    ReportError { scope: FaultScope::Record, fault: Fault::TooLarge, reason }
}

/// Marks a record as a possible second copy.
pub fn flag(record: &mut Record) {
    if record.header(header::RESENT).is_none() {
        record.headers.push((header::RESENT.into(), b"1".to_vec()));
    }
}
