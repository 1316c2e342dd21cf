//! Ends what Kafka has forgotten to end of the transactions of our former self.
//!
//! A broker without a replica that is killed while a transaction is open, and started again, can decide the transaction
//! and lose the marks that say so to its partitions. Then the transaction *hangs*: readers of committed records wait for
//! ever, and what a producer with the same id commits next in such a partition makes the records of the hanging one
//! visible with its own. An abort by that producer ends it, in whatever it touches.
//!
//! Here nothing can be open of ours but what hangs, since the producer has just been initialised. Whether what is open
//! is ours is not told; an abort of ours leaves what others have open as it is.

use std::time::Duration;

use super::KafkaSettings;
use super::reader::Reader;
use super::transaction::Publisher;
use crate::contract::Topic;
use crate::lifecycle::Stop;
use crate::log::{LedgerError, Output, Position, Record};
use crate::time::Timestamp;

/// The key of the records that are aborted. Compacted topics want one.
const KEY: &str = "aborted";
/// Offsets that are not told within this time may wait for a transaction that hangs.
const OFFSETS_WAIT: Duration = Duration::from_secs(1);

/// Aborts a transaction in every partition in which anything is open, and in the group's offsets if they are not told.
pub(super) fn end_what_hangs(
    publisher: &Publisher,
    reader: &Reader,
    settings: &KafkaSettings,
    stop: &Stop,
) -> Result<(), LedgerError> {
    let undecided = reader.undecided()?;
    let told = reader.tells_where_left_off(OFFSETS_WAIT);
    if undecided.is_empty() && told {
        return Ok(());
    }
    let offsets: Vec<_> =
        if told { 0..0 } else { 0..settings.partitions }.map(|partition| Position { partition, offset: 0 }).collect();
    tracing::info!(
        partitions = undecided.len(),
        offsets = !told,
        "a transaction is open in {} partitions{}: an abort makes sure that none is ours",
        undecided.len(),
        if told { "" } else { " and in the group's offsets" },
    );
    let outputs: Vec<_> = undecided.into_iter().map(|(topic, place)| aborted(topic, place.partition)).collect();
    publisher.abort(&outputs, &offsets, reader.no_member().as_ref(), stop)
}

/// A record that nobody is meant to read.
fn aborted(topic: Topic, partition: u32) -> Output {
    let record = Record { key: Some(KEY.to_owned()), value: None, headers: Vec::new(), at: Timestamp::now() };
    Output { topic, partition, record }
}
