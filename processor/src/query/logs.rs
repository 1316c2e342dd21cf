//! Reads the logs for queries: a few at a time, on threads that may block.

use std::sync::Arc;

use actix_web::web;
use event_log::{EventLogError, LogQuery};

use super::QueryContext;
use super::parameters::wrong;
use super::problem::Problem;
use crate::state::StoreError;

/// Reads the logs on a thread that may block. The reading goes on after a disconnect, so it holds the permit itself.
pub async fn read<T: Send + 'static>(
    context: &QueryContext,
    read: impl FnOnce(&dyn LogQuery) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Problem> {
    let place = Arc::clone(&context.log_reads).acquire_owned().await.map_err(|_| Problem::NotReadable)?;
    let logs = Arc::clone(&context.logs);
    let found = web::block(move || {
        let _place = place;
        read(&*logs)
    });
    found.await.map_err(|_| Problem::NotReadable)?.map_err(Problem::from)
}

pub enum Failure {
    Log(EventLogError),
    State(StoreError),
    /// The cursor is of logs with another number of partitions.
    Cursor,
}

impl From<EventLogError> for Failure {
    fn from(error: EventLogError) -> Self {
        Self::Log(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::State(error)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Log(error) => {
                tracing::warn!("a query could not read the logs: {error}");
                Self::NotReadable
            }
            Failure::State(error) => Self::State(error),
            Failure::Cursor => wrong("cursor", "the `next` of an earlier answer"),
        }
    }
}
