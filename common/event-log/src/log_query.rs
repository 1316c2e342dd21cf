//! The logs as queries read them: a few records at a time, from any partition.

use std::time::Duration;

use crate::contract::Topic;
use crate::log::{EventLogError, Visit};
use crate::record::Entry;
use primitives::time::Timestamp;

/// A part of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub partition: u32,
    pub from: u64,
    /// The offset behind the last record.
    pub until: u64,
}

/// Reads committed records for queries. Each call ends within seconds, with an error if the log does not answer.
pub trait LogQuery: Send + Sync {
    /// Another log has another one, also where it has the same name.
    fn identity(&self, topic: Topic) -> Result<String, EventLogError>;

    /// The first and the next offset of each partition. All below the next offset is decided.
    fn bounds(&self, topic: Topic) -> Result<Vec<(u64, u64)>, EventLogError>;

    /// The first offset of each partition whose record may be as young as `at`; none if no record is.
    fn offsets_at(&self, topic: Topic, at: Timestamp) -> Result<Vec<Option<u64>>, EventLogError>;

    /// Visits the records of these stretches, one of each partition at most, in order for each partition.
    fn read(&self, topic: Topic, stretches: &[Stretch], visit: Visit<'_>) -> Result<(), EventLogError>;

    /// Follows a topic from these offsets on, one of each partition.
    fn tail(&self, topic: Topic, from: &[u64]) -> Result<Box<dyn LogTail>, EventLogError>;
}

/// Reads committed records as they come.
pub trait LogTail: Send {
    /// A batch of new records, in order for each partition; waits up to `wait` for the first one. After an error the
    /// topic must be followed again.
    fn next(&mut self, wait: Duration) -> Result<Vec<Entry>, EventLogError>;
}
