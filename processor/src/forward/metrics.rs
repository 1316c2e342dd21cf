//! What is counted, by app.

use bitrix24::AppName;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use runtime::telemetry::registered;

use super::failure::Failure;

pub const DELIVERED: &str = "delivered";
pub const PARKED: &str = "parked";
pub const SKIPPED: &str = "skipped";
pub const LOST: &str = "lost";

pub struct Metrics {
    outcomes: IntCounterVec,
    pub lag: GaugeVec,
    pub parked: IntGaugeVec,
}

impl Metrics {
    pub fn new<'a>(registry: &Registry, apps: impl Iterator<Item = &'a AppName>) -> Self {
        let outcomes =
            Opts::new("forward_total", "Deliveries to handlers, and what became of events, by app and outcome.");
        let lag = Opts::new(
            "forward_lag_seconds",
            "Age of the oldest event of partitions owned here that is neither delivered nor parked, by app.",
        );
        let parked = Opts::new("forward_parked_events", "Events that wait for an operator's decision, by app.");
        let metrics = Self {
            outcomes: registered(registry, IntCounterVec::new(outcomes, &["app", "outcome"])),
            lag: registered(registry, GaugeVec::new(lag, &["app"])),
            parked: registered(registry, IntGaugeVec::new(parked, &["app"])),
        };
        for app in apps {
            for outcome in [DELIVERED, PARKED, SKIPPED, LOST].iter().chain(&Failure::LABELS) {
                metrics.outcomes.with_label_values(&[app.as_str(), outcome]);
            }
            metrics.lag.with_label_values(&[app.as_str()]).set(0.0);
            metrics.parked.with_label_values(&[app.as_str()]).set(0);
        }
        metrics
    }

    pub fn count(&self, app: &AppName, outcome: &str, times: u64) {
        self.outcomes.with_label_values(&[app.as_str(), outcome]).inc_by(times);
    }
}
