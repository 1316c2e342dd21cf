//! Queries about what is not in the state, but in the logs.

use std::sync::Arc;

use event_log::{EventLogError, LogQuery};
use primitives::time::{self, Timestamp};

use super::context::QueryContext;
use super::parameters::wrong;
use super::problem::Problem;
use super::request::block;
use crate::state::StoreError;

/// Reads the logs on a thread that may block.
pub async fn read_logs<T: Send + 'static, E: Send + 'static>(
    context: &QueryContext,
    read: impl FnOnce(&dyn LogQuery) -> Result<T, E> + Send + 'static,
) -> Result<T, Problem>
where
    Problem: From<E>,
{
    let logs = Arc::clone(&context.logs);
    let found = block(&context.log_reads, || Problem::NotReadable, move || read(&*logs)).await?;
    found.map_err(Problem::from)
}

impl From<EventLogError> for Problem {
    fn from(error: EventLogError) -> Self {
        tracing::warn!("a query could not read the logs: {error}");
        Self::NotReadable
    }
}

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

pub const TIME_OR_AGE: &str = "a time of RFC 3339 in UTC, such as 2026-01-31T10:00:00Z, or a duration, such as 2h";

pub fn time_or_age(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text).or_else(|| time::duration(text).map(|age| Timestamp::now().minus(age)))
}
