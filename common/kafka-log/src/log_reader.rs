//! Read-only access to the logs in Kafka: joins no group, fences no producer, creates no topic, publishes nothing.

use std::time::{Duration, Instant};

use super::reader::Reader;
use event_log::contract::Topic;
use event_log::{EventLogError, LogReader, Position, Visit};
use primitives::time::Timestamp;
use runtime::lifecycle::Stop;
use runtime::settings::KafkaSettings;

/// How long Kafka may be away before a command gives up.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The logs of a [`super::KafkaEventLog`], read only.
pub struct KafkaLogReader {
    identity: String,
    partitions: u32,
    reader: Reader,
}

impl KafkaLogReader {
    /// `group` is queried for its offsets, not joined.
    pub fn open(settings: &KafkaSettings, group: &str, stop: &Stop) -> Result<Self, EventLogError> {
        let reader = Reader::new(settings, group, stop.clone())?;
        let began = Instant::now();
        let (cluster, found) = loop {
            if let Some(found) = reader.cluster_and_partitions(Topic::Facts) {
                break found;
            }
            if stop.sleep(ASK_AGAIN) || began.elapsed() >= ANSWER_WAIT_MAX {
                let servers = &settings.servers;
                return Err(EventLogError::Fatal(format!("Kafka at {servers} does not report its cluster id")));
            }
        };
        let topic = settings.topic(Topic::Facts);
        if found != settings.partitions {
            let partitions = settings.partitions;
            return Err(match found {
                0 => EventLogError::Fatal(format!("there is no topic {topic} in this cluster")),
                found => EventLogError::Partitions(format!(
                    "topic {topic} has {found} partitions where partitions is {partitions}"
                )),
            });
        }
        let identity = format!("kafka:{cluster}:{}", settings.topic_prefix);
        Ok(Self { identity, partitions: settings.partitions, reader })
    }
}

impl LogReader for KafkaLogReader {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn tells_progress(&self) -> bool {
        true
    }

    fn committed(&mut self, partition: u32) -> Result<Option<u64>, EventLogError> {
        self.reader.left_off(partition)
    }

    fn bounds(&mut self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError> {
        self.reader.bounds(topic, partition)
    }

    fn read(&mut self, topic: Topic, from: Position, until: u64, visit: Visit<'_>) -> Result<(), EventLogError> {
        self.reader.read(topic, from, until, visit, &mut || Ok(()))
    }

    fn offset_at(&mut self, partition: u32, at: Timestamp) -> Result<u64, EventLogError> {
        self.reader.offset_at(partition, at)
    }
}
