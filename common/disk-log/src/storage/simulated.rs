//! A simulated disk: the simulation can observe, refuse or stop each call, and cut the power.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Access, File, Storage, StorageFile};

/// One directory, with the calls that a log makes to the kernel. Open files have a number, which stays valid when the
/// name changes.
pub trait Disk: fmt::Debug + Send + Sync {
    fn names(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<u64>;
    /// Replaces any file of this name.
    fn create(&self, name: &str) -> io::Result<u64>;
    fn length(&self, file: u64) -> io::Result<u64>;
    /// Extends with zeros, or shortens.
    fn resize(&self, file: u64, bytes: u64) -> io::Result<()>;
    /// Fewer bytes than requested only at the end.
    fn read(&self, file: u64, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Returns the number of bytes written.
    fn write(&self, file: u64, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Returns when all writes to the file are durable.
    fn sync(&self, file: u64) -> io::Result<()>;
    /// Replaces any file of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when all names are durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Free bytes.
    fn room(&self) -> io::Result<u64>;
}

#[derive(Clone, Debug)]
pub(in super::super) struct Simulated(pub Arc<dyn Disk>);

#[derive(Debug)]
struct SimulatedFile {
    disk: Arc<dyn Disk>,
    number: u64,
}

impl Simulated {
    fn file(&self, number: u64) -> StorageFile {
        Arc::new(SimulatedFile { disk: self.0.clone(), number })
    }
}

impl Storage for Simulated {
    fn allows_threads(&self) -> bool {
        false
    }

    fn names(&self, _: &Path) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<StorageFile> {
        Ok(self.file(self.0.open(name(path))?))
    }

    fn create(&self, path: &Path) -> io::Result<StorageFile> {
        Ok(self.file(self.0.create(name(path))?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(name(from), name(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(name(path))
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.0.sync_names()
    }

    fn room(&self, _: &Path) -> io::Result<u64> {
        self.0.room()
    }
}

impl File for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        self.disk.length(self.number)
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.disk.resize(self.number, bytes)
    }

    fn fill(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.disk.read(self.number, bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.disk.write(self.number, bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(self.number)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.sync(self.number)
    }
}

/// A disk with one directory knows file names only.
fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
