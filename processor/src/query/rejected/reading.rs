//! Why rejected events cannot be read.

use event_log::EventLogError;

use crate::query::parameters::wrong;
use crate::query::problem::Problem;
use crate::state::StoreError;

#[derive(Debug)]
pub enum ReadFailure {
    Log(EventLogError),
    State(StoreError),
    /// The cursor is of logs with another number of partitions.
    Cursor,
}

impl From<EventLogError> for ReadFailure {
    fn from(error: EventLogError) -> Self {
        Self::Log(error)
    }
}

impl From<StoreError> for ReadFailure {
    fn from(error: StoreError) -> Self {
        Self::State(error)
    }
}

impl From<ReadFailure> for Problem {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Log(error) => error.into(),
            ReadFailure::State(error) => Self::State(error),
            ReadFailure::Cursor => wrong("cursor", "the `next` of an earlier answer"),
        }
    }
}
