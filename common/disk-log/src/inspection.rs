//! Inspects a log that is not open, without changing it: its entries, and which are not delivered.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::cursor::{Cursor, Found};
use super::delivered::Offsets;
use super::files::Files;
use super::record;
use super::recovery::{self, Recovered};
use super::segment::{self, Segment, corrupt, damage};
use super::storage::{self, SharedLock};
use primitives::time::Timestamp;

#[derive(Debug, thiserror::Error)]
pub enum InspectionError {
    #[error("there is no disk log in {0}")]
    Nothing(PathBuf),
    #[error("the disk log in {0} is in use")]
    InUse(PathBuf),
    /// Durable records are missing. The text names the file and the damage.
    #[error("{0}")]
    Damaged(String),
    #[error("inspect the disk log in {0}: {1}")]
    Unreadable(PathBuf, io::Error),
}

/// Locks the log while it lives.
#[derive(Debug)]
pub struct Inspection {
    dir: PathBuf,
    log: Uuid,
    openings: u64,
    segments: Vec<Segment>,
    end: u64,
    delivered: Offsets,
    _lock: SharedLock,
}

/// The entries that are not delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub events: u64,
    pub bytes: u64,
    /// Times of receipt of the oldest and the youngest entry.
    pub span: Option<(Timestamp, Timestamp)>,
}

impl Inspection {
    /// Reads the headers, the newest segment and the delivered offsets.
    pub fn of(dir: &Path) -> Result<Self, InspectionError> {
        let failed = |error: io::Error| InspectionError::new(dir, error);
        let files = Files::default();
        if !dir.is_dir() || segment::numbers(&files, dir).map_err(failed)?.is_empty() {
            return Err(InspectionError::Nothing(dir.to_owned()));
        }
        let lock = storage::lock_dir_shared(dir).map_err(failed)?;
        let lock = lock.ok_or_else(|| InspectionError::InUse(dir.to_owned()))?;
        let found = recovery::recover(&files, dir).map_err(failed)?;
        let (openings, log, end) = (found.number, found.log, found.end + found.tail.records);
        let segments = segments_of(found);
        let delivered = Offsets::read(&files, dir, log, end).map_err(failed)?;
        let mut delivered = delivered.unwrap_or_default();
        delivered.raise(segments.first().map_or(end, |first| first.base));
        for (one, next) in segments.iter().zip(segments.iter().skip(1)).filter(|(one, next)| one.end < next.base) {
            delivered.add_all(one.end..next.base);
        }
        Ok(Self { dir: dir.to_owned(), log, openings, segments, end, delivered, _lock: lock })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn identity(&self) -> Uuid {
        self.log
    }

    /// Changes whenever the log is opened: every opening begins a segment.
    pub fn openings(&self) -> u64 {
        self.openings
    }

    pub fn undelivered(&self) -> u64 {
        self.delivered.undelivered(self.end)
    }

    /// Reads every record, which also finds damage inside older segments.
    pub fn read(&self) -> Result<Contents, InspectionError> {
        let mut contents = Contents::default();
        for segment in &self.segments {
            self.read_segment(segment, &mut contents).map_err(|error| InspectionError::new(&self.dir, error))?;
        }
        Ok(contents)
    }

    fn read_segment(&self, segment: &Segment, contents: &mut Contents) -> io::Result<()> {
        let path = segment::path(&self.dir, segment.number);
        let mut cursor = Cursor::new(Files::default().open(&path)?, segment);
        while cursor.position() < segment.bytes {
            let (at, offset) = (cursor.position(), cursor.offset());
            match cursor.next(segment.bytes)? {
                Found::Mark => {}
                Found::Record(body) => self.count(offset, &body.record(), contents)?,
                Found::Nothing => {
                    let good = if cursor.skip_to_mark(segment.bytes)? { cursor.offset() } else { segment.end };
                    return Err(corrupt(&path, damage(at, offset, good)));
                }
            }
        }
        Ok(())
    }

    fn count(&self, offset: u64, record: &[u8], contents: &mut Contents) -> io::Result<()> {
        if self.delivered.contains(offset) {
            return Ok(());
        }
        let at =
            record::time(record).map_err(|why| corrupt(&self.dir, format!("the record at offset {offset}: {why}")))?;
        contents.events += 1;
        contents.bytes += record.len() as u64;
        let (oldest, youngest) = contents.span.unwrap_or((at, at));
        contents.span = Some((oldest.min(at), youngest.max(at)));
        Ok(())
    }
}

impl InspectionError {
    pub fn new(dir: &Path, error: io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::ResourceBusy {
            Self::InUse(dir.to_owned())
        } else if kind == io::ErrorKind::InvalidData {
            Self::Damaged(error.to_string())
        } else {
            Self::Unreadable(dir.to_owned(), error)
        }
    }
}

/// All segments that opening would find, in order: those that it would write again count where they lie now.
fn segments_of(found: Recovered) -> Vec<Segment> {
    let Recovered { older, newest, tail, .. } = found;
    let newest = newest.map(|newest| {
        let (end, bytes) = (newest.end + tail.records, newest.bytes + tail.frames.len() as u64);
        Segment { end, bytes, latest: newest.latest.max(tail.latest), ..newest }
    });
    older.into_iter().chain(newest).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::super::tests::{crashed, log_of};
    use super::super::{Delivered, DiskLog, Options};
    use super::*;

    /// Every file with its bytes.
    fn files_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = dir.read_dir().expect("a directory").map(|entry| entry.expect("an entry").path());
        entries.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
    }

    #[test]
    fn what_is_seen_is_what_opening_would_find_and_nothing_is_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        for (records, delivered) in [(0, 0..0), (1, 0..0), (30, 3..9), (7, 0..2), (0, 20..25)] {
            let log = log_of(dir.path(), records);
            let marks = Delivered::load(&log).expect("load");
            delivered.for_each(|offset| marks.deliver(offset));
            marks.save().expect("save");
            let left = crashed(dir.path());
            drop((marks, log));

            let before = files_of(left.path());
            let inspection = Inspection::of(left.path()).expect("inspection");
            let contents = inspection.read().expect("read");
            assert_eq!(contents.events, inspection.undelivered());
            assert_eq!(files_of(left.path()), before);
            drop(inspection);
            let log = DiskLog::open(left.path(), Options::spool(1 << 20)).expect("open");
            let marks = Delivered::load(&log).expect("load");
            assert_eq!(contents.events, marks.undelivered());
            let times = (0..log.bounds().1).filter(|offset| !marks.is_delivered(*offset)).map(Timestamp::from_s);
            assert_eq!(contents.span, times.clone().min().zip(times.max()));
        }
    }

    #[test]
    fn who_has_the_log_is_not_disturbed_and_looking_keeps_others_out() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(Inspection::of(dir.path()), Err(InspectionError::Nothing(_))));
        assert!(matches!(Inspection::of(&dir.path().join("none")), Err(InspectionError::Nothing(_))));
        let log = log_of(dir.path(), 3);
        assert!(matches!(Inspection::of(dir.path()), Err(InspectionError::InUse(_))));
        drop(log);
        let inspection = Inspection::of(dir.path()).expect("inspection");
        let beside = Inspection::of(dir.path()).expect("a second inspection");
        assert!(DiskLog::open(dir.path(), Options::spool(1 << 20)).is_err(), "an inspection holds the lock");
        let before = inspection.openings();
        drop((inspection, beside));
        drop(log_of(dir.path(), 0));
        assert_ne!(Inspection::of(dir.path()).expect("inspection").openings(), before);
    }
}
