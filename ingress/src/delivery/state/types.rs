//! Inputs, limits and effects of the delivery state machine.

use std::sync::Arc;
use std::time::Duration;

use event_log::Record;

/// A request that waits, in a slot of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter {
    /// The worker.
    pub worker: u32,
    /// The slot.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// What a request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Acknowledged by Kafka.
    Kafka,
    /// Durable in the disk log.
    Disk,
    /// Neither.
    StorageUnavailable,
}

/// A record that came in.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Who waits for it.
    pub waiter: Waiter,
    /// Its partition.
    pub partition: u32,
    /// The record.
    pub record: Arc<Record>,
}

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether every record goes to the disk log at once, and is answered from there.
    pub disk_first: bool,
    /// How long a report is awaited before the disk log takes the record too.
    pub deadline: Duration,
    /// How long a report is awaited when the disk log has no room.
    pub report_wait_max: Duration,
    /// Records in flight, at most.
    pub records_max: usize,
    /// About how many bytes are in flight at most.
    pub bytes_max: usize,
    /// Size of the disk log above which parked entries are moved to its end.
    pub move_parked_above_bytes: u64,
}

/// What follows from an input.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Who is told what.
    pub replies: Vec<(Waiter, Reply)>,
    /// Entries of the disk log that are in Kafka now.
    pub delivered: Vec<u64>,
}

/// Whether records can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerState {
    /// Kafka was not reached yet.
    Connecting,
    /// They can.
    Up,
    /// The producer is done for. It is replaced once all of its records are reported.
    Failing,
}
