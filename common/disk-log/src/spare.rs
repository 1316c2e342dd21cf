//! One file of zeros, created ahead: the next segment never waits for room, and a full disk is noticed early.
//!
//! Where a whole segment does not fit, a smaller one is created: events are refused at the disk's end, not a
//! segment before it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tracing::{info, warn};

use super::files::{Files, is_full};
use super::options::RETRY_AFTER;
use super::storage::StorageFile;

const SPARE: &str = "spare";
/// While it is being filled with zeros.
const UNFINISHED: &str = "spare.tmp";
/// A file for a group that is larger than a segment, or than the spare.
const LARGE: &str = "large.tmp";
const BYTES_MIN: u64 = 64 * 1024;
/// With room for fewer segments behind the spare, a warning is logged.
const SEGMENTS_LEFT_MIN: u64 = 2;

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(SPARE)
}

/// A file for a segment: its size and its temporary path.
pub(super) struct Spare {
    pub file: StorageFile,
    pub bytes: u64,
    pub path: PathBuf,
}

pub(super) struct Spares {
    workshop: Workshop,
    making: Making,
    /// The spare's file was begun by a writer that failed: its pages are not trusted.
    is_spoilt: bool,
}

enum Making {
    Nothing,
    UnderWay(JoinHandle<io::Result<(StorageFile, u64)>>),
    Made(StorageFile, u64),
    Failed(Instant),
}

impl Spares {
    /// Begins with the file that a former process left.
    pub fn new(dir: PathBuf, files: Files, bytes: u64) -> io::Result<Self> {
        for unfinished in [UNFINISHED, LARGE] {
            files.remove(&dir.join(unfinished))?;
        }
        let workshop = Workshop { dir, files, bytes, reported: Arc::default() };
        Ok(Self { workshop, making: Making::Nothing, is_spoilt: false })
    }

    /// A file of at least this many bytes. Once it is renamed or removed, [`Self::prepare`] the next.
    pub fn take(&mut self, bytes: u64) -> io::Result<Spare> {
        let spare = |(file, bytes)| Spare { file, bytes, path: path(&self.workshop.dir) };
        if bytes > self.workshop.bytes {
            return self.workshop.make_large(bytes);
        }
        self.making = match std::mem::replace(&mut self.making, Making::Nothing).joined(&self.workshop.files) {
            Making::Made(file, made) if made >= bytes => return Ok(spare((file, made))),
            // A small one remains for small groups.
            Making::Made(file, made) => {
                self.making = Making::Made(file, made);
                return self.workshop.make_large(bytes);
            }
            making @ (Making::Nothing | Making::UnderWay(_) | Making::Failed(_)) => making,
        };
        let left = if self.is_spoilt { None } else { self.workshop.left(bytes)? };
        let found = if let Some(left) = left { left } else { self.workshop.make(bytes)? };
        self.is_spoilt = false;
        Ok(spare(found))
    }

    /// The taken file could be neither used nor removed.
    pub fn spoil(&mut self) {
        self.is_spoilt = true;
    }

    /// Starts creating the next one, unless there is one.
    pub fn prepare(&mut self) {
        self.making = match std::mem::replace(&mut self.making, Making::Nothing) {
            Making::Nothing | Making::Failed(_) => self.workshop.clone().begin(),
            making @ (Making::UnderWay(_) | Making::Made(..)) => making,
        };
    }

    /// Retries periodically, if there was no room.
    pub fn tend(&mut self) {
        self.making = match std::mem::replace(&mut self.making, Making::Nothing) {
            Making::UnderWay(making) if making.is_finished() => Making::UnderWay(making).joined(&self.workshop.files),
            Making::Failed(at) if self.workshop.files.since(at) >= RETRY_AFTER => self.workshop.clone().begin(),
            making @ (Making::Nothing | Making::UnderWay(_) | Making::Made(..) | Making::Failed(_)) => making,
        };
    }
}

impl Drop for Spares {
    /// No file of this log is touched after it is closed.
    fn drop(&mut self) {
        let _ = std::mem::replace(&mut self.making, Making::Nothing).joined(&self.workshop.files);
    }
}

impl Making {
    fn joined(self, files: &Files) -> Self {
        let Self::UnderWay(making) = self else { return self };
        Self::of(making.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked"))), files)
    }

    fn of(made: io::Result<(StorageFile, u64)>, files: &Files) -> Self {
        made.map_or_else(|_| Self::Failed(files.now()), |(file, bytes)| Self::Made(file, bytes))
    }
}

#[derive(Clone)]
struct Workshop {
    dir: PathBuf,
    files: Files,
    bytes: u64,
    /// The last state of free room that was logged: [`ENOUGH`], [`LITTLE`] or [`NONE`].
    reported: Arc<AtomicU8>,
}

const ENOUGH: u8 = 0;
const LITTLE: u8 = 1;
const NONE: u8 = 2;

impl Workshop {
    fn begin(self) -> Making {
        let files = self.files.clone();
        let work = move || self.make(0).inspect(|_| self.log_room()).inspect_err(|error| self.log_failure(error));
        if !files.allows_threads() {
            return Making::of(work(), &files);
        }
        // Without a thread the spare is created when it is needed.
        let making = thread::Builder::new().name("disk-log-spare".into()).spawn(work);
        making.map_or_else(|_| Making::Nothing, Making::UnderWay)
    }

    /// As large as a segment, or as there is room. Under the spare's name there are only complete files.
    fn make(&self, needed: u64) -> io::Result<(StorageFile, u64)> {
        let unfinished = self.dir.join(UNFINISHED);
        let made = self.fitting(&unfinished, needed).and_then(|made| {
            self.files.rename(&unfinished, &path(&self.dir))?;
            self.files.sync_dir(&self.dir)?;
            Ok(made)
        });
        if made.is_err() {
            let _ = self.files.remove(&unfinished);
        }
        made
    }

    fn fitting(&self, path: &Path, needed: u64) -> io::Result<(StorageFile, u64)> {
        let mut bytes = self.bytes;
        loop {
            match self.files.make(path, bytes) {
                Err(error) if is_full(&error) && bytes / 2 >= needed.max(BYTES_MIN) => bytes /= 2,
                made => return made.map(|file| (file, bytes)),
            }
        }
    }

    fn make_large(&self, bytes: u64) -> io::Result<Spare> {
        let path = self.dir.join(LARGE);
        let made = self.files.make(&path, bytes);
        if made.is_err() {
            let _ = self.files.remove(&path);
        }
        Ok(Spare { file: made?, bytes, path })
    }

    /// The unused file of a former process. Its contents are no records of ours: checksums are salted.
    fn left(&self, needed: u64) -> io::Result<Option<(StorageFile, u64)>> {
        match self.files.open_to_write(&path(&self.dir)) {
            Ok(file) => {
                let bytes = file.length()?;
                Ok((needed.max(BYTES_MIN.min(self.bytes))..=self.bytes).contains(&bytes).then_some((file, bytes)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Logs once that room is scarce, and once that it is not any more.
    fn log_room(&self) {
        let Ok(room) = self.files.room(&self.dir) else { return };
        let (left, dir) = (room / self.bytes, self.dir.display());
        let now = if left < SEGMENTS_LEFT_MIN { LITTLE } else { ENOUGH };
        let before = self.reported.swap(now, Ordering::Relaxed);
        if now == LITTLE && before != LITTLE {
            warn!(
                "the disk under the log in {dir} is nearly full: behind the spare there is room for {left} more \
                 segments of {} bytes. Make room before events are refused",
                self.bytes
            );
        } else if now == ENOUGH && before != ENOUGH {
            info!("the disk under the log in {dir} has room again");
        }
    }

    fn log_failure(&self, error: &io::Error) {
        if self.reported.swap(NONE, Ordering::Relaxed) != NONE {
            warn!(
                %error,
                "no next segment for the disk log in {}: {error}. Events are refused once the current one is full",
                self.dir.display()
            );
        }
    }
}
