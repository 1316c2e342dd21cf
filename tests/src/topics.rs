//! What lies in a topic, read from its first record to its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigEntry, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::wait::eventually_ok;

/// How long one answer of the broker is awaited.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// From the first record to the last; open transactions have to end meanwhile.
const READ_WITHIN: Duration = Duration::from_secs(120);

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions: what subscribers see.
    Committed,
    /// All that lie there.
    Uncommitted,
}

/// A record where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The key as text.
    pub key: Option<String>,
    /// The bytes; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
}

impl Found {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The value as JSON; panics where it is none.
    pub fn json(&self) -> serde_json::Value {
        let value = self.value.as_deref().expect("no tombstone");
        serde_json::from_slice(value).expect("the value is JSON")
    }

    /// As it came to a consumer.
    pub fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(text),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default()))).collect(),
        }
    }
}

/// A client of the test's own.
pub fn client(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("log_level", "0").set("reconnect.backoff.max.ms", "500");
    config
}

/// The type of records that subscribers are told to pass over: they only bring a commit that a broker lost.
const NOOP: &str = "com.hookledger.noop";

/// All records that a topic holds now and that say something, by partition and offset.
pub fn read(servers: &str, topic: &str, isolation: Isolation) -> Vec<Found> {
    let mut found = Vec::new();
    visit(servers, topic, isolation, |record| found.push(record));
    found.sort_by_key(|record| (record.partition, record.offset));
    found
}

/// Shows each record that a topic holds now, those of one partition in their order.
pub fn visit(servers: &str, topic: &str, isolation: Isolation, mut look: impl FnMut(Found)) {
    let ends = ends(servers, topic);
    let level = if isolation == Isolation::Committed { "read_committed" } else { "read_uncommitted" };
    let consumer: BaseConsumer = client(servers)
        .set("group.id", "tests")
        .set("isolation.level", level)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .create()
        .expect("a consumer");
    let mut open: BTreeMap<i32, i64> =
        ends.into_iter().filter(|(_, (low, high))| low < high).map(|(p, (_, high))| (p, high)).collect();
    let mut from = TopicPartitionList::new();
    for partition in open.keys() {
        from.add_partition_offset(topic, *partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&from).expect("assign");

    let start = Instant::now();
    while !open.is_empty() {
        assert!(start.elapsed() < READ_WITHIN, "could not read {topic} to its end, open: {open:?}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let found = Found::of(&message);
                if found.header("hl_type") != Some(NOOP) {
                    look(found);
                }
            }
            // The position counts what is no record, such as the marks of transactions.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let at = position(&consumer, topic, partition);
                if open.get(&partition).is_some_and(|end| at >= *end) {
                    open.remove(&partition);
                }
            }
            Some(Err(_)) | None => {}
        }
    }
}

/// For each partition, the first and the next offset, open transactions included.
pub fn ends(servers: &str, topic: &str) -> BTreeMap<i32, (i64, i64)> {
    let consumer: BaseConsumer =
        client(servers).set("isolation.level", "read_uncommitted").create().expect("a consumer");
    // A broker that has just come back answers before it leads its partitions.
    eventually_ok(ANSWER_WITHIN, &format!("the ends of {topic}"), || {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN)?;
        let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
        let end = |partition: &rdkafka::metadata::MetadataPartition| {
            Ok((partition.id(), consumer.fetch_watermarks(topic, partition.id(), ANSWER_WITHIN)?))
        };
        partitions.map(end).collect()
    })
}

/// Appends a record as a program without transactions would.
pub fn append(servers: &str, topic: &str, partition: i32, key: &str, value: Option<&[u8]>) {
    let producer: BaseProducer = client(servers).set("acks", "all").create().expect("a producer");
    let mut record = BaseRecord::to(topic).partition(partition).key(key);
    if let Some(value) = value {
        record = record.payload(value);
    }
    producer.send(record).map_err(|(error, _)| error).expect("taken");
    producer.flush(ANSWER_WITHIN).expect("kept");
}

/// Appends records once more, with further headers.
pub fn append_copies(servers: &str, topic: &str, records: &[Found], more: &[(&str, &str)]) {
    let producer: BaseProducer = client(servers).set("acks", "all").create().expect("a producer");
    for record in records {
        let own = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers = own
            .chain(more.iter().copied())
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let mut copy = BaseRecord::<str, [u8]>::to(topic).partition(record.partition).headers(headers);
        (copy.key, copy.payload) = (record.key.as_deref(), record.value.as_deref());
        producer.send(copy).map_err(|(error, _)| error).expect("taken");
    }
    producer.flush(ANSWER_WITHIN).expect("kept");
}

/// Makes a topic with these settings.
pub fn make(servers: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let admin = admin(servers);
    let made = wait_for(admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN))));
    assert_eq!(made.expect("an answer"), [Ok(topic.to_owned())]);
}

/// Deletes a topic and waits until it is gone.
pub fn delete(servers: &str, topic: &str) {
    let admin = admin(servers);
    let deleted = wait_for(admin.delete_topics(&[topic], &AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN))));
    assert_eq!(deleted.expect("an answer"), [Ok(topic.to_owned())]);
    eventually_ok(ANSWER_WITHIN, &format!("{topic} is gone"), || {
        anyhow::ensure!(partitions(servers, topic).is_none(), "it is still there");
        Ok(())
    });
}

/// Deletes all records of a partition below an offset, as retention would.
pub fn trim(servers: &str, topic: &str, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
    let trimmed = wait_for(admin(servers).delete_records(&offsets, &AdminOptions::new()));
    let trimmed = trimmed.expect("an answer");
    trimmed.elements()[0].error().expect("trimmed");
}

/// Gives a topic this policy.
pub fn set_policy(servers: &str, topic: &str, policy: &str) {
    set(servers, topic, "cleanup.policy", policy);
}

/// Gives a topic this setting, and the defaults for all others.
pub fn set(servers: &str, topic: &str, name: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    let changed = wait_for(admin(servers).alter_configs([&change], &AdminOptions::new())).expect("an answer");
    assert!(changed.iter().all(Result::is_ok), "{changed:?}");
}

/// Deletes a group with its offsets, once it has no members.
pub fn delete_group(servers: &str, group: &str) {
    let admin = admin(servers);
    eventually_ok(ANSWER_WITHIN, &format!("{group} is deleted"), || {
        let deleted = wait_for(admin.delete_groups(&[group], &AdminOptions::new()))?;
        anyhow::ensure!(deleted == [Ok(group.to_owned())], "{deleted:?}");
        Ok(())
    });
}

/// Gives a topic more partitions.
pub fn add_partitions(servers: &str, topic: &str, partitions: usize) {
    let more = NewPartitions::new(topic, partitions);
    let added = wait_for(admin(servers).create_partitions([&more], &AdminOptions::new()));
    assert_eq!(added.expect("an answer"), [Ok(topic.to_owned())]);
    eventually_ok(ANSWER_WITHIN, &format!("{topic} has them"), || {
        anyhow::ensure!(self::partitions(servers, topic) == Some(partitions), "not yet");
        Ok(())
    });
}

/// How many partitions a topic has; none if there is no such topic.
pub fn partitions(servers: &str, topic: &str) -> Option<usize> {
    let consumer: BaseConsumer = client(servers).create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, ANSWER_WITHIN).expect("metadata");
    metadata.topics().iter().find(|found| found.name() == topic).map(|found| found.partitions().len())
}

/// Of a topic's partitions, the fewest replicas that are in sync with a leader; none if one has no leader, or if no broker
/// answers.
pub fn replicas_in_sync(servers: &str, topic: &str) -> Option<usize> {
    let consumer: BaseConsumer = client(servers).create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(2)).ok()?;
    let found = metadata.topics().iter().find(|found| found.name() == topic)?;
    let of = |partition: &rdkafka::metadata::MetadataPartition| {
        if partition.leader() < 0 { 0 } else { partition.isr().len() }
    };
    found.partitions().iter().map(of).min().filter(|fewest| *fewest > 0)
}

/// The value of a topic's setting.
pub fn setting(servers: &str, topic: &str, name: &str) -> Option<String> {
    let admin = admin(servers);
    let resource = ResourceSpecifier::Topic(topic);
    let described = wait_for(admin.describe_configs([&resource], &AdminOptions::new()));
    let described = described.expect("an answer").pop().expect("one topic").expect("its settings");
    described.get(name).and_then(|ConfigEntry { value, .. }| value.clone())
}

fn admin(servers: &str) -> AdminClient<DefaultClientContext> {
    client(servers).create().expect("an admin client")
}

fn position(consumer: &BaseConsumer, topic: &str, partition: i32) -> i64 {
    let positions = consumer.position().expect("positions");
    match positions.find_partition(topic, partition).map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => -1,
    }
}

fn wait_for<T>(answer: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(answer)
}
