//! The interface of the logs: what reads them, and what a processor does with them.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::contract::Topic;
use crate::record::{Applied, Entry, FactOffsets, Output, Position};
use primitives::time::Timestamp;

#[derive(Debug)]
pub enum LogEvent {
    /// Records of `raw`, in order per partition, all of owned partitions that were started.
    Raw(Vec<Entry>),
    /// Records of `facts`, in order per partition, all of followed partitions.
    Facts(Vec<Entry>),
    /// Each waits for [`EventLog::start`].
    Assigned(Vec<u32>),
    /// No record of these is in flight.
    Revoked(Vec<u32>),
    Quiet,
}

#[derive(Debug, thiserror::Error)]
pub enum EventLogError {
    /// The outcome of the last publication is unknown. Open a new event log, which determines it.
    #[error("reopen the logs: {0}")]
    Reopen(String),
    /// A record is larger than its topic takes. Nothing was published: open a new event log, and publish smaller
    /// batches.
    #[error("a record is too large: {0}")]
    TooLarge(String),
    /// Another process has taken our identity. End at once.
    #[error("another process has taken our identity: {0}")]
    Fenced(String),
    /// The logs break an invariant; an operator has to decide.
    #[error("{0}")]
    Fatal(String),
    /// The number of partitions differs from the setting, or between topics.
    #[error("{0}")]
    Partitions(String),
}

/// Takes one record after the other, until it has enough.
pub type Visit<'a> = &'a mut dyn FnMut(Entry) -> ControlFlow<()>;

/// Logs as a reader sees them.
pub trait LogReader: Send {
    /// State that was folded from other logs is invalid.
    fn identity(&self) -> &str;

    fn partitions(&self) -> u32;

    /// Whether `facts` gets a record of every step with how far `raw` was read: followers need it, and compaction
    /// keeps one. Without followers, only [`Self::committed`] knows.
    fn tells_progress(&self) -> bool;

    /// The group's offset in `raw`, once no transaction of a former owner is open.
    fn committed(&mut self, partition: u32) -> Result<Option<u64>, EventLogError>;

    /// The first and the next offset, open transactions included.
    fn bounds(&mut self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError>;

    /// Reads a partition of `raw` or `facts` from `from` to before `until`, committed records only.
    fn read(&mut self, topic: Topic, from: Position, until: u64, visit: Visit<'_>) -> Result<(), EventLogError>;

    /// The first offset of a `raw` partition whose record may be as young as `at`.
    fn offset_at(&mut self, partition: u32, at: Timestamp) -> Result<u64, EventLogError>;
}

/// All logs of a processor. One thread uses it.
///
/// The owner of a partition reads its `raw` and publishes what follows; every other processor follows
/// its `facts`.
pub trait EventLog: LogReader {
    /// Resolves transactions of the former process, before anything is read or published.
    fn recover(&mut self, applied: &[Applied]) -> Result<(), EventLogError>;

    /// Joins the group, so that partitions are assigned. [`Self::next`] does it too.
    fn join(&mut self) -> Result<(), EventLogError>;

    /// Waits up to `wait`.
    fn next(&mut self, wait: Duration) -> Result<LogEvent, EventLogError>;

    /// Starts reading `raw` of owned partitions at these positions.
    fn start(&mut self, starts: &[Position]) -> Result<(), EventLogError>;

    /// Follows `facts` of exactly these partitions, from these positions.
    fn follow(&mut self, starts: &[Position]) -> Result<(), EventLogError>;

    /// The number of partitions without an owner; none if it is unknown.
    fn unowned(&mut self) -> Option<usize>;

    /// Whether a broker went away since the last call: decided transactions may hang again.
    fn lost_a_broker(&mut self) -> bool;

    /// The open transactions of output topics, with the offset up to which all is decided. For `raw`, a partition in
    /// which an open transaction of ours may move the group's offset.
    fn undecided(&mut self) -> Result<Vec<(Topic, Position)>, EventLogError>;

    /// Begins to publish all of these or none, with how far `raw` has been read. Only one publication is under way at a
    /// time; raw records may be read meanwhile.
    fn begin_publication(&mut self, outputs: Vec<Output>, read: &[Position]) -> Result<(), EventLogError>;

    /// Waits for the publication that is under way. Returns the offset of each of its records in `facts`.
    fn end_publication(&mut self) -> Result<FactOffsets, EventLogError>;

    fn publish(&mut self, outputs: Vec<Output>, read: &[Position]) -> Result<FactOffsets, EventLogError> {
        self.begin_publication(outputs, read)?;
        self.end_publication()
    }
}
