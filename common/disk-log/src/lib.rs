//! A log in files: an acknowledged record is on the disk, and stays there until it is deleted.
//!
//! One thread writes (`writer`), and one sync acknowledges all waiting appends. Records lie in frames
//! (`frame`, `record`) in segments (`segment`), whose files are created ahead (`spare`). Every opening
//! begins a new segment, so that a torn end needs no repair (`recovery`). Readers (`reader`) see durable
//! records only. [`Delivered`] and [`DiskEventLog`] are built upon such logs.
//! Where the disk lost durable records, the log refuses to open; [`salvage`] recovers the rest on request.
//!
//! Assumptions about a disk: after a successful sync, everything is durable that was written to the file
//! since it was opened or last synced; a sector of 512 bytes is written wholly or not at all; sectors that
//! are not written stay as they are. Nothing is assumed of writes that were not synced, nor of a file after a
//! failed sync.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use self::files::Files;
use self::group::Group;
use self::state::Shared;
use self::storage::Simulated;
use self::writer::{Request, Writer};
use event_log::Record;
use primitives::block_on;
use primitives::clock::Clock;
use primitives::time::Timestamp;

mod cursor;
mod delivered;
mod disk_event_log;
mod disk_log_query;
mod files;
mod frame;
mod group;
mod inspection;
mod options;
mod reader;
pub mod record;
mod recovery;
mod salvage;
mod segment;
mod spare;
mod state;
mod storage;
#[cfg(test)]
mod tests;
mod writer;

pub use self::delivered::Delivered;
pub use self::disk_event_log::{DiskEventLog, Upkeep};
pub use self::disk_log_query::DiskLogQuery;
pub use self::inspection::{Contents, Inspection, InspectionError};
pub use self::options::{AppendError, Leaves, Options, Place};
pub use self::reader::Reader;
pub use self::salvage::{Salvaged, salvage};
pub use self::storage::{Disk, free_bytes};

/// The queue of the writer; beyond it, appends wait. Also the most that one write takes, but for single larger groups.
const QUEUE_BYTES_MAX: u32 = 8 * 1024 * 1024;
const QUEUE_GROUPS_MAX: usize = 16 * 1024;

/// A log in one directory, locked for as long as any handle lives. Handles are cheap to clone.
///
/// Offsets count records from 0 and have no gaps. Dropping the last handle writes all appended records first.
#[derive(Clone)]
pub struct DiskLog {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

impl DiskLog {
    /// Opens or creates the log. A second opener is refused.
    pub fn open(dir: &Path, options: Options) -> io::Result<Self> {
        Self::open_on(Files::default(), dir, options)
    }

    fn open_on(files: Files, dir: &Path, options: Options) -> io::Result<Self> {
        storage::make_dir(dir)?;
        let lock = storage::lock_dir(dir)?;
        let limits = (options.bytes_max, options.leaves);
        let (shared, writer, queue, requests) = Self::begin(files, dir, options)?;
        let writer = thread::Builder::new().name("disk-log-writer".into()).spawn(move || writer.run(requests))?;
        Ok(Self::of(shared, limits, Work::Elsewhere { queue, writer }, Some(lock)))
    }

    /// On a simulated disk, which the simulation must not open twice.
    ///
    /// It has no threads: appends do the writer's work, and [`Self::idle`] its background work.
    pub fn open_simulated(disk: Arc<dyn Disk>, clock: Clock, options: Options) -> io::Result<Self> {
        let limits = (options.bytes_max, options.leaves);
        let (shared, writer, ..) =
            Self::begin(Files::on(Arc::new(Simulated(disk)), clock), Path::new("simulated"), options)?;
        Ok(Self::of(shared, limits, Work::Here(Box::new(Mutex::new(writer))), None))
    }

    fn begin(files: Files, dir: &Path, options: Options) -> io::Result<Begun> {
        let files = files.leaving(options.leaves.bytes);
        let found = recovery::recover(&files, dir)?;
        let segments = found.older.iter().chain(&found.newest).copied().collect();
        let shared = Arc::new(Shared::new(dir.to_owned(), files, found.log, segments, found.end));
        let (queue, requests) = mpsc::channel(QUEUE_GROUPS_MAX);
        let writer = Writer::open(shared.clone(), options, found, queue.downgrade())?;
        Ok((shared, writer, queue, requests))
    }

    fn of(shared: Arc<Shared>, (bytes_max, leaves): (Option<u64>, Leaves), work: Work, lock: Option<File>) -> Self {
        let places = Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize));
        let bytes_max = bytes_max.unwrap_or(u64::MAX);
        Self { shared, handle: Arc::new(Handle { work: Some(work), places, bytes_max, leaves, _lock: lock }) }
    }

    /// On a simulated disk: what the writer does when it has nothing else to do.
    pub fn idle(&self) {
        if let Some(Work::Here(writer)) = &self.handle.work {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.serve([Request::Probe]);
            writer.mark();
        }
    }

    pub fn clock(&self) -> &Clock {
        self.shared.files.clock()
    }

    /// Created once, with the directory.
    pub fn identity(&self) -> Uuid {
        self.shared.log
    }

    /// Resolves once the records are durable, all or none, with the offset of the first.
    ///
    /// Without records it returns the durable end at once. Dropping the future does not take the records back.
    pub async fn append(&self, records: Vec<Record>) -> Result<u64, AppendError> {
        if records.is_empty() {
            return Ok(self.bounds().1);
        }
        let group = Group::new(&records)?;
        drop(records);
        self.queue(group).await
    }

    /// For a thread that may block.
    pub fn append_blocking(&self, records: Vec<Record>) -> Result<u64, AppendError> {
        block_on(self.append(records))
    }

    /// For a caller that tries again with the same records.
    pub(crate) fn try_append_blocking(&self, records: &[Record]) -> Result<u64, AppendError> {
        if records.is_empty() {
            return Ok(self.bounds().1);
        }
        block_on(self.queue(Group::new(records)?))
    }

    async fn queue(&self, (mut group, answered): group::Awaited) -> Result<u64, AppendError> {
        let places = u32::try_from(group.bytes()).unwrap_or(QUEUE_BYTES_MAX).min(QUEUE_BYTES_MAX);
        group.place = Some(self.handle.places.clone().acquire_many_owned(places).await.map_err(|_| ended())?);
        self.handle.send(Request::Append(group)).await?;
        answered.await.map_err(|_| ended())?
    }

    /// The first offset, and the one behind the last durable record.
    pub fn bounds(&self) -> (u64, u64) {
        self.shared.bounds()
    }

    /// Waits up to `wait` until the log's durable end is beyond `offset`. Returns whether it is.
    pub(crate) fn wait_beyond(&self, offset: u64, wait: Duration) -> bool {
        self.shared.wait_beyond(offset, wait)
    }

    /// Begins at `offset`, or at the first offset if that is higher.
    ///
    /// At a future offset, it returns nothing until that is durable.
    pub fn reader(&self, offset: u64) -> io::Result<Reader> {
        Ok(Reader::new(self.clone(), offset))
    }

    /// The first offset whose record may be as young as `at`, to the segment.
    pub fn offset_at(&self, at: Timestamp) -> u64 {
        self.shared.offset_at(at)
    }

    /// Deletes whole segments that hold only offsets below `offset`, never the current one.
    pub fn delete_before(&self, offset: u64) -> io::Result<()> {
        self.shared.delete_while(|segment| segment.end <= offset)
    }

    /// Deletes whole segments whose every record is older than `at`. If the current one qualifies, it is closed.
    pub fn delete_older_than(&self, at: Timestamp) -> io::Result<()> {
        self.delete_older_than_and_before(at, u64::MAX)
    }

    /// Deletes nothing at or beyond `offset`.
    pub(crate) fn delete_older_than_and_before(&self, at: Timestamp, offset: u64) -> io::Result<()> {
        let doomed = |segment: &segment::Segment| segment.latest < at && segment.end <= offset;
        if self.shared.current().is_some_and(|current| !current.is_empty() && doomed(&current)) {
            let (done, is_done) = tokio::sync::oneshot::channel();
            block_on(self.handle.send(Request::Retire(at, done))).map_err(io::Error::other)?;
            let _ = block_on(is_done);
        }
        self.shared.delete_while(doomed)
    }

    /// Deletes the oldest segments while the total is more than `bytes_max`, never the current one. Returns the number
    /// of deleted records.
    pub(crate) fn delete_beyond(&self, bytes_max: u64) -> io::Result<u64> {
        let (first, _) = self.bounds();
        let excess = Cell::new(self.bytes().saturating_sub(bytes_max));
        let deleted = self.shared.delete_while(|oldest| {
            let left = excess.get();
            excess.set(left.saturating_sub(oldest.bytes));
            left > 0
        });
        deleted.map(|()| self.bounds().0.saturating_sub(first))
    }

    /// Everything derived from records before this place was written: the room reserved for it is released.
    pub(crate) fn was_used(&self, until: Place) {
        self.shared.was_used(until);
    }

    /// Bytes of the records in files, for metrics and the limit.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    /// About how many more bytes fit, for metrics: the rest of the limit or of the disk, whichever is less.
    pub fn room(&self) -> io::Result<u64> {
        if self.handle.leaves.times_unused > 0 {
            return self.shared.room_with_what_follows(self.handle.leaves);
        }
        let length = |path: PathBuf| self.shared.files.length(&path);
        let beyond = |path: PathBuf, used: u64| length(path).map_or(0, |bytes| bytes.saturating_sub(used));
        let current = self.shared.current();
        let left = current.map_or(0, |current| beyond(segment::path(&self.shared.dir, current.number), current.bytes));
        let disk = self.shared.files.room(&self.shared.dir)? + left + beyond(spare::path(&self.shared.dir), 0);
        Ok(disk.min(self.handle.bytes_max.saturating_sub(self.bytes())))
    }

    /// The reason why nothing can be written now. The log retries by itself.
    pub fn fault(&self) -> Option<String> {
        self.shared.fault()
    }

    pub fn dir(&self) -> PathBuf {
        self.shared.dir.clone()
    }
}

impl fmt::Debug for DiskLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DiskLog").field(&self.shared.dir).finish()
    }
}

/// Dropped with the last handle: first the writer, then the lock.
struct Handle {
    work: Option<Work>,
    /// Bytes left in the queue.
    places: Arc<Semaphore>,
    bytes_max: u64,
    leaves: Leaves,
    _lock: Option<File>,
}

enum Work {
    Elsewhere { queue: mpsc::Sender<Request>, writer: JoinHandle<()> },
    Here(Box<Mutex<Writer>>),
}

type Begun = (Arc<Shared>, Writer, mpsc::Sender<Request>, mpsc::Receiver<Request>);

impl Handle {
    async fn send(&self, request: Request) -> Result<(), AppendError> {
        match self.work.as_ref().ok_or_else(ended)? {
            Work::Elsewhere { queue, .. } => queue.send(request).await.map_err(|_| ended()),
            Work::Here(writer) => {
                writer.lock().unwrap_or_else(PoisonError::into_inner).serve([request]);
                Ok(())
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        match self.work.take() {
            Some(Work::Elsewhere { queue, writer }) => {
                drop(queue);
                let _ = writer.join();
            }
            Some(Work::Here(writer)) => writer.into_inner().unwrap_or_else(PoisonError::into_inner).close(),
            None => {}
        }
    }
}

fn ended() -> AppendError {
    AppendError::Io(Arc::new(io::Error::new(io::ErrorKind::BrokenPipe, "its writer has ended")))
}
