//! Queries offsets, and reads ranges of `raw` and `facts` to their very end.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::groups::GroupInfo;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use super::client::{PlainContext, Role};
use super::facts::plain_consumer;
use super::member_assignment::assigned;
use super::positions::tolerate;
use super::record::{entry, kafka_offset, kafka_partition};
use super::transaction::{judge, stopping};
use event_log::contract::Topic;
use event_log::hanging::{Published, Undecided};
use event_log::{Entry, EventLogError, OPEN_MAX, Position, Visit};
use primitives::time::Timestamp;
use runtime::lifecycle::Stop;
use runtime::settings::KafkaSettings;

mod left_off;

/// One request; then the stop is checked, and the request repeated.
const CALL_WAIT: Duration = Duration::from_secs(5);
/// How long brokers may be away before a query fails.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Offsets without an answer within this time may wait for an open transaction.
const OFFSETS_WAIT: Duration = Duration::from_secs(1);
/// A healthy transaction ends within this time.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(1);
const SAY_AGAIN: Duration = Duration::from_secs(5);
/// The log text for a transaction that is open for longer than [`OPEN_MAX`].
const HANGS: &str = "No transaction of a processor is open for so long: it hangs if Kafka lost its markers, as a \
                     broker without a replica can when it is killed and restarted. Opening the logs again resolves \
                     it if it is ours, and so does starting the processor that owns it. If that one is gone for \
                     good: see `kafka-transactions.sh find-hanging`, and end it with `kafka-transactions.sh abort`";
/// During a read, the group is served at least this often.
const SERVE_AGAIN: Duration = Duration::from_millis(500);

/// Two plain consumers: one for committed records, one for offsets with open transactions included.
pub(super) struct Reader {
    settings: KafkaSettings,
    committed: BaseConsumer<PlainContext>,
    uncommitted: BaseConsumer<PlainContext>,
    stop: Stop,
}

impl Reader {
    pub(super) fn new(settings: &KafkaSettings, group: &str, stop: Stop) -> Result<Self, EventLogError> {
        Ok(Self {
            settings: settings.clone(),
            committed: plain_consumer(settings, Role::Reader { group })?,
            uncommitted: plain_consumer(settings, Role::Uncommitted)?,
            stop,
        })
    }

    /// The cluster id, and the number of partitions of a topic; none if there is no answer in time.
    pub(super) fn cluster_and_partitions(&self, topic: Topic) -> Option<(String, u32)> {
        let name = self.settings.topic(topic);
        let metadata = self.uncommitted.fetch_metadata(Some(&name), CALL_WAIT).ok()?;
        let found = metadata.topics().iter().find(|found| found.name() == name);
        let partitions = found.map_or(0, |found| found.partitions().len());
        let cluster = self.uncommitted.client().fetch_cluster_id(CALL_WAIT)?;
        Some((cluster, u32::try_from(partitions).ok()?))
    }

    /// The first and the next offset, open transactions included.
    pub(super) fn bounds(&self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError> {
        let name = self.settings.topic(topic);
        let ask = || self.uncommitted.fetch_watermarks(&name, kafka_partition(partition), CALL_WAIT);
        let (first, next) = self.insist(&format!("ask for the bounds of {name}/{partition}"), ask)?;
        Ok((whole(first), whole(next)))
    }

    /// The first offset of `raw` whose record may be as young as `at`; its end, if there is none.
    pub(super) fn offset_at(&self, partition: u32, at: Timestamp) -> Result<u64, EventLogError> {
        let name = self.settings.topic(Topic::Raw);
        let ask = || {
            let asked: TopicPartitionList =
                std::iter::once((name.clone(), kafka_partition(partition), kafka_offset(at.ms()))).collect();
            let found = self.uncommitted.offsets_for_times(asked, CALL_WAIT)?;
            let found = found.elements();
            let found = found.first().ok_or(KafkaError::NoMessageReceived)?;
            found.error()?;
            Ok(found.offset())
        };
        match self.insist(&format!("ask {name}/{partition} for a time"), ask)? {
            Offset::Offset(offset) => Ok(whole(offset)),
            // No record is that young.
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => {
                Ok(self.bounds(Topic::Raw, partition)?.1)
            }
        }
    }

    /// Visits every committed record from `from` to before `until`. Between records `serve` is called periodically.
    ///
    /// Waits until no transaction that began below `until` is open. Then everything below the last stable
    /// offset is decided, and the first end of partition that is reported *after* that lies behind `until`,
    /// even if there are only markers and aborted records on the way.
    pub(super) fn read(
        &self,
        topic: Topic,
        from: Position,
        until: u64,
        visit: Visit<'_>,
        serve: &mut dyn FnMut() -> Result<(), EventLogError>,
    ) -> Result<(), EventLogError> {
        if from.offset >= until {
            return Ok(());
        }
        let place = Place { topic: self.settings.topic(topic), partition: from.partition };
        let (first, _) = self.bounds(topic, from.partition)?;
        if from.offset < first {
            return Err(EventLogError::Fatal(format!(
                "{place} begins at {first}: the record at {} was deleted",
                from.offset
            )));
        }
        self.wait_until_decided(&place, until, serve)?;
        let list: TopicPartitionList =
            std::iter::once((place.topic.clone(), kafka_partition(place.partition), kafka_offset(from.offset)))
                .collect();
        self.committed.assign(&list).map_err(|error| judge(&format!("read {place}"), &error, None))?;
        let read = self.read_assigned(&place, until, visit, serve);
        self.committed.unassign().map_err(|error| judge(&format!("leave {place}"), &error, None))?;
        read
    }

    fn wait_until_decided(
        &self,
        place: &Place,
        until: u64,
        serve: &mut dyn FnMut() -> Result<(), EventLogError>,
    ) -> Result<(), EventLogError> {
        let began = Instant::now();
        let mut said = began;
        loop {
            let stable = self.stable_end(place)?;
            if stable >= until {
                return Ok(());
            }
            if said.elapsed() >= SAY_AGAIN {
                said = Instant::now();
                let waited_s = began.elapsed().as_secs();
                let what =
                    format!("{place} is decided up to {stable}, not yet to {until}: wait for an open transaction");
                if began.elapsed() >= OPEN_MAX {
                    return Err(EventLogError::Reopen(format!("{what}, for {waited_s} s. {HANGS}")));
                }
                tracing::warn!(waited_s, "{what}");
            }
            serve()?;
            if self.stop.sleep(ASK_AGAIN) {
                return Err(stopping());
            }
        }
    }

    /// Below it no transaction is open: a committed reader's end.
    fn stable_end(&self, place: &Place) -> Result<u64, EventLogError> {
        let ask = || self.committed.fetch_watermarks(&place.topic, kafka_partition(place.partition), CALL_WAIT);
        let (_, stable) = self.insist(&format!("ask for the stable end of {place}"), ask)?;
        Ok(whole(stable))
    }

    fn read_assigned(
        &self,
        place: &Place,
        until: u64,
        visit: Visit<'_>,
        serve: &mut dyn FnMut() -> Result<(), EventLogError>,
    ) -> Result<(), EventLogError> {
        let (mut moved, mut said, mut served) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            if served.elapsed() >= SERVE_AGAIN {
                served = Instant::now();
                serve()?;
                if self.stop.requested() {
                    return Err(stopping());
                }
            }
            match self.committed.poll(SERVE_AGAIN) {
                Some(Ok(message)) => {
                    moved = Instant::now();
                    let entry = entry(&message);
                    if entry.position.offset >= until || visit(entry).is_break() {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) if self.has_reached(place, until)? => return Ok(()),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => {
                    tolerate(&format!("read {place}"), &error, self.committed.client().fatal_error())?;
                }
                None if moved.elapsed() >= SAY_AGAIN && said.elapsed() >= SAY_AGAIN => {
                    said = Instant::now();
                    let waited_s = moved.elapsed().as_secs();
                    tracing::warn!(waited_s, "{place} returns no records, though it ends at {until}");
                }
                None => {}
            }
        }
    }

    /// Whether the reported end lies behind `until`. Usually our position shows it, since it counts markers;
    /// where compaction left nothing to count, the partition is queried once more: after a change of leaders, the
    /// new one's end may be lower for a moment.
    fn has_reached(&self, place: &Place, until: u64) -> Result<bool, EventLogError> {
        let position = self.committed.position().ok();
        let position = position.as_ref().and_then(|list| list.elements().first().map(TopicPartitionListElem::offset));
        if let Some(Offset::Offset(offset)) = position
            && whole(offset) >= until
        {
            return Ok(true);
        }
        Ok(self.stable_end(place)? >= until)
    }

    /// Describes the positions that are out of range.
    pub(super) fn out_of_range(&self, topic: Topic, places: &[Position]) -> Option<String> {
        places.iter().find_map(|place| {
            let (first, next) = self.bounds(topic, place.partition).ok()?;
            let name = self.settings.topic(topic);
            (place.offset < first || place.offset > next)
                .then(|| format!("{name}/{} holds {first} to {next}, but we are at {}", place.partition, place.offset))
        })
    }

    /// The ends and the stable offsets of all output partitions.
    pub(super) fn published(&self) -> Result<Vec<Published>, EventLogError> {
        let places: Vec<(Topic, u32)> = Topic::ALL
            .into_iter()
            .filter(|topic| topic.follows_from_raw())
            .flat_map(|topic| (0..self.settings.partitions).map(move |partition| (topic, partition)))
            .collect();
        // In this order: transactions decided meanwhile count as decided.
        let ends = self.ends("query the ends of output topics", &self.uncommitted, &places)?;
        let stable = self.ends("query the stable ends of output topics", &self.committed, &places)?;
        let published = places.into_iter().zip(ends.into_iter().zip(stable));
        Ok(published.map(|((topic, partition), (end, stable))| Published { topic, partition, stable, end }).collect())
    }

    /// Waits until no transaction is open in the output of a partition.
    pub(super) fn wait_until_published(
        &self,
        partition: u32,
        serve: &mut dyn FnMut() -> Result<(), EventLogError>,
    ) -> Result<(), EventLogError> {
        for published in self.published()?.iter().filter(|published| published.partition == partition) {
            let place = Place { topic: self.settings.topic(published.topic), partition };
            if published.is_open() {
                self.wait_until_decided(&place, published.end, serve)?;
            }
        }
        Ok(())
    }

    /// Visits every record from a position on, decided or not, until `visit` stops.
    pub(super) fn peek(
        &self,
        topic: Topic,
        from: Position,
        visit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<(), EventLogError> {
        let consumer = plain_consumer(&self.settings, Role::Peeker)?;
        let name = self.settings.topic(topic);
        let list = std::iter::once((name.clone(), kafka_partition(from.partition), kafka_offset(from.offset)));
        consumer.assign(&list.collect()).map_err(|error| judge(&format!("look into {name}"), &error, None))?;
        let mut moved = Instant::now();
        while moved.elapsed() < ANSWER_WAIT_MAX {
            if self.stop.requested() {
                return Err(stopping());
            }
            match consumer.poll(ASK_AGAIN) {
                Some(Ok(message)) if visit(&entry(&message)).is_break() => return Ok(()),
                Some(Ok(_)) => moved = Instant::now(),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) => tracing::debug!("look into {name}: {error}"),
                None => {}
            }
        }
        Err(EventLogError::Reopen(format!("{name}/{} returns no records from {} on", from.partition, from.offset)))
    }

    /// In the order of `places`.
    fn ends(
        &self,
        what: &str,
        consumer: &BaseConsumer<PlainContext>,
        places: &[(Topic, u32)],
    ) -> Result<Vec<u64>, EventLogError> {
        let partition_of =
            |(topic, partition): &(Topic, u32)| (self.settings.topic(*topic), kafka_partition(*partition));
        self.insist(what, || {
            let asked: TopicPartitionList =
                places.iter().map(&partition_of).map(|(topic, partition)| (topic, partition, Offset::End)).collect();
            let found = consumer.offsets_for_times(asked, CALL_WAIT)?;
            places
                .iter()
                .map(|place| {
                    let (topic, partition) = partition_of(place);
                    let found = found.find_partition(&topic, partition).ok_or(KafkaError::NoMessageReceived)?;
                    found.error()?;
                    match found.offset() {
                        Offset::Offset(offset) => Ok(whole(offset)),
                        Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => {
                            Err(KafkaError::NoMessageReceived)
                        }
                    }
                })
                .collect()
        })
    }

    /// Transactions that stay undecided for longer than a healthy one.
    pub(super) fn undecided(&self) -> Result<Undecided, EventLogError> {
        let began = Instant::now();
        let first = self.published()?;
        let mut left_off = self.all_left_off()?;
        let mut published = first.clone();
        loop {
            // A transaction that was opened since belongs to an active producer.
            let open = first.iter().zip(&published).filter(|(first, now)| first.is_open() && now.stable < first.end);
            let hanging: BTreeSet<(Topic, u32)> = open.map(|(_, now)| (now.topic, now.partition)).collect();
            let is_decided = hanging.is_empty() && left_off.unknown.is_empty();
            if is_decided || began.elapsed() >= IN_FLIGHT_MAX {
                return Ok(Undecided { published, hanging, left_off });
            }
            if self.stop.sleep(ASK_AGAIN) {
                return Err(stopping());
            }
            published = self.published()?;
            for partition in left_off.unknown.clone() {
                self.ask_where_left_off(&[partition], &mut left_off);
            }
        }
    }

    /// For committing offsets without a member.
    pub(super) fn no_member(&self) -> Option<ConsumerGroupMetadata> {
        self.committed.group_metadata()
    }

    /// Members of a group, with their hosts.
    pub(super) fn members(&self, group: &str) -> Result<Vec<String>, EventLogError> {
        let groups =
            self.insist("query the group's members", || self.uncommitted.fetch_group_list(Some(group), CALL_WAIT))?;
        let members = groups.groups().iter().filter(|found| found.name() == group).flat_map(GroupInfo::members);
        Ok(members.map(|member| format!("{} on {}", member.id(), member.client_host())).collect())
    }

    /// The number of partitions without an owner; none during a rebalance.
    pub(super) fn unowned(&self, group: &str, topic: &str, partitions: u32) -> Option<usize> {
        let groups = self.uncommitted.fetch_group_list(Some(group), CALL_WAIT).ok()?;
        let group = groups.groups().iter().find(|found| found.name() == group && found.state() == "Stable")?;
        let mut unowned: BTreeSet<u32> = (0..partitions).collect();
        for member in group.members() {
            for partition in assigned(member.assignment().unwrap_or_default(), topic) {
                unowned.remove(&partition);
            }
        }
        Some(unowned.len())
    }

    fn insist<T>(&self, what: &str, ask: impl Fn() -> KafkaResult<T>) -> Result<T, EventLogError> {
        let began = Instant::now();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(_) if self.stop.requested() => return Err(stopping()),
                Err(error) if began.elapsed() >= ANSWER_WAIT_MAX => return Err(judge(what, &error, None)),
                Err(error) => tracing::debug!("{what}: {error}"),
            }
            self.stop.sleep(ASK_AGAIN);
        }
    }
}

/// A partition, with its name for logs and errors.
struct Place {
    topic: String,
    partition: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

fn whole(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or_default()
}
