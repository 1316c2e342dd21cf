//! The run loop: restores the state, is assigned partitions, folds the owned ones and publishes what follows.

pub(crate) mod assignment;
pub(crate) mod batch;
pub mod clock;
pub(crate) mod dedup;
pub mod exclusive;
pub(crate) mod facts;
pub(crate) mod failure;
pub(crate) mod hanging;
pub(crate) mod held;
pub mod identity;
pub mod inconsistency;
pub mod limits;
pub(crate) mod meaning;
pub(crate) mod owner;
pub mod publish;
pub mod recent_events;
mod rejected_counts;
pub(crate) mod resume_offsets;
pub mod session;
pub mod shared;
