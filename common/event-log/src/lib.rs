//! The interface of every log, in Kafka or on a disk.
//!
//! A *log* is a topic of [`Topic`](contract::Topic) with one or more partitions of records in order; [`EventLog`] is all of
//! them.

use std::time::Duration;

pub mod contract;
pub mod hanging;
mod log;
mod log_query;
#[cfg(feature = "memory")]
pub mod memory;
mod raw_event;
mod record;
mod redrive;

pub use contract::HeaderName;
pub use log::{EventLog, EventLogError, LogEvent, LogReader, Visit};
pub use log_query::{LogQuery, LogTail, Stretch};
pub use raw_event::{EventId, NotARawEvent, RawEvent, Redrive, TRACESTATE_BYTES_MAX};
pub use record::{Applied, Entry, FactOffsets, Output, Position, Record};
pub use redrive::{is_redriven, made_at, redrive_id, redriven_from};

/// The longest that a transaction of ours is open: its timeout, the broker's interval, and as much again.
pub const OPEN_MAX: Duration = Duration::from_secs(40);
