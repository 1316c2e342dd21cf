//! Follows partitions of a topic, committed records only: `facts` of partitions with another owner, `events` for queries.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::client::{self, LoggingContext, PlainContext, Role};
use super::positions::Positions;
use super::transaction::judge;
use event_log::contract::Topic;
use event_log::{Entry, EventLogError, Position};
use runtime::settings::KafkaSettings;

const BATCH_RECORDS_MAX: usize = 1_000;
/// How long a new follower waits for its connection.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Follower {
    topic: String,
    consumer: BaseConsumer<PlainContext>,
    next: Positions,
}

impl Follower {
    pub(super) fn new(settings: &KafkaSettings, topic: Topic, group: &str) -> Result<Self, EventLogError> {
        let consumer = plain_consumer(settings, Role::Follower { group })?;
        let topic = settings.topic(topic);
        // With a connection and known leaders, the first records come half a second earlier.
        if let Err(error) = consumer.fetch_metadata(Some(&topic), CONNECT_WAIT) {
            tracing::debug!("connect the follower: {error}");
        }
        Ok(Self { topic, consumer, next: Positions::default() })
    }

    /// Replaces all former partitions.
    pub(super) fn follow(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        self.next = Positions::default();
        self.next.extend(starts.iter().copied());
        let list = self.next.of_topic(&self.topic);
        self.consumer.assign(&list).map_err(|error| judge(&self.step(), &error, None))
    }

    pub(super) fn follows(&self) -> bool {
        !self.next.is_empty()
    }

    /// Returns available records, waiting for the first one.
    pub(super) fn collect(&mut self, wait: Duration) -> Result<Vec<Entry>, EventLogError> {
        let step = self.step();
        self.next.poll(&self.consumer, &step, wait, BATCH_RECORDS_MAX, || false)
    }

    fn step(&self) -> String {
        format!("follow {}", self.topic)
    }

    /// The current positions, to find one that is out of range.
    pub(super) fn positions(&self) -> Vec<Position> {
        self.next.all()
    }
}

/// A consumer without a group.
pub(super) fn plain_consumer(
    settings: &KafkaSettings,
    role: Role<'_>,
) -> Result<BaseConsumer<PlainContext>, EventLogError> {
    client::create(settings, role, PlainContext(LoggingContext::new(settings, role)))
}
