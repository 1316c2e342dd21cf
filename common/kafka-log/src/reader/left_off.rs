//! Where the group left off.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use event_log::contract::Topic;
use event_log::hanging::LeftOff;
use event_log::{EventLogError, OPEN_MAX};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use super::{CALL_WAIT, HANGS, OFFSETS_WAIT, Reader, whole};
use crate::record::kafka_partition;
use crate::transaction::{is_refusal, judge, stopping};

impl Reader {
    /// The group's offset in `raw`, queried until no transaction that may move it is open. Does not join the group.
    pub(in super::super) fn left_off(&self, partition: u32) -> Result<Option<u64>, EventLogError> {
        let name = self.settings.topic(Topic::Raw);
        let began = Instant::now();
        loop {
            if self.stop.requested() {
                return Err(stopping());
            }
            let mut asked = TopicPartitionList::with_capacity(1);
            asked.add_partition(&name, kafka_partition(partition));
            let answer = self.committed.committed_offsets(asked, CALL_WAIT).and_then(|found| {
                let found = found.elements();
                let found = found.first().ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
                found.error()?;
                Ok(found.offset())
            });
            match answer {
                Ok(Offset::Offset(offset)) => return Ok(u64::try_from(offset).ok()),
                Ok(_) => return Ok(None),
                Err(error) if is_refusal(&error) => {
                    return Err(judge(&format!("ask where the group left off in {name}/{partition}"), &error, None));
                }
                Err(error) if began.elapsed() >= OPEN_MAX => {
                    let waited_s = began.elapsed().as_secs();
                    return Err(EventLogError::Reopen(format!(
                        "{name}/{partition} does not return the group's offset: {error}, for {waited_s} s. If a \
                         transaction is open there: {HANGS}"
                    )));
                }
                Err(error) => {
                    // A time-out is no answer: an undecided offset is not returned.
                    tracing::warn!(partition, "wait for the group's offset in {name}/{partition}: {error}");
                    self.stop.sleep(Duration::from_millis(200));
                }
            }
        }
    }

    pub(super) fn all_left_off(&self) -> Result<LeftOff, EventLogError> {
        let all: Vec<u32> = (0..self.settings.partitions).collect();
        let mut left_off = LeftOff { known: BTreeMap::new(), unknown: all.iter().copied().collect() };
        self.ask_where_left_off(&all, &mut left_off);
        // If one of them is undecided, Kafka's client returns none.
        for partition in left_off.unknown.clone() {
            if self.stop.requested() {
                return Err(stopping());
            }
            self.ask_where_left_off(&[partition], &mut left_off);
        }
        Ok(left_off)
    }

    /// Whether no open transaction may move the group's offset in a partition; waits a moment at most.
    pub(in super::super) fn tells_where_left_off(&self, partition: u32) -> bool {
        self.left_off_in(&[partition]).is_some()
    }

    pub(super) fn ask_where_left_off(&self, partitions: &[u32], left_off: &mut LeftOff) {
        for (partition, offset) in self.left_off_in(partitions).unwrap_or_default() {
            left_off.unknown.remove(&partition);
            left_off.known.extend(offset.map(|offset| (partition, offset)));
        }
    }

    /// One query for the group's offsets; none if any of them is undecided.
    fn left_off_in(&self, partitions: &[u32]) -> Option<Vec<(u32, Option<u64>)>> {
        let raw = self.settings.topic(Topic::Raw);
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            asked.add_partition(&raw, kafka_partition(*partition));
        }
        let answer = self.committed.committed_offsets(asked, OFFSETS_WAIT).ok()?;
        let offset_of = |place: &TopicPartitionListElem<'_>| {
            place.error().ok()?;
            let offset = if let Offset::Offset(offset) = place.offset() { Some(whole(offset)) } else { None };
            Some((u32::try_from(place.partition()).ok()?, offset))
        };
        answer.elements().iter().map(offset_of).collect()
    }
}
