//! How Kafka is reached, as settings say it.

use std::fmt;

use event_log::contract::{Retention, Topic};

/// How Kafka is reached and what its topics must look like.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Bootstrap servers.
    pub servers: String,
    /// Any librdkafka setting, overriding ours; those that would break a promise are refused.
    pub set: Vec<(String, String)>,
    /// Before every topic's name.
    pub topic_prefix: String,
    /// Of every topic.
    pub partitions: u32,
    /// Of topics that we create; none for the broker's default.
    pub replication: Option<i32>,
    /// Of topics that we create.
    pub retention: Retention,
}

impl KafkaSettings {
    /// A topic's full name.
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.topic_prefix, topic.name())
    }
}

impl fmt::Debug for KafkaSettings {
    /// Without the values of librdkafka's settings: there are passwords among them.
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
