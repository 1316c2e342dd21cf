//! Folds raw events into what we know, publishes what follows, and answers questions.
//!
//! At `F` the state is the fold of `facts[0..F)`, and `facts` are the interpretation of `raw[0..K)`;
//! whatever crashes on the way. What comes in over HTTP is none of this crate's business; see `ingress`.

mod assignment;
pub mod audit;
pub mod clock;
pub mod config;
mod dedup;
pub mod domain;
pub mod exclusive;
pub mod fold;
mod hanging;
mod held;
pub mod identity;
pub mod inconsistency;
pub mod metrics;
pub mod owner;
pub mod processor;
pub mod publish;
pub mod query;
pub mod rebuild;
pub mod recent_events;
mod repair;
pub mod resume;
pub mod resume_offsets;
pub mod service;
pub mod state_dir;
pub mod store;
