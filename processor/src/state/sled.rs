//! Rows in sled, the only place that knows it.
//!
//! sled 0.34.7 survives `kill -9`, but not a power loss: it may open torn or empty without an error. So nothing relies
//! on what it says: `Store::open` compares digests, and whatever is odd is quarantined and folded again from `facts`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::room::{Patience, has_room_to_write};
use super::{Row, Rows, StoreError, keys, watchdog};

/// sled's page cache. Its own accounting, a hint: live data costs about twice its size in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// How often sled writes out what it has, in milliseconds. Nothing relies on it.
const FLUSH_EVERY_MS: u64 = 1_000;
/// How long a database may still be taken by whoever had it last: sled's threads let go of its files a moment after
/// its last handle. Another process keeps them for longer.
const TAKEN_TIME: Duration = Duration::from_secs(5);
/// A read of sled frees what was replaced by so many written rows, about: 8 bags of 62 things at every 128th.
const ROWS_FREED_BY_A_READ: usize = 2;
/// Between two tries.
const TAKEN_PAUSE: Duration = Duration::from_millis(10);

/// Rows in a sled database.
pub struct Sled {
    db: sled::Db,
    dir: PathBuf,
    patience: Patience,
}

impl Sled {
    /// Opens or makes the database in a directory. It may panic: see `opening`.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        remove_unfinished_snapshots(dir).map_err(|error| StoreError::Rows(error.to_string()))?;
        let config = sled::Config::default().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
        let began = Instant::now();
        loop {
            match config.open() {
                Ok(db) => return Ok(Self { db, dir: dir.to_owned(), patience: Patience::default() }),
                Err(sled::Error::Io(error)) if is_taken(&error) && began.elapsed() < TAKEN_TIME => {
                    pause();
                }
                Err(error) => return Err(told(&error)),
            }
        }
    }

    /// The same, which waits like this where there is no room to write.
    #[must_use]
    pub fn with(self, patience: &Patience) -> Self {
        Self { patience: patience.clone(), ..self }
    }

    fn write_now(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let (mut batch, count) = (sled::Batch::default(), rows.len());
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(|error| told(&error))?;
        // sled frees what a batch replaced a little at a time, whenever somebody reads. Where nobody does, as while
        // facts are read again, it would take gigabytes.
        for _ in 0..count / ROWS_FREED_BY_A_READ {
            self.db.contains_key(keys::OWNER).map_err(|error| told(&error))?;
        }
        Ok(())
    }

    /// Waits until everything that was written has left this process.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map(drop).map_err(|error| told(&error))
    }
}

impl Rows for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(|error| told(&error))?.map(|value| value.to_vec()))
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let inside = move |row: &sled::Result<(sled::IVec, sled::IVec)>| {
            row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix))
        };
        let row = |row: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = row.map_err(|error| told(&error))?;
            Ok((key.to_vec(), value.to_vec()))
        };
        Box::new(self.db.range(from.to_vec()..).take_while(inside).map(row))
    }

    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        // A write that fails, now or in sled's own threads, would end the process.
        if !has_room_to_write(&self.dir) {
            return Err(StoreError::NoRoom);
        }
        self.write_now(rows)
    }

    fn write_patiently(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        self.patience.wait_to_write(&self.dir)?;
        self.write_now(rows)
    }

    fn bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

/// What an error of sled means. While a state is opened, all is damage that an operator cannot remove; once
/// it is open, the process ends.
fn told(error: &sled::Error) -> StoreError {
    let text = error.to_string();
    watchdog::failed(&text);
    if let sled::Error::Io(error) = error
        && is_for_an_operator(error)
    {
        return StoreError::Rows(text);
    }
    if watchdog::is_opening() { StoreError::Damaged(text) } else { StoreError::Rows(text) }
}

/// Whether the files are as they should be, but not to be had.
fn is_for_an_operator(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kinds = [OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
    kinds.contains(&error.kind())
        || is_taken(error)
        || matches!(error.raw_os_error(), Some(TOO_MANY_FILES | TOO_MANY_FILES_IN_ALL))
}

/// Whether somebody has the database open: sled knows no kind of error for it.
fn is_taken(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// `EMFILE`, for which the standard library has no name.
const TOO_MANY_FILES: i32 = 24;
/// `ENFILE`.
const TOO_MANY_FILES_IN_ALL: i32 = 23;

#[expect(clippy::disallowed_methods, reason = "sled tells nobody when its threads have ended")]
fn pause() {
    thread::sleep(TAKEN_PAUSE);
}

/// A kill during `open` leaves half a snapshot that sled would take for the newest one, for ever. Removing it is safe:
/// the snapshot before it is only removed once the new one has its final name.
fn remove_unfinished_snapshots(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
