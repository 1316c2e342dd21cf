//! The calls that a disk may fail, in one place, so that tests can make them fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use fs4::fs_std::FileExt as _;

/// Zeros are written so many at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The disk under a log.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    #[cfg(test)]
    pub faults: std::sync::Arc<faults::Faults>,
}

#[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests make a disk fail"))]
impl Files {
    /// Makes a file of zeros that are on the disk.
    pub fn make(&self, path: &Path, bytes: u64) -> io::Result<File> {
        #[cfg(test)]
        self.faults.make()?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let mut left = bytes;
        while left > 0 {
            let some = &ZEROS[..usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len())];
            file.write_all(some)?;
            left -= some.len() as u64;
        }
        file.sync_all()?;
        Ok(file)
    }

    /// Writes all or fails: a short write counts as failure, since nobody knows what became of the rest.
    pub fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.write(file, bytes, at)?;
        loop {
            match file.write_at(bytes, at) {
                Ok(written) if written == bytes.len() => return Ok(()),
                Ok(_) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took only a part")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns when all that was written to the file is on the disk.
    pub fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.faults.sync()?;
        file.sync_data()
    }
}

/// Returns when the directory's entries are on the disk.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
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

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Replaces a small file, durably: it is the old one or the new one, whatever happens.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

/// Whether a call failed for want of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
pub(super) mod faults {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

    /// What fails next.
    #[derive(Debug)]
    pub(in crate::log::disk) struct Faults {
        /// No new file fits.
        pub full: AtomicBool,
        /// So many syncs fail, from the next one on.
        pub syncs: AtomicU32,
        /// After so many more syncs, all fail; never if negative.
        pub dies_after: AtomicI64,
        /// So many writes stop halfway, from the next one on.
        pub writes: AtomicU32,
    }

    impl Default for Faults {
        fn default() -> Self {
            let (full, syncs, writes) = Default::default();
            Self { full, syncs, dies_after: AtomicI64::new(-1), writes }
        }
    }

    impl Faults {
        pub(super) fn make(&self) -> io::Result<()> {
            if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        pub(super) fn sync(&self) -> io::Result<()> {
            let left = self.dies_after.load(Ordering::SeqCst);
            if left > 0 {
                self.dies_after.store(left - 1, Ordering::SeqCst);
            }
            if left == 0 || one(&self.syncs) { Err(io::Error::other("a bad block")) } else { Ok(()) }
        }

        pub(super) fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
            if !one(&self.writes) {
                return Ok(());
            }
            file.write_all_at(&bytes[..bytes.len() / 2], at)?;
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    fn one(left: &AtomicU32) -> bool {
        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}
