//! One file of zeros ahead, made in the background: the next segment never waits for room, and lack of it is known early.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use tracing::warn;

use super::files::{self, Files};

/// The finished spare.
const SPARE: &str = "spare";
/// The spare while it is being filled with zeros.
const UNFINISHED: &str = "spare.tmp";
/// A file for a group that is larger than a segment.
const LARGE: &str = "large.tmp";

/// Makes files for segments.
pub(super) struct Spares {
    dir: PathBuf,
    files: Files,
    bytes: u64,
    making: Option<JoinHandle<io::Result<File>>>,
}

impl Spares {
    /// Begins with what a former process left.
    pub fn new(dir: PathBuf, files: Files, bytes: u64) -> io::Result<Self> {
        for unfinished in [UNFINISHED, LARGE] {
            files::remove(&dir.join(unfinished))?;
        }
        Ok(Self { dir, files, bytes, making: None })
    }

    /// A file of at least so many bytes, and where it is for now. Once it was renamed or removed, [`Self::prepare`] the next.
    pub fn take(&mut self, bytes: u64) -> io::Result<(File, PathBuf)> {
        if bytes > self.bytes {
            let path = self.dir.join(LARGE);
            let made = self.files.make(&path, bytes);
            if made.is_err() {
                let _ = files::remove(&path);
            }
            return Ok((made?, path));
        }
        let path = self.dir.join(SPARE);
        let made = self.making.take().map(JoinHandle::join);
        if let Some(Ok(Ok(file))) = made {
            return Ok((file, path));
        }
        if let Some(file) = left(&path, self.bytes)? {
            return Ok((file, path));
        }
        Ok((make(&self.dir, &self.files, self.bytes)?, path))
    }

    /// Begins to make the next one, unless there is one.
    pub fn prepare(&mut self) {
        if self.making.is_some() {
            return;
        }
        let (dir, files, bytes) = (self.dir.clone(), self.files.clone(), self.bytes);
        let make = move || {
            make(&dir, &files, bytes).inspect_err(|error| {
                warn!(%error, "no room for the next segment of the disk log in {}: {error}", dir.display());
            })
        };
        // Without a thread the spare is made when it is needed.
        self.making = thread::Builder::new().name("disk-log-spare".into()).spawn(make).ok();
    }
}

impl Drop for Spares {
    /// Nothing of this log is touched once it is closed.
    fn drop(&mut self) {
        if let Some(making) = self.making.take() {
            let _ = making.join();
        }
    }
}

/// What a former process made and did not use. What it may hold is no record of ours: checksums are salted.
fn left(path: &Path, bytes: u64) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) if file.metadata()?.len() == bytes => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Under the spare's name there are only whole files.
fn make(dir: &Path, files: &Files, bytes: u64) -> io::Result<File> {
    let unfinished = dir.join(UNFINISHED);
    let made = files.make(&unfinished, bytes).and_then(|file| {
        fs::rename(&unfinished, dir.join(SPARE))?;
        files::sync_dir(dir)?;
        Ok(file)
    });
    if made.is_err() {
        let _ = files::remove(&unfinished);
    }
    made
}
