//! Room for the state: sled is never written to on a disk that is nearly full.
//!
//! A write that finds no room fails in one of sled's own threads, a moment later, and ends the process. So each write
//! looks first, and refuses, or waits where what is to be written cannot be had again. The disk logs of a standalone
//! process leave as much and more.

use std::path::Path;
use std::time::{Duration, Instant};

use disk_log::free_bytes;
use prometheus::IntGauge;
use runtime::lifecycle::Stop;
use tracing::{error, info};

use super::StoreError;

/// Free before anything is written: more than sled writes between two looks.
const FREE_TO_WRITE_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// Free before a small state is opened: questions can be answered for longer than anything is written.
const FREE_TO_OPEN_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// Opening writes a snapshot, which is smaller than the state by this at least.
const STATE_BYTES_PER_SNAPSHOT_BYTE: u64 = 16;
/// Before the first second look.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Between two looks at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What is done where there is no room: to wait until there is, or until it is time to stop. By default it is an error.
#[derive(Clone, Default)]
pub struct Patience(Option<(Stop, IntGauge)>);

impl Patience {
    /// Waits; the gauge is above 0 meanwhile.
    pub fn until(stop: Stop, waits: IntGauge) -> Self {
        Self(Some((stop, waits)))
    }

    /// Returns when a state of so many bytes can be opened.
    pub(super) fn wait_to_open(&self, dir: &Path, bytes: u64) -> Result<(), StoreError> {
        self.wait(dir, FREE_TO_OPEN_BYTES_MIN + bytes / STATE_BYTES_PER_SNAPSHOT_BYTE)
    }

    /// Returns when it can be written to.
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

    /// Begins to wait, and says so once.
    pub fn waiting(&self) -> Waiting {
        error!(
            "the disk has no room for the state: folding waits for it, and questions are answered from what was folded. \
             Nothing is lost, and all goes on by itself. Make room"
        );
        if let Some((_, waits)) = &self.0 {
            waits.inc();
        }
        Waiting(self.clone())
    }
}

/// Something that waits for room, until this is dropped.
pub struct Waiting(Patience);

impl Waiting {
    /// Looks again and again, less often each time, until it is so, it is time to stop, or the time is up.
    pub fn wait_until(&self, at_most: Duration, is_so: impl Fn() -> bool) {
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
            info!("the state goes on: there is room for it");
        }
    }
}

/// Whether a state can be written to.
pub fn has_room_to_write(dir: &Path) -> bool {
    has_room(dir, FREE_TO_WRITE_BYTES_MIN)
}

fn has_room(dir: &Path, bytes: u64) -> bool {
    // It may not be there yet.
    let dir = if dir.is_dir() { dir } else { dir.parent().filter(|parent| parent.is_dir()).unwrap_or(Path::new(".")) };
    // Where the disk does not say, the write finds out.
    free_bytes(dir).unwrap_or(u64::MAX) >= bytes
}
