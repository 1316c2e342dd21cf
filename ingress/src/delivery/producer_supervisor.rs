//! Connects a producer, drains the disk log, and replaces a producer that failed.
//!
//! Once Kafka was reached, no fault of Kafka ends the supervisor: webhooks go to the disk until an operator has acted.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kafka_log::{Batches, Fault, MayCreate, RawProducer, RawTopic};
use runtime::lifecycle::{Pending, Stop};
use runtime::settings::KafkaSettings;

use crate::delivery::dispatcher::Dispatcher;
use crate::delivery::drain::Drain;
use crate::delivery::outage_log::{KafkaHealth, Observation, OutageLog, OutageNotice};
use crate::delivery::state::{Input, ProducerState, Status};

const CONNECT_WAIT_MAX: Duration = Duration::from_secs(3);
const DIAGNOSIS_WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two attempts to connect: at first, and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Without Kafka for this long after the start, ingress is ready all the same: the disk takes events.
const READY_WITHOUT_KAFKA_AFTER: Duration = Duration::from_secs(10);
/// The interval of comparing a producer without a broker to a new client. If only the new client finds one twice in a
/// row, the producer is replaced: librdkafka can lose the way back to its bootstrap servers.
const LOST_AFTER: Duration = Duration::from_secs(20);
const LOST_CHECK_EVERY: Duration = Duration::from_secs(10);
/// A missing topic is recreated after this time, which an operator who deleted it may need.
const MAKE_ANEW_AFTER: Duration = Duration::from_secs(30);
/// How often delivered offsets are saved. After a crash, later ones are sent again, flagged.
const SAVE_EVERY: Duration = Duration::from_secs(1);
const PARKED_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How often the log repeats that events are parked.
const PARKED_REMIND_EVERY: Duration = Duration::from_secs(600);
/// After a drain that failed.
const DRAIN_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// At the end: how long reports are awaited, in total and without any of them.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(10);
const FLUSH_SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long a failed producer may wait for answers, and how often that is checked.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
const RENEW_CHECK_WAIT: Duration = Duration::from_millis(50);
const FLUSH_CHECK_WAIT: Duration = Duration::from_millis(10);
/// The file beside the disk log that records that Kafka was reached once.
const REACHED_FILE: &str = "reached";

pub struct ProducerSupervisor {
    dispatcher: Arc<Dispatcher>,
    kafka: KafkaSettings,
    stop: Stop,
    /// Whether the disk log belongs to another ingress: nothing is added to it, and it has an end.
    adopted: bool,
    drain: Drain,
    outage_log: OutageLog,
    saved_at: Instant,
    /// Producers that were replaced in a row, without any acknowledgement.
    failures: u32,
    /// Since when a topic has been missing.
    missing_since: Option<Instant>,
    batches: Batches,
    /// A batch was refused for its size although none of its records is that large.
    batch_refused: bool,
    parked: ParkedLog,
    lost: Option<Lost>,
}

struct Lost {
    since: Instant,
    observed_at: Instant,
    /// The last check with a new client reached Kafka.
    others_reach_it: bool,
}

/// The logged state of parked events, and the one being retried.
#[derive(Default)]
struct ParkedLog {
    logged: usize,
    logged_at: Option<Instant>,
    tried_at: Option<Instant>,
    trying: Option<u64>,
}

impl ProducerSupervisor {
    /// Not connected yet; ends on `stop`.
    pub fn new(dispatcher: Arc<Dispatcher>, kafka: KafkaSettings, stop: Stop) -> Self {
        Self {
            dispatcher,
            kafka,
            stop,
            adopted: false,
            drain: Drain::default(),
            outage_log: OutageLog::new(Instant::now()),
            saved_at: Instant::now(),
            failures: 0,
            missing_since: None,
            batches: Batches::Usual,
            batch_refused: false,
            parked: ParkedLog::default(),
            lost: None,
        }
    }

    /// For an adopted disk log. A read error ends the supervisor, and the adoption logs outages.
    pub fn adopting(dispatcher: Arc<Dispatcher>, kafka: KafkaSettings, stop: Stop) -> Self {
        Self { adopted: true, ..Self::new(dispatcher, kafka, stop) }
    }

    /// Runs until stopped; unacknowledged records are on the disk then. An error is for an operator.
    pub fn run(mut self, ready: Option<Pending>) -> anyhow::Result<()> {
        let worked = self.work(ready);
        self.flush();
        worked
    }

    fn work(&mut self, ready: Option<Pending>) -> anyhow::Result<()> {
        self.connect(true, ready)?;
        while !self.stop.requested() {
            if let Some((fault, reason)) = self.dispatcher.failure() {
                self.renew(fault, &reason)?;
            }
            if let Err(error) = self.drain.step(&self.dispatcher, self.dispatcher.next_span()) {
                if self.adopted {
                    return Err(error).context("read the disk log");
                }
                tracing::error!(%error, "cannot read the disk log; its events stay there: {error}");
                self.stop.sleep(DRAIN_AGAIN_AFTER);
            }
            self.observe();
            self.retry_parked();
            self.replace_lost(Instant::now());
        }
        Ok(())
    }

    /// Creates a producer and connects it, however long that takes.
    fn connect(&mut self, first: bool, mut ready: Option<Pending>) -> anyhow::Result<()> {
        let (started, mut backoff) = (Instant::now(), BACKOFF_MIN);
        // Receives the reason of a failed connection, which topic queries do not report.
        let mut listener = None;
        let reached = self.dispatcher.log().dir().join(REACHED_FILE);
        while !self.stop.requested() {
            match self.try_to_connect(!reached.exists()) {
                Ok(producer) => {
                    self.missing_since = None;
                    self.dispatcher.connected(Arc::new(producer));
                    if first {
                        tracing::info!(servers = self.kafka.servers, "connected to Kafka");
                        if !self.adopted {
                            note_reached(&reached);
                        }
                    }
                    return Ok(());
                }
                // These settings have never worked: report that now.
                Err(error) if first && RawProducer::needs_a_person(&error) && (self.adopted || !reached.exists()) => {
                    return Err(error);
                }
                Err(error) => tracing::debug!("connect to Kafka: {error:#}"),
            }
            if listener.is_none() {
                let heard = RawProducer::with(
                    &self.kafka,
                    self.dispatcher.clone(),
                    self.dispatcher.fault_reports(),
                    Batches::Usual,
                );
                listener = Some(heard.context("make a Kafka producer")?);
            }
            self.observe();
            if started.elapsed() >= READY_WITHOUT_KAFKA_AFTER && ready.take().is_some() {
                tracing::warn!("ready without Kafka; webhooks are kept on disk");
            }
            self.stop.sleep(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        Ok(())
    }

    fn try_to_connect(&mut self, again: bool) -> anyhow::Result<RawProducer> {
        let fault_reports = self.dispatcher.fault_reports();
        let overdue = self.missing_since.is_some_and(|since| since.elapsed() >= MAKE_ANEW_AFTER);
        let may_create = if again || overdue { MayCreate::Yes } else { MayCreate::No };
        let until = Instant::now() + CONNECT_WAIT_MAX;
        let raw = RawTopic::ensure(&self.kafka, fault_reports, may_create, CONNECT_WAIT_MAX).inspect_err(|error| {
            if RawTopic::is_missing(error) {
                self.missing_since.get_or_insert_with(Instant::now);
            }
        })?;
        let batches = match (self.batches, raw.batch_bytes_max) {
            (Batches::Alone, _) => Batches::Alone,
            // Batches were refused, and the topic's limit is unknown or unchanged.
            (Batches::Usual, None) if self.batch_refused => Batches::Alone,
            (Batches::UpTo(before), Some(bytes)) if self.batch_refused && bytes >= before => Batches::Alone,
            (Batches::Usual | Batches::UpTo(_), Some(bytes)) => Batches::UpTo(bytes),
            (Batches::Usual | Batches::UpTo(_), None) => Batches::Usual,
        };
        let producer = RawProducer::with(&self.kafka, self.dispatcher.clone(), fault_reports, batches);
        let producer = producer.context("make a Kafka producer")?;
        let reached = producer.reach(until.saturating_duration_since(Instant::now()));
        reached.inspect_err(|error| fault_reports.note(Fault::Leaders, format!("{error:#}")))?;
        (self.batches, self.batch_refused) = (batches, false);
        Ok(producer)
    }

    /// Waits until the failed producer has no record left, and creates a new one.
    fn renew(&mut self, fault: Fault, reason: &str) -> anyhow::Result<()> {
        let meanwhile =
            if self.adopted { "The events stay where they are" } else { "Webhooks are answered 200 and kept on disk" };
        // Logged each time, as it explains duplicates; the backoff limits the rate.
        let label = fault.label();
        if self.outage_log.is_news(Instant::now(), fault) {
            let remedy = fault.remedy();
            tracing::error!(
                fault = label,
                "the Kafka producer is done for and is replaced: {reason}. {meanwhile} until then. What Kafka has not \
                 acknowledged is sent again, marked hl_resent, and may lie in raw twice or out of order. What to do: {remedy}"
            );
        } else {
            tracing::info!("the Kafka producer is done for and is replaced, again for {label}: {reason}");
        }
        self.batch_refused = fault == Fault::TooLarge;
        let began = Instant::now();
        while !self.dispatcher.status().replaceable {
            self.observe();
            self.dispatcher.give_up(began.elapsed() >= ANSWER_WAIT_MAX);
            if self.stop.sleep(RENEW_CHECK_WAIT) {
                return Ok(());
            }
        }
        self.let_go();
        // The first one is replaced at once.
        let wait = BACKOFF_MIN * 2_u32.saturating_pow(self.failures.min(16));
        if self.failures > 0 && self.stop.sleep(wait.min(BACKOFF_MAX)) {
            return Ok(());
        }
        self.failures = self.failures.saturating_add(1);
        self.connect(false, None)
    }

    /// Drops the producer here, never in a thread of its own, which would wait for itself.
    fn let_go(&self) {
        let Some(mut producer) = self.dispatcher.take_producer() else { return };
        loop {
            match Arc::try_unwrap(producer) {
                Ok(alone) => return drop(alone),
                Err(shared) => producer = shared,
            }
            std::thread::sleep(FLUSH_CHECK_WAIT);
        }
    }

    /// Saves delivered offsets, and logs the state of Kafka.
    fn observe(&mut self) {
        if self.saved_at.elapsed() >= SAVE_EVERY {
            self.saved_at = Instant::now();
            self.save();
        }
        let Status { producer, kafka_up, direct, .. } = self.dispatcher.status();
        if kafka_up {
            self.failures = 0;
        }
        if self.adopted {
            return;
        }
        let now = Instant::now();
        if producer == ProducerState::Up && !kafka_up && self.outage_log.wants_cause(now) {
            RawTopic::diagnose(&self.kafka, self.dispatcher.fault_reports(), DIAGNOSIS_WAIT_MAX);
        }
        let cause = self.dispatcher.fault_reports().most_specific(self.outage_log.cause_since(now));
        match &cause {
            // The client itself retries for a while before it reports this.
            Some(cause) if cause.fault == Fault::TopicMissing => _ = self.missing_since.get_or_insert(cause.at),
            Some(_) | None if kafka_up => self.missing_since = None,
            Some(_) | None => {}
        }
        let on_disk = self.dispatcher.delivered().undelivered();
        let health = match (kafka_up, direct) {
            (true, true) => KafkaHealth::Healthy,
            (true, false) => KafkaHealth::CatchingUp,
            (false, _) => KafkaHealth::Unavailable,
        };
        match self.outage_log.observe(now, &Observation { health, cause }) {
            Some(OutageNotice::Lasting(lasts, Some(cause))) => tracing::error!(
                fault = cause.fault.label(),
                on_disk,
                "Kafka has taken no events for {:.1} s: {}. Webhooks are answered 200 and kept on disk, {on_disk} are \
                 there now; nothing is lost while the disk has room. What to do: {}",
                lasts.as_secs_f64(),
                cause.reason,
                cause.fault.remedy()
            ),
            Some(OutageNotice::Lasting(lasts, None)) => tracing::error!(
                fault = "silent",
                on_disk,
                "Kafka has acknowledged no events in time for {:.1} s and reports no fault. Webhooks are answered \
                 200 and kept on disk, {on_disk} are there now; nothing is lost while the disk has room. What to do: \
                 check the brokers, which are slow or stopped",
                lasts.as_secs_f64()
            ),
            Some(OutageNotice::Over(lasted)) => tracing::info!(
                "Kafka takes events again after {:.1} s; the events from disk were sent, webhooks go straight to it",
                lasted.as_secs_f64()
            ),
            None => {}
        }
    }

    /// Replaces a producer that does not find Kafka any more, though a new client does.
    fn replace_lost(&mut self, now: Instant) {
        if !self.dispatcher.is_lost() {
            self.lost = None;
            return;
        }
        let lost = self.lost.get_or_insert(Lost { since: now, observed_at: now, others_reach_it: false });
        let (alone, checked) = (now.duration_since(lost.since), now.duration_since(lost.observed_at));
        if alone < LOST_AFTER || checked < LOST_CHECK_EVERY {
            return;
        }
        lost.observed_at = now;
        // Faults are reported elsewhere.
        let is_well = RawTopic::diagnose(&self.kafka, &Arc::default(), DIAGNOSIS_WAIT_MAX);
        if std::mem::replace(&mut lost.others_reach_it, is_well) && is_well && self.dispatcher.is_lost() {
            let reason = format!("it has reached no broker for {} s, while a new client does", alone.as_secs());
            self.dispatcher.abandon(Fault::Unreachable, reason);
        }
    }

    /// Retries parked events, the smallest first, and logs that there are some.
    fn retry_parked(&mut self) {
        if self.adopted {
            return;
        }
        let Status { parked, .. } = self.dispatcher.status();
        let taken = self.parked.trying.is_some_and(|offset| self.dispatcher.delivered().is_delivered(offset));
        let due = self.parked.tried_at.is_none_or(|at| at.elapsed() >= PARKED_AGAIN_AFTER);
        if parked > 0 && (taken || due) {
            // An event that was parked a moment ago is not retried at once.
            let tried = if self.parked.tried_at.is_none() { Ok(None) } else { self.dispatcher.retry_parked() };
            match tried.and_then(|offset| self.dispatcher.move_parked().map(|()| offset)) {
                Ok(offset) => self.parked.trying = offset,
                Err(error) => tracing::error!(%error, "cannot read a parked event; it stays on disk: {error}"),
            }
            self.parked.tried_at = Some(Instant::now());
        }
        let all_taken = parked == 0 && taken;
        let reminded = self.parked.logged_at.is_some_and(|at| at.elapsed() < PARKED_REMIND_EVERY);
        if parked > 0 && (self.parked.logged == 0 || !reminded) {
            tracing::error!(
                fault = Fault::TooLarge.label(),
                parked,
                "Kafka refuses {parked} events because they are larger than the topic raw takes. They were answered \
                 200 and stay on disk, and block no others; they are retried every {} s. What to do: {}",
                PARKED_AGAIN_AFTER.as_secs(),
                Fault::TooLarge.remedy()
            );
            (self.parked.logged, self.parked.logged_at) = (parked, Some(Instant::now()));
        } else if all_taken && self.parked.logged > 0 {
            tracing::info!("Kafka has taken all events that it had refused");
            self.parked = ParkedLog::default();
        }
    }

    fn save(&self) {
        if let Err(error) = self.dispatcher.delivered().save() {
            tracing::error!(%error, "cannot save what Kafka has acknowledged of the disk log: {error}");
        }
    }

    /// Waits for reports a while, then leaves the rest to the disk log.
    fn flush(&mut self) {
        if self.adopted {
            // All of it is on disk: what the client does not have yet need not be sent first.
            self.dispatcher.handle([Input::Failed]);
        }
        let started = Instant::now();
        let (mut left, mut reported_at) = (self.dispatcher.status().open, started);
        while left > 0 && started.elapsed() < FLUSH_WAIT_MAX && reported_at.elapsed() < FLUSH_SILENCE_MAX {
            std::thread::sleep(FLUSH_CHECK_WAIT);
            self.dispatcher.handle([Input::Tick]);
            let now_left = self.dispatcher.status().open;
            if now_left != left {
                (left, reported_at) = (now_left, Instant::now());
            }
        }
        if left > 0 {
            tracing::warn!(left, "Kafka has not acknowledged {left} records; the next start sends them again");
        }
        self.dispatcher.handle([Input::Failed]);
        self.let_go();
        self.save();
    }
}

/// Records that Kafka was reached, so that no later start refuses webhooks because of its topics.
fn note_reached(file: &Path) {
    if let Err(error) = runtime::private::write(file, b"Kafka was reached with this disk log.\n") {
        tracing::warn!(%error, "cannot write {}: {error}", file.display());
    }
}
