//! Where workers, the client's thread, the disk's and the link's meet: one lock around the hand-over.
//!
//! Under the lock there are decisions only. Records are passed to the client, written and answered outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use common::contract::{header, partition_of};
use common::log::Record;
use common::log::disk::{DiskLog, Settled};
use common::log::kafka::{RawProducer, ReportError, Reports, SendError};

use crate::handover::{Answer, Batch, Effects, Handover, Link, Offer, Parcel, Reported, Rules, Waiter};
use crate::worker::Outbox;

/// Without news about the disk log, the link looks after other things this often.
const LINK_WAIT_MAX: Duration = Duration::from_millis(100);

/// The hand-over with all that it moves.
pub struct Desk {
    partitions: u32,
    rules: Rules,
    handover: Mutex<Handover>,
    log: DiskLog,
    settled: Settled,
    producer: RwLock<Option<Arc<RawProducer>>>,
    outboxes: RwLock<Vec<Arc<Outbox>>>,
    /// There is something to write to the disk log.
    to_write: Condvar,
    /// There is something to read from the disk log.
    to_drain: Condvar,
    closed: AtomicBool,
}

/// How things stand, for people and metrics.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Whether Kafka acknowledges what is handed over.
    pub kafka_up: bool,
    /// Whether new events go straight to Kafka.
    pub direct: bool,
    /// How long the oldest record on its way has not been reported.
    pub silence: Duration,
}

impl Desk {
    /// A desk in front of a disk log that may hold entries of an earlier run.
    pub fn new(log: DiskLog, settled: Settled, partitions: u32, rules: Rules) -> Self {
        let handover = Handover::new(rules, partitions, settled.watermark(), log.bounds().1);
        Self {
            partitions,
            rules,
            handover: Mutex::new(handover),
            log,
            settled,
            producer: RwLock::default(),
            outboxes: RwLock::default(),
            to_write: Condvar::new(),
            to_drain: Condvar::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Takes one more worker on.
    pub fn enlist(&self) -> (u32, Arc<Outbox>) {
        let mut outboxes = self.outboxes.write().unwrap_or_else(PoisonError::into_inner);
        let outbox = Arc::new(Outbox::default());
        outboxes.push(Arc::clone(&outbox));
        (u32::try_from(outboxes.len() - 1).expect("fewer workers than 4 billion"), outbox)
    }

    /// Where a record lies: by its key, else by its id, as [`common::event::RawEvent::partition`] says.
    pub fn partition_of(&self, record: &Record) -> u32 {
        let id = || record.header(header::ID).and_then(|id| std::str::from_utf8(id).ok());
        record.key.as_deref().or_else(id).map_or(0, |text| partition_of(text, self.partitions))
    }

    /// Hands over what a worker's turn brought.
    pub fn offer(&self, offers: &mut Vec<Offer>) {
        let now = Instant::now();
        let mut handover = self.lock();
        for offer in offers.drain(..) {
            handover.offer(now, offer);
        }
        self.go_on(handover, now);
    }

    /// Time goes by.
    pub fn tick(&self) {
        let now = Instant::now();
        let mut effects = Effects::default();
        let mut handover = self.lock();
        handover.tick(now, &mut effects);
        self.settle(&effects);
        self.go_on(handover, now);
        self.post(effects.answers);
        self.ring();
    }

    /// Waits for a group to be written; none once the desk is closed and all is written.
    pub fn next_group(&self) -> Option<Vec<(Arc<Record>, bool)>> {
        let mut handover = self.lock();
        loop {
            if let Some(group) = handover.next_append() {
                return Some(group);
            }
            if self.closed.load(Ordering::Acquire) && handover.nothing_to_write() {
                return None;
            }
            handover = self.to_write.wait(handover).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The group is in the disk log, its first record at `first`.
    pub fn appended(&self, first: u64) {
        self.written(|handover, effects| handover.appended(first, effects));
        self.to_drain.notify_one();
    }

    /// The group could not be written.
    pub fn not_appended(&self, group: Vec<(Arc<Record>, bool)>) {
        self.written(|handover, effects| handover.not_appended(group, effects));
    }

    /// Where to read on in the disk log, how many entries may be handed over now, and where to stop. Waits
    /// a moment if there is nothing to do.
    pub fn drainable(&self) -> Option<(u64, usize, u64)> {
        let look = |handover: &Handover| handover.drainable().map(|(next, room)| (next, room, handover.known_end()));
        let handover = self.lock();
        if let Some(found) = look(&handover) {
            return Some(found);
        }
        let waited = self.to_drain.wait_timeout(handover, LINK_WAIT_MAX);
        look(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Hands over entries of the disk log, those that still need it.
    pub fn drain(&self, entries: Vec<(u64, Record)>) {
        let now = Instant::now();
        let mut handover = self.lock();
        for (offset, mut record) in entries {
            let wanted = if self.settled.is_settled(offset) { None } else { handover.wants(offset) };
            let Some(resent) = wanted else {
                handover.pass(offset);
                continue;
            };
            if resent {
                flag(&mut record);
            }
            let partition = self.partition_of(&record);
            handover.drain(now, offset, partition, Arc::new(record));
        }
        self.go_on(handover, now);
    }

    /// Kafka was reached: from now on records are handed to this producer.
    pub fn connected(&self, producer: Arc<RawProducer>) {
        *self.producer.write().unwrap_or_else(PoisonError::into_inner) = Some(producer);
        let mut handover = self.lock();
        match handover.link() {
            Link::Down => handover.connected(),
            Link::Failing => handover.renewed(self.settled.watermark()),
            Link::Up => {}
        }
        drop(handover);
        self.to_drain.notify_one();
    }

    /// Stops handing over; who waits is helped by the disk log.
    pub fn fail(&self) {
        let mut handover = self.lock();
        handover.fail();
        self.go_on(handover, Instant::now());
    }

    /// Whether the producer failed and has no record left.
    pub fn is_empty_after_failure(&self) -> bool {
        self.lock().is_empty_after_failure()
    }

    /// Takes the producer out.
    pub fn take_producer(&self) -> Option<Arc<RawProducer>> {
        self.producer.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The reason of a fatal error, if the producer has one.
    pub fn fatal(&self) -> Option<String> {
        self.producer.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.fatal()
    }

    /// Records that are on their way.
    pub fn open(&self) -> usize {
        self.lock().open()
    }

    /// How things stand.
    pub fn standing(&self) -> Standing {
        let now = Instant::now();
        let handover = self.lock();
        let silence = handover.silence(now);
        let kafka_up = handover.link() == Link::Up && silence <= self.rules.deadline;
        Standing { kafka_up, direct: kafka_up && handover.is_direct(), silence }
    }

    /// The disk log.
    pub fn log(&self) -> &DiskLog {
        &self.log
    }

    /// Which of its entries are in Kafka.
    pub fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Nothing more comes in: once all is written, [`Self::next_group`] ends.
    pub fn close(&self) {
        let handover = self.lock();
        self.closed.store(true, Ordering::Release);
        drop(handover);
        self.to_write.notify_all();
    }

    fn written(&self, what: impl FnOnce(&mut Handover, &mut Effects)) {
        let mut effects = Effects::default();
        let mut handover = self.lock();
        what(&mut handover, &mut effects);
        self.settle(&effects);
        drop(handover);
        self.post(effects.answers);
        self.ring();
    }

    /// What every decision is followed by: what may go goes, what is to be written is written.
    fn go_on(&self, mut handover: MutexGuard<'_, Handover>, now: Instant) {
        let (batch, write) = (handover.next_batch(now), handover.has_appends());
        drop(handover);
        if write {
            self.to_write.notify_one();
        }
        self.send(batch);
    }

    fn send(&self, mut next: Option<Batch>) {
        while let Some(Batch { partition, parcels }) = next {
            let (refused, error) = self.pass_on(partition, parcels);
            let mut handover = self.lock();
            handover.sent(partition, refused);
            match error {
                None => next = handover.next_batch(Instant::now()),
                // The next tick tries again.
                Some(SendError::Full) => return,
                Some(SendError::Fatal) => {
                    handover.fail();
                    return self.go_on(handover, Instant::now());
                }
            }
        }
    }

    /// Passes a batch to the client; what it refused comes back.
    fn pass_on(&self, partition: u32, parcels: Vec<Parcel>) -> (Vec<Parcel>, Option<SendError>) {
        let producer = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(producer) = producer else { return (parcels, Some(SendError::Full)) };
        let mut parcels = parcels.into_iter();
        while let Some((ticket, record)) = parcels.next() {
            if let Err(error) = producer.send(partition, &record, ticket) {
                return (std::iter::once((ticket, record)).chain(parcels).collect(), Some(error));
            }
        }
        (Vec::new(), None)
    }

    /// Under the lock: the drain must never see an entry that is neither on its way nor settled.
    fn settle(&self, effects: &Effects) {
        effects.settled.iter().for_each(|offset| self.settled.settle(*offset));
    }

    fn post(&self, answers: Vec<(Waiter, Answer)>) {
        if answers.is_empty() {
            return;
        }
        let outboxes = self.outboxes.read().unwrap_or_else(PoisonError::into_inner);
        for (waiter, answer) in answers {
            if let Some(outbox) = outboxes.get(waiter.worker as usize) {
                outbox.put(waiter, answer);
            }
        }
    }

    fn ring(&self) {
        let outboxes = self.outboxes.read().unwrap_or_else(PoisonError::into_inner);
        outboxes.iter().for_each(|outbox| outbox.ring());
    }

    fn lock(&self) -> MutexGuard<'_, Handover> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reports for Desk {
    /// The next batch goes before the answers are written, so that broker and workers are busy together.
    /// Workers are woken when a batch is complete; their tick finds what a broken batch left behind.
    fn reported(&self, ticket: u64, outcome: Result<(), ReportError>) {
        let now = Instant::now();
        let reported = if outcome.is_ok() { Reported::Kept } else { Reported::Failed };
        let mut effects = Effects::default();
        let mut handover = self.lock();
        // The first one says it all: the others follow from it.
        if let (Err(ReportError { reason }), Link::Up) = (outcome, handover.link()) {
            tracing::error!("Kafka did not take a record: {reason}");
        }
        let last = handover.reported(now, ticket, reported, &mut effects);
        self.settle(&effects);
        if last || reported == Reported::Failed {
            self.go_on(handover, now);
        } else {
            drop(handover);
        }
        self.post(effects.answers);
        if last {
            self.ring();
        }
    }
}

/// Says on a record that it may be a second copy.
pub fn flag(record: &mut Record) {
    if record.header(header::RESENT).is_none() {
        record.headers.push((header::RESENT.into(), b"1".to_vec()));
    }
}
