//! Compaction of the log `vault`, of which only the newest record of each key matters: what was replaced must not stay.
//!
//! The newest records are appended again, and the segments before them are deleted. Every opening begins a new segment,
//! so a compaction at the start leaves nothing; later ones leave the segment that they were written to, for the next.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use super::is_correction;
use crate::{AppendError, DiskLog};
use event_log::Record;
use event_log::contract::header;

pub(super) const COMPACT_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// In one append.
const RECORDS_MAX: usize = 500;

/// The caller must be the only one that appends. Where there is no room, all stays as it is.
pub(super) fn compact(log: &DiskLog) -> io::Result<()> {
    let (first, end) = log.bounds();
    let mut newest: HashMap<String, u64> = HashMap::new();
    let mut reader = log.reader(first)?;
    while let Some((offset, record)) = reader.next()? {
        let Some(key) = record.key else { continue };
        if record.value.is_some() {
            newest.insert(key, offset);
        } else {
            newest.remove(&key);
        }
    }
    if newest.len() as u64 == end - first {
        return Ok(());
    }
    let mut reader = log.reader(first)?;
    let mut records = Vec::new();
    while let Some((offset, record)) = reader.next()? {
        if offset >= end {
            break;
        }
        if record.key.as_ref().is_some_and(|key| newest.get(key) == Some(&offset)) {
            records.push(copy(record));
            if records.len() >= RECORDS_MAX && !append(log, &mut records)? {
                return Ok(());
            }
        }
    }
    if append(log, &mut records)? { log.delete_before(end) } else { Ok(()) }
}

/// It follows from no new event.
fn copy(mut record: Record) -> Record {
    if !is_correction(&record) {
        record.headers.push((header::CORRECTION.into(), b"other".to_vec()));
    }
    record
}

/// Whether there is room.
fn append(log: &DiskLog, records: &mut Vec<Record>) -> io::Result<bool> {
    match log.try_append_blocking(&std::mem::take(records)) {
        Ok(_) => Ok(true),
        Err(AppendError::Full) => Ok(false),
        Err(AppendError::Io(error)) => Err(io::Error::other(error)),
    }
}
