//! Inputs, work, limits and effects of the delivery state machine.

use std::sync::Arc;
use std::time::Duration;

use event_log::Record;

use super::send_queue::{Batch, QueuedRecord};

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

/// What Kafka reports about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    Kept,
    /// Kafka may have it or not.
    Failed,
    /// Rejected permanently, because it is too large. The producer can go on.
    Refused,
}

impl Reported {
    /// Where no more entries can be parked, a rejection is a failure.
    #[must_use]
    pub fn or_failed(self) -> Self {
        match self {
            Self::Kept => Self::Kept,
            Self::Failed | Self::Refused => Self::Failed,
        }
    }
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

/// Records for the disk log, and whether each may have been sent without an acknowledgement.
pub type Group = Vec<(Arc<Record>, bool)>;

#[derive(Clone, Debug)]
pub enum Input {
    Offered(Offer),
    Tick,
    /// There is a producer. Entries of the disk log before this offset are in Kafka.
    Connected {
        first_undelivered: u64,
    },
    /// The producer failed: it gets no further record, and its successor is connected once it holds none.
    Failed,
    Reported {
        ticket: u64,
        reported: Reported,
    },
    /// [`Work::Send`] is done: the client took the batch, except for the refused records.
    Sent {
        partition: u32,
        refused: Vec<QueuedRecord>,
    },
    /// [`Work::Append`] is done: the group is durable, its first record at this offset.
    Appended {
        first: u64,
    },
    /// [`Work::Append`] failed.
    NotAppended(Group),
    /// An entry that [`Work::Drain`] asked for.
    Drained {
        offset: u64,
        partition: u32,
        record: Arc<Record>,
    },
    /// As [`Self::Drained`], but the entry is in Kafka.
    Passed {
        offset: u64,
    },
    /// [`Work::Retry`] is done: the parked entry was read.
    Retried {
        offset: u64,
        partition: u32,
        record: Arc<Record>,
    },
    /// [`Work::Move`] is done: the parked entry was read.
    Moved {
        offset: u64,
        record: Arc<Record>,
    },
}

/// What follows from inputs.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each wakes another thread")]
pub struct Effects {
    pub replies: Vec<(Waiter, Reply)>,
    /// Records that are in Kafka, to be freed outside the lock.
    pub done: Vec<Arc<Record>>,
    /// Entries of the disk log that are in Kafka now.
    pub delivered: Vec<u64>,
    /// There may be work to send, for the thread that made the input.
    pub send: bool,
    /// There is work for the disk log.
    pub append: bool,
    /// There may be entries to drain.
    pub drain: bool,
    /// The workers are woken for their replies, also those of earlier inputs.
    pub announce: bool,
}

/// `Drain`, `Retry` and `Move` belong to the thread that connects producers, which does one after the other: from the
/// poll to the last input of the work, it polls for no other work and connects no producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Send,
    Append,
    Drain,
    Retry,
    Move,
}

/// The work of a [`Role`]. What became of it is an [`Input`].
#[derive(Debug)]
pub enum Work {
    /// There is no other batch until [`Input::Sent`].
    Send(Batch),
    /// There is no other group until [`Input::Appended`] or [`Input::NotAppended`].
    Append(Group),
    Drain(Span),
    /// The offset of a parked entry to send again.
    Retry(u64),
    /// The offset of the parked entry that keeps the oldest segment of the disk log.
    Move(u64),
}

/// Entries of the disk log to read.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub next: u64,
    /// Later entries may be in flight already, which is not known yet.
    pub end: u64,
    pub count_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerState {
    Connecting,
    Up,
    /// The producer failed. It is replaced once all of its records are reported.
    Failing,
}

#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub producer: ProducerState,
    /// Whether Kafka acknowledges what is sent.
    pub kafka_up: bool,
    /// Whether new events go straight to Kafka.
    pub direct: bool,
    /// Whether the failed producer has no record left, so that it can be replaced.
    pub replaceable: bool,
    /// Producers that replaced a failed one.
    pub renewed: u64,
    /// Records in flight.
    pub open: usize,
    /// Records that wait for the disk log, or are being written to it.
    pub appends: usize,
    /// Events that Kafka rejects permanently; they stay on disk.
    pub parked: usize,
}
