//! Follows `facts` of partitions with another owner, committed records only.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;

use super::client::{self, LoggingContext, PlainContext, Role};
use super::group::tolerate;
use super::record::{entry, kafka_offset, kafka_partition};
use super::transaction::judge;
use event_log::contract::Topic;
use event_log::{Entry, EventLogError, Position};
use runtime::settings::KafkaSettings;

const BATCH_RECORDS_MAX: usize = 1_000;
/// Exceeded only by the last record.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a new follower waits for its connection.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    topic: String,
    consumer: BaseConsumer<PlainContext>,
    next: BTreeMap<u32, u64>,
}

impl Follower {
    pub(super) fn new(settings: &KafkaSettings, group: &str) -> Result<Self, EventLogError> {
        let consumer = plain_consumer(settings, Role::Follower { group })?;
        let topic = settings.topic(Topic::Facts);
        // With a connection and known leaders, the first records come half a second earlier.
        if let Err(error) = consumer.fetch_metadata(Some(&topic), CONNECT_WAIT) {
            tracing::debug!("connect the follower: {error}");
        }
        Ok(Self { topic, consumer, next: BTreeMap::new() })
    }

    /// Replaces all former partitions.
    pub(super) fn follow(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        self.next = starts.iter().map(|start| (start.partition, start.offset)).collect();
        let list = self.next.iter();
        let list =
            list.map(|(partition, offset)| (self.topic.clone(), kafka_partition(*partition), kafka_offset(*offset)));
        let list: TopicPartitionList = list.collect();
        self.consumer.assign(&list).map_err(|error| judge("follow facts", &error, None))
    }

    pub(super) fn follows(&self) -> bool {
        !self.next.is_empty()
    }

    /// Returns available records, waiting for the first one.
    pub(super) fn collect(&mut self, wait: Duration) -> Result<Vec<Entry>, EventLogError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut wait = wait;
        while batch.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(polled) = self.consumer.poll(mem::take(&mut wait)) else { break };
            let message = match polled {
                Ok(message) => message,
                Err(error) => {
                    tolerate("follow facts", &error, self.consumer.client().fatal_error())?;
                    continue;
                }
            };
            let (partition, offset) = (message.partition(), message.offset());
            let next = u32::try_from(partition).ok().and_then(|partition| self.next.get_mut(&partition));
            let Some(next) = next.filter(|next| u64::try_from(offset).is_ok_and(|offset| offset >= **next)) else {
                continue;
            };
            let entry = entry(&message);
            *next = entry.position.offset + 1;
            bytes += entry.record.size();
            batch.push(entry);
        }
        Ok(batch)
    }

    /// The current positions, to find one that is out of range.
    pub(super) fn places(&self) -> Vec<Position> {
        self.next.iter().map(|(partition, offset)| Position { partition: *partition, offset: *offset }).collect()
    }
}

/// A consumer without a group.
pub(super) fn plain_consumer(
    settings: &KafkaSettings,
    role: Role<'_>,
) -> Result<BaseConsumer<PlainContext>, EventLogError> {
    client::config(settings, role)
        .and_then(|config| Ok(config.create_with_context(PlainContext(LoggingContext::new(settings, role)))?))
        .map_err(|error| EventLogError::Fatal(error.to_string()))
}
