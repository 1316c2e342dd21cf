//! The disk under a log and its clock, on any [`Storage`].

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::storage::{Access, Real, Storage, StorageFile, read_exact_at};
use primitives::clock::Clock;

#[derive(Clone, Debug)]
pub(super) struct Files {
    storage: Arc<dyn Storage>,
    clock: Clock,
    /// Bytes of the disk that this log reserves for others.
    leaves: Arc<AtomicU64>,
}

impl Default for Files {
    fn default() -> Self {
        Self::on(Arc::new(Real), Clock::default())
    }
}

impl Files {
    pub fn on(storage: Arc<dyn Storage>, clock: Clock) -> Self {
        Self { storage, clock, leaves: Arc::default() }
    }

    /// The same disk for another log, with this many bytes reserved for others.
    pub fn leaving(self, bytes: u64) -> Self {
        Self { leaves: Arc::new(bytes.into()), ..self }
    }

    pub fn leave(&self, bytes: u64) {
        self.leaves.store(bytes, Ordering::Relaxed);
    }

    /// Whether background threads are allowed.
    pub fn allows_threads(&self) -> bool {
        self.storage.allows_threads()
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub fn since(&self, at: Instant) -> Duration {
        self.clock.since(at)
    }

    pub fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.storage.names(dir)
    }

    pub fn open(&self, path: &Path) -> io::Result<StorageFile> {
        self.storage.open(path, Access::Read)
    }

    pub fn open_to_write(&self, path: &Path) -> io::Result<StorageFile> {
        self.storage.open(path, Access::Write)
    }

    pub fn read_to_string(&self, path: &Path) -> io::Result<String> {
        let file = self.open(path)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).map_err(io::Error::other)?];
        read_exact_at(&*file, &mut bytes, 0)?;
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    pub fn length(&self, path: &Path) -> io::Result<u64> {
        self.open(path)?.length()
    }

    /// Creates a file of durable zeros; fails at once without room.
    pub fn make(&self, path: &Path, bytes: u64) -> io::Result<StorageFile> {
        if let Some(dir) = path.parent()
            && self.room(dir)? < bytes
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.storage.create(path)?;
        file.fill(bytes)?;
        file.sync_all()?;
        Ok(file)
    }

    /// Only shortens.
    pub fn cut(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = self.open_to_write(path)?;
        if file.length()? > bytes {
            file.resize(bytes)?;
        }
        Ok(())
    }

    /// Durable once the directory is synced.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    /// A missing file is no error. Durable once the directory is synced.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match self.storage.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Returns when the directory's entries are durable.
    pub fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.storage.sync_dir(dir)
    }

    /// Replaces a small file durably and atomically.
    pub fn replace(&self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = dir.join(format!("{name}.tmp"));
        let replaced = self.storage.create(&temporary).and_then(|file| {
            write(&file, bytes, 0)?;
            file.sync_data()?;
            self.rename(&temporary, &dir.join(name))?;
            self.sync_dir(dir)
        });
        if replaced.is_err() {
            // It may hold the last free block.
            let _ = self.remove(&temporary);
        }
        replaced
    }

    /// Free bytes, without those reserved for others.
    pub fn room(&self, dir: &Path) -> io::Result<u64> {
        Ok(self.storage.room(dir)?.saturating_sub(self.leaves.load(Ordering::Relaxed)))
    }
}

/// A short write is an error, since the fate of the rest is unknown.
pub(super) fn write(file: &StorageFile, bytes: &[u8], at: u64) -> io::Result<()> {
    loop {
        match file.write_at(bytes, at) {
            Ok(written) if written == bytes.len() => return Ok(()),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took only a part")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
