//! How many events were rejected lately, by app and reason, hour by hour.

use std::collections::BTreeMap;

use bitrix24::AppName;
use domain::Reason;
use primitives::time::Timestamp;

const HOUR_S: u64 = 3_600;
const HOURS: u64 = 24;
/// The current one, too.
const HOURS_KEPT: usize = 25;
/// Apps and reasons of one hour; further apps count together. Anyone can make up apps where there is no table of them.
const KEYS_MAX: usize = 200;

type ByReason = BTreeMap<(Option<AppName>, Reason), u64>;

/// By the time of receipt.
#[derive(Default)]
pub struct RejectedCounts(BTreeMap<u64, ByReason>);

impl RejectedCounts {
    pub fn add(&mut self, at: Timestamp, app: &AppName, reason: Reason) {
        let hour = at.s() / HOUR_S;
        let counts = self.0.entry(hour).or_default();
        let mut key = (Some(app.clone()), reason);
        if counts.len() >= KEYS_MAX && !counts.contains_key(&key) {
            key.0 = None;
        }
        *counts.entry(key).or_default() += 1;
        while self.0.len() > HOURS_KEPT {
            self.0.pop_first();
        }
    }

    /// Those of the day before.
    pub fn since(&self, now: Timestamp) -> ByReason {
        let mut sum = ByReason::new();
        for (key, count) in self.0.range((now.s() / HOUR_S).saturating_sub(HOURS)..).flat_map(|(_, counts)| counts) {
            *sum.entry(key.clone()).or_default() += count;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppName {
        AppName::parse(name).expect("a name")
    }

    #[test]
    fn the_last_day_is_counted() {
        let mut counts = RejectedCounts::default();
        let now = Timestamp::from_s(1_000 * HOUR_S);
        for ago in [0, 1, 1, 23, 30] {
            counts.add(Timestamp::from_s(now.s() - ago * HOUR_S), &app("crm-sync"), Reason::NoEvent);
        }
        counts.add(now, &app("crm-sync"), Reason::BadValue);
        let sum = counts.since(now);
        let of = |reason| sum.get(&(Some(app("crm-sync")), reason)).copied();
        assert_eq!((of(Reason::NoEvent), of(Reason::BadValue), sum.len()), (Some(4), Some(1), 2));
    }

    #[test]
    fn made_up_apps_and_times_take_little_memory() {
        let mut counts = RejectedCounts::default();
        for number in 0..1_000 {
            counts.add(Timestamp::from_s(5), &app(&format!("app{number}")), Reason::NoEvent);
            counts.add(Timestamp::from_s(number * HOUR_S), &app("crm-sync"), Reason::NoEvent);
        }
        assert!(
            counts.0.len() <= HOURS_KEPT && counts.0.values().all(|hour| hour.len() <= KEYS_MAX + Reason::ALL.len())
        );
        let mut counts = RejectedCounts::default();
        (0..1_000).for_each(|number| counts.add(Timestamp::from_s(5), &app(&format!("app{number}")), Reason::NoEvent));
        let sum = counts.since(Timestamp::from_s(5));
        assert_eq!((sum.values().sum::<u64>(), sum.len()), (1_000, KEYS_MAX + 1));
        assert_eq!(sum[&(None, Reason::NoEvent)], 800);
    }
}
