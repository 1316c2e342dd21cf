//! Topics of Apache Kafka as logs: the only place that knows rdkafka.
//!
//! [`RawProducer`] writes `raw` for ingress; [`KafkaEventLog`] reads and publishes all topics for a processor.
//! [`TopicWriter`] appends commands to it, [`KafkaLogQuery`] reads a few records for a query. Each of them checks the topics first: see `topics`.

use runtime::settings::KafkaSettings;

mod batch;
mod client;
mod facts;
mod faults;
mod group;
mod hanging;
mod kafka_event_log;
mod log_query;
mod log_reader;
mod member_assignment;
mod positions;
mod producer;
mod reader;
mod record;
mod topic_writer;
mod topics;
mod transaction;

pub use faults::{Fault, FaultReport, FaultReports};
pub use kafka_event_log::KafkaEventLog;
pub use log_query::KafkaLogQuery;
pub use log_reader::KafkaLogReader;
pub use producer::{Batches, FaultScope, RawProducer, ReportError, Reports, SendError};
pub use record::outgoing;
pub use topic_writer::TopicWriter;
pub use topics::{Inspection, MayCreate, RawTopic, inspect};

/// Whether librdkafka accepts these settings, without contacting any broker.
pub fn check(settings: &KafkaSettings) -> anyhow::Result<()> {
    Ok(client::check(settings)?)
}
