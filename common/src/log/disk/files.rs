//! The calls that a disk may fail, in one place, so that tests can make them fail and write down what was asked of the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use fs4::fs_std::FileExt as _;

#[cfg(test)]
pub(super) mod faults;

/// Zeros are written so many at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// Left free by files that are made ahead: for small files, and for those who share the disk.
const ROOM_BYTES_MIN: u64 = 256 * 1024;

/// The disk under a log.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    #[cfg(test)]
    pub faults: std::sync::Arc<faults::Faults>,
}

#[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests make a disk fail"))]
impl Files {
    /// Makes a file of zeros that are on the disk. Does not even begin where there is no room.
    pub fn make(&self, path: &Path, bytes: u64) -> io::Result<File> {
        if let Some(dir) = path.parent()
            && self.room(dir)? < bytes
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut file = self.create(path)?;
        let mut left = bytes;
        while left > 0 {
            let some = &ZEROS[..usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len())];
            file.write_all(some)?;
            left -= some.len() as u64;
        }
        #[cfg(test)]
        return self.faults.zeroed(file, bytes);
        #[cfg(not(test))]
        file.sync_all().map(|()| file)
    }

    /// Writes all or fails: a short write counts as failure, since nobody knows what became of the rest.
    pub fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.write(file, bytes, at)?;
        loop {
            match file.write_at(bytes, at) {
                Ok(written) if written == bytes.len() => break,
                Ok(_) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took only a part")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        #[cfg(test)]
        self.faults.wrote(file, bytes, at);
        Ok(())
    }

    /// Returns when all that was written to the file is on the disk.
    pub fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        return self.faults.sync(file);
        #[cfg(not(test))]
        file.sync_data()
    }

    /// Cuts a file to this length, if it is longer.
    pub fn cut(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = File::options().write(true).open(path)?;
        if file.metadata()?.len() > bytes {
            file.set_len(bytes)?;
            #[cfg(test)]
            self.faults.cut(&file, bytes);
        }
        Ok(())
    }

    /// Gives a file another name. Durable once the directory is synced.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        #[cfg(test)]
        self.faults.renamed(from, to);
        Ok(())
    }

    /// Removes a file that may be gone already. Durable once the directory is synced.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                #[cfg(test)]
                self.faults.removed(path);
                Ok(())
            }
        }
    }

    /// Returns when the directory's entries are on the disk.
    pub fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        #[cfg(test)]
        if self.faults.sync_dir()? {
            return Ok(());
        }
        sync_dir(dir)
    }

    /// Replaces a small file, durably: it is the old one or the new one, whatever happens.
    pub fn replace(&self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = dir.join(format!("{name}.tmp"));
        let replaced = self.create(&temporary).and_then(|file| {
            self.write(&file, bytes, 0)?;
            self.sync(&file)?;
            self.rename(&temporary, &dir.join(name))?;
            self.sync_dir(dir)
        });
        if replaced.is_err() {
            // It may hold the last free block.
            let _ = self.remove(&temporary);
        }
        replaced
    }

    /// How many bytes the disk can still take, without the little that is left to others.
    pub fn room(&self, dir: &Path) -> io::Result<u64> {
        #[cfg(test)]
        if let Some(room) = self.faults.room() {
            return Ok(room);
        }
        Ok(fs4::available_space(dir)?.saturating_sub(ROOM_BYTES_MIN))
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        #[cfg(test)]
        self.faults.make()?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        #[cfg(test)]
        self.faults.made(&file, path);
        Ok(file)
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory and what is missing above it, durably.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dir(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => sync_dir(parent),
    }
}

/// Locks the directory for as long as the file is open.
pub(super) fn lock_dir(dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("lock"))?;
    if file.try_lock_exclusive()? {
        return Ok(file);
    }
    let message = format!("the disk log in {} is in use, by this or another process", dir.display());
    Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
}

/// Keeps others from taking the directory for as long as the file is open, without writing anything; none if somebody
/// has it. Whoever only looks may look beside others who do.
pub(super) fn look_at_dir(dir: &Path) -> io::Result<Option<Looking>> {
    match File::open(dir.join("lock")) {
        Ok(file) => Ok(fs4::fs_std::FileExt::try_lock_shared(&file)?.then_some(Looking(Some(file)))),
        // A copy need not have one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Looking(None))),
        Err(error) => Err(error),
    }
}

/// Nobody takes the directory while this lives.
#[derive(Debug)]
pub(super) struct Looking(#[expect(dead_code, reason = "what counts is that it is open")] Option<File>);

/// Whether a call failed for want of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
