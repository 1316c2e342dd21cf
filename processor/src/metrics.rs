//! What the processor counts: one struct, labels from enums.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use runtime::telemetry::registered;

use crate::run::inconsistency::What;
use crate::state::Store;
use domain::fold::Outcome;
use domain::{Decision, Reason, RecordStatus};

mod lag;

pub use lag::Lag;

/// All metrics of the processor.
#[derive(Clone)]
pub struct Metrics {
    events: IntCounterVec,
    rejected: IntCounterVec,
    released_lost: IntCounter,
    gave_way: IntCounter,
    reopens: IntCounter,
    state_quarantined: IntCounter,
    /// How far behind the owned partitions are.
    pub lag: Lag,
    batch_duration: HistogramVec,
    installations: IntGaugeVec,
    permissions: IntGaugeVec,
    state_bytes: IntGauge,
    state_waits: IntGauge,
    unowned: IntGauge,
    hanging: IntGauge,
    inconsistencies: IntCounterVec,
    halted: IntGaugeVec,
    /// What the processor is halted by.
    halted_by: Arc<Mutex<Option<What>>>,
}

/// One step of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Interpret and join in memory.
    Fold,
    /// One transaction.
    Publish,
    /// Into the state.
    Apply,
}

impl Step {
    fn label(self) -> &'static str {
        match self {
            Self::Fold => "fold",
            Self::Publish => "publish",
            Self::Apply => "apply",
        }
    }
}

impl Metrics {
    /// Registers them all, each label with its first value, so that every series is there from the start.
    pub fn new(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, label: &str| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        let counter = |name: &str, help: &str| registered(registry, IntCounter::new(name, help));
        let gauges = |name: &str, help: &str, label: &str| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
        };
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help));
        let durations = HistogramOpts::new("processor_batch_duration_seconds", "Time of a batch, by step.")
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);

        let metrics = Self {
            events: counters("processor_events_total", "Events taken from raw, by what became of them.", "outcome"),
            rejected: counters("processor_rejected_total", "Events rejected, by reason.", "reason"),
            released_lost: counter(
                "processor_released_lost_total",
                "Events that could not be passed on when their principal became trusted, because raw no longer had them.",
            ),
            gave_way: counter(
                "processor_untrusted_forgotten_total",
                "Installations that were forgotten because too many were known by nothing but held events.",
            ),
            reopens: counter("processor_reopens_total", "Times that the logs were opened anew after an error."),
            state_quarantined: counter(
                "processor_state_quarantined_total",
                "Times that the state was quarantined and read again.",
            ),
            lag: registered(registry, Ok(Lag::default())),
            batch_duration: registered(registry, HistogramVec::new(durations, &["step"])),
            installations: gauges("installations", "Installations known, by status.", "status"),
            permissions: gauges(
                "permissions",
                "Method decisions known, by decision, expired ones included.",
                "decision",
            ),
            state_bytes: gauge("state_bytes", "What the state takes on the disk."),
            state_waits: gauge("state_waits_for_room", "1 while the state finds no room on its disk."),
            unowned: gauge("processor_unowned_partitions", "Partitions of raw that no processor of the group owns."),
            hanging: gauge(
                "processor_hanging_partitions",
                "Partitions of published topics in which a transaction is open for longer than any of a processor can be.",
            ),
            inconsistencies: counters(
                "processor_inconsistencies_total",
                "Times that the processor halted because logs and state were inconsistent, by how.",
                "what",
            ),
            halted: gauges("processor_halted", "1 while the processor is halted by it.", "what"),
            halted_by: Arc::default(),
        };
        for what in What::ALL {
            metrics.inconsistencies.with_label_values(&[what.label()]);
            metrics.halted.with_label_values(&[what.label()]);
        }
        for outcome in [Outcome::Fact, Outcome::PassedOn, Outcome::Unverified, Outcome::Repeated] {
            metrics.events.with_label_values(&[outcome.label()]);
        }
        metrics.events.with_label_values(&["rejected"]);
        for reason in Reason::ALL {
            metrics.rejected.with_label_values(&[reason.label()]);
        }
        metrics
    }

    /// An event, by what became of it.
    pub fn count(&self, outcome: Outcome) {
        self.events.with_label_values(&[outcome.label()]).inc();
        if let Outcome::Rejected(reason) = outcome {
            self.rejected.with_label_values(&[reason.label()]).inc();
        }
    }

    /// An event that was to be released and is gone.
    pub fn released_lost(&self) {
        self.released_lost.inc();
    }

    /// An installation of which nothing was known but held events made room for others.
    pub fn gave_way(&self) {
        self.gave_way.inc();
    }

    /// The logs were opened anew.
    pub fn reopened(&self) {
        self.reopens.inc();
    }

    /// The state was quarantined.
    pub fn quarantine(&self) {
        self.state_quarantined.inc();
    }

    /// How long a step took.
    pub fn took(&self, step: Step, duration: Duration) {
        self.batch_duration.with_label_values(&[step.label()]).observe(duration.as_secs_f64());
    }

    /// Partitions without an owner.
    pub fn unowned(&self, partitions: usize) {
        self.unowned.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    /// Partitions in which a transaction hangs.
    pub fn hanging(&self, partitions: usize) {
        self.hanging.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    /// Logs and state are inconsistent: the processor is halted.
    pub fn halt(&self, what: What) {
        self.agree();
        self.inconsistencies.with_label_values(&[what.label()]).inc();
        self.halted.with_label_values(&[what.label()]).set(1);
        *self.halted_by() = Some(what);
    }

    /// They agree again.
    pub fn agree(&self) {
        for what in What::ALL {
            self.halted.with_label_values(&[what.label()]).set(0);
        }
        *self.halted_by() = None;
    }

    /// For readiness: what the processor is halted by, or waits for.
    pub fn standing_still(&self) -> impl Fn() -> Option<&'static str> + Send + Sync + 'static {
        let metrics = self.clone();
        move || {
            let waits = metrics.state_waits.get() > 0;
            metrics.halted_by().map(What::in_the_way).or(waits.then_some("the state waits for room on its disk"))
        }
    }

    /// Whether the state waits for room: to be set to 1 and back.
    pub fn state_waits(&self) -> IntGauge {
        self.state_waits.clone()
    }

    fn halted_by(&self) -> MutexGuard<'_, Option<What>> {
        self.halted_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records there are, by kind.
    pub fn records(&self, store: &Store) {
        let counts = store.counts();
        for status in RecordStatus::ALL {
            let number = counts.installations.get(&status).copied().unwrap_or(0);
            self.installations.with_label_values(&[status.label()]).set(number);
        }
        for (decision, label) in [(Decision::Granted, "granted"), (Decision::Denied, "denied")] {
            self.permissions.with_label_values(&[label]).set(counts.permissions.get(&decision).copied().unwrap_or(0));
        }
    }

    /// What the state takes on the disk.
    pub fn state(&self, store: &Store) {
        self.state_bytes.set(i64::try_from(store.bytes()).unwrap_or(i64::MAX));
    }
}
