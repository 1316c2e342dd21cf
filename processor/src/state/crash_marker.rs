//! What is remembered beside a state of processes that it may have ended: how many, in a file of one number.

use std::fs;
use std::io;
use std::path::Path;

use runtime::private;

use super::beside::beside;

/// So many processes ended while they had the state; none if nothing is remembered.
pub fn ends(dir: &Path) -> u32 {
    match fs::read_to_string(beside(dir, "crash-marker")) {
        // A number that was torn by the end itself is one at least.
        Ok(text) => text.trim().parse().unwrap_or(1),
        Err(_) => 0,
    }
}

/// Remembers that a process may end here.
pub fn note(dir: &Path, ends: u32) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        private::make_dir(parent)?;
    }
    private::write(&beside(dir, "crash-marker"), ends.to_string())
}

/// Forgets it.
pub fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_file(beside(dir, "crash-marker")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
