//! Reading the logs for a query.

use std::sync::Arc;

use event_log::{EventLogError, LogQuery};

use crate::query::context::QueryContext;
use crate::query::parameters::wrong;
use crate::query::problem::Problem;
use crate::query::request::block;
use crate::state::StoreError;

/// Reads the logs on a thread that may block.
pub async fn read<T: Send + 'static>(
    context: &QueryContext,
    read: impl FnOnce(&dyn LogQuery) -> Result<T, ReadFailure> + Send + 'static,
) -> Result<T, Problem> {
    let logs = Arc::clone(&context.logs);
    let found = block(&context.log_reads, || Problem::NotReadable, move || read(&*logs)).await?;
    found.map_err(Problem::from)
}

#[derive(Debug, thiserror::Error)]
pub enum ReadFailure {
    #[error("a query could not read the logs: {0}")]
    Log(#[from] EventLogError),
    #[error(transparent)]
    State(#[from] StoreError),
    #[error("the cursor is of logs with another number of partitions")]
    Cursor,
}

impl From<ReadFailure> for Problem {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Log(_) => {
                tracing::warn!("{failure}");
                Self::NotReadable
            }
            ReadFailure::State(error) => Self::State(error),
            ReadFailure::Cursor => wrong("cursor", "the `next` of an earlier answer"),
        }
    }
}
