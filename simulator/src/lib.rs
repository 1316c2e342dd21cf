//! The processor's real loop in a simulated world: one seed is one schedule, and no schedule may break an invariant.
//!
//! Simulated are the logs, the group, the disk and the time ([`broker`], [`sim_event_log`], [`disk`]); real are
//! `processor::run::session::Processor::run` and everything above the traits `EventLog` and `Rows`. Each life of a
//! processor is a thread that moves only when it gets the baton ([`baton`]); [`schedule`] draws from the seed which one
//! moves, which events arrive ([`portals`]) and which faults occur. [`judge`] compares everything that becomes visible
//! with a straight fold of `raw` ([`expected`]), and with the oracle of the tests. [`mutation`] lists deliberate bugs,
//! which the simulator must catch.
//!
//! Not simulated: `kafka_log`, which [`sim_event_log`] replaces, and sled.

pub mod baton;
pub mod being;
pub mod broker;
pub mod disk;
pub mod expected;
pub mod ingress;
pub mod judge;
pub mod mutation;
pub mod portals;
pub mod schedule;
pub mod seeds;
pub mod sim_event_log;
pub mod world;
