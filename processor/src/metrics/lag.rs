//! The lag of each owned partition. The series exists from the assignment on, and grows even while the loop is stuck in
//! one step or reopens its logs. Otherwise an alert on it could not fire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use primitives::time::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};
use runtime::telemetry::valid;

/// The lag of all owned partitions: measured by the loop, computed on each scrape.
#[derive(Clone)]
pub struct Lag {
    events: IntGaugeVec,
    seconds: IntGaugeVec,
    /// By partition, including formerly owned ones: bounded by the number of partitions.
    known: Arc<Mutex<BTreeMap<u32, Measured>>>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    owned: bool,
    /// The next offset of `raw`.
    next: u64,
    behind: u64,
    /// While it lags, a lower bound of the next event's receipt; otherwise the last time without lag.
    since: Timestamp,
}

impl Measured {
    /// `newest` is the receipt of the newest event folded in this session.
    fn measured(self, next: u64, behind: u64, newest: Option<Timestamp>, now: Timestamp) -> Self {
        let since = match behind {
            0 => now,
            // No progress: the same event is still waiting.
            _ if next == self.next => self.since,
            _ => self.since.max(newest.unwrap_or(now)),
        };
        Self { next, behind, since, ..self }
    }

    fn waiting(&self, now: Timestamp) -> Duration {
        if self.behind > 0 { now.since(self.since) } else { Duration::ZERO }
    }
}

impl Default for Lag {
    fn default() -> Self {
        let gauges = |name: &str, help: &str| valid(IntGaugeVec::new(Opts::new(name, help), &["partition"]));
        Self {
            events: gauges("processor_lag_events", "Events in raw that are not folded yet."),
            seconds: gauges("processor_lag_seconds", "How long the next event of raw has been waiting."),
            known: Arc::default(),
        }
    }
}

impl Lag {
    /// Replaces the set of owned partitions. Earlier measurements of a partition are kept.
    pub fn own(&self, owned: &BTreeSet<u32>, now: Timestamp) {
        let mut known = self.known();
        for partition in owned {
            known.entry(*partition).or_insert(Measured { owned: true, next: 0, behind: 0, since: now });
        }
        for (partition, known) in known.iter_mut() {
            known.owned = owned.contains(partition);
        }
    }

    /// Events are folded up to `next`, and `behind` more are in `raw`.
    pub fn measure(&self, partition: u32, next: u64, behind: u64, newest: Option<Timestamp>, now: Timestamp) {
        if let Some(known) = self.known().get_mut(&partition) {
            *known = known.measured(next, behind, newest, now);
        }
    }

    /// Of all owned partitions: how many events wait, and how long the longest has waited.
    pub fn total(&self, now: Timestamp) -> (u64, Duration) {
        let known = self.known();
        let owned = || known.values().filter(|known| known.owned);
        (owned().map(|known| known.behind).sum(), owned().map(|known| known.waiting(now)).max().unwrap_or_default())
    }

    fn show(&self, now: Timestamp) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for (partition, known) in &*self.known() {
            let partition = [partition.to_string()];
            if known.owned {
                self.events.with_label_values(&partition).set(number(known.behind));
                self.seconds.with_label_values(&partition).set(number(known.waiting(now).as_secs()));
            } else {
                // The series may not exist.
                self.events.remove_label_values(&partition).ok();
                self.seconds.remove_label_values(&partition).ok();
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u32, Measured>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Lag {
    fn desc(&self) -> Vec<&Desc> {
        [self.events.desc(), self.seconds.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.show(Timestamp::now());
        [self.events.collect(), self.seconds.collect()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_ms(1_000_000 + second * 1_000)
    }

    /// Events and seconds of partition 3 at a second, if there is a series.
    fn shown(lag: &Lag, second: u64) -> Option<(f64, f64)> {
        lag.show(at(second));
        let value = |families: Vec<MetricFamily>| {
            let found = families.first()?.get_metric().iter().find(|metric| metric.get_label()[0].value() == "3")?;
            Some(found.get_gauge().get_value())
        };
        Some((value(lag.events.collect())?, value(lag.seconds.collect())?))
    }

    fn owning() -> Lag {
        let lag = Lag::default();
        lag.own(&BTreeSet::from([3]), at(0));
        lag
    }

    #[test]
    fn there_is_a_series_from_the_start_and_until_the_partition_is_lost() {
        let lag = Lag::default();
        assert_eq!(shown(&lag, 0), None);
        lag.own(&BTreeSet::from([3]), at(0));
        assert_eq!(shown(&lag, 9), Some((0.0, 0.0)));
        lag.own(&BTreeSet::from([4]), at(10));
        assert_eq!(shown(&lag, 10), None);
    }

    #[test]
    fn the_lag_grows_while_nothing_is_measured_and_nothing_was_ever_folded() {
        let lag = owning();
        lag.measure(3, 7, 5, None, at(5));
        assert_eq!(shown(&lag, 5), Some((5.0, 0.0)));
        assert_eq!(lag.total(at(9)), (5, Duration::from_secs(4)));
        // The loop is stuck in one step, or in opening its logs.
        assert_eq!(shown(&lag, 605), Some((5.0, 600.0)));
        lag.own(&BTreeSet::from([3]), at(606));
        lag.measure(3, 7, 9, None, at(610));
        assert_eq!(shown(&lag, 610), Some((9.0, 605.0)), "the same event waits as before");
    }

    #[test]
    fn it_counts_from_the_newest_event_that_was_folded_or_from_when_nothing_waited() {
        let lag = owning();
        lag.measure(3, 7, 5, Some(at(2)), at(5));
        assert_eq!(shown(&lag, 10), Some((5.0, 8.0)));
        lag.measure(3, 9, 3, Some(at(6)), at(10));
        assert_eq!(shown(&lag, 10), Some((3.0, 4.0)));
        lag.measure(3, 12, 0, Some(at(9)), at(15));
        assert_eq!(shown(&lag, 99), Some((0.0, 0.0)));
        // An hour without events is no lag.
        lag.measure(3, 12, 0, Some(at(9)), at(3_600));
        lag.measure(3, 12, 1, Some(at(9)), at(3_605));
        assert_eq!(shown(&lag, 3_605), Some((1.0, 5.0)));
        lag.measure(3, 13, 1, Some(at(9)), at(3_606));
        assert_eq!(shown(&lag, 3_606), Some((1.0, 6.0)));
    }
}
