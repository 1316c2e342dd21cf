//! All metrics of ingress.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use admin::Connections;
use http_edge::{Ended, Observer};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use runtime::telemetry::registered;

use crate::admission::source_list::Verdict;
use crate::admission::unknown_apps::UnknownApps;
use crate::delivery::handle::Kept;

mod gauges;

pub use gauges::register_disk_log;
pub(crate) use gauges::{register_delivery, register_source_lists};

/// From a fsync to what Bitrix24 may call slow, in seconds.
const BUCKETS_S: &[f64] =
    &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0];

const ADOPTED: &str = "Events sent to Kafka from the disk logs of other ingresses.";

const PAUSED: &str =
    "Times that reading a large request was paused, because the total rate of large ones was above the limit.";

const OPEN: &str = "1 once a webhook came through a proxy while no apps are set, so that strangers can invent apps.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Kept(Kept),
    NotAnEvent,
    UnknownApp,
    UnknownSource,
    /// A web page of another site had a browser send it.
    CrossSite,
    TooLarge,
    /// Its body did not arrive in time, or not as announced.
    Unreadable,
    /// Neither Kafka nor the disk log took it.
    StorageUnavailable,
    Overloaded,
}

impl Outcome {
    const ALL: [Self; 10] = [
        Self::Kept(Kept::Kafka),
        Self::Kept(Kept::Disk),
        Self::NotAnEvent,
        Self::UnknownApp,
        Self::UnknownSource,
        Self::TooLarge,
        Self::Unreadable,
        Self::StorageUnavailable,
        Self::Overloaded,
        Self::CrossSite,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Kept(kept) => kept.label(),
            Self::NotAnEvent => "not_an_event",
            Self::UnknownApp => "unknown_app",
            Self::UnknownSource => "unknown_source",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::StorageUnavailable => "storage_unavailable",
            Self::Overloaded => "overloaded",
            Self::CrossSite => "cross_site",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|outcome| *outcome == self).expect("all are listed")
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    events: [IntCounter; Outcome::ALL.len()],
    request_seconds: Histogram,
    kept_in_kafka_seconds: Histogram,
    kept_on_disk_seconds: Histogram,
    discarded: IntCounter,
    open_behind_proxy: IntGauge,
    sources: [IntCounter; Verdict::ALL.len()],
    adopted: IntCounter,
    fsync_seconds: Histogram,
    refused: Arc<Refused>,
    connections: Arc<Connections>,
    reads_paused: IntCounter,
    certificate_expires_seconds: IntGaugeVec,
    unknown_apps: UnknownApps,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let about = Opts::new("ingress_events_total", "Webhooks, by what became of them.");
        let events = registered(registry, IntCounterVec::new(about, &["outcome"]));
        let about = buckets("ingress_kept_duration_seconds", "From a body that has been read to its being kept.");
        let kept_seconds = registered(registry, HistogramVec::new(about, &["kept"]));
        let seconds = |name, help| registered(registry, Histogram::with_opts(buckets(name, help)));
        let request_seconds = seconds("ingress_request_duration_seconds", "From a request's head to its answer.");
        let fsync_seconds =
            seconds("disk_log_fsync_duration_seconds", "Syncs of the disk log that an append waited for.");
        let about = Opts::new("ingress_source_total", "Webhooks with a sender lookup, by its result.");
        let sources = registered(registry, IntCounterVec::new(about, &["verdict"]));
        let about = "When the TLS certificate in use expires, Unix time.";
        let certificate = IntGaugeVec::new(Opts::new("tls_certificate_expires_seconds", about), &[]);
        let about = "Bodies that were no events, or from unknown sources, beyond the budget for such: not kept.";
        Self {
            events: Outcome::ALL.map(|outcome| events.with_label_values(&[outcome.label()])),
            request_seconds,
            kept_in_kafka_seconds: kept_seconds.with_label_values(&[Kept::Kafka.label()]),
            kept_on_disk_seconds: kept_seconds.with_label_values(&[Kept::Disk.label()]),
            discarded: registered(registry, IntCounter::new("ingress_discarded_total", about)),
            open_behind_proxy: registered(registry, IntGauge::new("ingress_open_behind_proxy", OPEN)),
            sources: Verdict::ALL.map(|verdict| sources.with_label_values(&[verdict.label()])),
            adopted: registered(registry, IntCounter::new("ingress_adopted_events_total", ADOPTED)),
            fsync_seconds,
            refused: Arc::default(),
            connections: Arc::new(Connections::new(registry, "ingress")),
            reads_paused: registered(registry, IntCounter::new("ingress_reads_paused_total", PAUSED)),
            certificate_expires_seconds: registered(registry, certificate),
            unknown_apps: UnknownApps::default(),
        }
    }

    /// By name, which a label must not be.
    pub fn unknown_apps(&self) -> &UnknownApps {
        &self.unknown_apps
    }

    pub fn answered(&self, outcome: Outcome, took: Duration) {
        match outcome {
            Outcome::StorageUnavailable => self.refused.refused(),
            Outcome::Kept(_) => self.refused.kept(),
            Outcome::NotAnEvent
            | Outcome::UnknownApp
            | Outcome::TooLarge
            | Outcome::Unreadable
            | Outcome::Overloaded
            | Outcome::UnknownSource
            | Outcome::CrossSite => {}
        }
        self.events[outcome.index()].inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// For readiness: reports refused events, while the last event was refused.
    pub fn refusing(&self) -> impl Fn() -> Option<&'static str> + Send + Sync + use<> {
        let refused = Arc::clone(&self.refused);
        move || refused.lately().then_some("events are refused: neither Kafka nor the disk takes them")
    }

    pub fn kept(&self, kept: Kept, took: Duration) {
        let seconds = match kept {
            Kept::Kafka => &self.kept_in_kafka_seconds,
            Kept::Disk => &self.kept_on_disk_seconds,
        };
        seconds.observe(took.as_secs_f64());
    }

    /// A body that is no event was not kept.
    pub(crate) fn discarded(&self) {
        self.discarded.inc();
    }

    /// A webhook came through a proxy while any app's name is accepted. Never refused: it may be genuine.
    pub(crate) fn open_behind_proxy(&self) {
        if self.open_behind_proxy.get() == 0 {
            self.open_behind_proxy.set(1);
            tracing::warn!(
                "webhooks come through a proxy, so from more than this machine, and no apps are set: strangers can make \
                 up any app. Name them, for example `--apps crm-sync`, and the proxy, `--trusted-proxies 127.0.0.1`"
            );
        }
    }

    pub fn judged(&self, verdict: Verdict) {
        self.sources[verdict as usize].inc();
    }

    pub fn adopted(&self, events: u64) {
        self.adopted.inc_by(events);
    }

    /// For the disk log: the duration of its syncs.
    pub fn on_sync(&self) -> Arc<dyn Fn(Duration) + Send + Sync> {
        let seconds = self.fsync_seconds.clone();
        Arc::new(move |took| seconds.observe(took.as_secs_f64()))
    }
}

impl Observer for Metrics {
    fn opened(&self) {
        self.connections.opened();
    }

    fn closed(&self, why: Option<Ended>) {
        self.connections.closed(why);
    }

    fn read_paused(&self) {
        self.reads_paused.inc();
    }

    fn certificate_expires(&self, at_s: i64) {
        self.certificate_expires_seconds.with_label_values::<&str>(&[]).set(at_s);
    }
}

/// How long readiness fails after a refused event, unless a later one was kept. Only an event shows whether there
/// is room again, so one must be let in from time to time.
const REFUSED_LATELY: Duration = Duration::from_secs(15);

/// When the last event was refused, unless a later one was kept.
#[derive(Debug, Default)]
struct Refused {
    at: Mutex<Option<Instant>>,
    /// Whether there is such a time, read without the lock.
    is_set: AtomicBool,
}

impl Refused {
    fn refused(&self) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        *at = Some(Instant::now());
        self.is_set.store(true, Ordering::Relaxed);
    }

    fn kept(&self) {
        if self.is_set.load(Ordering::Relaxed) {
            let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
            *at = None;
            self.is_set.store(false, Ordering::Relaxed);
        }
    }

    fn lately(&self) -> bool {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < REFUSED_LATELY)
    }
}

fn buckets(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(BUCKETS_S.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_counter_of_its_own() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), index, "{}", outcome.label());
        }
    }

    #[test]
    fn every_verdict_has_a_counter_of_its_own() {
        let metrics = Metrics::new(&runtime::telemetry::registry());
        for (index, verdict) in Verdict::ALL.into_iter().enumerate() {
            metrics.judged(verdict);
            assert_eq!(metrics.sources[index].get(), 1, "{}", verdict.label());
        }
    }

    #[test]
    fn whoever_had_to_refuse_is_not_ready_until_an_event_is_kept() {
        let metrics = Metrics::new(&Registry::new());
        let refusing = metrics.refusing();
        let answered = |outcome| metrics.answered(outcome, Duration::ZERO);
        assert_eq!(refusing(), None);
        answered(Outcome::StorageUnavailable);
        assert!(refusing().is_some());
        answered(Outcome::NotAnEvent);
        assert!(refusing().is_some(), "that says nothing about room");
        answered(Outcome::Kept(Kept::Disk));
        assert_eq!(refusing(), None);
        answered(Outcome::StorageUnavailable);
        assert!(refusing().is_some());
    }
}
