//! Appends a few records to one log, now and then: commands to `raw`, and how far events were forwarded.

use std::time::Duration;

use anyhow::Context;
use disk_log::DiskLog;
use event_log::{RawEvent, Record};
use kafka_log::TopicWriter;

/// How long Kafka may take.
const APPEND_WAIT: Duration = Duration::from_secs(20);

pub enum LogWriter {
    Disk(DiskLog),
    Kafka(Box<TopicWriter>),
}

impl LogWriter {
    pub(crate) fn partitions(&self) -> u32 {
        match self {
            Self::Disk(_) => 1,
            Self::Kafka(writer) => writer.partitions(),
        }
    }

    /// As [`Self::append`]. A command that is repeated changes nothing.
    pub fn append_events(&self, events: Vec<RawEvent>) -> anyhow::Result<()> {
        let partitions = self.partitions();
        let records: Vec<_> =
            events.into_iter().map(|event| (event.partition(partitions), event.into_record())).collect();
        self.append(records)
    }

    /// Records with their partitions. Blocks until all are durable. After an error some may be in the log.
    pub fn append(&self, records: Vec<(u32, Record)>) -> anyhow::Result<()> {
        match self {
            Self::Disk(log) => {
                let records = records.into_iter().map(|(_, record)| record).collect();
                log.append_blocking(records).map(drop).context("append to the disk log")
            }
            Self::Kafka(writer) => writer.append(&records, APPEND_WAIT),
        }
    }

    /// Deletes what lies before `offset`, where no broker compacts the log.
    pub(crate) fn delete_before(&self, offset: u64) -> anyhow::Result<()> {
        match self {
            Self::Disk(log) => log.delete_before(offset).context("delete the beginning of the disk log"),
            Self::Kafka(_) => Ok(()),
        }
    }

    /// Whether a broker compacts the log.
    pub(crate) fn is_compacted(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }
}
