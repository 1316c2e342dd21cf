//! The kernel's file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;

use fs4::fs_std::FileExt as _;

use super::{Access, Storage, StorageFile};
use runtime::private;

/// Zeros are written in pieces of this size.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// Reserved by files that are created ahead: for small files, and for other users of the disk.
const ROOM_BYTES_MIN: u64 = 256 * 1024;

#[derive(Debug)]
pub(in super::super) struct Real;

impl Storage for Real {
    fn allows_threads(&self) -> bool {
        true
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        dir.read_dir()?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<StorageFile> {
        Ok(Arc::new(OpenOptions::new().read(true).write(access == Access::Write).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<StorageFile> {
        Ok(Arc::new(private::file().read(true).truncate(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn room(&self, dir: &Path) -> io::Result<u64> {
        Ok(free_bytes(dir)?.saturating_sub(ROOM_BYTES_MIN))
    }
}

impl super::File for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    /// Holes would have no space allocated.
    fn fill(&self, bytes: u64) -> io::Result<()> {
        let (mut file, mut left) = (self, bytes);
        while left > 0 {
            let some = &ZEROS[..usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len())];
            file.write_all(some)?;
            left -= some.len() as u64;
        }
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        Self::sync_all(self)
    }
}

/// Bytes of the file system that an unprivileged process may use.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    fs4::available_space(dir)
}

/// Creates missing parents, too. Durable.
pub(in super::super) fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dir(parent)?;
    match fs::DirBuilder::new().mode(private::DIR_MODE).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Real.sync_dir(parent),
    }
}

/// For as long as the file is open.
pub(in super::super) fn lock_dir(dir: &Path) -> io::Result<File> {
    let file = private::lock_file(&dir.join("lock"))?;
    if file.try_lock_exclusive()? {
        return Ok(file);
    }
    let message = format!("the disk log in {} is in use, by this or another process", dir.display());
    Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
}

/// Locks the directory against writers for as long as the file is open, without writing anything; none if a writer
/// has it. Several readers may share it.
pub(in super::super) fn lock_dir_shared(dir: &Path) -> io::Result<Option<SharedLock>> {
    match private::open_no_follow(&dir.join("lock")) {
        Ok(file) => Ok(fs4::fs_std::FileExt::try_lock_shared(&file)?.then_some(SharedLock(Some(file)))),
        // A copy need not have a lock file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(SharedLock(None))),
        Err(error) => Err(error),
    }
}

/// The lock of [`lock_dir_shared`].
#[derive(Debug)]
pub(in super::super) struct SharedLock(#[expect(dead_code, reason = "what counts is that it is open")] Option<File>);
