//! Queries on the logs of a standalone process.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::{DiskEventLog, DiskLog, Reader};
use event_log::contract::Topic;
use event_log::{Entry, EventLogError, LogQuery, LogTail, Position, Stretch, Visit};
use primitives::time::Timestamp;

const PARTITION: u32 = 0;
/// Of the published logs, those that are queried.
const QUERIED: [Topic; 5] = [Topic::Facts, Topic::Rejected, Topic::Vault, Topic::Events, Topic::Unverified];
const BATCH_RECORDS_MAX: usize = 500;
/// Exceeded only by the last record.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Reads `raw`, `forward` and what is published for readers. Clones share the logs that are open.
#[derive(Clone)]
pub struct DiskLogQuery {
    raw: DiskLog,
    forward: Option<DiskLog>,
    /// None while the logs are opened: an open log is locked, also by a query.
    published: Arc<RwLock<Option<Published>>>,
}

type Tails = Mutex<BTreeMap<Topic, Reader>>;

struct Published {
    logs: Vec<(Topic, DiskLog)>,
    /// Where the last tail of a log has come to; the next call goes on there.
    tails: Tails,
}

impl DiskLogQuery {
    pub fn new(raw: DiskLog) -> Self {
        Self { raw, forward: None, published: Arc::default() }
    }

    #[must_use]
    pub fn with_forward(self, log: DiskLog) -> Self {
        Self { forward: Some(log), ..self }
    }

    /// Waits for queries that are being answered; later ones fail until logs are open again.
    pub fn close(&self) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn open(&self, logs: &DiskEventLog) {
        let open = |topic| Some((topic, logs.log(topic)?.clone()));
        let logs = QUERIED.into_iter().filter_map(open).collect();
        *self.published.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Published { logs, tails: Tails::default() });
    }

    fn with<T>(
        &self,
        topic: Topic,
        query: impl FnOnce(&DiskLog) -> Result<T, EventLogError>,
    ) -> Result<T, EventLogError> {
        if topic == Topic::Raw {
            return query(&self.raw);
        }
        if let Some(log) = self.forward.as_ref().filter(|_| topic == Topic::Forward) {
            return query(log);
        }
        self.with_published(topic, |log, _| query(log))
    }

    fn with_published<T>(
        &self,
        topic: Topic,
        query: impl FnOnce(&DiskLog, &Tails) -> Result<T, EventLogError>,
    ) -> Result<T, EventLogError> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let found = published.as_ref().and_then(|published| {
            let (_, log) = published.logs.iter().find(|(open, _)| *open == topic)?;
            Some((log, &published.tails))
        });
        match found {
            Some((log, tails)) => query(log, tails),
            None => Err(EventLogError::Reopen(format!("the log {} is not open", topic.name()))),
        }
    }
}

impl LogQuery for DiskLogQuery {
    fn identity(&self, topic: Topic) -> Result<String, EventLogError> {
        self.with(topic, |log| Ok(format!("disk:{}", log.identity())))
    }

    fn bounds(&self, topic: Topic) -> Result<Vec<(u64, u64)>, EventLogError> {
        self.with(topic, |log| Ok(vec![log.bounds()]))
    }

    fn offsets_at(&self, topic: Topic, at: Timestamp) -> Result<Vec<Option<u64>>, EventLogError> {
        self.with(topic, |log| Ok(vec![Some(log.offset_at(at))]))
    }

    fn read(&self, topic: Topic, stretches: &[Stretch], visit: Visit<'_>) -> Result<(), EventLogError> {
        self.with(topic, |log| {
            for stretch in stretches.iter().filter(|stretch| stretch.partition == PARTITION) {
                let mut reader = log.reader(stretch.from).map_err(|error| unreadable(topic, &error))?;
                while let Some((offset, record)) = reader.next().map_err(|error| unreadable(topic, &error))? {
                    let position = Position { partition: PARTITION, offset };
                    if offset >= stretch.until || visit(Entry { position, record }).is_break() {
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    fn tail(&self, topic: Topic, from: &[u64]) -> Result<Box<dyn LogTail>, EventLogError> {
        self.with_published(topic, |_, _| Ok(()))?;
        let next = from.get(PARTITION as usize).copied().unwrap_or_default();
        Ok(Box::new(DiskLogTail { logs: self.clone(), topic, next }))
    }
}

/// Holds no log open between two calls.
struct DiskLogTail {
    logs: DiskLogQuery,
    topic: Topic,
    next: u64,
}

impl LogTail for DiskLogTail {
    fn next(&mut self, wait: Duration) -> Result<Vec<Entry>, EventLogError> {
        let Self { logs, topic, next } = self;
        logs.with_published(*topic, |log, tails| {
            if !log.wait_beyond(*next, wait) {
                return Ok(Vec::new());
            }
            let mut tails = tails.lock().unwrap_or_else(PoisonError::into_inner);
            let mut reader = match tails.remove(topic) {
                Some(reader) if reader.position() == *next && reader.is_of(log) => reader,
                Some(_) | None => log.reader(*next).map_err(|error| unreadable(*topic, &error))?,
            };
            let (mut entries, mut bytes) = (Vec::new(), 0);
            while entries.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
                let Some((offset, record)) = reader.next().map_err(|error| unreadable(*topic, &error))? else { break };
                bytes += record.size();
                *next = offset + 1;
                entries.push(Entry { position: Position { partition: PARTITION, offset }, record });
            }
            tails.insert(*topic, reader);
            Ok(entries)
        })
    }
}

fn unreadable(topic: Topic, error: &io::Error) -> EventLogError {
    EventLogError::Reopen(format!("read the log {}: {error}", topic.name()))
}

#[cfg(test)]
mod tests {
    use event_log::contract::{Retention, header};
    use event_log::{EventLog, Output};
    use tempfile::TempDir;

    use super::*;
    use crate::Options;
    use crate::tests::record;

    const SOON: Duration = Duration::from_secs(10);

    struct World {
        raw: DiskLog,
        published: u64,
        dir: TempDir,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let raw = DiskLog::open(&dir.path().join("raw"), Options::source()).expect("a log");
            Self { raw, published: 0, dir }
        }

        fn open(&self) -> DiskEventLog {
            DiskEventLog::open(&self.dir.path().join("logs"), self.raw.clone(), Retention::default()).expect("logs")
        }

        fn publish(&mut self, logs: &mut DiskEventLog, numbers: std::ops::Range<u64>) {
            for number in numbers {
                let mut record = record(number);
                record.headers.push((header::RAW_OFFSET.into(), self.published.to_string().into_bytes()));
                self.published += 1;
                let until = Position { partition: PARTITION, offset: self.published };
                logs.publish(vec![Output { topic: Topic::Events, partition: PARTITION, record }], &[until])
                    .expect("published");
            }
        }
    }

    fn offsets(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.position.offset).collect()
    }

    #[test]
    fn a_tail_goes_on_where_it_was_and_keeps_no_log_open() {
        let mut world = World::new();
        let (mut logs, query) = (world.open(), DiskLogQuery::new(world.raw.clone()));
        assert!(query.tail(Topic::Events, &[0]).is_err(), "no log is open");
        query.open(&logs);
        let identity = query.identity(Topic::Events).expect("an identity");
        world.publish(&mut logs, 0..3);
        let mut tail = query.tail(Topic::Events, &[1]).expect("a tail");
        assert_eq!(offsets(&tail.next(SOON).expect("records")), [1, 2]);
        assert_eq!(tail.next(Duration::ZERO).expect("none"), []);
        world.publish(&mut logs, 3..4);
        assert_eq!(offsets(&tail.next(SOON).expect("records")), [3]);

        query.close();
        drop(logs);
        assert!(tail.next(SOON).is_err(), "no log is open");
        let mut logs = world.open();
        query.open(&logs);
        world.publish(&mut logs, 4..5);
        assert_eq!(offsets(&tail.next(SOON).expect("records")), [4]);
        assert_eq!(query.identity(Topic::Events).expect("an identity"), identity, "the same log");
        assert_ne!(query.identity(Topic::Rejected).expect("an identity"), identity);
    }
}
