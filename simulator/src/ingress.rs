//! Ingress in the simulated world: its real dispatcher, state machine, drain and disk log, between a simulated producer
//! and a simulated disk.
//!
//! Real are `ingress::delivery` with `state`, `dispatcher`, `drain` and `disk`, and all of `disk_log` with
//! [`Delivered`]. Simulated are librdkafka and the brokers ([`stage::broker`], [`client`]), the disk ([`tests::medium`], [`disk`]), and
//! the clock. [`life`] repeats the order of steps of `ingress::delivery::producer_supervisor`; its threads move when they
//! get the baton: between any two records and any two calls of the disk, something else may happen, even a crash.
//!
//! [`company`] holds several ingresses with their disks; [`schedule`] draws their actions and faults from a seed, and
//! [`crate::schedule`] lets processors read what they write to `raw`. [`judge`] compares what was sent, answered and
//! written. A trace has each input of the delivery state machine.
//!
//! Not simulated: sockets and reply slots, connecting and its backoff, the decision before an adoption, and threads of
//! the disk log: the appending thread does its writer's work. Records of a closed producer are in `raw` before its
//! successor sends, or never.
//!
//! [`Delivered`]: disk_log::Delivered

pub mod client;
pub mod company;
pub mod disk;
pub mod judge;
pub mod life;
pub mod mutation;
pub mod schedule;
pub mod stage;
