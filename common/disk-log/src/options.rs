//! What callers set, and the errors and places that they get.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

pub(super) const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Reserved by a source log: room for writes in progress in the derived logs, and for the state.
const SOURCE_LEAVES_BYTES: u64 = 32 * MIB;
/// As many bytes may be derived from one, with a margin: JSON writes six for a control character, and the state has a
/// record, too.
const FOLLOWING_BYTES_PER_BYTE: u64 = 8;
/// A log that stopped for want of room goes on when this much fits again, derived records included.
pub(super) const GO_ON_BYTES: u64 = if cfg!(test) { KIB } else { MIB };
/// The pause after a failed write: other users need the disk too.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 1_000 });

#[derive(Clone)]
pub struct Options {
    pub segment_bytes: u64,
    /// Appends beyond this fail; `None` where retention bounds the log instead. Must be several segments, since only
    /// whole ones are deleted.
    pub bytes_max: Option<u64>,
    /// An older segment is closed, so that it can be deleted in time.
    pub segment_age_max: Option<Duration>,
    pub leaves: Leaves,
    /// Called with the duration of each sync that an append waited for.
    pub on_sync: Option<Arc<dyn Fn(Duration) + Send + Sync>>,
}

impl Options {
    /// For a log that is deleted once it is delivered.
    pub fn spool(limit: u64) -> Self {
        let segment_bytes = (limit / 4).clamp(64 * KIB, 16 * MIB);
        Self { segment_bytes, bytes_max: Some(limit), segment_age_max: None, leaves: Leaves::default(), on_sync: None }
    }

    /// For a log in place of a topic.
    pub fn log() -> Self {
        let segment_age_max = Some(Duration::from_secs(24 * 60 * 60));
        Self { segment_bytes: 16 * MIB, bytes_max: None, segment_age_max, leaves: Leaves::default(), on_sync: None }
    }

    /// For a log from which records on the same disk are derived: it stops before the disk is full. Its reader reports
    /// how far the derived records were written ([`DiskLog::was_used`]).
    pub fn source() -> Self {
        Self { leaves: Leaves { bytes: SOURCE_LEAVES_BYTES, times_unused: FOLLOWING_BYTES_PER_BYTE }, ..Self::log() }
    }

    /// For a log of which only the last record matters.
    pub fn progress() -> Self {
        Self { segment_bytes: 256 * KIB, segment_age_max: None, ..Self::log() }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("segment_bytes", &self.segment_bytes)
            .field("bytes_max", &self.bytes_max)
            .field("segment_age_max", &self.segment_age_max)
            .field("leaves", &self.leaves)
            .finish_non_exhaustive()
    }
}

/// Room on the disk that a log reserves for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    pub bytes: u64,
    /// And this many bytes for each byte of the log that is not used yet.
    pub times_unused: u64,
}

/// A place between two records: the segment, and the byte in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub(super) segment: u64,
    pub(super) at: u64,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no room, or the limit is reached.
    #[error("no room for the disk log")]
    Full,
    /// The disk failed; nothing of this group is promised.
    #[error("write the disk log: {0}")]
    Io(Arc<io::Error>),
}
