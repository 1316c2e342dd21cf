use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitrix24::AppName;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use runtime::telemetry::registered;

use crate::run::inconsistency::What;
use crate::state::{PrincipalState, Store};
use domain::fold::Outcome;
use domain::{Decision, Part, ProfileField, Reason, RecordStatus};

mod lag;

pub use lag::Lag;

#[derive(Clone)]
pub struct Metrics {
    events: IntCounterVec,
    app_events: IntCounterVec,
    rejected: IntCounterVec,
    /// Those that are labels.
    apps: Arc<BTreeSet<AppName>>,
    pub(crate) omitted: IntCounterVec,
    pub(crate) released_lost: IntCounter,
    pub(crate) gave_way: IntCounter,
    reopens: IntCounter,
    state_quarantined: IntCounter,
    pub lag: Lag,
    batch_duration: HistogramVec,
    installations: IntGaugeVec,
    contested: IntGauge,
    principals: IntGaugeVec,
    permissions: IntGaugeVec,
    state_bytes: IntGauge,
    state_waits: IntGauge,
    unowned: IntGauge,
    hanging: IntGauge,
    inconsistencies: IntCounterVec,
    halted: IntGaugeVec,
    halted_by: Arc<Mutex<Option<What>>>,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Fold,
    /// One transaction.
    Publish,
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

/// The label of apps that are not in the table, whose names anyone can make up. No app has this name.
const OTHER_APPS: &str = "_other";

impl Metrics {
    /// Registers all metrics and creates every series with its first value.
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
            events: counters("processor_events_total", "Events read from raw, by outcome.", "outcome"),
            app_events: counters("processor_app_events_total", "Events read from raw, by app.", "app"),
            rejected: registered(
                registry,
                IntCounterVec::new(
                    Opts::new("processor_rejected_total", "Events rejected, by app and reason."),
                    &["app", "reason"],
                ),
            ),
            apps: Arc::default(),
            omitted: counters(
                "processor_omitted_total",
                "Values of facts and parts of events that were too large to be kept, or cannot be shown, by field.",
                "field",
            ),
            released_lost: counter(
                "processor_released_lost_total",
                "Held events that could not be released, because raw no longer had them.",
            ),
            gave_way: counter(
                "processor_untrusted_forgotten_total",
                "Installations without facts that were forgotten because there were too many.",
            ),
            reopens: counter("processor_reopens_total", "Times that the logs were reopened after an error."),
            state_quarantined: counter(
                "processor_state_quarantined_total",
                "Times that the state was quarantined and read again.",
            ),
            lag: registered(registry, Ok(Lag::default())),
            batch_duration: registered(registry, HistogramVec::new(durations, &["step"])),
            installations: gauges("installations", "Installations known, by status.", "status"),
            contested: gauge(
                "contested_installations",
                "Installations that more than one principal claims, without an attestation.",
            ),
            principals: gauges("principals", "Principals known, by whether they are trusted.", "state"),
            permissions: gauges(
                "permissions",
                "Method decisions known, by decision, expired ones included.",
                "decision",
            ),
            state_bytes: gauge("state_bytes", "Size of the state on disk."),
            state_waits: gauge("state_waits_for_room", "1 while the state waits for free disk space."),
            unowned: gauge("processor_unowned_partitions", "Partitions of raw that no processor of the group owns."),
            hanging: gauge(
                "processor_hanging_partitions",
                "Output partitions with a transaction that has been open longer than the processor's transaction timeout.",
            ),
            inconsistencies: counters(
                "processor_inconsistencies_total",
                "Times that the processor halted because logs and state were inconsistent, by kind.",
                "what",
            ),
            halted: gauges("processor_halted", "1 while the processor is halted, by kind of inconsistency.", "what"),
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
        metrics.create_series(OTHER_APPS);
        for field in ProfileField::ALL.map(ProfileField::label).into_iter().chain(Part::ALL.map(Part::label)) {
            metrics.omitted.with_label_values(&[field]);
        }
        metrics
    }

    /// Counts events and rejected events of these apps by their names.
    #[must_use]
    pub fn with_apps(self, apps: BTreeSet<AppName>) -> Self {
        for app in &apps {
            self.create_series(app.as_str());
        }
        Self { apps: Arc::new(apps), ..self }
    }

    fn create_series(&self, app: &str) {
        self.app_events.with_label_values(&[app]);
        // What gave way was counted as unverified.
        for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::GaveWay) {
            self.rejected.with_label_values(&[app, reason.label()]);
        }
    }

    pub fn count(&self, outcome: Outcome, app: Option<&AppName>) {
        let app = app.filter(|app| self.apps.contains(*app)).map_or(OTHER_APPS, AppName::as_str);
        self.events.with_label_values(&[outcome.label()]).inc();
        self.app_events.with_label_values(&[app]).inc();
        if let Outcome::Rejected(reason) = outcome {
            self.rejected.with_label_values(&[app, reason.label()]).inc();
        }
    }

    pub(crate) fn reopened(&self) {
        self.reopens.inc();
    }

    pub fn quarantine(&self) {
        self.state_quarantined.inc();
    }

    pub fn took(&self, step: Step, duration: Duration) {
        self.batch_duration.with_label_values(&[step.label()]).observe(duration.as_secs_f64());
    }

    pub fn unowned(&self, partitions: usize) {
        self.unowned.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    pub fn hanging(&self, partitions: usize) {
        self.hanging.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    pub fn halt(&self, what: What) {
        self.agree();
        self.inconsistencies.with_label_values(&[what.label()]).inc();
        self.halted.with_label_values(&[what.label()]).set(1);
        *self.halted_by() = Some(what);
    }

    pub fn agree(&self) {
        for what in What::ALL {
            self.halted.with_label_values(&[what.label()]).set(0);
        }
        *self.halted_by() = None;
    }

    /// The reason for being not ready.
    pub(crate) fn standing_still(&self) -> impl Fn() -> Option<&'static str> + Send + Sync + 'static {
        let metrics = self.clone();
        move || {
            let waits = metrics.state_waits.get() > 0;
            metrics.halted_by().map(What::in_the_way).or(waits.then_some("the state waits for room on its disk"))
        }
    }

    pub(crate) fn state_waits(&self) -> IntGauge {
        self.state_waits.clone()
    }

    fn halted_by(&self) -> MutexGuard<'_, Option<What>> {
        self.halted_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn records(&self, store: &Store) {
        let counts = store.counts();
        for status in RecordStatus::ALL {
            let number = counts.installations.get(&status).copied().unwrap_or(0);
            self.installations.with_label_values(&[status.label()]).set(number);
        }
        self.contested.set(counts.contested);
        for state in PrincipalState::ALL {
            let number = counts.principals.get(&state).copied().unwrap_or(0);
            self.principals.with_label_values(&[state.label()]).set(number);
        }
        for (decision, label) in [(Decision::Granted, "granted"), (Decision::Denied, "denied")] {
            self.permissions.with_label_values(&[label]).set(counts.permissions.get(&decision).copied().unwrap_or(0));
        }
    }

    pub fn state(&self, store: &Store) {
        self.state_bytes.set(i64::try_from(store.bytes()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_apps_of_the_table_are_labels() {
        let app = |name: &str| AppName::parse(name).expect("a name");
        let metrics = Metrics::new(&runtime::telemetry::registry()).with_apps([app("crm-sync")].into());
        let rejected = Outcome::Rejected(Reason::NoEvent);
        for name in ["crm-sync", "made-up-1", "made-up-2"] {
            metrics.count(rejected, Some(&app(name)));
        }
        metrics.count(Outcome::Fact, Some(&app("crm-sync")));
        metrics.count(Outcome::Rejected(Reason::NotARawEvent), None);
        let rejected = |app: &str, reason| metrics.rejected.with_label_values(&[app, reason]).get();
        assert_eq!((rejected("crm-sync", "no_event"), rejected(OTHER_APPS, "no_event")), (1, 2));
        assert_eq!(rejected(OTHER_APPS, "not_a_raw_event"), 1);
        let events = |app: &str| metrics.app_events.with_label_values(&[app]).get();
        assert_eq!((events("crm-sync"), events(OTHER_APPS)), (2, 3));
        assert_eq!(AppName::parse(OTHER_APPS), None, "no app has the name of the others");
    }
}
