//! How far the partitions of a consumer were read.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use super::record::{entry, kafka_offset, kafka_partition};
use super::transaction::judge;
use event_log::{Entry, EventLogError, Position};

/// Exceeded only by the last record.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The next offset of each partition that is read.
#[derive(Default)]
pub(super) struct Positions(BTreeMap<u32, u64>);

impl Positions {
    /// Adds these, or moves to them.
    pub(super) fn extend(&mut self, starts: impl Iterator<Item = Position>) {
        self.0.extend(starts.map(|start| (start.partition, start.offset)));
    }

    pub(super) fn remove(&mut self, partition: u32) {
        self.0.remove(&partition);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn all(&self) -> Vec<Position> {
        self.0.iter().map(|(partition, offset)| Position { partition: *partition, offset: *offset }).collect()
    }

    /// For an assignment.
    pub(super) fn of_topic(&self, topic: &str) -> TopicPartitionList {
        let element =
            |(partition, offset): (&u32, &u64)| (topic.to_owned(), kafka_partition(*partition), kafka_offset(*offset));
        self.0.iter().map(element).collect()
    }

    /// Returns available records, waiting for the first one, until there are many or `is_over`.
    pub(super) fn poll<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        step: &str,
        mut wait: Duration,
        records_max: usize,
        is_over: impl Fn() -> bool,
    ) -> Result<Vec<Entry>, EventLogError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < records_max && bytes < BATCH_BYTES_MAX && !is_over() {
            let Some(polled) = consumer.poll(mem::take(&mut wait)) else { break };
            let message = match polled {
                Ok(message) => message,
                Err(error) => {
                    tolerate(step, &error, consumer.client().fatal_error())?;
                    continue;
                }
            };
            let (partition, offset) = (message.partition(), message.offset());
            let next = u32::try_from(partition).ok().and_then(|partition| self.0.get_mut(&partition));
            // Of a former assignment, or before the start.
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
}

/// Whether to go on after an error of a poll. The client recovers from most of them by itself.
pub(super) fn tolerate(
    step: &str,
    error: &KafkaError,
    fatal: Option<(RDKafkaErrorCode, String)>,
) -> Result<(), EventLogError> {
    if fatal.is_some() {
        return Err(judge(step, error, fatal));
    }
    let code = error.rdkafka_error_code();
    let gone = [RDKafkaErrorCode::AutoOffsetReset, RDKafkaErrorCode::OffsetOutOfRange, RDKafkaErrorCode::LogTruncation];
    if code.is_some_and(|code| gone.contains(&code)) {
        return Err(EventLogError::Fatal(format!("{step}: {error}")));
    }
    tracing::debug!("{step}: {error}");
    Ok(())
}
