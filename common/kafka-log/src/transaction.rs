//! Publishes derived records and how far `raw` was read in one transaction: all or nothing.
//!
//! Nothing is repaired in place. When a transaction does not plainly succeed, the whole event log is opened again:
//! initialising the producer then decides the old transaction, and `facts` shows the outcome.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, TopicPartitionList};

use super::client::{self, LoggingContext, Role, TRANSACTION_TIMEOUT};
use super::record::{kafka_offset, kafka_partition, outgoing};
use event_log::contract::Topic;
use event_log::{EventLogError, FactOffsets, Output, Position};
use runtime::lifecycle::Stop;
use runtime::settings::KafkaSettings;

/// One call to the coordinator; then the stop is checked, and the call repeated.
const CALL_WAIT: Duration = Duration::from_secs(2);
/// A slower transaction is left to the next producer.
const PUBLISH_WAIT_MAX: Duration = TRANSACTION_TIMEOUT.saturating_mul(3);
/// The time for an open transaction after a requested stop.
const PUBLISH_WAIT_STOPPING: Duration = Duration::from_secs(5);
/// How long a full queue is left to drain before the next try.
const QUEUE_WAIT: Duration = Duration::from_millis(5);
const SAY_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Publisher {
    settings: KafkaSettings,
    producer: ThreadedProducer<Deliveries>,
}

impl Publisher {
    /// Fences the instance's former process and decides its open transaction; waits for that until a stop is requested.
    pub(super) fn open(settings: &KafkaSettings, id: &str, stop: &Stop) -> Result<Self, EventLogError> {
        let role = Role::Transactional { id };
        let deliveries = Deliveries {
            context: LoggingContext::new(settings, role),
            batch: Mutex::default(),
            changed: Condvar::new(),
            lost_a_broker: AtomicBool::new(false),
        };
        let producer = client::create(settings, role, deliveries)?;
        let publisher = Self { settings: settings.clone(), producer };
        publisher.initialise(id, stop)?;
        Ok(publisher)
    }

    /// Publishes all of these or none. Returns the offset of each record of `facts`.
    pub(super) fn publish(
        &self,
        outputs: &[Output],
        read: &[Position],
        member: Option<&ConsumerGroupMetadata>,
        stop: &Stop,
    ) -> Result<FactOffsets, EventLogError> {
        let patience = Patience::begin();
        self.write(outputs, read, member, &patience, stop)?;
        self.insist("commit the transaction", &patience, stop, || self.producer.commit_transaction(CALL_WAIT))?;
        self.fact_offsets(outputs)
    }

    /// Writes all of these in one transaction and aborts it: none of it becomes visible, and no transaction of this
    /// producer stays open in these partitions.
    pub(super) fn abort(
        &self,
        outputs: &[Output],
        read: &[Position],
        member: Option<&ConsumerGroupMetadata>,
        stop: &Stop,
    ) -> Result<(), EventLogError> {
        let patience = Patience::begin();
        self.write(outputs, read, member, &patience, stop)?;
        self.insist("abort a transaction", &patience, stop, || self.producer.abort_transaction(CALL_WAIT))
    }

    /// Begins a transaction, and waits until brokers have all of this in it.
    fn write(
        &self,
        outputs: &[Output],
        read: &[Position],
        member: Option<&ConsumerGroupMetadata>,
        patience: &Patience,
        stop: &Stop,
    ) -> Result<(), EventLogError> {
        *self.deliveries().batch() = Batch { offsets: vec![None; outputs.len()], ..Batch::default() };
        self.producer.begin_transaction().map_err(|error| self.judge("begin a transaction", &error))?;
        for (ticket, output) in outputs.iter().enumerate() {
            self.send(output, ticket, patience, stop)?;
        }
        // Before the offsets: that call may outlast a broker's absence, and the records would be sent again after it.
        self.wait_for_reports(outputs.len(), patience, stop)?;
        if !read.is_empty() {
            let member = member.ok_or_else(|| EventLogError::Reopen("publish without being a member".into()))?;
            let offsets = self.offsets(read);
            self.insist("commit offsets", patience, stop, || {
                self.producer.send_offsets_to_transaction(&offsets, member, CALL_WAIT)
            })?;
        }
        Ok(())
    }

    /// Whether a connection to a broker was lost since the last call.
    pub(super) fn lost_a_broker(&self) -> bool {
        self.deliveries().lost_a_broker.swap(false, Ordering::Relaxed)
    }

    pub(super) fn cluster_id(&self) -> Option<String> {
        self.producer.client().fetch_cluster_id(CALL_WAIT)
    }

    fn initialise(&self, id: &str, stop: &Stop) -> Result<(), EventLogError> {
        let began = Instant::now();
        let mut said = began;
        loop {
            let Err(error) = self.producer.init_transactions(CALL_WAIT) else {
                self.lost_a_broker();
                return Ok(());
            };
            if !is_retriable(&error) {
                return Err(self.judge("initialise transactions", &error));
            }
            if stop.requested() {
                return Err(stopping());
            }
            if said.elapsed() >= SAY_AGAIN {
                said = Instant::now();
                let waited_s = began.elapsed().as_secs();
                tracing::warn!(id, waited_s, "wait for Kafka to initialise transactions of {id}: {error}");
            }
        }
    }

    fn send(&self, output: &Output, ticket: usize, patience: &Patience, stop: &Stop) -> Result<(), EventLogError> {
        let topic = self.settings.topic(output.topic);
        loop {
            match self.producer.send(outgoing(&topic, output.partition, &output.record, ticket)) {
                Ok(()) => return Ok(()),
                Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    patience.check("send records", &error, stop)?;
                    thread::sleep(QUEUE_WAIT);
                }
                Err((error, _)) => return Err(self.judge(&format!("send a record to {topic}"), &error)),
            }
        }
    }

    /// Repeats a step while Kafka reports a retriable error.
    fn insist(
        &self,
        what: &str,
        patience: &Patience,
        stop: &Stop,
        call: impl Fn() -> KafkaResult<()>,
    ) -> Result<(), EventLogError> {
        loop {
            let Err(error) = call() else { return Ok(()) };
            if !is_retriable(&error) {
                return Err(self.judge(what, &error));
            }
            patience.check(what, &error, stop)?;
        }
    }

    /// Waits until every record is reported. The client's commit would wait for that too, but by serving reports
    /// from this thread as well, where a missed last report costs a sleep of 100 ms.
    fn wait_for_reports(&self, sent: usize, patience: &Patience, stop: &Stop) -> Result<(), EventLogError> {
        let deliveries = self.deliveries();
        let mut batch = deliveries.batch();
        while batch.reported < sent {
            let waited = deliveries.changed.wait_timeout(batch, CALL_WAIT);
            let timed_out;
            (batch, timed_out) = waited.map_or_else(
                |poisoned| {
                    let (batch, waited) = poisoned.into_inner();
                    (batch, waited.timed_out())
                },
                |(batch, waited)| (batch, waited.timed_out()),
            );
            if batch.reported < sent && self.lost_a_broker() {
                // The broker may come back without the markers of the transaction before; records that are sent again
                // then would share the outcome of theirs.
                return Err(EventLogError::Reopen("a broker went away while records were on their way".into()));
            }
            if timed_out {
                let timed_out = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
                patience.check("wait for reports", &timed_out, stop)?;
            }
        }
        Ok(())
    }

    fn offsets(&self, read: &[Position]) -> TopicPartitionList {
        let raw = self.settings.topic(Topic::Raw);
        read.iter().map(|next| (raw.clone(), kafka_partition(next.partition), kafka_offset(next.offset))).collect()
    }

    /// From the delivery reports, which must hold the offset of every fact.
    fn fact_offsets(&self, outputs: &[Output]) -> Result<FactOffsets, EventLogError> {
        let batch = self.deliveries().batch();
        let mut offsets = FactOffsets::new();
        for (output, offset) in outputs.iter().zip(&batch.offsets).filter(|(output, _)| output.topic == Topic::Facts) {
            let Some(offset) = *offset else {
                // Committed, but the exact offset is known only to a reader.
                return Err(EventLogError::Reopen("a committed fact did not report its offset".to_owned()));
            };
            offsets.entry(output.partition).or_default().push(offset);
        }
        Ok(offsets)
    }

    fn judge(&self, what: &str, error: &KafkaError) -> EventLogError {
        let judged = judge(what, error, self.producer.client().fatal_error());
        // The first failed record says more than the failed commit that it caused.
        let batch = self.deliveries().batch();
        match (&batch.failed, judged) {
            (Some(failed), EventLogError::Reopen(_)) if batch.is_too_large => EventLogError::TooLarge(failed.clone()),
            (Some(failed), EventLogError::Reopen(reason)) => EventLogError::Reopen(format!("{reason}: {failed}")),
            (_, judged) => judged,
        }
    }

    fn deliveries(&self) -> &Deliveries {
        self.producer.context()
    }
}

/// The meaning of an error for the event log; `fatal` is the client's own, which is closer to the cause.
pub(super) fn judge(what: &str, error: &KafkaError, fatal: Option<(RDKafkaErrorCode, String)>) -> EventLogError {
    let reason = match &fatal {
        Some((_, reason)) => format!("{what}: {error}: {reason}"),
        None => format!("{what}: {error}"),
    };
    let code = fatal.map(|(code, _)| code).or_else(|| error.rdkafka_error_code());
    let Some(code) = code else { return EventLogError::Reopen(reason) };
    if is_too_large(code) {
        return EventLogError::TooLarge(reason);
    }
    if is_fencing(code) {
        EventLogError::Fenced(reason)
    } else if is_forbidden(code) {
        EventLogError::Fatal(reason)
    } else {
        EventLogError::Reopen(reason)
    }
}

/// Another process has our transactional id or our place in the group.
pub(super) fn is_fencing(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::FencedInstanceId)
}

/// A record is larger than the client or its topic takes.
fn is_too_large(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize)
}

/// Retries fail until a right is granted.
fn is_forbidden(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication
    )
}

pub(super) fn is_refusal(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(is_forbidden)
}

fn is_retriable(error: &KafkaError) -> bool {
    if let KafkaError::Transaction(error) = error {
        return error.is_retriable();
    }
    // Records are still in flight: a commit waits for them first.
    matches!(error, KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut))
}

/// A wait ended because of a requested stop.
pub(super) fn stopping() -> EventLogError {
    EventLogError::Reopen("asked to stop".into())
}

struct Patience {
    began: Instant,
}

impl Patience {
    fn begin() -> Self {
        Self { began: Instant::now() }
    }

    fn check(&self, what: &str, error: &KafkaError, stop: &Stop) -> Result<(), EventLogError> {
        let most = if stop.requested() { PUBLISH_WAIT_STOPPING } else { PUBLISH_WAIT_MAX };
        if self.began.elapsed() < most {
            return Ok(());
        }
        Err(EventLogError::Reopen(format!("{what}: {error}, for {} s", self.began.elapsed().as_secs())))
    }
}

struct Deliveries {
    context: LoggingContext,
    batch: Mutex<Batch>,
    /// Every record is reported, or another one failed, or a broker went away.
    changed: Condvar,
    lost_a_broker: AtomicBool,
}

#[derive(Debug, Default)]
struct Batch {
    /// Reported records, acknowledged or not.
    reported: usize,
    /// Of each record, by its ticket.
    offsets: Vec<Option<u64>>,
    failed: Option<String>,
    /// The first failed record was too large.
    is_too_large: bool,
}

impl Deliveries {
    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown)
        ) {
            self.lost_a_broker.store(true, Ordering::Relaxed);
            self.changed.notify_all();
        }
        self.context.error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let mut batch = self.batch();
        match result {
            Ok(message) => {
                // A retry of a record that the broker already had reports no offset.
                if let (Some(known), Ok(offset)) = (batch.offsets.get_mut(ticket), u64::try_from(message.offset())) {
                    *known = Some(offset);
                }
            }
            Err((error, message)) => {
                if batch.failed.is_none() {
                    batch.is_too_large = error.rdkafka_error_code().is_some_and(is_too_large);
                    batch.failed = Some(format!("{}: {error}", message.topic()));
                }
            }
        }
        batch.reported += 1;
        drop(batch);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
