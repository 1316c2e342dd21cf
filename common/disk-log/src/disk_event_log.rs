//! All logs of a standalone process: one partition, read and published without a broker.
//!
//! A batch is published log by log, each taking its part whole or not at all: `events`, `unverified`,
//! `rejected`, `vault`, then `facts`, then the read position of `raw`. After a crash in between, `facts` have not
//! advanced, so the same events are read again with the same result; records that a log has already are
//! skipped by the raw offset that every derived record carries.
//!
//! Where a log has no room, publishing waits in that place ([`Upkeep`]). `raw` stops before that: it reserves
//! room for the records derived from it, and the derived logs reserve some for the state.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use tracing::warn;

use self::compaction::{COMPACT_EVERY, compact};
pub use self::upkeep::Upkeep;
use super::files::Files;
use super::{AppendError, DiskLog, Leaves, Options, Place, Reader};
use event_log::contract::{Policy, Retention, Topic, header};
use event_log::{
    Applied, Entry, EventLog, EventLogError, FactOffsets, LogEvent, LogReader, Output, Position, Record, Visit,
};
use primitives::time::{SteadyClock, Timestamp};

mod compaction;
mod upkeep;

/// In the order of publishing: `facts` last, since the rest is derived from that state.
const PUBLISHED: [Topic; 5] = [Topic::Events, Topic::Unverified, Topic::Rejected, Topic::Vault, Topic::Facts];
const VAULT_SEGMENT_BYTES: u64 = 1024 * 1024;
/// The place of `facts` among them.
const FACTS: usize = 4;
/// The directory of the log with the read position of `raw`.
const PROGRESS: &str = "progress";
const PARTITION: u32 = 0;
/// Of the derived logs, each of which has at least two segments.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
const BATCH_RECORDS_MAX: usize = 500;
/// Exceeded only by a single larger record.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Reserved by the derived logs: the state is written after them, and must never find the disk full.
const FOLLOWING_LEAVE_BYTES: u64 = 12 * 1024 * 1024;
const RETENTION_EVERY: Duration = Duration::from_secs(60);

/// The logs of one directory, and `raw`, which ingress writes.
pub struct DiskEventLog {
    identity: String,
    raw: DiskLog,
    published: [Published; 5],
    progress: DiskLog,
    /// `K`: all of `raw` below was published. None if nothing was published.
    read_until: Option<u64>,
    /// Of the publication that was begun.
    fact_offsets: FactOffsets,
    reader: Option<Reader>,
    /// Read records that are not published yet: offset, and the place behind each.
    brought: VecDeque<(u64, Place)>,
    was_assigned: bool,
    upkeep: Upkeep,
    retained_at: Option<Instant>,
    compacted_at: Instant,
    clock: SteadyClock,
}

struct Published {
    topic: Topic,
    log: DiskLog,
    /// All records derived from `raw` below this offset are in the log.
    until: u64,
}

impl DiskEventLog {
    /// Opens or creates the logs, and determines what a crash left undone. `raw` may be written to meanwhile.
    pub fn open(dir: &Path, raw: DiskLog, retention: Retention) -> anyhow::Result<Self> {
        Self::open_with(dir, raw, Upkeep::new(retention))
    }

    pub fn open_with(dir: &Path, raw: DiskLog, upkeep: Upkeep) -> anyhow::Result<Self> {
        let leaves = Leaves { bytes: FOLLOWING_LEAVE_BYTES, ..Leaves::default() };
        let logs = Options { segment_bytes: SEGMENT_BYTES, leaves, ..Options::log() };
        Self::open_on(&Files::default(), dir, raw, upkeep, &logs)
    }

    fn open_on(files: &Files, dir: &Path, raw: DiskLog, upkeep: Upkeep, logs: &Options) -> anyhow::Result<Self> {
        let open = |name: &str, options| {
            DiskLog::open_on(files.clone(), &dir.join(name), options).with_context(|| format!("open the log {name}"))
        };
        let mut published = Vec::with_capacity(PUBLISHED.len());
        for topic in PUBLISHED {
            // It grows by an entry now and then, and each log reserves two segments of the disk.
            let segment_bytes = if topic == Topic::Vault { VAULT_SEGMENT_BYTES } else { logs.segment_bytes };
            let options = Options { segment_bytes: segment_bytes.min(logs.segment_bytes), ..logs.clone() };
            let log = open(topic.name(), options)?;
            if topic == Topic::Vault {
                compact(&log).context("compact the log vault")?;
            }
            // A record that is published again is the newest of its key, as it was.
            let until = if topic == Topic::Vault { Ok(0) } else { until(&log) };
            let until = until.with_context(|| format!("find the end of the log {}", topic.name()))?;
            published.push(Published { topic, log, until });
        }
        let progress = open(PROGRESS, Options::progress())?;
        let progressed = progressed(&progress).context("read the last of the log progress")?;

        let published: [Published; 5] = published.try_into().map_err(|_| anyhow::anyhow!("one log for each topic"))?;
        let facts = &published[FACTS];
        let has_facts = facts.log.bounds().1 > 0;
        let read_until = progressed.max(has_facts.then_some(facts.until));
        let (identity, was_assigned) = (facts.log.identity().to_string(), false);
        let (reader, retained_at, clock, brought) = (None, None, SteadyClock::start(), VecDeque::new());
        Ok(Self {
            identity,
            raw,
            published,
            progress,
            read_until,
            fact_offsets: FactOffsets::new(),
            reader,
            brought,
            was_assigned,
            upkeep,
            retained_at,
            compacted_at: Instant::now(),
            clock,
        })
    }

    /// None for topics without a log.
    pub fn log(&self, topic: Topic) -> Option<&DiskLog> {
        if topic == Topic::Raw {
            return Some(&self.raw);
        }
        self.published.iter().find(|published| published.topic == topic).map(|published| &published.log)
    }

    fn log_of(&self, topic: Topic, partition: u32) -> Result<&DiskLog, EventLogError> {
        if partition != PARTITION {
            return Err(EventLogError::Fatal(format!(
                "there is no partition {partition}: disk logs have one, {PARTITION}"
            )));
        }
        self.log(topic)
            .ok_or_else(|| EventLogError::Fatal(format!("without a broker there is no log {}", topic.name())))
    }

    /// The records of a batch that each log still lacks.
    fn missing(&self, outputs: Vec<Output>, read_until: u64) -> Result<[Vec<Record>; 5], EventLogError> {
        let mut missing: [Vec<Record>; 5] = Default::default();
        for output in outputs {
            let Some(index) = PUBLISHED.iter().position(|topic| *topic == output.topic) else { continue };
            let cause = cause(&output.record).filter(|cause| *cause < read_until).ok_or_else(|| {
                let topic = output.topic.name();
                EventLogError::Fatal(format!(
                    "a record for {topic} does not name a raw event below {read_until} in {}",
                    header::RAW_OFFSET
                ))
            })?;
            // A correction of old records is no part of the batch, and no log has it.
            if cause >= self.published[index].until || is_correction(&output.record) {
                missing[index].push(output.record);
            }
        }
        Ok(missing)
    }

    /// Applies retention periodically, but never while a batch is half published.
    fn retain(&mut self) {
        let read_until = self.read_until.unwrap_or(0);
        let is_whole = self.published.iter().all(|published| published.until <= read_until);
        if !is_whole || self.retained_at.is_some_and(|at| at.elapsed() < RETENTION_EVERY) {
            return;
        }
        self.retained_at = Some(Instant::now());
        for (topic, log, before) in self.deletable() {
            self.delete_old(topic, log, before);
        }
        if self.compacted_at.elapsed() >= COMPACT_EVERY
            && let Some(vault) = self.log(Topic::Vault)
        {
            if let Err(error) = compact(vault) {
                warn!(%error, "compact the log vault: {error}");
            }
            self.compacted_at = Instant::now();
        }
    }

    /// All logs, and before which offset records may go. Unread records stay at any age.
    fn deletable(&self) -> impl Iterator<Item = (Topic, &DiskLog, u64)> {
        let logs = self.published.iter().map(|published| (published.topic, &published.log, u64::MAX));
        logs.chain([(Topic::Raw, &self.raw, self.read_until.unwrap_or(0))])
    }

    fn delete_old(&self, topic: Topic, log: &DiskLog, before: u64) {
        let Policy::Delete(age) = topic.policy(self.upkeep.retention) else { return };
        if let Err(error) = log.delete_older_than_and_before(self.clock.now().minus(age), before) {
            warn!(%error, "delete old segments of {}: {error}", topic.name());
        }
    }

    /// Applies retention while a half-published batch waits for room. The last record of each log stays: it holds the
    /// log's progress.
    fn retain_while_waiting(&self) {
        for (topic, log, before) in self.deletable() {
            self.delete_old(topic, log, before.min(log.bounds().1.saturating_sub(1)));
        }
    }

    /// Waits for room until a stop is requested.
    fn append(&self, name: &str, log: &DiskLog, records: &[Record]) -> Result<u64, EventLogError> {
        let mut waiting = None;
        loop {
            match log.try_append_blocking(records) {
                Err(AppendError::Full) => {
                    self.retain_while_waiting();
                    if !waiting.get_or_insert_with(|| self.upkeep.wait_for_room(name)).sleep() {
                        return Err(EventLogError::Reopen(format!("stopped while the log {name} waited for room")));
                    }
                }
                kept => return kept.map_err(|error| not_kept(name, &error)),
            }
        }
    }

    /// Everything derived from `raw` below this is published, so its reserved room is released.
    fn used(&mut self, read_until: u64) {
        let mut until = None;
        while let Some((_, place)) = self.brought.front().copied().filter(|(offset, _)| *offset <= read_until) {
            until = Some(place);
            self.brought.pop_front();
        }
        if let Some(place) = until {
            self.raw.was_used(place);
        }
    }

    /// The least valuable records go first: unverified events.
    fn limit_unverified(&self) {
        let Some(log) = self.log(Topic::Unverified) else { return };
        match log.delete_beyond(self.upkeep.unverified_bytes_max) {
            Ok(deleted) => self.upkeep.gave_way(deleted),
            Err(error) => warn!(%error, "delete old segments of unverified: {error}"),
        }
    }
}

impl LogReader for DiskEventLog {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn partitions(&self) -> u32 {
        1
    }

    fn tells_progress(&self) -> bool {
        false
    }

    fn committed(&mut self, partition: u32) -> Result<Option<u64>, EventLogError> {
        self.log_of(Topic::Facts, partition).map(|_| self.read_until)
    }

    fn bounds(&mut self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError> {
        self.log_of(topic, partition).map(DiskLog::bounds)
    }

    fn read(&mut self, topic: Topic, from: Position, until: u64, visit: Visit<'_>) -> Result<(), EventLogError> {
        let log = self.log_of(topic, from.partition)?;
        let mut reader = log.reader(from.offset).map_err(|error| unreadable(topic, &error))?;
        while reader.position() < until {
            match reader.next().map_err(|error| unreadable(topic, &error))? {
                Some((offset, record)) if offset < until => {
                    if visit(Entry { position: Position { offset, ..from }, record }).is_break() {
                        break;
                    }
                }
                Some(_) | None => break,
            }
        }
        Ok(())
    }

    fn offset_at(&mut self, partition: u32, at: Timestamp) -> Result<u64, EventLogError> {
        self.log_of(Topic::Raw, partition).map(|log| log.offset_at(at))
    }
}

impl EventLog for DiskEventLog {
    fn recover(&mut self, _: &[Applied]) -> Result<(), EventLogError> {
        Ok(())
    }

    fn join(&mut self) -> Result<(), EventLogError> {
        Ok(())
    }

    fn next(&mut self, wait: Duration) -> Result<LogEvent, EventLogError> {
        if !std::mem::replace(&mut self.was_assigned, true) {
            return Ok(LogEvent::Assigned(vec![PARTITION]));
        }
        self.retain();
        let position = self.reader.as_ref().map_or(u64::MAX, Reader::position);
        if !self.raw.wait_beyond(position, wait) {
            return Ok(LogEvent::Quiet);
        }
        let Some(reader) = &mut self.reader else { return Ok(LogEvent::Quiet) };
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            let Some((offset, record)) = reader.next().map_err(|error| unreadable(Topic::Raw, &error))? else { break };
            bytes += record.size();
            self.brought.extend(reader.place().map(|place| (offset + 1, place)));
            entries.push(Entry { position: Position { partition: PARTITION, offset }, record });
        }
        Ok(LogEvent::Raw(entries))
    }

    fn start(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        for start in starts {
            let log = self.log_of(Topic::Raw, start.partition)?;
            let (first, end) = log.bounds();
            if !(first..=end).contains(&start.offset) {
                let offset = start.offset;
                return Err(EventLogError::Fatal(format!(
                    "raw holds {first} to {end}, and cannot be read from {offset} on"
                )));
            }
            self.reader = Some(log.reader(start.offset).map_err(|error| unreadable(Topic::Raw, &error))?);
            self.brought.clear();
        }
        Ok(())
    }

    fn follow(&mut self, _starts: &[Position]) -> Result<(), EventLogError> {
        Ok(())
    }

    fn unowned(&mut self) -> Option<usize> {
        Some(usize::from(!self.was_assigned))
    }

    fn lost_a_broker(&mut self) -> bool {
        false
    }

    fn undecided(&mut self) -> Result<Vec<(Topic, Position)>, EventLogError> {
        Ok(Vec::new())
    }

    /// All of it: what waits for the disk is the batch of the next step.
    fn begin_publication(&mut self, outputs: Vec<Output>, read: &[Position]) -> Result<(), EventLogError> {
        let [Position { partition: PARTITION, offset: read_until }] = *read else {
            return Err(EventLogError::Fatal(format!("publish what follows from partition {PARTITION}, not {read:?}")));
        };
        if let Some(before) = self.read_until.filter(|before| *before > read_until) {
            return Err(EventLogError::Fatal(format!(
                "raw was read up to {before}, and cannot be read up to {read_until} again"
            )));
        }
        let facts = outputs.iter().filter(|output| output.topic == Topic::Facts).count();
        let missing = self.missing(outputs, read_until)?;
        if missing[FACTS].len() < facts {
            return Err(EventLogError::Reopen("facts of this step are in their log already".to_owned()));
        }
        self.fact_offsets.clear();
        for (index, records) in missing.into_iter().enumerate().filter(|(_, records)| !records.is_empty()) {
            let Published { topic, log, .. } = &self.published[index];
            let first = self.append(topic.name(), log, &records)?;
            if *topic == Topic::Facts {
                let offsets = (first..).take(records.len()).collect();
                self.fact_offsets = FactOffsets::from([(PARTITION, offsets)]);
            }
            if *topic == Topic::Unverified {
                self.limit_unverified();
            }
            if !records.iter().all(is_correction) {
                self.published[index].until = read_until;
            }
        }
        let progressed = self.append(PROGRESS, &self.progress, &[progress(read_until)])?;
        self.read_until = Some(read_until);
        self.used(read_until);
        if let Err(error) = self.progress.delete_before(progressed) {
            warn!(%error, "delete old segments of {PROGRESS}: {error}");
        }
        Ok(())
    }

    fn end_publication(&mut self) -> Result<FactOffsets, EventLogError> {
        Ok(std::mem::take(&mut self.fact_offsets))
    }
}

/// The offset of the raw event that the record is derived from.
fn cause(record: &Record) -> Option<u64> {
    std::str::from_utf8(record.header(header::RAW_OFFSET)?).ok()?.parse().ok()
}

/// All records derived from `raw` below this offset are in the log.
fn until(log: &DiskLog) -> io::Result<u64> {
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "its last record names no raw event");
    let (first, mut end) = log.bounds();
    while end > first {
        let Some(record) = before(log, end)? else { break };
        if !is_correction(&record) {
            return cause(&record).map(|cause| cause + 1).ok_or_else(missing);
        }
        end -= 1;
    }
    Ok(0)
}

/// Whether an audit published the record, not a batch.
fn is_correction(record: &Record) -> bool {
    record.header(header::CORRECTION).is_some()
}

fn progress(read_until: u64) -> Record {
    let value = Some(Bytes::from(read_until.to_string()));
    Record { key: None, value, headers: vec![], at: Timestamp::now() }
}

fn progressed(log: &DiskLog) -> io::Result<Option<u64>> {
    let Some(record) = last(log)? else { return Ok(None) };
    let number = record.value.as_deref().and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    number.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its last record is no number"))
}

fn last(log: &DiskLog) -> io::Result<Option<Record>> {
    before(log, log.bounds().1)
}

fn before(log: &DiskLog, end: u64) -> io::Result<Option<Record>> {
    if end <= log.bounds().0 {
        return Ok(None);
    }
    Ok(log.reader(end - 1)?.next()?.map(|(_, record)| record))
}

fn unreadable(topic: Topic, error: &io::Error) -> EventLogError {
    EventLogError::Fatal(format!("read the log {}: {error}", topic.name()))
}

fn not_kept(log: &str, error: &AppendError) -> EventLogError {
    EventLogError::Fatal(format!("publish to the log {log}: {error}"))
}

#[cfg(test)]
mod tests;
