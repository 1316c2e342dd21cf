//! Why a session ends before the process does.

use std::time::Duration;

use event_log::EventLogError;

use crate::run::inconsistency::Inconsistency;
use crate::state::StoreError;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    EventLog(#[from] EventLogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Logs and state contradict each other: an operator has to decide.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistency),
    /// The group assigns these partitions to no processor.
    #[error("{0} partitions have had no owner for too long")]
    Unowned(usize),
    /// Kafka did not end a transaction that may be ours.
    #[error("transactions have been open in {0} partitions for too long")]
    Hangs(usize),
    #[error("there is no room for the state")]
    NoRoom {
        /// The logs are opened after this time in any case: their retention may make room.
        at_most: Duration,
    },
}
