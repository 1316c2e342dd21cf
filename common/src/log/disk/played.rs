//! A disk that somebody plays: a log on it can be watched, refused, killed between two calls, and robbed of its power.

use std::fmt;
use std::io;

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
