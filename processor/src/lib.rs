//! Folds raw events into state, publishes what follows, and answers queries.
//!
//! At `F` the state is the fold of `facts[0..F)`, and `facts` are the interpretation of `raw[0..K)`, after any crash.
//! Webhooks are received by the crate `ingress`.

pub mod config;
pub mod forward;
mod log_writer;
pub mod maintenance;
pub mod metrics;
pub(crate) mod query;
pub mod run;
pub mod service;
pub mod state;
pub mod state_dir;
pub mod vault;
pub mod vouch;

pub use log_writer::LogWriter;
pub use query::page::surroundings;
