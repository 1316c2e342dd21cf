//! Topics of Apache Kafka as logs: the only place that knows rdkafka.
//!
//! [`RawProducer`] writes `raw` for ingress; [`KafkaEventLog`] reads and publishes all topics for a processor.
//! Each of them makes sure of the topics first: see `topics`.

use std::fmt;

use crate::contract::{Retention, Topic};

mod batch;
mod client;
mod event_log;
mod facts;
mod faults;
mod group;
mod hanging;
mod look;
mod producer;
mod reader;
mod record;
mod topics;
mod transaction;

pub use event_log::KafkaEventLog;
pub use faults::{Fault, FaultReport, FaultReports};
pub use look::KafkaLook;
pub use producer::{Batches, FaultScope, RawProducer, ReportError, Reports, SendError};
pub use topics::{MayCreate, RawTopic};

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

    /// Whether clients can be made with these settings, without asking any broker.
    pub fn check(&self) -> anyhow::Result<()> {
        Ok(client::check(self)?)
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
