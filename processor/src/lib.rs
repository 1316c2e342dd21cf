//! Folds raw events into what we know, publishes what follows, and answers questions.
//!
//! At `F` the state is the fold of `facts[0..F)`, and `facts` are the interpretation of `raw[0..K)`;
//! whatever crashes on the way. What comes in over HTTP is none of this crate's business; see `ingress`.

pub mod config;
pub mod maintenance;
pub mod metrics;
pub mod query;
pub mod run;
pub mod service;
pub mod state;
pub mod state_dir;
