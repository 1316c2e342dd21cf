//! Reads durable records in order, one file at a time, also while the log grows and is deleted from.

use std::io;
use std::sync::Arc;

use super::cursor::{Cursor, Found};
use super::segment::{self, Segment, corrupt, damage};
use super::{DiskLog, Place, record};
use event_log::Record;

/// Keeps the log open, and one file of it.
pub struct Reader {
    log: DiskLog,
    next: u64,
    open: Option<Open>,
}

struct Open {
    segment: Segment,
    cursor: Cursor,
}

impl Reader {
    pub(super) fn new(log: DiskLog, offset: u64) -> Self {
        Self { log, next: offset, open: None }
    }

    pub fn position(&self) -> u64 {
        self.next
    }

    pub(super) fn is_of(&self, log: &DiskLog) -> bool {
        Arc::ptr_eq(&self.log.shared, &log.shared)
    }

    /// The place in the log's files; none before the first record.
    pub fn place(&self) -> Option<Place> {
        self.open.as_ref().map(|open| Place { segment: open.segment.number, at: open.cursor.position() })
    }

    /// None if no further record is durable yet. Offsets have no gaps, but deleted records are skipped.
    #[expect(clippy::should_implement_trait, reason = "an iterator that has ended stays so; a log goes on")]
    pub fn next(&mut self) -> io::Result<Option<(u64, Record)>> {
        loop {
            if let Some(Open { segment, cursor }) = &mut self.open
                && cursor.position() < segment.bytes
                && cursor.offset() < segment.end
            {
                let offset = cursor.offset();
                match step(&self.log, segment, cursor, self.next) {
                    Ok(Some(record)) => {
                        self.next = offset + 1;
                        return Ok(Some((offset, record)));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        // The next call must return the same error.
                        self.open = None;
                        return Err(error);
                    }
                }
            } else if !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// Refreshes the durable end. Returns whether there is more to read.
    fn advance(&mut self) -> io::Result<bool> {
        while let Some(segment) = self.log.shared.locate(self.next) {
            if let Some(open) = &mut self.open
                && open.segment.number == segment.number
            {
                open.segment = segment;
                let (at, offset) = (open.cursor.position(), open.cursor.offset());
                if at < segment.bytes {
                    return Ok(true);
                }
                // The segment has fewer bytes than promised records: retrying would never end.
                let path = segment::path(&self.log.shared.dir, segment.number);
                return Err(corrupt(&path, damage(at, offset, segment.end)));
            }
            match self.log.shared.files.open(&segment::path(&self.log.shared.dir, segment.number)) {
                Ok(file) => {
                    self.open = Some(Open { segment, cursor: Cursor::new(file, &segment) });
                    return Ok(true);
                }
                // Deleted between the two calls: there is another first segment now.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && self.log.shared.locate(self.next) != Some(segment) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// None for a mark, or a record before `wanted`.
fn step(log: &DiskLog, segment: &Segment, cursor: &mut Cursor, wanted: u64) -> io::Result<Option<Record>> {
    let (offset, at) = (cursor.offset(), cursor.position());
    let path = || segment::path(&log.shared.dir, segment.number);
    match cursor.next(segment.bytes)? {
        Found::Mark => Ok(None),
        Found::Record(_) if offset < wanted => Ok(None),
        Found::Record(body) => {
            let decoded = record::decode(&body.record()).map(Some);
            decoded.map_err(|why| corrupt(&path(), format!("{}: {why}", damage(at, offset, offset))))
        }
        Found::Nothing => {
            let good = if cursor.skip_to_mark(segment.bytes)? { cursor.offset() } else { segment.end };
            Err(corrupt(&path(), damage(at, offset, good)))
        }
    }
}
