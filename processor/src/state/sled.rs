//! Rows in sled, which no other module uses.
//!
//! sled 0.34.7 survives `kill -9`, but not a power loss: it may open torn or empty without an error. So it is never
//! trusted: `Store::open` compares digests, and an irregular state is quarantined and folded again from `facts`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::room::{Patience, has_room_to_write};
use super::{Row, Rows, StoreError, keys, watchdog};

/// sled's page cache, by its own accounting: live data costs about twice its size in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// The period of sled's flushes, in milliseconds. Nothing relies on it.
const FLUSH_EVERY_MS: u64 = 1_000;
/// How long to retry a locked database: sled's threads release its files a moment after the last handle is dropped.
/// Another process holds them for longer.
const TAKEN_TIME: Duration = Duration::from_secs(5);
/// A read in sled frees about as many replaced rows: 8 bags of 62 objects at every 128th read.
const ROWS_FREED_BY_A_READ: usize = 2;
const TAKEN_PAUSE: Duration = Duration::from_millis(10);

pub struct Sled {
    db: sled::Db,
    dir: PathBuf,
    patience: Patience,
}

impl Sled {
    /// Opens or creates the database. It may panic: see `opening`.
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
                Err(error) => return Err(store_error(&error)),
            }
        }
    }

    /// Waits as `patience` says if the disk is full.
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
        self.db.apply_batch(batch).map_err(|error| store_error(&error))?;
        // sled frees replaced rows gradually, on reads. Without reads, as while facts are read again, it would take
        // gigabytes.
        for _ in 0..count / ROWS_FREED_BY_A_READ {
            self.db.contains_key(keys::OWNER).map_err(|error| store_error(&error))?;
        }
        Ok(())
    }

    /// Blocks until all written rows have left this process.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map(drop).map_err(|error| store_error(&error))
    }
}

impl Rows for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(|error| store_error(&error))?.map(|value| value.to_vec()))
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let inside = move |row: &sled::Result<(sled::IVec, sled::IVec)>| {
            row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix))
        };
        let row = |row: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = row.map_err(|error| store_error(&error))?;
            Ok((key.to_vec(), value.to_vec()))
        };
        Box::new(self.db.range(from.to_vec()..).take_while(inside).map(row))
    }

    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        // A failed write, now or in sled's threads, would end the process.
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

/// Maps an error of sled. While a state is opened, all but errors for the operator are damage; once it is open, the
/// process ends.
fn store_error(error: &sled::Error) -> StoreError {
    let text = error.to_string();
    watchdog::failed(&text);
    if let sled::Error::Io(error) = error
        && is_for_an_operator(error)
    {
        return StoreError::Rows(text);
    }
    if watchdog::is_opening() { StoreError::Damaged(text) } else { StoreError::Rows(text) }
}

/// Whether the files are intact, but inaccessible.
fn is_for_an_operator(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let kinds = [OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
    kinds.contains(&error.kind())
        || is_taken(error)
        || matches!(error.raw_os_error(), Some(TOO_MANY_FILES | TOO_MANY_FILES_IN_ALL))
}

/// Whether the database is locked: sled has no error kind for it.
fn is_taken(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// `EMFILE`; the standard library has no name for it.
const TOO_MANY_FILES: i32 = 24;
/// `ENFILE`.
const TOO_MANY_FILES_IN_ALL: i32 = 23;

#[expect(clippy::disallowed_methods, reason = "sled does not report when its threads have ended")]
fn pause() {
    thread::sleep(TAKEN_PAUSE);
}

/// A kill during `open` leaves a partial snapshot, which sled would take for the newest one. Removing it is safe: the
/// previous snapshot is only removed after the new one has its final name.
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
