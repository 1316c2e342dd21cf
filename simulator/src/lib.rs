//! The processor's real loop in a simulated world: one seed is one schedule, and no schedule may break an invariant.
//!
//! Simulated are the logs, the group, the disk and the time ([`broker`], [`event_log`], [`disk`]); real are
//! `processor::run::session::Processor::run` and everything above the traits `EventLog` and `Rows`. Each life of a
//! processor is a thread that moves only when it is handed the baton ([`baton`]); [`schedule`] draws from the seed who
//! moves, what comes in ([`portals`]) and what goes wrong. [`judge`] looks at everything that becomes visible and
//! compares it with a straight fold of `raw` ([`expected`]), and with the oracle of the tests. [`mutation`] lists bugs
//! that are put in on purpose, so that the simulator can be seen to catch them.
//!
//! What is not here: `kafka_log`, whose part [`event_log`] plays, and sled.

pub mod baton;
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
