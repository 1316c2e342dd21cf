//! Queries on the logs of a standalone process.

use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use super::{DiskEventLog, DiskLog};
use event_log::contract::Topic;
use event_log::{Entry, EventLogError, LogQuery, Position, Stretch};
use primitives::time::Timestamp;

const PARTITION: u32 = 0;

/// Reads `raw`, `facts` and `rejected`. Clones share the logs that are open.
#[derive(Clone)]
pub struct DiskLogQuery {
    raw: DiskLog,
    /// Empty while the logs are opened: an open log is locked, also by a query.
    published: Arc<RwLock<Vec<(Topic, DiskLog)>>>,
}

impl DiskLogQuery {
    pub fn new(raw: DiskLog) -> Self {
        Self { raw, published: Arc::default() }
    }

    /// Waits for queries that are being answered; later ones fail until logs are open again.
    pub fn close(&self) {
        self.published.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub fn open(&self, logs: &DiskEventLog) {
        let open = |topic| Some((topic, logs.log(topic)?.clone()));
        let open = [Topic::Facts, Topic::Rejected].into_iter().filter_map(open).collect();
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = open;
    }

    fn with<T>(
        &self,
        topic: Topic,
        query: impl FnOnce(&DiskLog) -> Result<T, EventLogError>,
    ) -> Result<T, EventLogError> {
        if topic == Topic::Raw {
            return query(&self.raw);
        }
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        match published.iter().find(|(open, _)| *open == topic) {
            Some((_, log)) => query(log),
            None => Err(EventLogError::Reopen(format!("the log {} is not open", topic.name()))),
        }
    }
}

impl LogQuery for DiskLogQuery {
    fn bounds(&self, topic: Topic) -> Result<Vec<(u64, u64)>, EventLogError> {
        self.with(topic, |log| Ok(vec![log.bounds()]))
    }

    fn offsets_at(&self, topic: Topic, at: Timestamp) -> Result<Vec<Option<u64>>, EventLogError> {
        self.with(topic, |log| Ok(vec![Some(log.offset_at(at))]))
    }

    fn read(
        &self,
        topic: Topic,
        stretches: &[Stretch],
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), EventLogError> {
        let unreadable = |error: io::Error| EventLogError::Reopen(format!("read the log {}: {error}", topic.name()));
        self.with(topic, |log| {
            for stretch in stretches.iter().filter(|stretch| stretch.partition == PARTITION) {
                let mut reader = log.reader(stretch.from).map_err(unreadable)?;
                while let Some((offset, record)) = reader.next().map_err(unreadable)? {
                    let position = Position { partition: PARTITION, offset };
                    if offset >= stretch.until || visit(Entry { position, record }).is_break() {
                        break;
                    }
                }
            }
            Ok(())
        })
    }
}
