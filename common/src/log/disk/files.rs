//! The calls that a disk may fail, in one place, so that tests can make them fail and write down what was asked of the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fs4::fs_std::FileExt as _;

use super::played::Disk;
use crate::clock::Clock;
use crate::private;

#[cfg(test)]
pub(super) mod faults;

/// Zeros are written so many at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// Left free by files that are made ahead: for small files, and for those who share the disk.
const ROOM_BYTES_MIN: u64 = 256 * 1024;

/// The disk under a log, and the clock beside it.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// Who plays the disk, if it is not the kernel's.
    played: Option<Arc<dyn Disk>>,
    clock: Clock,
    /// Bytes of the disk that this log does not take, now: what comes after it needs them.
    leaves: Arc<AtomicU64>,
    #[cfg(test)]
    pub faults: Arc<faults::Faults>,
}

/// An open file.
#[derive(Debug)]
pub(super) enum DiskFile {
    /// The kernel's.
    Real(File),
    /// Of a disk that is played.
    Played(Arc<dyn Disk>, u64),
}

impl Files {
    /// A disk that is played, by this clock.
    pub fn played(disk: Arc<dyn Disk>, clock: Clock) -> Self {
        let mut files = Self::default();
        (files.played, files.clock) = (Some(disk), clock);
        files
    }

    /// The same disk for another log, which leaves so many bytes of it to others.
    pub fn leaving(self, bytes: u64) -> Self {
        Self { leaves: Arc::new(bytes.into()), ..self }
    }

    /// From now on it leaves so many.
    pub fn leave(&self, bytes: u64) {
        self.leaves.store(bytes, Ordering::Relaxed);
    }

    /// Whether somebody plays the disk: then nothing has a thread of its own.
    pub fn is_played(&self) -> bool {
        self.played.is_some()
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What it says.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// How long ago that was.
    pub fn since(&self, at: Instant) -> Duration {
        self.clock.since(at)
    }

    /// The names in a directory.
    pub fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        match &self.played {
            Some(disk) => disk.names(),
            None => dir.read_dir()?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        }
    }

    /// Opens a file to be read.
    pub fn open(&self, path: &Path) -> io::Result<DiskFile> {
        self.open_as(path, OpenOptions::new().read(true))
    }

    /// Opens a file to be read and written.
    pub fn open_to_write(&self, path: &Path) -> io::Result<DiskFile> {
        self.open_as(path, OpenOptions::new().read(true).write(true))
    }

    fn open_as(&self, path: &Path, options: &OpenOptions) -> io::Result<DiskFile> {
        match &self.played {
            Some(disk) => Ok(DiskFile::Played(disk.clone(), disk.open(name(path))?)),
            None => options.open(path).map(DiskFile::Real),
        }
    }

    /// A small file, whole.
    pub fn read_to_string(&self, path: &Path) -> io::Result<String> {
        if self.played.is_none() {
            return fs::read_to_string(path);
        }
        let file = self.open(path)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// How long a file is.
    pub fn length(&self, path: &Path) -> io::Result<u64> {
        match &self.played {
            Some(_) => self.open(path)?.length(),
            None => Ok(fs::metadata(path)?.len()),
        }
    }

    /// Makes a file of zeros that are on the disk. Does not even begin where there is no room.
    pub fn make(&self, path: &Path, bytes: u64) -> io::Result<DiskFile> {
        if let Some(dir) = path.parent()
            && self.room(dir)? < bytes
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.create(path)?;
        file.fill(bytes)?;
        #[cfg(test)]
        return self.faults.zeroed(file, bytes);
        #[cfg(not(test))]
        file.sync_all().map(|()| file)
    }

    /// Writes all or fails: a short write counts as failure, since nobody knows what became of the rest.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests make a disk fail"))]
    pub fn write(&self, file: &DiskFile, bytes: &[u8], at: u64) -> io::Result<()> {
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
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests make a disk fail"))]
    pub fn sync(&self, file: &DiskFile) -> io::Result<()> {
        #[cfg(test)]
        return self.faults.sync(file);
        #[cfg(not(test))]
        file.sync_data()
    }

    /// Cuts a file to this length, if it is longer.
    pub fn cut(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = self.open_to_write(path)?;
        if file.length()? > bytes {
            file.resize(bytes)?;
            #[cfg(test)]
            self.faults.cut(&file, bytes);
        }
        Ok(())
    }

    /// Gives a file another name. Durable once the directory is synced.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match &self.played {
            Some(disk) => disk.rename(name(from), name(to))?,
            None => fs::rename(from, to)?,
        }
        #[cfg(test)]
        self.faults.renamed(from, to);
        Ok(())
    }

    /// Removes a file that may be gone already. Durable once the directory is synced.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.faults.remove()?;
        let removed = match &self.played {
            Some(disk) => disk.remove(name(path)),
            None => fs::remove_file(path),
        };
        match removed {
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
        match &self.played {
            Some(disk) => disk.sync_names(),
            None => sync_dir(dir),
        }
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

    /// How many bytes of the disk the log can still take, without what it leaves to others.
    pub fn room(&self, dir: &Path) -> io::Result<u64> {
        Ok(self.free(dir)?.saturating_sub(self.leaves.load(Ordering::Relaxed)))
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        #[cfg(test)]
        if let Some(room) = self.faults.room() {
            return Ok(room);
        }
        match &self.played {
            Some(disk) => disk.room(),
            None => Ok(free_bytes(dir)?.saturating_sub(ROOM_BYTES_MIN)),
        }
    }

    fn create(&self, path: &Path) -> io::Result<DiskFile> {
        #[cfg(test)]
        self.faults.make()?;
        let file = match &self.played {
            Some(disk) => DiskFile::Played(disk.clone(), disk.create(name(path))?),
            None => DiskFile::Real(private::file().read(true).truncate(true).open(path)?),
        };
        #[cfg(test)]
        self.faults.made(&file, path);
        Ok(file)
    }
}

impl DiskFile {
    /// How long it is.
    pub fn length(&self) -> io::Result<u64> {
        match self {
            Self::Real(file) => Ok(file.metadata()?.len()),
            Self::Played(disk, file) => disk.length(*file),
        }
    }

    /// Reads; fewer bytes than asked for only at the end.
    pub fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::Real(file) => file.read_at(bytes, at),
            Self::Played(disk, file) => disk.read(*file, bytes, at),
        }
    }

    /// Reads all that was asked for.
    pub fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.read_exact_at(bytes, at),
            Self::Played(disk, file) if disk.read(*file, bytes, at)? == bytes.len() => Ok(()),
            Self::Played(..) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        match self {
            Self::Real(file) => file.write_at(bytes, at),
            Self::Played(disk, file) => disk.write(*file, bytes, at),
        }
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.set_len(bytes),
            Self::Played(disk, file) => disk.resize(*file, bytes),
        }
    }

    /// Makes an empty file this long. Written zeros have their room on a real disk, and holes have none.
    fn fill(&self, bytes: u64) -> io::Result<()> {
        let mut file = match self {
            Self::Real(file) => file,
            Self::Played(..) => return self.resize(bytes),
        };
        let mut left = bytes;
        while left > 0 {
            let some = &ZEROS[..usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len())];
            file.write_all(some)?;
            left -= some.len() as u64;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_data(),
            Self::Played(disk, file) => disk.sync(*file),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_all(),
            Self::Played(disk, file) => disk.sync(*file),
        }
    }
}

/// How many bytes are free for us on the file system of a directory.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    fs4::available_space(dir)
}

/// The only part of a path that a disk knows which has one directory.
fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
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
    match fs::DirBuilder::new().mode(private::DIR_MODE).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => sync_dir(parent),
    }
}

/// Locks the directory for as long as the file is open.
pub(super) fn lock_dir(dir: &Path) -> io::Result<File> {
    let file = private::lock_file(&dir.join("lock"))?;
    if file.try_lock_exclusive()? {
        return Ok(file);
    }
    let message = format!("the disk log in {} is in use, by this or another process", dir.display());
    Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
}

/// Keeps others from taking the directory for as long as the file is open, without writing anything; none if somebody
/// has it. Whoever only looks may look beside others who do.
pub(super) fn look_at_dir(dir: &Path) -> io::Result<Option<Looking>> {
    match private::open_no_follow(&dir.join("lock")) {
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
