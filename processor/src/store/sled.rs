//! Rows in sled, the only place that knows it.
//!
//! sled 0.34.7 survives `kill -9`, but not a power loss: it may open torn or empty without an error. So nothing relies
//! on what it says: `Store::open` compares digests, and whatever is odd is set aside and folded again from `facts`.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{Row, Rows, StoreError};

/// sled's page cache. Its own accounting, a hint: live data costs about twice its size in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// How often sled writes out what it has, in milliseconds. Nothing relies on it.
const FLUSH_EVERY_MS: u64 = 1_000;

/// Rows in a sled database.
pub struct Sled(sled::Db);

impl Sled {
    /// Opens or makes the database in a directory.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        remove_unfinished_snapshots(dir).map_err(|error| StoreError::Rows(error.to_string()))?;
        let config = sled::Config::default().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS));
        // Damage makes sled panic more often than it makes it return an error.
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => Ok(Self(db)),
            Ok(Err(error)) => Err(StoreError::Damaged(error.to_string())),
            Err(_) => Err(StoreError::Damaged("sled panicked while it opened".to_owned())),
        }
    }
}

impl Rows for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key)?.map(|value| value.to_vec()))
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let inside = move |row: &sled::Result<(sled::IVec, sled::IVec)>| {
            row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix))
        };
        let row = |row: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = row?;
            Ok((key.to_vec(), value.to_vec()))
        };
        Box::new(self.0.range(from.to_vec()..).take_while(inside).map(row))
    }

    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.0.apply_batch(batch)?)
    }

    fn bytes(&self) -> u64 {
        self.0.size_on_disk().unwrap_or(0)
    }
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        Self::Rows(error.to_string())
    }
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
