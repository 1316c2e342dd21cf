//! Queries on the logs of a standalone process.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use super::{DiskEventLog, DiskLog};
use event_log::contract::Topic;
use event_log::{Entry, EventLogError, LogQuery, Position, Stretch, Visit};
use primitives::time::Timestamp;

const PARTITION: u32 = 0;

/// Reads `raw` and `rejected`. Clones share the log that is open.
#[derive(Clone)]
pub struct DiskLogQuery {
    raw: DiskLog,
    /// None while the logs are opened: an open log is locked, also by a query.
    rejected: Arc<RwLock<Option<DiskLog>>>,
}

impl DiskLogQuery {
    pub fn new(raw: DiskLog) -> Self {
        Self { raw, rejected: Arc::default() }
    }

    /// Waits for queries that are being answered; later ones fail until logs are open again.
    pub fn close(&self) {
        *self.rejected.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn open(&self, logs: &DiskEventLog) {
        *self.rejected.write().unwrap_or_else(PoisonError::into_inner) = logs.log(Topic::Rejected).cloned();
    }

    fn with<T>(
        &self,
        topic: Topic,
        query: impl FnOnce(&DiskLog) -> Result<T, EventLogError>,
    ) -> Result<T, EventLogError> {
        if topic == Topic::Raw {
            return query(&self.raw);
        }
        let rejected = self.rejected.read().unwrap_or_else(PoisonError::into_inner);
        match rejected.as_ref().filter(|_| topic == Topic::Rejected) {
            Some(log) => query(log),
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

    fn read(&self, topic: Topic, stretches: &[Stretch], visit: Visit<'_>) -> Result<(), EventLogError> {
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
