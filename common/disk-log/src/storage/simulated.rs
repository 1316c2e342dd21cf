//! A simulated disk: a log on it can be watched, refused, killed between two calls, and robbed of its power.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Access, File, Storage, StorageFile};

/// One directory, with what a log asks of the kernel. Files are known by a number once they are open, whatever becomes of
/// their names.
pub trait Disk: fmt::Debug + Send + Sync {
    /// All names.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<u64>;
    /// Makes an empty file in place of any of this name.
    fn create(&self, name: &str) -> io::Result<u64>;
    /// How long a file is.
    fn length(&self, file: u64) -> io::Result<u64>;
    /// Makes a file longer, with zeros, or shorter.
    fn resize(&self, file: u64, bytes: u64) -> io::Result<()>;
    /// Reads; fewer bytes than asked for only at the end.
    fn read(&self, file: u64, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Writes; how many bytes of these.
    fn write(&self, file: u64, bytes: &[u8], at: u64) -> io::Result<usize>;
    /// Returns when what was written to the file is durable.
    fn sync(&self, file: u64) -> io::Result<()>;
    /// Gives a file another name, in place of any that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when all names are durable.
    fn sync_names(&self) -> io::Result<()>;
    /// How many bytes there is room for.
    fn room(&self) -> io::Result<u64>;
}

/// A log's storage on such a disk.
#[derive(Clone, Debug)]
pub(in super::super) struct Simulated(pub Arc<dyn Disk>);

/// An open file of it.
#[derive(Debug)]
struct Open {
    disk: Arc<dyn Disk>,
    number: u64,
}

impl Simulated {
    fn file(&self, number: u64) -> StorageFile {
        Arc::new(Open { disk: self.0.clone(), number })
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

impl File for Open {
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

/// The only part of a path that a disk with one directory knows.
fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
