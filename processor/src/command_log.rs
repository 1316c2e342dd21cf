//! Where commands go: the log `raw`.

use std::time::Duration;

use anyhow::Context;
use disk_log::DiskLog;
use event_log::RawEvent;
use kafka_log::RawWriter;

/// How long Kafka may take.
const APPEND_WAIT: Duration = Duration::from_secs(20);

pub enum CommandLog {
    Disk(DiskLog),
    Kafka(Box<RawWriter>),
}

impl CommandLog {
    pub(crate) fn partitions(&self) -> u32 {
        match self {
            Self::Disk(_) => 1,
            Self::Kafka(writer) => writer.partitions(),
        }
    }

    /// Blocks until all are durable. After an error some may be in `raw`; a command that is repeated changes nothing.
    pub fn append(&self, events: Vec<RawEvent>) -> anyhow::Result<()> {
        match self {
            Self::Disk(log) => {
                let records = events.into_iter().map(RawEvent::into_record).collect();
                log.append_blocking(records).map(drop).context("append to the disk log")
            }
            Self::Kafka(writer) => writer.append(events, APPEND_WAIT),
        }
    }
}
