//! Ingress in the simulated world: its real dispatcher, state machine, drain and disk log, between a simulated producer and a
//! simulated disk.
//!
//! Real are `ingress::delivery` with `state`, `dispatcher`, `drain` and `disk`, and the whole of `disk_log` with
//! [`Delivered`]. Simulated are librdkafka and the brokers behind it ([`broker`], [`client`]), the disk ([`medium`],
//! [`disk`]), and the clock. Of `ingress::delivery::producer_supervisor` only the order of its steps is simulated, by
//! [`life`], whose threads move when they are handed the baton: between any two records that are sent and any two calls
//! of the disk, something else may happen, a death too.
//!
//! [`company`] holds several ingresses with their disks and does to them what happens; [`schedule`] draws from a seed what
//! that is, and [`crate::schedule`] lets processors read what they bring to `raw`. [`judge`] compares what was sent,
//! answered and brought.
//!
//! What is not here: sockets and workers' slots, connecting and its backoff, `Survey` before an adoption, and threads of
//! the disk log: whoever appends does its writer's work. What a producer that was let go has sent is in `raw` before its
//! successor sends, or never.
//!
//! [`Delivered`]: disk_log::Delivered

pub mod broker;
pub mod client;
pub mod company;
pub mod disk;
pub mod judge;
pub mod life;
pub mod medium;
pub mod mutation;
pub mod schedule;
pub mod stage;
