//! Free space for the state: sled never writes to a disk that is nearly full.
//!
//! A failed write surfaces later, in one of sled's threads, and ends the process. So each write checks free space
//! first, and fails, or waits if the rows cannot be rebuilt. The disk logs of standalone leave at least as much free.

use std::path::Path;
use std::time::{Duration, Instant};

use disk_log::free_bytes;
use prometheus::IntGauge;
use runtime::lifecycle::Stop;
use tracing::{error, info};

use super::StoreError;

/// Free space before a write: more than sled writes between two checks.
const FREE_TO_WRITE_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// Free space before a small state is opened: queries can be answered for longer than writes.
const FREE_TO_OPEN_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// Opening writes a snapshot, which is smaller than the state by at least this factor.
const STATE_BYTES_PER_SNAPSHOT_BYTE: u64 = 16;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The reaction to a full disk: wait until there is space or a stop is requested. By default an error.
#[derive(Clone, Default)]
pub struct Patience(Option<(Stop, IntGauge)>);

impl Patience {
    /// The gauge is above 0 while waiting.
    pub fn until(stop: Stop, waits: IntGauge) -> Self {
        Self(Some((stop, waits)))
    }

    /// Waits until a state of this size can be opened.
    pub(super) fn wait_to_open(&self, dir: &Path, bytes: u64) -> Result<(), StoreError> {
        self.wait(dir, FREE_TO_OPEN_BYTES_MIN + bytes / STATE_BYTES_PER_SNAPSHOT_BYTE)
    }

    pub(super) fn wait_to_write(&self, dir: &Path) -> Result<(), StoreError> {
        self.wait(dir, FREE_TO_WRITE_BYTES_MIN)
    }

    fn wait(&self, dir: &Path, bytes: u64) -> Result<(), StoreError> {
        if has_room(dir, bytes) {
            return Ok(());
        }
        let mib = bytes / 1024 / 1024;
        if self.0.is_none() {
            return Err(StoreError::Rows(format!("there is no room for it: it takes {mib} MiB that are free")));
        }
        self.waiting().wait_until(Duration::MAX, || has_room(dir, bytes));
        if has_room(dir, bytes) { Ok(()) } else { Err(StoreError::Rows("stopped while it waited for room".to_owned())) }
    }

    pub(crate) fn waiting(&self) -> Waiting {
        error!(
            "the disk has no room for the state: folding is paused, and queries are answered from the current state. \
             Nothing is lost, and folding resumes once there is room"
        );
        if let Some((_, waits)) = &self.0 {
            waits.inc();
        }
        Waiting(self.clone())
    }
}

pub(crate) struct Waiting(Patience);

impl Waiting {
    /// Polls with increasing pauses, until `is_so`, a requested stop, or a timeout.
    pub(crate) fn wait_until(&self, at_most: Duration, is_so: impl Fn() -> bool) {
        let Some((stop, _)) = &self.0.0 else { return };
        let (began, mut pause) = (Instant::now(), PAUSE_MIN);
        while !is_so() && began.elapsed() < at_most && !stop.sleep(pause) {
            pause = PAUSE_MAX.min(2 * pause);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some((stop, waits)) = &self.0.0 else { return };
        waits.dec();
        if !stop.requested() {
            info!("the disk has room for the state again: folding resumes");
        }
    }
}

pub(crate) fn has_room_to_write(dir: &Path) -> bool {
    has_room(dir, FREE_TO_WRITE_BYTES_MIN)
}

fn has_room(dir: &Path, bytes: u64) -> bool {
    // The directory may not exist yet.
    let dir = if dir.is_dir() { dir } else { dir.parent().filter(|parent| parent.is_dir()).unwrap_or(Path::new(".")) };
    // If the free space is unknown, the write finds out.
    free_bytes(dir).unwrap_or(u64::MAX) >= bytes
}
