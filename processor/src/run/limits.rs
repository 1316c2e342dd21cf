//! The limits of an owner.

use std::time::Duration;

/// A step is one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A step ends after the event whose outputs reach this size.
    pub step_bytes: usize,
    pub step_records: usize,
    /// A transaction must not stay open for long.
    pub step_time: Duration,
    /// After this, the rest of a batch is returned and fetched again, so that the group is polled.
    pub batch_time: Duration,
    /// Larger events are published without their data.
    pub event_bytes: usize,
    /// Limit of installations without facts, per app.
    pub untrusted: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            step_bytes: 8 * 1024 * 1024,
            step_records: 5_000,
            step_time: Duration::from_secs(1),
            batch_time: Duration::from_secs(10),
            event_bytes: 1024 * 1024,
            untrusted: 10_000,
        }
    }
}
