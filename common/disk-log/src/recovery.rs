//! Determines the contents of a log when it is opened.
//!
//! For an older segment, the header of the next one holds the end. Only the newest segment is read, up to its
//! first bad frame. There are three cases:
//!
//! - A good mark behind it proves damage: a mark is written only after all before it was synced. The log
//!   refuses to open, and reports what is lost.
//! - Without such a mark, the bad frame is in the last write, or nothing follows. Pages reach the disk in any
//!   order, so good frames may stand behind bad ones. Nothing was acknowledged before all of it was synced: it
//!   counts as a write that was cut short, and only whole groups before the bad frame are taken.
//! - That the last write was synced and damaged later cannot be detected as long as the mark behind it is not
//!   on the disk. The mark is written as soon as the writer is idle, and synced at an orderly end.
//!
//! Everything before the last mark is durable. The write behind it may be in the page cache only, perhaps after
//! a failed sync; it is therefore written again with the segment that every opening begins.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use tracing::warn;
use uuid::Uuid;

use super::cursor::{Cursor, Found};
use super::files::Files;
use super::frame::MARK_BYTES;
use super::record;
use super::segment::{self, HEADER_BYTES, Header, Segment, corrupt, damage};
use super::storage::read_exact_at;
use primitives::time::Timestamp;

#[derive(Debug)]
pub(super) struct Recovered {
    /// New if there was no log.
    pub log: Uuid,
    /// Segments with records, in order, without the newest.
    pub older: Vec<Segment>,
    /// The durable part of the newest segment; perhaps without a record.
    pub newest: Option<Segment>,
    /// The rest of the newest segment, to be written again.
    pub tail: Tail,
    pub number: u64,
    pub end: u64,
    pub void: Vec<u64>,
}

/// Whole groups of the last write, as frames.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// A mark and the frames; empty without records.
    pub frames: Vec<u8>,
    pub records: u64,
    pub latest: Timestamp,
}

pub(super) fn recover(files: &Files, dir: &Path) -> io::Result<Recovered> {
    let mut headers = Vec::new();
    for number in segment::numbers(files, dir)? {
        headers.push(header(files, dir, number)?);
    }
    let Some(newest) = headers.pop() else {
        let (older, newest, tail, void) = (vec![], None, Tail::default(), vec![]);
        return Ok(Recovered { log: Uuid::now_v7(), older, newest, tail, number: 0, end: 0, void });
    };
    if let Some(other) = headers.iter().find(|header| header.log != newest.log) {
        return Err(corrupt(&segment::path(dir, other.number), "it belongs to another log"));
    }
    let (older, void) = older(files, dir, &headers, &newest)?;
    let (last, tail) = scan(files, dir, &newest)?;
    let (number, end) = (newest.number + 1, last.end);
    Ok(Recovered { log: newest.log, older: older.into(), newest: Some(last), tail, number, end, void })
}

fn header(files: &Files, dir: &Path, number: u64) -> io::Result<Header> {
    let path = segment::path(dir, number);
    let header = Header::read(files, &path)?;
    if header.number == number { Ok(header) } else { Err(corrupt(&path, "it was renamed")) }
}

/// Follows the headers back from the newest segment.
fn older(files: &Files, dir: &Path, headers: &[Header], newest: &Header) -> io::Result<(VecDeque<Segment>, Vec<u64>)> {
    let (mut segments, mut void) = (VecDeque::new(), Vec::new());
    let mut next = *newest;
    for header in headers.iter().rev() {
        let path = segment::path(dir, header.number);
        match next.previous {
            Some(previous) if previous.number > header.number => {
                return Err(corrupt(&segment::path(dir, previous.number), "it is missing"));
            }
            Some(previous) if previous.number == header.number => {
                if header.base >= previous.end || previous.end > next.base {
                    return Err(corrupt(&path, "it and the one behind it do not fit together"));
                }
                let found = files.length(&path)?;
                if found < previous.bytes {
                    let (wanted, first, last) = (previous.bytes, header.base, previous.end - 1);
                    let how = format!(
                        "it has {found} bytes, and had {wanted} when they were synced; it held offsets {first} to {last}"
                    );
                    return Err(corrupt(&path, how));
                }
                let (number, id, base, end) = (header.number, header.id, header.base, previous.end);
                let (bytes, latest) = (previous.bytes, previous.latest);
                segments.push_front(Segment { number, id, base, end, bytes, latest });
                next = *header;
            }
            // It was about to be deleted when the next one began, or it would be named.
            None => void.push(header.number),
            // Nothing in it was acknowledged, or the next one would begin behind it.
            Some(_) if header.base == next.base => void.push(header.number),
            Some(_) => return Err(corrupt(&path, "those that follow it do not know it")),
        }
    }
    Ok((segments, void))
}

/// Returns the durable part, and the part to be written again.
fn scan(files: &Files, dir: &Path, header: &Header) -> io::Result<(Segment, Tail)> {
    let path = segment::path(dir, header.number);
    let file = files.open(&path)?;
    let limit = file.length()?;
    let (number, id, base) = (header.number, header.id, header.base);
    let mut synced = Segment { number, id, base, end: base, bytes: HEADER_BYTES, latest: Timestamp::default() };
    let mut whole = synced;

    let mut cursor = Cursor::new(files.open(&path)?, &synced);
    let mut latest = Timestamp::default();
    loop {
        match cursor.next(limit)? {
            Found::Mark => {
                if whole.bytes + MARK_BYTES as u64 != cursor.position() {
                    let offset = whole.end;
                    return Err(corrupt(&path, format!("the group that begins at offset {offset} has no end")));
                }
                synced = Segment { latest: synced.latest.max(whole.latest), ..whole };
                (whole.latest, latest) = Default::default();
            }
            Found::Record(body) => {
                latest = latest.max(record::time(&body.record()).map_err(|why| corrupt(&path, why))?);
                if body.ends_group() {
                    whole = Segment { end: cursor.offset(), bytes: cursor.position(), latest, ..whole };
                }
            }
            Found::Nothing => break,
        }
    }
    refuse_damage(&path, &mut cursor, limit)?;

    let records = whole.end - synced.end;
    let wanted = if records == 0 { 0 } else { whole.bytes - synced.bytes };
    let mut frames = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
    read_exact_at(&*file, &mut frames, synced.bytes)?;
    Ok((synced, Tail { frames, records, latest: whole.latest }))
}

/// Distinguishes damage from a write that was cut short.
fn refuse_damage(path: &Path, cursor: &mut Cursor, limit: u64) -> io::Result<()> {
    let (at, offset) = (cursor.position(), cursor.offset());
    let is_over = cursor.is_over(limit)?;
    if cursor.skip_to_mark(limit)? {
        return Err(corrupt(path, damage(at, offset, cursor.offset())));
    }
    if !is_over {
        warn!(
            "{}: the last write was cut short at byte {at}, offset {offset}: it had not been acknowledged",
            path.display()
        );
    }
    Ok(())
}
