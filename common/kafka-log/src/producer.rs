//! Hands each record of `raw` to Kafka once, in order, and reports the outcome.
//!
//! One idempotent producer: `acks=all`, no message timeout, nothing purged while it lives. A record stays with
//! the client until Kafka has it; the caller limits how many wait there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers, Message};
use rdkafka::producer::{Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use serde::Deserialize;

use super::batch::with_batch_threads;
use super::client::{self, LoggingContext, Role};
use super::faults::{Fault, FaultReports};
use super::record::outgoing;
use super::topics::{self, MayCreate, TopicsError};
use event_log::Record;
use event_log::contract::Topic;
use runtime::settings::KafkaSettings;

/// Called once for each record that was handed over, from a thread of the client.
pub trait Reports: Send + Sync + 'static {
    /// The outcome of the record with this ticket. After the `last` one, the client has no record of that partition.
    fn reported(&self, ticket: u64, outcome: Result<(), ReportError>, last: bool);
}

/// A record without an acknowledgement: it may be in Kafka all the same.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ReportError {
    pub scope: FaultScope,
    pub fault: Fault,
    pub reason: String,
}

/// The extent of a failed record's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultScope {
    /// The record alone: it is too large, and Kafka does not have it. The producer can go on.
    Record,
    /// The outcome of later records is unknown, and the producer has to be replaced.
    Producer,
}

/// The size of batches. A batch that is too large for the topic is refused as a whole, whatever
/// single records are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batches {
    /// librdkafka's default: the limit of the topic is unknown.
    Usual,
    /// The limit of the topic, in bytes.
    UpTo(u32),
    /// One record each, so that a refused batch is a refused record.
    Alone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    Full,
    /// Larger than the client ever takes. Other records may go on.
    TooLarge,
    /// The producer has failed: make a new one.
    Fatal,
}

/// librdkafka's own limit of a batch.
const BATCH_BYTES_USUAL: u32 = 1_000_000;
/// At most: a batch's own fields, and the lengths and times of a record in it.
const BATCH_HEAD_BYTES_MAX: usize = 61 + 40;
/// At most: the lengths of a header's name and value.
const HEADER_LENGTHS_BYTES_MAX: usize = 10;

/// The interval of checks, in case a wake-up is missed.
const CHECK_WAIT: Duration = Duration::from_millis(50);

/// One idempotent producer for `raw`. Call [`flush`](Self::flush) before dropping it: remaining records are then
/// reported as errors, and whether Kafka has them is unknown.
pub struct RawProducer {
    settings: KafkaSettings,
    topic: String,
    producer: ThreadedProducer<Line>,
}

impl RawProducer {
    /// Connects in the background; outcomes go to `reports`.
    pub fn new(settings: &KafkaSettings, reports: Arc<dyn Reports>) -> anyhow::Result<Self> {
        Self::with(settings, reports, &Arc::default(), Batches::Usual)
    }

    /// For another topic.
    pub(crate) fn of(settings: &KafkaSettings, topic: Topic, reports: Arc<dyn Reports>) -> anyhow::Result<Self> {
        Self::make(settings, topic, reports, &Arc::default(), Batches::Usual)
    }

    pub fn with(
        settings: &KafkaSettings,
        reports: Arc<dyn Reports>,
        fault_reports: &Arc<FaultReports>,
        batches: Batches,
    ) -> anyhow::Result<Self> {
        Self::make(settings, Topic::Raw, reports, fault_reports, batches)
    }

    fn make(
        settings: &KafkaSettings,
        topic: Topic,
        reports: Arc<dyn Reports>,
        fault_reports: &Arc<FaultReports>,
        batches: Batches,
    ) -> anyhow::Result<Self> {
        let line = Line {
            context: LoggingContext::reporting(settings, Role::RawProducer, fault_reports),
            partitions: settings.partitions,
            topic: settings.topic(topic),
            reports,
            batches,
            in_flight: AtomicUsize::new(0),
            of_partition: (0..settings.partitions).map(|_| AtomicUsize::new(0)).collect(),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        let mut config = client::config(settings, Role::RawProducer)?;
        batches.limit(&mut config);
        let producer = with_batch_threads(|| config.create_with_context(line)).map_err(client::ConfigError::from)?;
        Ok(Self { settings: settings.clone(), topic: settings.topic(topic), producer })
    }

    /// Checks or creates topics, fetches metadata and waits for the producer id; an error says what is missing.
    ///
    /// The producer id comes after the first connection and is read from librdkafka's statistics: without it the first
    /// records would wait for it, and miss their deadline.
    pub fn connect(&self, wait: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        topics::ensure(&self.settings, MayCreate::Yes, wait)?;
        self.reach(until.saturating_duration_since(Instant::now()))
    }

    /// Like [`connect`](Self::connect), for topics that were checked before.
    pub fn reach(&self, wait: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        self.fetch_metadata(until)?;
        let mut state = self.line().state();
        while !state.has_producer_id {
            if let Some((_, reason)) = self.fatal_reason(&state) {
                bail!("the producer is done for: {reason}");
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("Kafka has not given a producer id");
            }
            let waited = self.line().changed.wait_timeout(state, left.min(CHECK_WAIT));
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Whether an error of [`connect`](Self::connect) is permanent: an operator has to act.
    pub fn needs_a_person(error: &anyhow::Error) -> bool {
        error.downcast_ref::<TopicsError>().is_some_and(TopicsError::needs_a_person)
    }

    /// Never blocks.
    pub fn send(&self, partition: u32, record: &Record, ticket: u64) -> Result<(), SendError> {
        let line = self.line();
        let ticket = usize::try_from(ticket).expect("a pointer has 64 bits");
        // Before the call, since the report may come at once.
        line.one_more(partition);
        let Err((error, _)) = self.producer.send(outgoing(&self.topic, partition, record, ticket)) else {
            return Ok(());
        };
        line.one_less_of(partition);
        line.one_less();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            return Err(SendError::Full);
        }
        if Fault::of(&error) == Fault::TooLarge {
            return Err(SendError::TooLarge);
        }
        line.state().broken.get_or_insert_with(|| (Fault::of(&error), error.to_string()));
        Err(SendError::Fatal)
    }

    pub fn fatal(&self) -> Option<(Fault, String)> {
        self.fatal_reason(&self.line().state())
    }

    pub fn is_connected(&self) -> bool {
        self.line().state().is_connected
    }

    pub fn abandon(&self, fault: Fault, reason: String) {
        let mut state = self.line().state();
        state.is_abandoned = true;
        state.broken.get_or_insert((fault, reason));
    }

    /// Records handed over and not reported.
    pub fn in_flight(&self) -> usize {
        self.line().in_flight.load(Ordering::Acquire)
    }

    /// For a failed producer: makes the client report the records that it will never send. With `in_flight` also those
    /// that were sent and not answered. The client does that once by itself, but some records return to its queue
    /// after that.
    pub fn give_up(&self, in_flight: bool) {
        if self.producer.client().fatal_error().is_some() || self.line().state().is_abandoned {
            let what = PurgeConfig::default().queue();
            self.producer.purge(if in_flight { what.inflight() } else { what });
        }
    }

    /// Waits until every record is reported. Returns whether it succeeded.
    pub fn flush(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let line = self.line();
        let mut state = line.state();
        while self.in_flight() > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Not librdkafka's own flush: it would serve reports from this thread too, beside the client's.
            (state, _) = line.changed.wait_timeout(state, left.min(CHECK_WAIT)).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    fn fetch_metadata(&self, until: Instant) -> anyhow::Result<()> {
        loop {
            let left = until.saturating_duration_since(Instant::now()).max(CHECK_WAIT);
            let metadata = self.producer.client().fetch_metadata(Some(&self.topic), left);
            let missing = match &metadata {
                Err(error) => Some(error.to_string()),
                Ok(metadata) => {
                    let led = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
                    let led = led.filter(|partition| partition.leader() >= 0).count();
                    (u32::try_from(led) != Ok(self.settings.partitions))
                        .then(|| format!("{led} of {} partitions have a leader", self.settings.partitions))
                }
            };
            let Some(missing) = missing else { return Ok(()) };
            if Instant::now() >= until {
                return Err(anyhow::Error::msg(missing)).with_context(|| format!("fetch metadata of {}", self.topic));
            }
            std::thread::sleep(CHECK_WAIT);
        }
    }

    fn fatal_reason(&self, state: &State) -> Option<(Fault, String)> {
        let fatal = self.producer.client().fatal_error();
        let fatal = fatal.map(|(code, reason)| (Fault::of_code(code), format!("{code}: {reason}")));
        fatal.or_else(|| state.broken.clone())
    }

    fn line(&self) -> &Line {
        self.producer.context()
    }
}

impl Drop for RawProducer {
    fn drop(&mut self) {
        let left = self.in_flight();
        if left > 0 {
            tracing::warn!(
                left,
                "let the producer of {} go with {left} records that Kafka has not acknowledged",
                self.topic
            );
        }
    }
}

struct Line {
    context: LoggingContext,
    topic: String,
    partitions: u32,
    reports: Arc<dyn Reports>,
    batches: Batches,
    in_flight: AtomicUsize,
    of_partition: Vec<AtomicUsize>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_connected: bool,
    has_producer_id: bool,
    is_abandoned: bool,
    broken: Option<(Fault, String)>,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one_more(&self, partition: u32) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        if let Some(count) = self.of_partition.get(partition as usize) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Returns whether it was the last of its partition.
    fn one_less_of(&self, partition: u32) -> bool {
        self.of_partition.get(partition as usize).is_none_or(|count| count.fetch_sub(1, Ordering::AcqRel) == 1)
    }

    fn one_less(&self) {
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_all();
        }
    }
}

impl ClientContext for Line {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) else { return };
        let mut state = self.state();
        state.is_connected = statistics.brokers.values().any(|broker| broker.state == "UP");
        state.has_producer_id = statistics.eos.is_some_and(|eos| eos.idemp_state == "Assigned");
        let known = statistics.topics.get(self.topic.as_str()).map_or(0, TopicStatistics::known);
        // A deleted topic has none, and its records are refused.
        if known > 0 && u32::try_from(known) != Ok(self.partitions) {
            let reason = format!(
                "topic {} has {known} partitions where partitions is {}: it was created again while the producer ran",
                self.topic, self.partitions
            );
            state.broken.get_or_insert((Fault::TopicShape, reason));
        }
        self.changed.notify_all();
    }
}

impl ProducerContext for Line {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let message = match result {
            Ok(message) | Err((_, message)) => message,
        };
        let last = self.one_less_of(u32::try_from(message.partition()).unwrap_or(u32::MAX));
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                let fault = Fault::of(error);
                let alone = fault == Fault::TooLarge && self.batches.blame(wire_bytes(message));
                let scope = if alone { FaultScope::Record } else { FaultScope::Producer };
                Err(ReportError { scope, fault, reason: error.to_string() })
            }
        };
        self.reports.reported(ticket as u64, outcome, last);
        self.one_less();
    }
}

impl Batches {
    /// An operator's setting stays, unless it is more.
    fn limit(self, config: &mut ClientConfig) {
        let limit = match self {
            Self::Usual => return,
            Self::UpTo(bytes) => bytes.max(1),
            Self::Alone => 1,
        };
        let set = config.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(BATCH_BYTES_USUAL);
        config.set("batch.size", limit.min(set).to_string());
    }

    /// Whether a record of that size made its batch too large.
    fn blame(self, bytes: usize) -> bool {
        match self {
            Self::Usual => false,
            Self::UpTo(limit) => bytes + BATCH_HEAD_BYTES_MAX > limit as usize,
            Self::Alone => true,
        }
    }
}

/// An upper estimate of the record's size in a batch, without compression.
fn wire_bytes(message: &BorrowedMessage<'_>) -> usize {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let headers: usize =
        headers.map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len) + HEADER_LENGTHS_BYTES_MAX).sum();
    message.payload_len() + message.key_len() + headers
}

/// The part of librdkafka's statistics that we read.
#[derive(Deserialize)]
struct Statistics<'a> {
    #[serde(borrow, default)]
    topics: std::collections::HashMap<std::borrow::Cow<'a, str>, TopicStatistics<'a>>,
    #[serde(borrow, default)]
    brokers: std::collections::HashMap<String, BrokerStatistics<'a>>,
    #[serde(borrow)]
    eos: Option<ProducerStatistics<'a>>,
}

#[derive(Deserialize)]
struct TopicStatistics<'a> {
    #[serde(borrow, default)]
    partitions: std::collections::HashMap<&'a str, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    partition: i64,
    #[serde(default)]
    unknown: bool,
}

impl TopicStatistics<'_> {
    /// Partitions with metadata. librdkafka has one more entry, for records without a partition.
    fn known(&self) -> usize {
        self.partitions.values().filter(|partition| partition.partition >= 0 && !partition.unknown).count()
    }
}

#[derive(Deserialize)]
struct BrokerStatistics<'a> {
    #[serde(borrow)]
    state: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct ProducerStatistics<'a> {
    #[serde(borrow)]
    idemp_state: std::borrow::Cow<'a, str>,
}
