//! A page of the feed from the logs: events of all partitions behind a position, merged by time.
//!
//! A page reads a bounded number of records, whatever the filter takes.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use event_log::contract::Topic;
use event_log::{Entry, EventLogError, LogQuery, Stretch};
use primitives::time::Timestamp;

use super::cursor::{Cursor, Lane, Mark, name_of};
use super::event::{Event, Filter};

/// Records read for one page, but for the rest of the last chunks.
const SCANNED_MAX: usize = 10_000;
/// Of one partition at once: each time twice as many, since every read of a log begins with a search for its place.
const CHUNK_MIN: usize = 16;
const CHUNK_MAX: usize = 2_000;
/// Of all partitions at once, exceeded only by the last record.
const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where a reader begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// With the oldest event.
    Oldest,
    Since(Timestamp),
    At(Cursor),
}

/// How much an answer holds; the last event may exceed the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    pub events: usize,
    pub bytes: usize,
}

#[derive(Debug)]
pub struct Page {
    pub events: Vec<Arc<Event>>,
    /// The position before all of them.
    pub begin: Cursor,
    /// The position behind the events, and behind those that the filter left out.
    pub next: Cursor,
    /// Whether the log has nothing more.
    pub is_end: bool,
}

/// Why no reader can go on at a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorFault {
    TooOld,
    OtherLog,
    Ahead,
}

impl CursorFault {
    pub fn explain(self) -> &'static str {
        match self {
            Self::TooOld => "events behind this cursor have been deleted",
            Self::OtherLog => "this cursor is of another log",
            Self::Ahead => "this cursor is ahead of the log",
        }
    }
}

#[derive(Debug)]
pub enum PageError {
    Log(EventLogError),
    Cursor(CursorFault),
}

impl From<EventLogError> for PageError {
    fn from(error: EventLogError) -> Self {
        Self::Log(error)
    }
}

impl From<CursorFault> for PageError {
    fn from(fault: CursorFault) -> Self {
        Self::Cursor(fault)
    }
}

/// One partition on the way to its end.
struct Reading {
    lane: Lane,
    /// All below was loaded.
    loaded: u64,
    /// The end of the log.
    until: u64,
    /// The record that must lie at the beginning, until it was seen there.
    expected: Option<Mark>,
    /// Loaded, but not looked at.
    chunk: VecDeque<Arc<Event>>,
}

impl Reading {
    fn begin(lane: Lane, (first, until): (u64, u64)) -> Result<Self, CursorFault> {
        if lane.next < first {
            return Err(CursorFault::TooOld);
        }
        if lane.next > until {
            return Err(CursorFault::Ahead);
        }
        let expected = lane.last.filter(|last| last.offset >= first && !lane.is_checked);
        let loaded = expected.map_or(lane.next, |last| last.offset);
        Ok(Self { lane, loaded, until, expected, chunk: VecDeque::new() })
    }

    fn needs_more(&self) -> bool {
        self.chunk.is_empty() && self.loaded < self.until
    }

    /// Takes a record that was read.
    fn load(&mut self, entry: &Entry) -> Result<(), CursorFault> {
        let offset = entry.position.offset;
        self.loaded = offset.saturating_add(1);
        if let Some(expected) = self.expected.take() {
            let is_same = Mark::of(offset, &entry.record) == expected;
            return if is_same { Ok(()) } else { Err(CursorFault::OtherLog) };
        }
        let event = Event::of(entry);
        if offset < self.lane.next {
            // Noop records may lie between the last event that was seen and the next one.
            return event.map_or(Ok(()), |_| Err(CursorFault::OtherLog));
        }
        self.chunk.extend(event);
        Ok(())
    }

    fn into_lane(self) -> Lane {
        // All between the last event and what was loaded is none.
        let next = if self.chunk.is_empty() { self.lane.next.max(self.loaded) } else { self.lane.next };
        Lane { next, is_checked: true, ..self.lane }
    }
}

/// Up to `amount` events behind the start that the filter takes.
pub fn page(logs: &dyn LogQuery, start: &Start, filter: &Filter, amount: Amount) -> Result<Page, PageError> {
    let bounds = logs.bounds(Topic::Events)?;
    let log = name_of(&logs.identity(Topic::Events)?, bounds.len());
    let begin = begin(logs, start, &bounds, log)?;
    let readings = begin.lanes.iter().zip(bounds).map(|(lane, bounds)| Reading::begin(*lane, bounds));
    let mut readings: Vec<Reading> = readings.collect::<Result<_, _>>()?;
    let not_before = if let Start::Since(since) = start { Some(*since) } else { None };
    let (mut events, mut bytes, mut scanned) = (Vec::new(), 0, 0);
    let mut chunk = (amount.events / readings.len().max(1)).clamp(CHUNK_MIN, CHUNK_MAX);
    while events.len() < amount.events && bytes < amount.bytes {
        if readings.iter().any(Reading::needs_more) {
            if scanned >= SCANNED_MAX {
                break;
            }
            scanned += load(logs, &mut readings, chunk)?;
            chunk = (2 * chunk).min(CHUNK_MAX);
            continue;
        }
        let waiting = readings.iter_mut().filter(|reading| !reading.chunk.is_empty());
        let Some(oldest) = waiting.min_by_key(|reading| reading.chunk[0].at) else { break };
        let event = oldest.chunk.pop_front().expect("it waits");
        oldest.lane.saw(event.mark);
        if filter.takes(&event) && not_before.is_none_or(|since| event.at >= since) {
            bytes += event.value.len();
            events.push(event);
        }
    }
    let is_end = readings.iter().all(|reading| reading.chunk.is_empty() && !reading.needs_more());
    let lanes = readings.into_iter().map(Reading::into_lane).collect();
    let next = Cursor { log, lanes, seen: begin.seen };
    Ok(Page { events, begin, next, is_end })
}

fn begin(logs: &dyn LogQuery, start: &Start, bounds: &[(u64, u64)], log: u64) -> Result<Cursor, PageError> {
    let lanes = match start {
        Start::Oldest => bounds.iter().map(|(first, _)| Lane::at(*first)).collect(),
        Start::Since(since) => {
            let offsets = logs.offsets_at(Topic::Events, *since)?;
            let lane = |(offset, (first, end)): (Option<u64>, &(u64, u64))| {
                Lane::at(offset.unwrap_or(*end).clamp(*first, *first.max(end)))
            };
            offsets.into_iter().zip(bounds).map(lane).collect()
        }
        Start::At(cursor) if cursor.log == log && cursor.lanes.len() == bounds.len() => return Ok(cursor.clone()),
        Start::At(_) => return Err(CursorFault::OtherLog.into()),
    };
    Ok(Cursor { log, lanes, seen: 0 })
}

/// Loads one more chunk of each partition that has nothing left. Returns the number of records.
fn load(logs: &dyn LogQuery, readings: &mut [Reading], chunk: usize) -> Result<usize, PageError> {
    let mut stretches = Vec::new();
    for (partition, reading) in (0..).zip(readings.iter()).filter(|(_, reading)| reading.needs_more()) {
        let until = reading.loaded.saturating_add(chunk as u64).min(reading.until);
        stretches.push(Stretch { partition, from: reading.loaded, until });
    }
    let (mut read, mut bytes, mut fault) = (0, 0, None);
    logs.read(Topic::Events, &stretches, &mut |entry| {
        read += 1;
        bytes += entry.record.size();
        fault = readings[entry.position.partition as usize].load(&entry).err();
        if fault.is_some() || bytes >= CHUNK_BYTES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(fault) = fault {
        return Err(fault.into());
    }
    if bytes < CHUNK_BYTES_MAX {
        for stretch in stretches {
            let reading = &mut readings[stretch.partition as usize];
            reading.loaded = reading.loaded.max(stretch.until);
            if let Some(expected) = reading.expected.take() {
                is_deleted(logs, stretch.partition, expected)?;
            }
        }
    }
    // A stretch of markers alone has no records, but was read.
    Ok(read.max(1))
}

/// The record that was seen last is not there: retention took it meanwhile, or it is another log.
fn is_deleted(logs: &dyn LogQuery, partition: u32, expected: Mark) -> Result<(), PageError> {
    let first = logs.bounds(Topic::Events)?.get(partition as usize).map_or(0, |(first, _)| *first);
    if first > expected.offset { Ok(()) } else { Err(CursorFault::OtherLog.into()) }
}

/// Since when the log is complete: the oldest records that it has left, of partitions from which some were deleted. None
/// if it has no records.
pub fn reaches_back_to(logs: &dyn LogQuery) -> Result<Option<Timestamp>, EventLogError> {
    let bounds = logs.bounds(Topic::Events)?;
    let filled = (0..).zip(&bounds).filter(|(_, (first, end))| first < end);
    let first = |(partition, (first, end)): (u32, &(u64, u64))| Stretch {
        partition,
        from: *first,
        until: first.saturating_add(FIRST_RECORDS).min(*end),
    };
    let mut oldest: Vec<Option<Timestamp>> = vec![None; bounds.len()];
    logs.read(Topic::Events, &filled.map(first).collect::<Vec<_>>(), &mut |entry| {
        oldest[entry.position.partition as usize].get_or_insert(entry.record.at);
        ControlFlow::Continue(())
    })?;
    let cut = bounds.iter().zip(&oldest).filter(|((first, _), _)| *first > 0).filter_map(|(_, oldest)| *oldest).max();
    Ok(cut.or(oldest.into_iter().flatten().min()))
}

/// The first offsets of a log may be markers of transactions.
const FIRST_RECORDS: u64 = 4;

#[cfg(test)]
mod tests;
