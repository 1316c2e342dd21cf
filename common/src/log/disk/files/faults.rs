//! A disk that fails when it is told to, and a tape of what was asked of it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::DiskFile;

/// What fails next.
#[derive(Debug)]
pub(in crate::log::disk) struct Faults {
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
    /// Syncs say yes without asking the disk: where nobody pulls a plug, they only cost time.
    pub hasty: AtomicBool,
    tape: Mutex<Option<Vec<Act>>>,
}

/// What was asked of the disk, and what was told to others; files are known by their inodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::log::disk) enum Act {
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
    Settled { offset: u64 },
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

    pub(super) fn make(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(super) fn room(&self) -> Option<u64> {
        Some(self.room.load(Ordering::SeqCst)).filter(|room| *room < u64::MAX)
    }

    pub(super) fn made(&self, file: &DiskFile, path: &Path) {
        self.note(Act::Made { node: node(file), name: name(path) });
    }

    /// Files that are made ahead have syncs of their own, which never fail here.
    pub(super) fn zeroed(&self, file: DiskFile, bytes: u64) -> io::Result<DiskFile> {
        self.note(Act::Zeroed { node: node(&file), bytes });
        if !self.hasty.load(Ordering::SeqCst) {
            file.sync_all()?;
        }
        self.note(Act::Synced { node: node(&file) });
        Ok(file)
    }

    pub(super) fn write(&self, file: &DiskFile, bytes: &[u8], at: u64) -> io::Result<()> {
        if !one(&self.writes) {
            return Ok(());
        }
        let half = &bytes[..bytes.len() / 2];
        file.write_at(half, at)?;
        self.wrote(file, half, at);
        Err(io::ErrorKind::WriteZero.into())
    }

    pub(super) fn wrote(&self, file: &DiskFile, bytes: &[u8], at: u64) {
        self.note(Act::Wrote { node: node(file), at, bytes: bytes.to_vec() });
    }

    pub(super) fn sync(&self, file: &DiskFile) -> io::Result<()> {
        let hasty = self.hasty.load(Ordering::SeqCst);
        let synced = self.fail_sync().and_then(|()| if hasty { Ok(()) } else { file.sync_data() });
        let node = node(file);
        self.note(if synced.is_ok() { Act::Synced { node } } else { Act::NotSynced { node } });
        synced
    }

    /// Whether that is all.
    pub(super) fn sync_dir(&self) -> io::Result<bool> {
        if one(&self.dirs) {
            self.note(Act::NotSyncedDir);
            return Err(io::Error::other("a bad block"));
        }
        // The tape says so a moment before it is true: nobody is told in between.
        self.note(Act::SyncedDir);
        Ok(self.hasty.load(Ordering::SeqCst))
    }

    pub(super) fn cut(&self, file: &DiskFile, bytes: u64) {
        self.note(Act::Cut { node: node(file), bytes });
    }

    pub(super) fn renamed(&self, from: &Path, to: &Path) {
        self.note(Act::Renamed { from: name(from), to: name(to) });
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        if one(&self.removals) { Err(io::Error::other("a bad block")) } else { Ok(()) }
    }

    pub(super) fn removed(&self, path: &Path) {
        self.note(Act::Removed { name: name(path) });
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

fn node(file: &DiskFile) -> u64 {
    match file {
        DiskFile::Real(file) => file.metadata().expect("an open file").ino(),
        DiskFile::Played(_, file) => *file,
    }
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}
