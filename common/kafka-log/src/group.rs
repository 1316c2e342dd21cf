//! Our share of `raw`: the assigned partitions, and their records from given offsets on.
//!
//! A rebalance is answered at once with nothing assigned, and reported as a [`LogEvent`]; partitions are assigned only
//! when their start offsets are known. So no record comes before its partition's state is restored.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::client::{self, LoggingContext, Role};
use super::positions::{Positions, tolerate};
use super::transaction::{is_fencing, judge};
use event_log::contract::Topic;
use event_log::{Entry, EventLogError, LogEvent, Position};
use runtime::settings::KafkaSettings;

const STEP: &str = "read raw";
const BATCH_RECORDS_MAX: usize = 2_000;
/// How many events are served before a consumer is closed; there is one rebalance at a time.
const LAST_EVENTS: usize = 16;

pub(super) struct Member {
    topic: String,
    consumer: BaseConsumer<Changes>,
    has_joined: bool,
    /// As reported by log events, which may be behind the callback.
    owned: BTreeSet<u32>,
    /// The next offset of each started partition.
    next: Positions,
    /// The generation of our assignment: a publication with it is refused once there is a newer one.
    generation: Option<Arc<ConsumerGroupMetadata>>,
}

impl Member {
    pub(super) fn new(settings: &KafkaSettings, group: &str, instance: Option<&str>) -> Result<Self, EventLogError> {
        let role = Role::Member { group, instance };
        let topic = settings.topic(Topic::Raw);
        let changes = Changes {
            context: LoggingContext::new(settings, role),
            queue: Mutex::default(),
            closing: AtomicBool::new(false),
        };
        let consumer: BaseConsumer<Changes> = client::create(settings, role, changes)?;
        Ok(Self {
            topic,
            consumer,
            has_joined: false,
            owned: BTreeSet::new(),
            next: Positions::default(),
            generation: None,
        })
    }

    /// In the background; later calls do nothing.
    pub(super) fn join(&mut self) -> Result<(), EventLogError> {
        if !mem::replace(&mut self.has_joined, true) {
            self.consumer.subscribe(&[&self.topic]).map_err(|error| judge("join the group", &error, None))?;
        }
        Ok(())
    }

    /// The next change of our assignment, if there is one.
    pub(super) fn change(&mut self) -> Option<LogEvent> {
        let change = self.consumer.context().queue().pop_front()?;
        match change {
            Change::Assigned(partitions) => {
                self.owned.extend(&partitions);
                // Not in the callback: while the consumer is closed, librdkafka never answers there.
                self.generation = self.consumer.group_metadata().map(Arc::new);
                Some(LogEvent::Assigned(partitions))
            }
            Change::Revoked(partitions) => {
                for partition in &partitions {
                    self.owned.remove(partition);
                    self.next.remove(*partition);
                }
                Some(LogEvent::Revoked(partitions))
            }
        }
    }

    /// Starts these partitions, in addition to earlier ones.
    pub(super) fn start(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        if self.has_change() {
            // Revoked meanwhile, maybe assigned again: the next log events say so, and these offsets are void.
            return Ok(());
        }
        self.next.extend(starts.iter().filter(|start| self.owned.contains(&start.partition)).copied());
        let list = self.next.of_topic(&self.topic);
        self.consumer.assign(&list).map_err(|error| self.judge("start partitions", &error))
    }

    pub(super) fn has_started(&self) -> bool {
        !self.next.is_empty()
    }

    /// Returns available records, waiting for the first one; none of partitions that were revoked meanwhile.
    pub(super) fn collect(&mut self, wait: Duration) -> Result<Vec<Entry>, EventLogError> {
        let changes = self.consumer.context();
        let has_change = || !changes.queue().is_empty();
        let mut batch = self.next.poll(&self.consumer, STEP, wait, BATCH_RECORDS_MAX, has_change)?;
        if self.has_change() {
            // With range every change begins with the revocation of all: the new owner reads these again.
            batch.clear();
        }
        Ok(batch)
    }

    /// Serves the group during a long read. Only while nothing is started, since it must return no records.
    pub(super) fn serve(&mut self) -> Result<(), EventLogError> {
        if self.has_started() {
            return Ok(());
        }
        match self.consumer.poll(Duration::ZERO) {
            Some(Err(error)) => self.tolerate(&error),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Serves the group for a moment. Records of `raw` are lost meanwhile, so the log must be closed after it.
    pub(super) fn hear(&self, wait: Duration) -> Result<(), EventLogError> {
        match self.consumer.poll(wait) {
            Some(Err(error)) => self.tolerate(&error),
            Some(Ok(_)) | None => match self.consumer.client().fatal_error() {
                Some((code, reason)) if is_fencing(code) => Err(EventLogError::Fenced(reason)),
                Some(_) | None => Ok(()),
            },
        }
    }

    pub(super) fn generation(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.generation.clone()
    }

    /// The current positions, to find one that is out of range.
    pub(super) fn positions(&self) -> Vec<Position> {
        self.next.all()
    }

    fn has_change(&self) -> bool {
        !self.consumer.context().queue().is_empty()
    }

    fn tolerate(&self, error: &KafkaError) -> Result<(), EventLogError> {
        tolerate(STEP, error, self.consumer.client().fatal_error())
    }

    fn judge(&self, step: &str, error: &KafkaError) -> EventLogError {
        judge(step, error, self.consumer.client().fatal_error())
    }
}

impl Drop for Member {
    /// Serves the last events while librdkafka still answers: once the consumer is closed, the answer to an earlier
    /// rebalance waits for ever.
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Release);
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!("leave the partitions: {error}");
        }
        for _ in 0..LAST_EVENTS {
            // Records are dropped; errors are logged by the context.
            drop(self.consumer.poll(Duration::ZERO));
        }
    }
}

enum Change {
    Assigned(Vec<u32>),
    Revoked(Vec<u32>),
}

/// Changes of the assignment, in order, until the loop takes them.
struct Changes {
    context: LoggingContext,
    queue: Mutex<VecDeque<Change>>,
    closing: AtomicBool,
}

impl Changes {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Change>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Changes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(&error, reason);
    }
}

impl ConsumerContext for Changes {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<u32> =
            list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect();
        let is_assignment = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if is_assignment && self.closing.load(Ordering::Acquire) {
            // Closing has answered this one.
            return;
        }
        let in_order = !consumer.assignment_lost();
        // Both answers end the rebalance for librdkafka; an assignment that waits for its start would block the
        // group's next rebalance for as long.
        let answered = if is_assignment { consumer.assign(&TopicPartitionList::new()) } else { consumer.unassign() };
        if let Err(error) = answered {
            tracing::error!("answer a rebalance: {error}");
        }
        if partitions.is_empty() {
            return;
        }
        let change = if is_assignment {
            tracing::info!(?partitions, "assigned partitions {partitions:?}");
            Change::Assigned(partitions)
        } else {
            tracing::info!(?partitions, in_order, "revoked partitions {partitions:?}");
            Change::Revoked(partitions)
        };
        self.queue().push_back(change);
    }
}
