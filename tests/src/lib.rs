//! Starts the real programs on a real Apache Kafka, breaks both, and compares with what was promised.
//!
//! The harness of the files in `tests/`, one of which stands for one promise each. It knows the programs
//! by their commands, their answers, their topics and their logs only, never by their code.

pub mod browser;
pub mod cache;
pub mod clock;
pub mod cloudevents;
pub mod cluster;
pub mod flood;
pub mod group;
pub mod guard;
pub mod handler;
pub mod http;
pub mod kafka;
pub mod load;
pub mod medium;
pub mod night;
pub mod oracle;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod random;
pub mod stranger;
pub mod stream;
pub mod swarm;
pub mod tmpfs;
pub mod topics;
pub mod truth;
pub mod verify;
pub mod visitors;
pub mod wait;
