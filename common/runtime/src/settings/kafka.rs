//! The settings of Kafka.

use std::fmt;

use event_log::contract::{Retention, Topic};

/// The connection to Kafka and the shape of its topics.
#[derive(Clone)]
pub struct KafkaSettings {
    pub servers: String,
    /// Any librdkafka setting, overriding ours; those that would break a promise are refused.
    pub set: Vec<(String, String)>,
    pub topic_prefix: String,
    pub partitions: u32,
    /// Of topics that we create; none for the broker's default.
    pub replication: Option<i32>,
    /// Of topics that we create.
    pub retention: Retention,
}

impl KafkaSettings {
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.topic_prefix, topic.name())
    }
}

impl fmt::Debug for KafkaSettings {
    /// Without the values of librdkafka's settings, which include passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<&str> = self.set.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("KafkaSettings")
            .field("servers", &self.servers)
            .field("set", &set)
            .field("topic_prefix", &self.topic_prefix)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("retention", &self.retention)
            .finish()
    }
}
