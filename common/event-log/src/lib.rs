//! What every log can do, whether it lies in Kafka or on a disk.
//!
//! Above this module nobody knows which. A *log* is a topic of [`Topic`] with one or more partitions
//! of records in order; [`EventLog`] is all of them together, as a processor needs them.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;

use crate::contract::Topic;
use primitives::time::Timestamp;

pub mod contract;
pub mod hanging;
mod raw_event;

pub use raw_event::{EventId, NotARawEvent, RawEvent};

/// No transaction of ours is open for longer: its own time, the broker's interval, and as much again.
pub const OPEN_MAX: Duration = Duration::from_secs(40);

/// A place in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: u32,
    /// The place in the partition, counted from 0; not every place need be taken.
    pub offset: u64,
}

/// One record of any log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the record is about; none for events of unknown portals.
    pub key: Option<String>,
    /// The bytes; none is a tombstone.
    pub value: Option<Bytes>,
    /// Name and value, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The record's own time.
    pub at: Timestamp,
}

impl Record {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_slice())
    }

    /// About what it takes in memory.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        self.key.as_ref().map_or(0, String::len) + self.value.as_ref().map_or(0, Bytes::len) + headers + 64
    }
}

/// A record where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub position: Position,
    /// What.
    pub record: Record,
}

/// A record for a topic, to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The topic.
    pub topic: Topic,
    /// The partition: always that of the raw event it follows from.
    pub partition: u32,
    /// The record.
    pub record: Record,
}

/// How far a state has come in a partition. What it applied had been published before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The partition.
    pub partition: u32,
    /// `F`: the next offset of `facts`.
    pub facts: u64,
    /// `K`: the next offset of `raw`.
    pub raw: u64,
}

/// What an event log brings next.
#[derive(Debug)]
pub enum LogEvent {
    /// Records of `raw`, in order per partition, all of owned partitions that were started.
    Raw(Vec<Entry>),
    /// Records of `facts`, in order per partition, all of followed partitions.
    Facts(Vec<Entry>),
    /// These partitions were assigned to us; each waits for [`EventLog::start`].
    Assigned(Vec<u32>),
    /// These partitions were revoked. Nothing of them is on its way.
    Revoked(Vec<u32>),
    /// Nothing came.
    Quiet,
}

/// Why an event log cannot go on as it is.
#[derive(Debug, thiserror::Error)]
pub enum EventLogError {
    /// What was being published may or may not be there. Open a new event log: it finds out.
    #[error("reopen the logs: {0}")]
    Reopen(String),
    /// A record is larger than its topic takes. Nothing was published: open a new event log, and publish less at a
    /// place.
    #[error("a record is too large: {0}")]
    TooLarge(String),
    /// Another process has taken our identity. End at once.
    #[error("another process has taken our identity: {0}")]
    Fenced(String),
    /// The logs are not what they must be; an operator has to decide.
    #[error("{0}")]
    Fatal(String),
    /// The logs have another number of partitions than they were told to have, or than each other.
    #[error("{0}")]
    Partitions(String),
}

/// All logs, as a processor needs them. One thread uses it.
///
/// The owner of a partition reads its `raw` and publishes what follows; every other processor follows
/// its `facts`.
pub trait EventLog: Send {
    /// Which logs these are: state that was folded from others is none.
    fn identity(&self) -> &str;

    /// How many partitions each topic has.
    fn partitions(&self) -> u32;

    /// Whether `facts` takes a record of every step that says how far `raw` was read: followers need it, and
    /// compaction keeps one. Where nobody follows, only [`EventLog::committed`] knows.
    fn tells_progress(&self) -> bool;

    /// Ends what may be left of our transactions, before anything is read or published; `_applied` is what our state knows
    /// of them.
    fn recover(&mut self, _applied: &[Applied]) -> Result<(), EventLogError> {
        Ok(())
    }

    /// From now on we take our share: log events bring what is ours. Whoever only looks does not, and is in nobody's way.
    /// The first turn does it too.
    fn join(&mut self) -> Result<(), EventLogError> {
        Ok(())
    }

    /// Waits up to `wait` for what comes next.
    fn next(&mut self, wait: Duration) -> Result<LogEvent, EventLogError>;

    /// Where the group left off in `raw`, once no transaction of a former owner is open.
    fn committed(&mut self, partition: u32) -> Result<Option<u64>, EventLogError>;

    /// The first and the next offset of a log's partition, open transactions included.
    fn bounds(&mut self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError>;

    /// Begins to bring `raw` of an owned partition from there on.
    fn start(&mut self, starts: &[Position]) -> Result<(), EventLogError>;

    /// Begins to bring `facts` of exactly these partitions, from there on.
    fn follow(&mut self, starts: &[Position]) -> Result<(), EventLogError>;

    /// Reads a partition of `raw` or `facts` from `from` to before `until`, committed records only.
    fn read(
        &mut self,
        topic: Topic,
        from: Position,
        until: u64,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), EventLogError>;

    /// The first offset of a `raw` partition whose record may be as young as `at`.
    fn offset_at(&mut self, partition: u32, at: Timestamp) -> Result<u64, EventLogError>;

    /// How many partitions nobody owns at the moment; none where that cannot be told.
    fn unowned(&mut self) -> Option<usize>;

    /// Whether a broker went away since this was last asked: what was ended may hang again.
    fn lost_a_broker(&mut self) -> bool {
        false
    }

    /// Where transactions are open in what is published, and up to which offset all is decided there. A partition of `raw`
    /// is one where we may have such a transaction that moves where the group left off.
    fn undecided(&mut self) -> Result<Vec<(Topic, Position)>, EventLogError> {
        Ok(Vec::new())
    }

    /// Publishes all of these or none, with how far `raw` has been read. Returns for each partition of
    /// `facts` that got records the offset behind the last of them.
    fn publish(&mut self, outputs: Vec<Output>, read: &[Position]) -> Result<Vec<Position>, EventLogError>;
}
