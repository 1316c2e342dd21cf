//! What folds: our processor, and Kafka Streams.

use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use tests::topics;

use super::preload::PARTITIONS;
use crate::broker::Kafka;
use crate::server::{self, Server};

/// How long the broker may take to say what is committed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What the heap of Java may take. The default, a quarter of the machine, would say little about what is needed.
const JAVA_HEAP: &str = "-Xmx512m";

pub type Progress = Box<dyn FnMut() -> anyhow::Result<u64>>;

/// A program that folds.
pub struct Folding {
    pub server: Server,
    /// How many events it has folded, in transactions that are committed.
    pub folded: Progress,
    /// The addresses of its queries and of its admin port; empty for a peer.
    pub queries: String,
    pub admin: String,
}

/// Our processor. Its state lies in `data`.
pub fn processor(broker: &Kafka, prefix: &str, data: &Path, log: &Path) -> anyhow::Result<Folding> {
    let (queries, admin) = (server::address(), server::address());
    let partitions = PARTITIONS.to_string();
    let data = data.display().to_string();
    let group = format!("{prefix}processor");
    let arguments = server::settings(&[
        ("--kafka", broker.servers()),
        ("--topic-prefix", prefix),
        ("--partitions", &partitions),
        ("--data-dir", &data),
        ("--group", &group),
        ("--query-listen", &queries),
        ("--admin-listen", &admin),
        ("--log-format", "json"),
    ]);
    let server = Server::start(&server::program("processor")?, &arguments, (&admin, "/livez"), log)?;
    Ok(Folding { server, folded: progress(broker, prefix, group)?, queries, admin })
}

/// Where the peer puts each event that is verified.
pub fn peer_events(prefix: &str) -> String {
    format!("{prefix}peer-events")
}

/// The peer on Kafka Streams. Its state lies in `data`.
pub fn kafka_streams(
    broker: &Kafka,
    class_path: &str,
    prefix: &str,
    data: &Path,
    log: &Path,
) -> anyhow::Result<Folding> {
    let installations = format!("{prefix}peer-installations");
    topics::make(broker.servers(), &peer_events(prefix), PARTITIONS, &[("cleanup.policy", "delete")]);
    topics::make(broker.servers(), &installations, PARTITIONS, &[("cleanup.policy", "compact")]);
    let threads = available_parallelism().map_or(1, usize::from).to_string();
    let data = data.display().to_string();
    let arguments = [JAVA_HEAP, "-cp", class_path, "Peer", broker.servers(), prefix, &data, &threads];
    let server = Server::spawn(Path::new("java"), &arguments.map(str::to_owned), log)?;

    // The name of the application is that of its group.
    let folded = progress(broker, prefix, format!("{prefix}kafka-streams"))?;
    Ok(Folding { server, folded, queries: String::new(), admin: String::new() })
}

/// How many events of `raw` a group has folded.
fn progress(broker: &Kafka, prefix: &str, group: String) -> anyhow::Result<Progress> {
    let raw = format!("{prefix}raw");
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(&raw, 0, PARTITIONS - 1);
    let mut client = topics::client(broker.servers());
    // What an open transaction holds does not count yet.
    client.set("group.id", group).set("isolation.level", "read_uncommitted");
    let consumer: BaseConsumer = client.create().context("make a consumer")?;
    Ok(Box::new(move || committed(&consumer, &asked)))
}

/// The sum of the committed offsets: nothing else lies in the topic.
fn committed(consumer: &BaseConsumer, asked: &TopicPartitionList) -> anyhow::Result<u64> {
    let committed = match consumer.committed_offsets(asked.clone(), ANSWER_WITHIN) {
        // A new broker has yet to make its topic of offsets.
        Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress,
        )) => return Ok(0),
        answer => answer.context("ask for committed offsets")?,
    };
    let offsets = committed.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
    });
    Ok(offsets.sum())
}
