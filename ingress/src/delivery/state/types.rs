//! Inputs, limits and effects of the delivery state machine.

use std::sync::Arc;
use std::time::Duration;

use event_log::Record;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter {
    pub worker: u32,
    pub slot: u32,
    /// The number of the slot's use.
    pub generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Kafka,
    Disk,
    /// Neither Kafka nor the disk log took the record.
    StorageUnavailable,
}

#[derive(Clone, Debug)]
pub struct Offer {
    pub waiter: Waiter,
    pub partition: u32,
    pub record: Arc<Record>,
}

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether every record goes to the disk log at once, and is answered from there.
    pub disk_first: bool,
    /// How long a report is awaited before the disk log takes the record too.
    pub deadline: Duration,
    /// How long a report is awaited when the disk log has no room.
    pub report_wait_max: Duration,
    pub records_max: usize,
    /// Approximate bytes in flight, at most.
    pub bytes_max: usize,
    /// Size of the disk log above which parked entries are moved to its end.
    pub move_parked_above_bytes: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub replies: Vec<(Waiter, Reply)>,
    /// Entries of the disk log that are in Kafka now.
    pub delivered: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerState {
    Connecting,
    Up,
    /// The producer failed. It is replaced once all of its records are reported.
    Failing,
}
