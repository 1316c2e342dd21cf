//! What a processor does all day: it restores a session, is assigned partitions, folds what it owns and publishes it.

pub(crate) mod assignment;
pub mod clock;
pub(crate) mod dedup;
pub mod exclusive;
pub mod failure;
pub(crate) mod hanging;
pub(crate) mod held;
pub mod identity;
pub mod inconsistency;
pub mod owner;
pub mod publish;
pub mod recent_events;
pub mod resume_offsets;
pub mod session;
pub mod shared;
