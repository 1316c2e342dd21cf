//! Delivers records: to Kafka within the deadline, else to the disk log until Kafka has them.
//!
//! [`handle`] is the way in. With Kafka, [`worker`] gathers the records of one turn of a worker thread and waits for their
//! [`reply`], [`dispatcher`] moves them as the pure [`state`] machine decides, [`disk`] writes what Kafka does not acknowledge in time,
//! `producer_supervisor` keeps a producer connected, and [`drain`] reads the disk log back for it.
//!
//! Not here: what a record means, and the answer over HTTP.

pub mod disk;
pub mod dispatcher;
pub mod drain;
pub(crate) mod handle;
mod outage_log;
pub(crate) mod producer_supervisor;
mod reply;
pub mod state;
mod worker;
