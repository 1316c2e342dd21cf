//! The interface of every log, in Kafka or on a disk.
//!
//! A *log* is a topic of [`Topic`](contract::Topic) with one or more partitions of records in order; [`EventLog`] is all of
//! them.

use std::time::Duration;

pub mod contract;
pub mod hanging;
mod log;
mod raw_event;
mod record;

pub use log::{EventLog, EventLogError, LogEvent, LogReader};
pub use raw_event::{EventId, NotARawEvent, RawEvent, TRACESTATE_BYTES_MAX};
pub use record::{Applied, Entry, HeaderName, Output, Position, Record};

/// The longest that a transaction of ours is open: its timeout, the broker's interval, and as much again.
pub const OPEN_MAX: Duration = Duration::from_secs(40);
