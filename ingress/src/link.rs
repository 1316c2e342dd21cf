//! The line to Kafka: connects, hands over what lies on disk, and takes a new producer when one is done for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use common::lifecycle::{Pending, Stop};
use common::log::kafka::{KafkaSettings, RawProducer};

use crate::desk::{Desk, Standing};
use crate::drain::Drain;

/// How long one try to connect may take.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
/// Between two tries to connect: at first, and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Without Kafka for so long after the start, we are ready all the same: the disk takes what comes.
const READY_WITHOUT_KAFKA_AFTER: Duration = Duration::from_secs(10);
/// How often what was settled is saved. A crash sends again, flagged, what was settled since.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often a person is told that nothing has changed.
const REMIND_EVERY: Duration = Duration::from_secs(60);
/// Events go straight to Kafka for so long before people are told that they do.
const CALM_AFTER: Duration = Duration::from_secs(1);
/// After a drain that failed.
const DRAIN_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// At the end: how long reports are awaited, and without any of them.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(10);
const FLUSH_SILENCE_MAX: Duration = Duration::from_secs(2);
/// How exactly the end looks at reports.
const FLUSH_LOOK: Duration = Duration::from_millis(10);

/// What the link's thread works with.
pub struct Link {
    desk: Arc<Desk>,
    kafka: KafkaSettings,
    stop: Stop,
    drain: Drain,
    mode: Mode,
    /// Since when events have gone straight to Kafka, as far as somebody looked.
    direct_since: Option<Instant>,
    saved_at: Instant,
}

/// Where events go, as people were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Kafka,
    Disk,
}

impl Link {
    /// A link that is not connected yet, and ends when `stop` says so.
    pub fn new(desk: Arc<Desk>, kafka: KafkaSettings, stop: Stop) -> Self {
        Self {
            desk,
            kafka,
            stop,
            drain: Drain::default(),
            mode: Mode::Disk,
            direct_since: None,
            saved_at: Instant::now(),
        }
    }

    /// Works until stopped; what Kafka has not acknowledged then is on the disk. An error is for a person.
    pub fn run(mut self, ready: Pending) -> anyhow::Result<()> {
        let worked = self.work(ready);
        self.flush();
        worked
    }

    fn work(&mut self, ready: Pending) -> anyhow::Result<()> {
        self.connect(Some(ready))?;
        while !self.stop.requested() {
            if let Some(reason) = self.desk.fatal() {
                self.desk.fail();
                self.renew(&reason)?;
            } else if self.desk.is_empty_after_failure() {
                self.renew("a record was not taken")?;
            }
            if let Err(error) = self.drain.step(&self.desk) {
                tracing::error!(%error, "cannot read the disk log; its events stay there: {error}");
                self.stop.sleep(DRAIN_AGAIN_AFTER);
            }
            self.look();
        }
        Ok(())
    }

    /// Makes a producer and connects it, however long that takes.
    fn connect(&mut self, mut ready: Option<Pending>) -> anyhow::Result<()> {
        let (started, mut backoff, mut reminded_at) = (Instant::now(), BACKOFF_MIN, None::<Instant>);
        let producer = RawProducer::new(&self.kafka, self.desk.clone()).context("make a Kafka producer")?;
        while !self.stop.requested() {
            let error = match producer.connect(CONNECT_WAIT_MAX) {
                Ok(()) => {
                    tracing::info!(servers = self.kafka.servers, "connected to Kafka");
                    self.desk.connected(Arc::new(producer));
                    return Ok(());
                }
                Err(error) if RawProducer::needs_a_person(&error) => return Err(error),
                Err(error) => error,
            };
            if reminded_at.is_none_or(|at| at.elapsed() >= REMIND_EVERY) {
                reminded_at = Some(Instant::now());
                tracing::warn!(
                    servers = self.kafka.servers,
                    "Kafka cannot be reached; webhooks are kept on disk: {error:#}"
                );
            }
            if started.elapsed() >= READY_WITHOUT_KAFKA_AFTER && ready.take().is_some() {
                tracing::warn!("ready without Kafka; webhooks are kept on disk");
            }
            self.stop.sleep(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        Ok(())
    }

    /// Waits until nothing is left with the producer that failed, and takes a new one.
    fn renew(&mut self, reason: &str) -> anyhow::Result<()> {
        tracing::error!("the Kafka producer is done for; webhooks are kept on disk until there is a new one: {reason}");
        self.mode = Mode::Disk;
        while !self.desk.is_empty_after_failure() {
            if self.stop.sleep(FLUSH_LOOK) {
                return Ok(());
            }
        }
        self.let_go();
        self.connect(None)
    }

    /// Lets the producer go here, never in a thread of its own, which would wait for itself.
    fn let_go(&self) {
        let Some(mut producer) = self.desk.take_producer() else { return };
        loop {
            match Arc::try_unwrap(producer) {
                Ok(alone) => return drop(alone),
                Err(shared) => producer = shared,
            }
            std::thread::sleep(FLUSH_LOOK);
        }
    }

    /// Saves what is settled, and tells people where events go.
    fn look(&mut self) {
        if self.saved_at.elapsed() >= SAVE_EVERY {
            self.saved_at = Instant::now();
            self.save();
        }
        let Standing { kafka_up, direct, silence } = self.desk.standing();
        self.direct_since = if direct { self.direct_since.or_else(|| Some(Instant::now())) } else { None };
        match self.mode {
            Mode::Kafka if !kafka_up => {
                let silence_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    silence_ms,
                    "Kafka has not acknowledged for {silence_ms} ms; webhooks are kept on disk until it does"
                );
                self.mode = Mode::Disk;
            }
            Mode::Disk if self.direct_since.is_some_and(|since| since.elapsed() >= CALM_AFTER) => {
                tracing::info!(
                    "Kafka acknowledges; webhooks go straight to it, and all that waited on disk before them"
                );
                self.mode = Mode::Kafka;
            }
            Mode::Kafka | Mode::Disk => {}
        }
    }

    fn save(&self) {
        if let Err(error) = self.desk.settled().save() {
            tracing::error!(%error, "cannot save what Kafka has acknowledged of the disk log: {error}");
        }
    }

    /// Waits for reports a while, then leaves the rest to the disk log.
    fn flush(&mut self) {
        let started = Instant::now();
        while self.desk.open() > 0
            && started.elapsed() < FLUSH_WAIT_MAX
            && self.desk.standing().silence < FLUSH_SILENCE_MAX
        {
            std::thread::sleep(FLUSH_LOOK);
            self.desk.tick();
        }
        let left = self.desk.open();
        if left > 0 {
            tracing::warn!(left, "Kafka has not acknowledged {left} records; the next start hands them over again");
        }
        self.desk.fail();
        self.let_go();
        self.save();
    }
}
