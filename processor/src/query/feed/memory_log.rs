//! A log in memory, for tests.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_log::contract::{Topic, header};
use event_log::{Entry, EventId, EventLogError, LogQuery, LogTail, Position, Record, Stretch, Visit};
use primitives::time::Timestamp;

/// One second for each event, over all partitions.
const BEGAN_S: u64 = 1_000_000;

#[derive(Clone, Default)]
pub struct MemoryLog(Arc<(Mutex<Inner>, Condvar)>);

#[derive(Clone, Default)]
struct Inner {
    identity: String,
    partitions: Vec<Partition>,
    events: u64,
    reads: usize,
    searches: usize,
    is_away: bool,
}

#[derive(Clone, Default)]
struct Partition {
    first: u64,
    /// None is a marker of a transaction.
    offsets: Vec<Option<Record>>,
}

impl MemoryLog {
    pub fn new(identity: &str, partitions: usize) -> Self {
        let partitions = vec![Partition::default(); partitions];
        Self::of(Inner { identity: identity.into(), partitions, ..Inner::default() })
    }

    fn of(inner: Inner) -> Self {
        Self(Arc::new((Mutex::new(inner), Condvar::new())))
    }

    /// Those that wait look again.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.1.notify_all();
        self.0.0.lock().expect("a lock")
    }

    /// Adds an event of an app. Returns its number, which is in its data.
    pub fn add(&self, partition: usize, app: &str) -> u64 {
        self.add_event(partition, app, "ONCRMLEADADD")
    }

    /// Adds an event with another name.
    pub fn add_named(&self, partition: usize, name: &str) -> u64 {
        self.add_event(partition, "app", name)
    }

    fn add_event(&self, partition: usize, app: &str, name: &str) -> u64 {
        let mut inner = self.inner();
        let number = inner.events;
        inner.events += 1;
        let value = format!(r#"{{"event":"{name}","app":"{app}","member_id":"a{partition}","data":{number}}}"#);
        let record = Record {
            key: None,
            value: Some(Bytes::from(value)),
            headers: vec![(header::ID.into(), EventId::now_v7().to_string().into_bytes())],
            at: Self::at(number),
        };
        inner.partitions[partition].offsets.push(Some(record));
        number
    }

    pub fn at(number: u64) -> Timestamp {
        Timestamp::from_s(BEGAN_S + number)
    }

    pub fn add_record(&self, partition: usize, record: Record) {
        self.inner().partitions[partition].offsets.push(Some(record));
    }

    /// Adds what no reader sees.
    pub fn add_marker(&self, partition: usize) {
        self.inner().partitions[partition].offsets.push(None);
    }

    /// Adds what readers see and skip.
    pub fn add_noop(&self, partition: usize) {
        let record = Record { key: Some("noop".into()), value: None, headers: vec![], at: Timestamp::from_s(1) };
        self.inner().partitions[partition].offsets.push(Some(record));
    }

    /// Retention.
    pub fn delete_before(&self, partition: usize, first: u64) {
        self.inner().partitions[partition].first = first;
    }

    /// The same names and numbers of records, but other ones.
    pub fn made_again(&self) -> Self {
        let mut again = self.inner().clone();
        for record in again.partitions.iter_mut().flat_map(|partition| &mut partition.offsets).flatten() {
            record.headers = vec![(header::ID.into(), EventId::now_v7().to_string().into_bytes())];
        }
        Self::of(again)
    }

    pub fn set_away(&self, is_away: bool) {
        self.inner().is_away = is_away;
    }

    /// How many records were read for pages, not by tails.
    pub fn reads(&self) -> usize {
        self.inner().reads
    }

    /// How often a place was looked for, each time to read from there.
    pub fn searches(&self) -> usize {
        self.inner().searches
    }

    fn there(&self) -> Result<MutexGuard<'_, Inner>, EventLogError> {
        let inner = self.0.0.lock().expect("a lock");
        if inner.is_away { Err(EventLogError::Reopen("it is away".into())) } else { Ok(inner) }
    }
}

impl Inner {
    fn entries(&self, stretch: Stretch) -> Vec<Entry> {
        let partition = &self.partitions[stretch.partition as usize];
        let offsets = stretch.from.max(partition.first)..stretch.until.min(partition.offsets.len() as u64);
        let entry = |offset: u64| {
            let record = partition.offsets[usize::try_from(offset).expect("few")].clone()?;
            Some(Entry { position: Position { partition: stretch.partition, offset }, record })
        };
        offsets.filter_map(entry).collect()
    }
}

impl LogQuery for MemoryLog {
    fn identity(&self, _: Topic) -> Result<String, EventLogError> {
        Ok(self.there()?.identity.clone())
    }

    fn bounds(&self, _: Topic) -> Result<Vec<(u64, u64)>, EventLogError> {
        let bounds = |partition: &Partition| (partition.first, partition.offsets.len() as u64);
        Ok(self.there()?.partitions.iter().map(bounds).collect())
    }

    fn offsets_at(&self, _: Topic, at: Timestamp) -> Result<Vec<Option<u64>>, EventLogError> {
        let is_young = |record: &Option<Record>| record.as_ref().is_some_and(|record| record.at >= at);
        let offset = |partition: &Partition| partition.offsets.iter().position(is_young).map(|offset| offset as u64);
        Ok(self.there()?.partitions.iter().map(offset).collect())
    }

    fn read(&self, _: Topic, stretches: &[Stretch], visit: Visit<'_>) -> Result<(), EventLogError> {
        let mut inner = self.there()?;
        inner.searches += stretches.len();
        for entry in stretches.iter().flat_map(|stretch| inner.entries(*stretch)).collect::<Vec<_>>() {
            inner.reads += 1;
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn tail(&self, _: Topic, from: &[u64]) -> Result<Box<dyn LogTail>, EventLogError> {
        drop(self.there()?);
        Ok(Box::new(MemoryTail { log: self.clone(), next: from.to_vec() }))
    }
}

struct MemoryTail {
    log: MemoryLog,
    next: Vec<u64>,
}

impl LogTail for MemoryTail {
    fn next(&mut self, wait: Duration) -> Result<Vec<Entry>, EventLogError> {
        let until = Instant::now() + wait;
        loop {
            let inner = self.log.there()?;
            let stretches =
                (0..).zip(&self.next).map(|(partition, next)| Stretch { partition, from: *next, until: u64::MAX });
            let entries: Vec<Entry> = stretches.flat_map(|stretch| inner.entries(stretch)).collect();
            for entry in &entries {
                self.next[entry.position.partition as usize] = entry.position.offset + 1;
            }
            let left = until.saturating_duration_since(Instant::now());
            if !entries.is_empty() || left.is_zero() {
                return Ok(entries);
            }
            // A change is announced just before it is made.
            drop(self.log.0.1.wait_timeout(inner, left.min(Duration::from_millis(5))));
        }
    }
}
