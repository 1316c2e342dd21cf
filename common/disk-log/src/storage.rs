//! The disk below a log: the kernel's, one that fails on purpose, or a simulated one.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

#[cfg(test)]
pub(super) mod faulty;
mod real;
mod simulated;

pub use real::free_bytes;
pub(super) use real::{Real, SharedLock, lock_dir, lock_dir_shared, make_dir};
pub use simulated::Disk;
pub(super) use simulated::Simulated;

pub(super) trait Storage: fmt::Debug + Send + Sync {
    /// Whether background threads are allowed. A simulated disk decides itself what happens next.
    fn allows_threads(&self) -> bool;
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn open(&self, path: &Path, access: Access) -> io::Result<StorageFile>;
    /// Replaces any file of this name.
    fn create(&self, path: &Path) -> io::Result<StorageFile>;
    /// Replaces any file of the new name. Durable once the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Durable once the directory is synced.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns when the directory's names are durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that fit into new files.
    fn room(&self, dir: &Path) -> io::Result<u64>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Stays open when its name is changed or removed.
pub(super) type StorageFile = Arc<dyn File>;

pub(super) trait File: fmt::Debug + Send + Sync {
    fn length(&self) -> io::Result<u64>;
    /// Extends with zeros, or shortens.
    fn resize(&self, bytes: u64) -> io::Result<()>;
    /// Fills an empty file with zeros that are allocated on the disk. Durable once the file is synced.
    fn fill(&self, bytes: u64) -> io::Result<()>;
    /// Fewer bytes than requested only at the end.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Returns the number of bytes written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Returns when all writes are durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Includes the file's length and other metadata.
    fn sync_all(&self) -> io::Result<()>;
}

pub(super) fn read_exact_at(file: &dyn File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(some) => read += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
