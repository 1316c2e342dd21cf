//! The interface of every log, in Kafka or on a disk.
//!
//! A *log* is a topic of [`Topic`](contract::Topic) with one or more partitions of records in order; [`EventLog`] is all of
//! them.

use std::time::Duration;

pub mod contract;
pub mod hanging;
mod log;
mod log_query;
mod raw_event;
mod record;
mod redrive;

pub use log::{EventLog, EventLogError, LogEvent, LogReader};
pub use log_query::{LogQuery, Stretch};
pub use raw_event::{EventId, NotARawEvent, RawEvent, TRACESTATE_BYTES_MAX};
pub use record::{Applied, Entry, FactOffsets, HeaderName, Output, Position, Record};
pub use redrive::{Redrive, is_redriven, made_at, redrive_id, redriven_from};

/// The longest that a transaction of ours is open: its timeout, the broker's interval, and as much again.
pub const OPEN_MAX: Duration = Duration::from_secs(40);
