//! What a log asks of the disk below it, and nothing else: the kernel's, one that fails on purpose, or a simulated one.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

#[cfg(test)]
pub(super) mod faulty;
mod real;
mod simulated;

pub use real::free_bytes;
pub(super) use real::{Looking, Real, lock_dir, look_at_dir, make_dir};
pub use simulated::Disk;
pub(super) use simulated::Simulated;

/// Directories and the names in them.
pub(super) trait Storage: fmt::Debug + Send + Sync {
    /// Whether work may be done in the background. A simulated disk decides itself what happens next.
    fn allows_threads(&self) -> bool;
    /// The names in a directory.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file that exists.
    fn open(&self, path: &Path, access: Access) -> io::Result<StorageFile>;
    /// Makes an empty file in place of any of this name.
    fn create(&self, path: &Path) -> io::Result<StorageFile>;
    /// Gives a file another name, in place of any that has it. Durable once the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name. Durable once the directory is synced.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns when the directory's names are durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// How many bytes fit into new files.
    fn room(&self, dir: &Path) -> io::Result<u64>;
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Reads only.
    Read,
    /// Reads and writes.
    Write,
}

/// An open file, whatever becomes of its name.
pub(super) type StorageFile = Arc<dyn File>;

/// What can be done with an open file.
pub(super) trait File: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Makes it longer, with zeros, or shorter.
    fn resize(&self, bytes: u64) -> io::Result<()>;
    /// Makes an empty file this long, of zeros that have their room on the disk. Durable once the file is synced.
    fn fill(&self, bytes: u64) -> io::Result<()>;
    /// Reads; fewer bytes than asked for only at the end.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes; how many bytes of these.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Returns when what was written is durable.
    fn sync_data(&self) -> io::Result<()>;
    /// The same, with the file's length and its other properties.
    fn sync_all(&self) -> io::Result<()>;
}

/// Reads all that was asked for.
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
