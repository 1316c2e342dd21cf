//! Counts crashes while a state was open, in a file beside it.

use std::fs;
use std::io;
use std::path::Path;

use runtime::private;

use super::beside::beside;

/// The number of processes that ended while they had the state open.
pub fn ends(dir: &Path) -> u32 {
    match fs::read_to_string(beside(dir, "crash-marker")) {
        // A number that was torn by the crash is at least 1.
        Ok(text) => text.trim().parse().unwrap_or(1),
        Err(_) => 0,
    }
}

pub fn note(dir: &Path, ends: u32) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        private::make_dir(parent)?;
    }
    private::write(&beside(dir, "crash-marker"), ends.to_string())
}

pub fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_file(beside(dir, "crash-marker")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
