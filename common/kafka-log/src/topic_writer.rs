//! Appends a few records to a topic, now and then: commands of operators, and how far events were forwarded.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_log::Record;
use event_log::contract::Topic;
use runtime::settings::KafkaSettings;

use super::producer::{FaultScope, RawProducer, ReportError, Reports, SendError};

/// How long a full queue is left to drain before the next try.
const QUEUE_WAIT: Duration = Duration::from_millis(5);

/// Connects with the first record. After a failure the next records have a new producer.
pub struct TopicWriter {
    settings: KafkaSettings,
    topic: Topic,
    /// Held for a whole call: one caller writes at a time.
    current: Mutex<Option<(RawProducer, Arc<Outcomes>)>>,
}

impl TopicWriter {
    pub fn new(settings: KafkaSettings, topic: Topic) -> Self {
        Self { settings, topic, current: Mutex::new(None) }
    }

    pub fn partitions(&self) -> u32 {
        self.settings.partitions
    }

    /// Blocks until Kafka has acknowledged all of these. After an error some of them may be in the topic.
    pub fn append(&self, records: &[(u32, Record)], wait: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + wait;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (producer, outcomes) = match current.take() {
            Some(known) => known,
            None => self.connect(wait)?,
        };
        outcomes.expect(records.len());
        for (partition, record) in records {
            send(&producer, *partition, record, until)?;
        }
        outcomes.wait(until)?;
        *current = Some((producer, outcomes));
        Ok(())
    }

    fn connect(&self, wait: Duration) -> anyhow::Result<(RawProducer, Arc<Outcomes>)> {
        let outcomes = Arc::new(Outcomes::default());
        let producer = RawProducer::of(&self.settings, self.topic, Arc::clone(&outcomes) as Arc<dyn Reports>)?;
        producer.connect(wait)?;
        Ok((producer, outcomes))
    }
}

fn send(producer: &RawProducer, partition: u32, record: &Record, until: Instant) -> anyhow::Result<()> {
    loop {
        match producer.send(partition, record, 0) {
            Ok(()) => return Ok(()),
            Err(SendError::Full) if Instant::now() < until => std::thread::sleep(QUEUE_WAIT),
            Err(error) => anyhow::bail!("Kafka's client takes no record: {error:?}"),
        }
    }
}

/// The outcomes of the records of one call.
#[derive(Default)]
struct Outcomes {
    pending: Mutex<(usize, Option<ReportError>)>,
    changed: Condvar,
}

impl Outcomes {
    fn expect(&self, number: usize) {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = (number, None);
    }

    fn wait(&self, until: Instant) -> anyhow::Result<()> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        while pending.0 > 0 && pending.1.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                anyhow::bail!("Kafka has not acknowledged {} records in time", pending.0);
            }
            (pending, _) = self.changed.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner);
        }
        pending.1.take().map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Reports for Outcomes {
    fn reported(&self, _ticket: u64, outcome: Result<(), ReportError>, _last: bool) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.0 = pending.0.saturating_sub(1);
        if let Err(error) = outcome
            && pending.1.as_ref().is_none_or(|known| known.scope == FaultScope::Record)
        {
            pending.1 = Some(error);
        }
        self.changed.notify_all();
    }
}
