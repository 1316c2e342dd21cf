//! Finds out, when a log is opened, what it holds.
//!
//! A segment that others follow holds what the next one's header says, no more and no less. Only the
//! newest is read: up to its first bad frame. Of that, everything before the last write is known to be
//! durable. The last write may be in the page cache only, perhaps after a failed sync; it is therefore
//! handed back, to be written anew with the segment that every opening begins.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use uuid::Uuid;

use super::cursor::{Cursor, Found};
use super::record;
use super::segment::{self, HEADER_BYTES, Header, Segment, corrupt};
use crate::time::Timestamp;

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The log's identity; a new one if there was no log.
    pub log: Uuid,
    /// Segments that hold records, in order.
    pub segments: Vec<Segment>,
    /// What is to be written anew.
    pub tail: Tail,
    /// The number of the next segment.
    pub number: u64,
    /// Where its records begin.
    pub base: u64,
    /// Segments of which nothing counts: to be deleted once the next one is durable.
    pub void: Vec<u64>,
}

/// Whole groups of the last write, as frames.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The frames.
    pub frames: Vec<u8>,
    /// How many they are.
    pub records: u64,
    /// The youngest record's time.
    pub latest: Timestamp,
}

/// Looks through the directory.
pub(super) fn recover(dir: &Path) -> io::Result<Recovered> {
    let mut headers = Vec::new();
    for number in segment::numbers(dir)? {
        headers.push(header(dir, number)?);
    }
    let Some(newest) = headers.pop() else {
        let (segments, tail, void) = (vec![], Tail::default(), vec![]);
        return Ok(Recovered { log: Uuid::now_v7(), segments, tail, number: 0, base: 0, void });
    };
    if let Some(other) = headers.iter().find(|header| header.log != newest.log) {
        return Err(corrupt(&segment::path(dir, other.number), "it belongs to another log"));
    }

    let (segments, mut void) = older(dir, &headers, &newest)?;
    let mut segments = Vec::from(segments);
    let (last, tail) = scan(dir, &newest)?;
    if last.is_empty() {
        void.push(last.number);
    } else {
        segments.push(last);
    }
    Ok(Recovered { log: newest.log, segments, tail, number: newest.number + 1, base: last.end, void })
}

fn header(dir: &Path, number: u64) -> io::Result<Header> {
    let path = segment::path(dir, number);
    let header = Header::read(&path)?;
    if header.number == number { Ok(header) } else { Err(corrupt(&path, "it was renamed")) }
}

/// Goes back from the newest segment, each header naming the one before it.
fn older(dir: &Path, headers: &[Header], newest: &Header) -> io::Result<(VecDeque<Segment>, Vec<u64>)> {
    let (mut segments, mut void) = (VecDeque::new(), Vec::new());
    let mut next = *newest;
    for header in headers.iter().rev() {
        let path = segment::path(dir, header.number);
        match next.previous {
            Some(previous) if previous.number > header.number => {
                return Err(corrupt(&segment::path(dir, previous.number), "it is missing"));
            }
            Some(previous) if previous.number == header.number => {
                if header.base >= next.base || fs::metadata(&path)?.len() < previous.bytes {
                    return Err(corrupt(&path, "it is shorter than it was when it was synced"));
                }
                let (number, id, base, end) = (header.number, header.id, header.base, next.base);
                let (bytes, latest) = (previous.bytes, previous.latest);
                segments.push_front(Segment { number, id, base, end, bytes, latest });
                next = *header;
            }
            // Nothing that it may hold was ever promised, or the next one would begin behind it.
            Some(_) | None if header.base == next.base => void.push(header.number),
            Some(_) | None => return Err(corrupt(&path, "those that follow it do not know it")),
        }
    }
    Ok((segments, void))
}

/// Reads the newest segment: what is known to be durable, and what is to be written anew.
fn scan(dir: &Path, header: &Header) -> io::Result<(Segment, Tail)> {
    let path = segment::path(dir, header.number);
    let file = File::open(&path)?;
    let limit = file.metadata()?.len();
    let (number, id, base) = (header.number, header.id, header.base);
    let mut synced = Segment { number, id, base, end: base, bytes: HEADER_BYTES, latest: Timestamp::default() };
    let mut whole = synced;
    let mut latest = whole.latest;

    let mut cursor = Cursor::new(file.try_clone()?, &synced);
    while let Found::Body(body) = cursor.next(limit)? {
        if body.follows_sync() {
            synced = Segment { latest: synced.latest.max(whole.latest), ..whole };
            latest = Timestamp::default();
        }
        latest = latest.max(record::time(&body.record()).map_err(|why| corrupt(&path, why))?);
        if body.ends_group() {
            whole = Segment { end: cursor.offset(), bytes: cursor.position(), latest, ..whole };
        }
    }
    let torn_at = cursor.offset();
    if cursor.sees_sync(limit)? {
        return Err(corrupt(
            &path,
            format!("the record at offset {torn_at} is damaged, though later ones were synced"),
        ));
    }

    let mut frames = vec![0; usize::try_from(whole.bytes - synced.bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut frames, synced.bytes)?;
    let records = whole.end - synced.end;
    let latest = if records == 0 { Timestamp::default() } else { whole.latest };
    Ok((synced, Tail { frames, records, latest }))
}
