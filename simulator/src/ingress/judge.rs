//! Compares the promises of ingress with what was sent, answered and written to `raw`.

use std::collections::{BTreeMap, BTreeSet};

use event_log::Record;
use event_log::contract::{header, partition_of};
use ingress::delivery::state::Reply;

use crate::seeds::Tally;

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub sent: u64,
    /// Answers after Kafka's acknowledgement.
    pub by_kafka: u64,
    /// Answers after a sync of the disk log.
    pub by_disk: u64,
    /// Answers without storage.
    pub storage_unavailable: u64,
    /// Records in `raw`.
    pub raw: u64,
    /// Second copies among them.
    pub copies: u64,
    pub lives: u64,
    pub kills: u64,
    pub power_losses: u64,
    pub adoptions: u64,
    /// Failed records and producers.
    pub failures: u64,
    /// Records that were too large.
    pub refused: u64,
}

pub type Id = Vec<u8>;

#[derive(Default)]
pub struct Judge {
    pub counts: Counts,
    /// Whether a disk failed or was full, or may be.
    pub may_refuse: bool,
    events: BTreeMap<Id, Event>,
    /// Events answered 200 that are not in `raw` yet, with the time of the answer, by seat and key.
    due: BTreeMap<(usize, Option<String>), BTreeMap<Id, u64>>,
    seats: BTreeMap<usize, CopyCauses>,
    /// Counts sent events and answers.
    moment: u64,
}

struct Event {
    record: Record,
    seat: usize,
    sent_at: u64,
    answer: Option<Reply>,
    copies: u64,
    /// At the time of sending.
    causes: CopyCauses,
    was_refused: bool,
}

/// What allows for second copies.
#[derive(Clone, Copy, Default)]
struct CopyCauses {
    lives: u64,
    failures: u64,
}

impl Judge {
    pub fn new(may_refuse: bool) -> Self {
        Self { may_refuse, ..Self::default() }
    }

    pub fn sent(&mut self, seat: usize, record: &Record) {
        self.counts.sent += 1;
        self.moment += 1;
        let (sent_at, causes) = (self.moment, self.causes(seat));
        let record = unmarked(record);
        let event = Event { seat, sent_at, answer: None, copies: 0, causes, was_refused: false, record };
        self.events.insert(id(&event.record), event);
    }

    pub fn answered(&mut self, id: &Id, answer: Reply) -> Result<(), String> {
        self.moment += 1;
        let moment = self.moment;
        let Some(event) = self.events.get_mut(id) else {
            return Err("a reply without a request".to_owned());
        };
        if event.answer.replace(answer).is_some() {
            return Err(format!("{} is answered twice", show(id)));
        }
        match answer {
            Reply::StorageUnavailable if !self.may_refuse => {
                return Err(format!("{} is refused by a disk that is well", show(id)));
            }
            Reply::StorageUnavailable => self.counts.storage_unavailable += 1,
            Reply::Kafka => self.counts.by_kafka += 1,
            Reply::Disk => self.counts.by_disk += 1,
        }
        if event.copies == 0 && answer == Reply::Kafka {
            return Err(format!("I1: {} is answered as if Kafka had it", show(id)));
        }
        if event.copies == 0 && answer == Reply::Disk {
            let key = (event.seat, event.record.key.clone());
            self.due.entry(key).or_default().insert(id.clone(), moment);
        }
        Ok(())
    }

    pub fn stored(&mut self, partition: u32, record: &Record, partitions: u32) -> Result<(), String> {
        self.counts.raw += 1;
        let id = id(record);
        let Some(event) = self.events.get_mut(&id) else { return Err(format!("{} was never sent", show(&id))) };
        if unmarked(record) != event.record {
            return Err(format!("I1: {} is not what was sent: {record:?}", show(&id)));
        }
        let key = record.key.clone().unwrap_or_else(|| show(&id));
        if partition != partition_of(&key, partitions) {
            return Err(format!("{} lies in partition {partition}", show(&id)));
        }
        event.copies += 1;
        let (seat, sent_at, copies, before) = (event.seat, event.sent_at, event.copies, event.causes);
        let now = self.causes(seat);
        if copies == 1 {
            return self.first(seat, sent_at, now.failures, record);
        }
        self.counts.copies += 1;
        if record.header(header::RESENT) != Some(b"1") {
            return Err(format!("{} is there twice, and its second copy is not marked", show(&id)));
        }
        if copies > 1 + now.lives - before.lives + now.failures - before.failures {
            return Err(format!("{} is there {copies} times without a reason", show(&id)));
        }
        Ok(())
    }

    /// A first copy: earlier answered events must be there, unless a producer failed meanwhile.
    fn first(&mut self, seat: usize, sent_at: u64, failures: u64, record: &Record) -> Result<(), String> {
        let own = id(record);
        let Some(due) = self.due.get_mut(&(seat, record.key.clone())) else { return Ok(()) };
        due.remove(&own);
        if record.key.is_none() {
            return Ok(());
        }
        let overtaken = due.iter().filter(|(_, answered_at)| **answered_at < sent_at).map(|(id, _)| id);
        let mut overtaken = overtaken.filter(|id| {
            let event = &self.events[*id];
            !event.was_refused && event.causes.failures == failures
        });
        match overtaken.next() {
            Some(other) => Err(format!("order: {} comes before {}, which was answered first", show(&own), show(other))),
            None => Ok(()),
        }
    }

    pub fn refused(&mut self, record: &Record) {
        self.counts.refused += 1;
        if let Some(event) = self.events.get_mut(&id(record)) {
            event.was_refused = true;
        }
    }

    pub fn broke(&mut self, seat: usize) {
        self.counts.failures += 1;
        self.seats.entry(seat).or_default().failures += 1;
    }

    pub fn began(&mut self, seat: usize) {
        self.counts.lives += 1;
        self.seats.entry(seat).or_default().lives += 1;
    }

    /// At rest, every answered event must be in `raw`.
    pub fn conclude(&self) -> Result<(), String> {
        let missing: BTreeSet<String> = self.due.values().flat_map(BTreeMap::keys).map(show).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("I1: answered 200 and not in raw: {missing:?}")) }
    }

    fn causes(&self, seat: usize) -> CopyCauses {
        self.seats.get(&seat).copied().unwrap_or_default()
    }
}

impl Tally for Counts {
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.by_kafka += other.by_kafka;
        self.by_disk += other.by_disk;
        self.storage_unavailable += other.storage_unavailable;
        self.raw += other.raw;
        self.copies += other.copies;
        self.lives += other.lives;
        self.kills += other.kills;
        self.power_losses += other.power_losses;
        self.adoptions += other.adoptions;
        self.failures += other.failures;
        self.refused += other.refused;
    }
}

pub fn id(record: &Record) -> Id {
    record.header(header::ID).unwrap_or_default().to_vec()
}

fn unmarked(record: &Record) -> Record {
    let mut record = record.clone();
    record.headers.retain(|(name, _)| name != header::RESENT);
    record
}

fn show(id: &Id) -> String {
    String::from_utf8_lossy(id).into_owned()
}
