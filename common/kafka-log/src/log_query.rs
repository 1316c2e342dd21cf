//! Queries on the topics: a plain consumer reads a few records of any partition, and is kept for the next query.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{PlainContext, Role};
use super::facts::{Follower, plain_consumer};
use super::positions::tolerate;
use super::record::{entry, kafka_offset, kafka_partition};
use super::transaction::judge;
use event_log::contract::Topic;
use event_log::{Entry, EventLogError, LogQuery, LogTail, Position, Stretch, Visit};
use primitives::time::Timestamp;
use runtime::settings::KafkaSettings;

/// One call may take this long.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const POLL_WAIT: Duration = Duration::from_millis(200);
/// Required by librdkafka; nothing is ever committed with it.
const TAIL_GROUP: &str = "hookledger-tail";

type Query = BaseConsumer<PlainContext>;

/// Connects with the first query. After a failure the next query has a new consumer. One query at a time.
pub struct KafkaLogQuery {
    settings: KafkaSettings,
    cluster: OnceLock<String>,
    consumer: Mutex<Option<Query>>,
}

impl KafkaLogQuery {
    pub fn new(settings: KafkaSettings) -> Self {
        Self { settings, cluster: OnceLock::new(), consumer: Mutex::new(None) }
    }

    fn with<T>(&self, query: impl FnOnce(&Query) -> Result<T, EventLogError>) -> Result<T, EventLogError> {
        let mut kept = self.consumer.lock().unwrap_or_else(PoisonError::into_inner);
        let consumer = match kept.take() {
            Some(consumer) => consumer,
            None => plain_consumer(&self.settings, Role::Query)?,
        };
        let answer = query(&consumer)?;
        *kept = Some(consumer);
        Ok(answer)
    }

    /// The offset of each partition for a time, or for an end of the log.
    fn offsets(&self, topic: Topic, consumer: &Query, at: Offset) -> Result<Vec<Option<u64>>, EventLogError> {
        let name = self.settings.topic(topic);
        let failed = |error| judge(&format!("query the offsets of {name}"), &error, None);
        let partitions = (0..self.settings.partitions).map(kafka_partition);
        let asked: TopicPartitionList = partitions.clone().map(|partition| (name.clone(), partition, at)).collect();
        let found = consumer.offsets_for_times(asked, ANSWER_WAIT_MAX).map_err(failed)?;
        let offset = |partition| {
            let found = found.find_partition(&name, partition).ok_or(KafkaError::NoMessageReceived)?;
            found.error()?;
            match found.offset() {
                Offset::Offset(offset) => Ok(u64::try_from(offset).ok()),
                // No record is that young.
                Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => Ok(None),
            }
        };
        partitions.map(|partition| offset(partition).map_err(failed)).collect()
    }
}

impl LogQuery for KafkaLogQuery {
    /// A topic that is made again in the same cluster keeps it.
    fn identity(&self, topic: Topic) -> Result<String, EventLogError> {
        let cluster = match self.cluster.get() {
            Some(cluster) => cluster.clone(),
            None => self.with(|consumer| {
                let cluster = consumer.client().fetch_cluster_id(ANSWER_WAIT_MAX);
                cluster.ok_or_else(|| EventLogError::Reopen("Kafka does not report its cluster id".into()))
            })?,
        };
        let cluster = self.cluster.get_or_init(|| cluster);
        Ok(format!("kafka:{cluster}:{}", self.settings.topic(topic)))
    }

    fn bounds(&self, topic: Topic) -> Result<Vec<(u64, u64)>, EventLogError> {
        self.with(|consumer| {
            // In this order: the beginning never passes the end.
            let first = self.offsets(topic, consumer, Offset::Beginning)?;
            let next = self.offsets(topic, consumer, Offset::End)?;
            let bounds = first.into_iter().zip(next);
            Ok(bounds.map(|(first, next)| (first.unwrap_or(0), next.or(first).unwrap_or(0))).collect())
        })
    }

    fn offsets_at(&self, topic: Topic, at: Timestamp) -> Result<Vec<Option<u64>>, EventLogError> {
        self.with(|consumer| self.offsets(topic, consumer, kafka_offset(at.ms())))
    }

    fn read(&self, topic: Topic, stretches: &[Stretch], visit: Visit<'_>) -> Result<(), EventLogError> {
        let stretches = stretches.iter().filter(|stretch| stretch.from < stretch.until);
        let mut rest: BTreeMap<u32, Stretch> = stretches.map(|stretch| (stretch.partition, *stretch)).collect();
        if rest.is_empty() {
            return Ok(());
        }
        let name = self.settings.topic(topic);
        let starts =
            rest.values().map(|stretch| (name.clone(), kafka_partition(stretch.partition), kafka_offset(stretch.from)));
        let starts: TopicPartitionList = starts.collect();
        self.with(|consumer| {
            let failed = |error| judge(&format!("read {name}"), &error, None);
            consumer.assign(&starts).map_err(failed)?;
            read(consumer, &name, &mut rest, visit)?;
            consumer.unassign().map_err(failed)
        })
    }

    fn tail(&self, topic: Topic, from: &[u64]) -> Result<Box<dyn LogTail>, EventLogError> {
        let mut follower = Follower::new(&self.settings, topic, TAIL_GROUP)?;
        let starts = (0..).zip(from).map(|(partition, offset)| Position { partition, offset: *offset });
        follower.follow(&starts.collect::<Vec<_>>())?;
        Ok(Box::new(follower))
    }
}

impl LogTail for Follower {
    fn next(&mut self, wait: Duration) -> Result<Vec<Entry>, EventLogError> {
        self.collect(wait)
    }
}

/// Reads until nothing is left of `rest`. The end of a partition ends its stretch: behind the last records there may be
/// markers of transactions alone.
fn read(
    consumer: &Query,
    name: &str,
    rest: &mut BTreeMap<u32, Stretch>,
    visit: Visit<'_>,
) -> Result<(), EventLogError> {
    let began = Instant::now();
    while !rest.is_empty() {
        if began.elapsed() >= ANSWER_WAIT_MAX {
            return Err(EventLogError::Reopen(format!("{name} returns no records in time")));
        }
        match consumer.poll(POLL_WAIT) {
            Some(Ok(message)) => {
                let entry = entry(&message);
                let (partition, offset) = (entry.position.partition, entry.position.offset);
                let Some(stretch) = rest.get(&partition).copied() else { continue };
                if offset + 1 >= stretch.until {
                    rest.remove(&partition);
                }
                if offset < stretch.until && visit(entry).is_break() {
                    return Ok(());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                rest.retain(|known, _| kafka_partition(*known) != partition);
            }
            Some(Err(error)) => tolerate(&format!("read {name}"), &error, consumer.client().fatal_error())?,
            None => {}
        }
    }
    Ok(())
}
