//! Salvages a damaged log: a new log of every readable record, each at its offset.
//!
//! The damaged directory is kept under another name. Lost offsets stay empty in the new log, so that positions
//! keep their meaning; readers skip them, and delivery does not wait for them. The new log has a new identity,
//! so that a state folded from the old one is not reused.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::cursor::{self, Cursor};
use super::files::{Files, write};
use super::frame::{self, Body, HEAD_BYTES, MARK_BYTES, Salt};
use super::segment::{self, HEADER_BYTES, Header, Previous, Segment};
use super::storage;
use super::{delivered, record, recovery};
use primitives::time::Timestamp;

const SEGMENT_BYTES: usize = 4 * 1024 * 1024;
/// The least size of a record in a file.
const RECORD_BYTES_MIN: u64 = HEAD_BYTES as u64 + 12;

#[derive(Debug)]
pub struct Salvaged {
    pub records: u64,
    /// Unreadable offsets, and those of a last write without a good end.
    pub lost: Vec<Lost>,
    /// The new path of the damaged files; none if the log opens as it is, and nothing was done.
    pub set_aside: Option<PathBuf>,
}

/// A range of unreadable records.
#[derive(Debug)]
pub struct Lost {
    /// The damaged file, by its path before it was set aside.
    pub file: PathBuf,
    pub offsets: Range<u64>,
    /// Whether there was a record at each offset; else there may have been fewer.
    pub is_certain: bool,
}

/// The log must not be open. Needs as much free space again, and memory for a segment.
pub fn salvage(dir: &Path) -> io::Result<Salvaged> {
    let lock = storage::lock_dir(dir)?;
    let (fresh, aside) = (beside(dir, "salvaged"), free(dir)?);
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    storage::make_dir(&fresh)?;
    let mut press = Press::new(fresh.clone());
    let ReadBack { log: old, mut lost, tail, is_damaged } = read(dir, &mut press)?;
    let records = press.records;
    // A last write that was cut short looks like one that was damaged later.
    lost.extend(tail);
    // Files that are good by themselves may not fit together, so that the log does not open.
    if !is_damaged && recovery::recover(&press.files, dir).is_ok() {
        fs::remove_dir_all(&fresh)?;
        return Ok(Salvaged { records, lost, set_aside: None });
    }
    let end = lost.iter().map(|lost| lost.offsets.end).max().unwrap_or(0).max(press.next);
    let log = press.end(end)?;
    if let Some(old) = old {
        delivered::carry(&Files::default(), (dir, old), (&fresh, log))?;
    }
    fs::rename(dir, &aside)?;
    fs::rename(&fresh, dir)?;
    Files::default().sync_dir(parent(dir))?;
    drop(lock);
    Ok(Salvaged { records, lost, set_aside: Some(aside) })
}

struct ReadBack {
    log: Option<Uuid>,
    lost: Vec<Lost>,
    /// The offsets that the last write may have held, where it has no good end.
    tail: Option<Lost>,
    is_damaged: bool,
}

fn read(dir: &Path, press: &mut Press) -> io::Result<ReadBack> {
    let numbers = segment::numbers(&press.files, dir)?;
    let paths: Vec<_> = numbers.iter().map(|number| segment::path(dir, *number)).collect();
    let mut headers = Vec::with_capacity(paths.len());
    for path in &paths {
        headers.push(match Header::read(&press.files, path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
            header => Some(header?),
        });
    }
    let log = headers.iter().flatten().next_back().map(|header| header.log);
    let is_damaged = headers.iter().any(Option::is_none);
    let mut sieve = Sieve { press, next: 0, lost: vec![], tail: None, is_damaged };
    for (index, path) in paths.iter().enumerate() {
        let until = headers[index + 1..].iter().flatten().next().map(|header| {
            let knows = header.previous.filter(|previous| previous.number == numbers[index]);
            knows.map_or(header.base, |previous| previous.end)
        });
        // Without a header, only the most records that a segment may have held is known.
        let held = fs::metadata(path)?.len() / RECORD_BYTES_MIN;
        if index == 0 {
            // Records before the oldest segment were deleted on purpose.
            let least = until.map_or(0, |until| until.saturating_sub(held));
            sieve.next = headers[0].map_or(least, |header| header.base);
        }
        let end = match &headers[index] {
            Some(header) => sieve.take(path, header, until)?,
            None => until.unwrap_or(sieve.next + held),
        };
        sieve.miss(path, end, headers[index].is_some() || until.is_some());
    }
    Ok(ReadBack { log, lost: sieve.lost, tail: sieve.tail, is_damaged: sieve.is_damaged })
}

/// Separates good records from bad ones.
struct Sieve<'a> {
    press: &'a mut Press,
    next: u64,
    lost: Vec<Lost>,
    tail: Option<Lost>,
    is_damaged: bool,
}

impl Sieve<'_> {
    /// Takes the good records of a segment. Returns its certain end.
    fn take(&mut self, path: &Path, header: &Header, until: Option<u64>) -> io::Result<u64> {
        let file = self.press.files.open(path)?;
        let limit = file.length()?;
        let (number, id, base) = (header.number, header.id, header.base);
        let blank = Segment { number, id, base, end: base, bytes: HEADER_BYTES, latest: Timestamp::default() };
        let mut cursor = Cursor::new(file, &blank);
        let mut end = base;
        loop {
            let offset = cursor.offset();
            match cursor.next(limit)? {
                cursor::Found::Mark => end = end.max(offset),
                // Records behind the start of the next segment were never acknowledged.
                cursor::Found::Record(_) if offset < self.next || until.is_some_and(|until| offset >= until) => {}
                cursor::Found::Record(body) => {
                    self.miss(path, offset, true);
                    self.press.take(offset, &body)?;
                    self.next = offset + 1;
                    end = end.max(self.next);
                }
                cursor::Found::Nothing if cursor.skip_record(limit)? || cursor.skip_to_mark(limit)? => {
                    self.is_damaged = true;
                }
                cursor::Found::Nothing => {
                    let written = cursor.written(limit)?;
                    if until.is_none() && written > 0 {
                        let offsets = end..end + written.div_ceil(RECORD_BYTES_MIN);
                        self.tail = Some(Lost { file: path.to_owned(), offsets, is_certain: false });
                    }
                    return Ok(until.unwrap_or(end));
                }
            }
        }
    }

    /// Notes that no record was found before this offset.
    fn miss(&mut self, path: &Path, offset: u64, is_certain: bool) {
        if offset > self.next {
            self.lost.push(Lost { file: path.to_owned(), offsets: self.next..offset, is_certain });
            self.next = offset;
            self.is_damaged = true;
        }
    }
}

/// Writes a log of records whose offsets may have gaps.
struct Press {
    dir: PathBuf,
    files: Files,
    log: Uuid,
    number: u64,
    previous: Option<Previous>,
    records: u64,
    next: u64,
    base: u64,
    frames: Vec<u8>,
    latest: Timestamp,
}

impl Press {
    fn new(dir: PathBuf) -> Self {
        let (files, log, latest) = (Files::default(), Uuid::now_v7(), Timestamp::default());
        Self { dir, files, log, number: 0, previous: None, records: 0, next: 0, base: 0, frames: vec![], latest }
    }

    fn take(&mut self, offset: u64, body: &Body) -> io::Result<()> {
        if offset != self.next || self.frames.len() > SEGMENT_BYTES {
            self.print()?;
            self.base = offset;
        }
        let record = body.record();
        let at = record::time(&record).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        if self.frames.is_empty() {
            frame::lay_mark(&mut self.frames);
        }
        frame::lay_body(&record, &mut self.frames);
        (self.latest, self.next, self.records) = (self.latest.max(at), offset + 1, self.records + 1);
        Ok(())
    }

    /// Sets the offset of the next record. Returns the log's identity.
    fn end(mut self, end: u64) -> io::Result<Uuid> {
        self.print()?;
        (self.base, self.next) = (end, end);
        self.write()?;
        self.files.sync_dir(&self.dir)?;
        Ok(self.log)
    }

    fn print(&mut self) -> io::Result<()> {
        if self.frames.is_empty() { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> io::Result<()> {
        let (number, id, base) = (self.number, Uuid::now_v7(), self.base);
        let header = Header { number, id, log: self.log, base, previous: self.previous };
        frame::seal(&mut self.frames, Salt::of(id), base);
        let bytes = HEADER_BYTES + self.frames.len() as u64;
        // Room for a mark behind the last record, as in every segment.
        let file = self.files.make(&segment::path(&self.dir, number), bytes + MARK_BYTES as u64)?;
        write(&file, &header.encode(), 0)?;
        write(&file, &self.frames, HEADER_BYTES)?;
        file.sync_data()?;
        self.previous = Some(Previous { number, end: self.next, bytes, latest: self.latest });
        self.number += 1;
        self.frames.clear();
        self.latest = Timestamp::default();
        Ok(())
    }
}

fn parent(dir: &Path) -> &Path {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(dir: &Path, what: &str) -> PathBuf {
    let mut name = dir.file_name().map_or_else(|| OsString::from("log"), OsString::from);
    name.push(format!(".{what}"));
    dir.with_file_name(name)
}

fn free(dir: &Path) -> io::Result<PathBuf> {
    for number in 1..1_000 {
        let path = beside(dir, &format!("damaged-{number}"));
        if !path.exists() {
            return Ok(path);
        }
    }
    Err(io::Error::other("there are a thousand damaged directories already"))
}
