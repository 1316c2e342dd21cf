//! The logs as queries read them: a few records at a time, from any partition.

use crate::contract::Topic;
use crate::log::{EventLogError, Visit};
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
    /// The first and the next offset of each partition. All below the next offset is decided.
    fn bounds(&self, topic: Topic) -> Result<Vec<(u64, u64)>, EventLogError>;

    /// The first offset of each partition whose record may be as young as `at`; none if no record is.
    fn offsets_at(&self, topic: Topic, at: Timestamp) -> Result<Vec<Option<u64>>, EventLogError>;

    /// Visits the records of these stretches, one of each partition at most, in order for each partition.
    fn read(&self, topic: Topic, stretches: &[Stretch], visit: Visit<'_>) -> Result<(), EventLogError>;
}
