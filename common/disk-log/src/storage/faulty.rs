//! The kernel's file system, which fails on request, with a tape of all calls.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::files::Files;
use super::{Access, File, Real, Storage, StorageFile};
use primitives::clock::Clock;

/// What fails next.
#[derive(Debug)]
pub(crate) struct Faults {
    /// No new file fits.
    pub full: AtomicBool,
    /// So many bytes are free; the disk itself is asked if it is `u64::MAX`.
    pub room: AtomicU64,
    /// So many syncs fail, from the next one on.
    pub syncs: AtomicU32,
    /// After so many more syncs, all fail; never if negative.
    pub dies_after: AtomicI64,
    /// So many writes stop halfway, from the next one on.
    pub writes: AtomicU32,
    /// So many syncs of directories fail, from the next one on.
    pub dirs: AtomicU32,
    /// So many removals fail, from the next one on.
    pub removals: AtomicU32,
    /// Syncs say yes without asking the disk: where no power is lost, they only cost time.
    pub hasty: AtomicBool,
    tape: Mutex<Option<Vec<Act>>>,
}

/// The calls of the disk, and the results that were returned; files are known by their inodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// An empty file.
    Made { node: u64, name: String },
    /// It is so many zeros long.
    Zeroed { node: u64, bytes: u64 },
    /// These bytes were passed to the kernel.
    Wrote { node: u64, at: u64, bytes: Vec<u8> },
    /// A sync succeeded.
    Synced { node: u64 },
    /// A sync failed: what was not durable may never be, whatever later syncs say.
    NotSynced { node: u64 },
    /// The rest was cut off.
    Cut { node: u64, bytes: u64 },
    /// In the log's directory.
    Renamed { from: String, to: String },
    /// In the log's directory.
    Removed { name: String },
    /// The directory was synced.
    SyncedDir,
    /// A sync of the directory failed.
    NotSyncedDir,
    /// The log's user was answered: the record of this number is kept at this offset.
    Answered { offset: u64, number: u64 },
    /// The log's user is about to say that it needs this one no longer.
    Delivered { offset: u64 },
    /// That it needs these no longer was saved.
    Saved { offsets: Vec<u64> },
}

impl Default for Faults {
    fn default() -> Self {
        let (full, syncs, writes, dirs, removals, hasty, tape) = Default::default();
        let (room, dies_after) = (AtomicU64::new(u64::MAX), AtomicI64::new(-1));
        Self { full, room, syncs, dies_after, writes, dirs, removals, hasty, tape }
    }
}

impl Faults {
    /// From now on nothing fails.
    pub fn mend(&self) {
        self.full.store(false, Ordering::SeqCst);
        self.room.store(u64::MAX, Ordering::SeqCst);
        for counted in [&self.syncs, &self.writes, &self.dirs, &self.removals] {
            counted.store(0, Ordering::SeqCst);
        }
        self.dies_after.store(-1, Ordering::SeqCst);
    }

    /// From now on all is written down.
    pub fn record(&self) {
        *self.tape() = Some(Vec::new());
    }

    /// What was written down so far.
    pub fn recorded(&self) -> Vec<Act> {
        self.tape().clone().unwrap_or_default()
    }

    /// Writes down what is seen from outside.
    pub fn note(&self, act: Act) {
        if let Some(tape) = &mut *self.tape() {
            tape.push(act);
        }
    }

    fn fail_sync(&self) -> io::Result<()> {
        let left = self.dies_after.load(Ordering::SeqCst);
        if left > 0 {
            self.dies_after.store(left - 1, Ordering::SeqCst);
        }
        if left == 0 || one(&self.syncs) { Err(io::Error::other("a bad block")) } else { Ok(()) }
    }

    fn tape(&self) -> std::sync::MutexGuard<'_, Option<Vec<Act>>> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// A log's files on a disk that fails as these say.
pub(crate) fn files() -> (Files, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    (Files::on(Arc::new(Faulty(faults.clone())), Clock::default()), faults)
}

/// The kernel's file system with faults.
#[derive(Debug)]
struct Faulty(Arc<Faults>);

/// An open file, known by its inode.
#[derive(Debug)]
struct FaultyFile {
    file: StorageFile,
    node: u64,
    faults: Arc<Faults>,
}

impl Faulty {
    fn opened(&self, file: StorageFile, path: &Path) -> io::Result<FaultyFile> {
        Ok(FaultyFile { file, node: fs::metadata(path)?.ino(), faults: self.0.clone() })
    }
}

impl Storage for Faulty {
    fn allows_threads(&self) -> bool {
        true
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        Real.names(dir)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<StorageFile> {
        Ok(Arc::new(self.opened(Real.open(path, access)?, path)?))
    }

    fn create(&self, path: &Path) -> io::Result<StorageFile> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let open = self.opened(Real.create(path)?, path)?;
        self.0.note(Act::Made { node: open.node, name: name(path) });
        Ok(Arc::new(open))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Real.rename(from, to)?;
        self.0.note(Act::Renamed { from: name(from), to: name(to) });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if one(&self.0.removals) {
            return Err(io::Error::other("a bad block"));
        }
        Real.remove(path)?;
        self.0.note(Act::Removed { name: name(path) });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if one(&self.0.dirs) {
            self.0.note(Act::NotSyncedDir);
            return Err(io::Error::other("a bad block"));
        }
        // The tape says so a moment before it is true: no result is returned in between.
        self.0.note(Act::SyncedDir);
        if self.0.hasty.load(Ordering::SeqCst) { Ok(()) } else { Real.sync_dir(dir) }
    }

    fn room(&self, dir: &Path) -> io::Result<u64> {
        let room = self.0.room.load(Ordering::SeqCst);
        if room < u64::MAX { Ok(room) } else { Real.room(dir) }
    }
}

impl File for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.file.resize(bytes)?;
        self.faults.note(Act::Cut { node: self.node, bytes });
        Ok(())
    }

    fn fill(&self, bytes: u64) -> io::Result<()> {
        self.file.fill(bytes)?;
        self.faults.note(Act::Zeroed { node: self.node, bytes });
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let fails = one(&self.faults.writes);
        let taken = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        let written = self.file.write_at(taken, at)?;
        self.faults.note(Act::Wrote { node: self.node, at, bytes: taken[..written].to_vec() });
        if fails { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let hasty = self.faults.hasty.load(Ordering::SeqCst);
        let synced = self.faults.fail_sync().and_then(|()| if hasty { Ok(()) } else { self.file.sync_data() });
        let node = self.node;
        self.faults.note(if synced.is_ok() { Act::Synced { node } } else { Act::NotSynced { node } });
        synced
    }

    /// Files that are made ahead are synced in this way, which never fails here.
    fn sync_all(&self) -> io::Result<()> {
        if !self.faults.hasty.load(Ordering::SeqCst) {
            self.file.sync_all()?;
        }
        self.faults.note(Act::Synced { node: self.node });
        Ok(())
    }
}
