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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use bytes::Bytes;
    use primitives::time::Timestamp;

    use super::*;
    use crate::Options;

    fn record(key: &str, value: Option<&'static str>) -> Record {
        let value = value.map(|value| Bytes::from_static(value.as_bytes()));
        Record { key: Some(key.to_owned()), value, headers: vec![], at: Timestamp::from_s(1) }
    }

    fn content(log: &DiskLog) -> Vec<(String, String)> {
        let mut reader = log.reader(log.bounds().0).expect("a reader");
        let mut content = Vec::new();
        while let Some((_, record)) = reader.next().expect("a record") {
            let value = record.value.unwrap_or_default();
            content.push((record.key.unwrap_or_default(), String::from_utf8_lossy(&value).into_owned()));
        }
        content
    }

    fn is_in_files(dir: &Path, text: &str) -> bool {
        let files = dir.read_dir().expect("a log").map(|file| file.expect("a file").path());
        files.filter(|path| path.is_file()).any(|path| {
            let bytes = fs::read(path).expect("a file");
            bytes.windows(text.len()).any(|part| part == text.as_bytes())
        })
    }

    #[test]
    fn a_compaction_at_the_start_leaves_the_newest_record_of_each_key_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || DiskLog::open(dir.path(), Options::progress()).expect("a log");
        let log = open();
        let kept: Vec<_> = (0..2 * RECORDS_MAX).map(|number| format!("key-{number}")).collect();
        log.append_blocking(kept.iter().map(|key| record(key, Some("kept"))).collect()).expect("appended");
        let replaced = [record("one", Some("replaced")), record("two", Some("removed")), record("one", Some("newest"))];
        log.append_blocking(replaced.into()).expect("appended");
        log.append_blocking(vec![record("two", None)]).expect("appended");
        drop(log);

        let log = open();
        assert!(is_in_files(dir.path(), "replaced") && is_in_files(dir.path(), "removed"));
        compact(&log).expect("compacted");
        let mut expected: Vec<_> = kept.iter().map(|key| (key.clone(), "kept".to_owned())).collect();
        expected.push(("one".to_owned(), "newest".to_owned()));
        assert_eq!(content(&log), expected);
        assert!(!is_in_files(dir.path(), "replaced") && !is_in_files(dir.path(), "removed"));
        let before = log.bounds();
        compact(&log).expect("compacted");
        assert_eq!(log.bounds(), before, "there was nothing to do");
    }

    #[test]
    fn a_compaction_that_ended_in_its_middle_loses_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = DiskLog::open(dir.path(), Options::progress()).expect("a log");
        let all = [("one", "1"), ("two", "1"), ("one", "2")].map(|(key, value)| record(key, Some(value)));
        log.append_blocking(all.into()).expect("appended");
        // A copy of one of the two, as a compaction makes it before it deletes.
        log.append_blocking(vec![copy(record("two", Some("1")))]).expect("appended");
        drop(log);
        let log = DiskLog::open(dir.path(), Options::progress()).expect("a log");
        compact(&log).expect("compacted");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(content(&log), [pair("one", "2"), pair("two", "1")]);
    }
}
