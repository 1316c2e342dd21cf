//! Junk is kept within a budget: so much in a minute in all, and so much of it from one source.
//!
//! So a person with curl finds what was wrong with a body, and a flood of such bodies fills no disk.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::settings::{Settings, SettingsError};

/// More is no limit. Also the most sources that are remembered at a time.
const JUNK_PER_MINUTE_MAX: u32 = 100_000;
/// For how long a budget is.
const MINUTE: Duration = Duration::from_secs(60);

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Bodies in a minute, from all sources together.
    pub in_all: u32,
    /// Bodies in a minute from one source.
    pub per_source: u32,
}

impl Allowance {
    /// Reads `junk-per-minute` and `junk-per-minute-per-source`.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let bodies = |name| {
            let given = settings.number(name)?.filter(|bodies| *bodies <= JUNK_PER_MINUTE_MAX);
            given.ok_or_else(|| SettingsError(format!("{name} is at most {JUNK_PER_MINUTE_MAX} bodies a minute")))
        };
        Ok(Self { in_all: bodies("junk-per-minute")?, per_source: bodies("junk-per-minute-per-source")? })
    }
}

/// What is left of it in this minute.
#[derive(Debug)]
pub struct Budget {
    allowance: Allowance,
    spent: Mutex<Spent>,
}

/// What was taken in the minute that began with the first.
#[derive(Debug, Default)]
struct Spent {
    since: Option<Instant>,
    in_all: u32,
    /// Nobody is here who took nothing: so there are never more of them than bodies that were kept.
    by_source: HashMap<Option<IpAddr>, u32>,
}

impl Budget {
    /// Nothing of it is spent.
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, spent: Mutex::default() }
    }

    /// Takes one body's share, if there is one left for this source.
    pub fn take(&self, source: Option<IpAddr>, now: Instant) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.since.is_none_or(|since| now.saturating_duration_since(since) >= MINUTE) {
            *spent = Spent { since: Some(now), ..Spent::default() };
        }
        if spent.in_all >= self.allowance.in_all || self.allowance.per_source == 0 {
            return false;
        }
        let by_source = spent.by_source.entry(source.map(sender)).or_default();
        if *by_source >= self.allowance.per_source {
            return false;
        }
        *by_source += 1;
        spent.in_all += 1;
        true
    }
}

/// Who it is, as far as an address tells: with IPv6, one sender has at least a /64 to choose from.
fn sender(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        IpAddr::V4(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes for a source at a second.
    fn budget(in_all: u32, per_source: u32) -> impl Fn(&str, u64) -> bool {
        let (budget, start) = (Budget::new(Allowance { in_all, per_source }), Instant::now());
        move |source, second| budget.take(source.parse().ok(), start + Duration::from_secs(second))
    }

    #[test]
    fn one_sources_flood_leaves_the_others_theirs() {
        let take = budget(5, 2);
        let taken: Vec<_> = (0..9).map(|_| take("10.0.0.1", 0)).collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 2);
        assert!(take("10.0.0.2", 1) && take("10.0.0.2", 1) && !take("10.0.0.2", 1));
        assert!(take("10.0.0.3", 2), "the fifth in all");
        assert!(!take("10.0.0.4", 2), "the sixth in all");
    }

    #[test]
    fn a_minute_later_there_is_a_new_budget() {
        let take = budget(1, 1);
        assert!(take("10.0.0.1", 0) && !take("10.0.0.1", 59));
        assert!(take("10.0.0.1", 60) && !take("10.0.0.2", 119) && take("10.0.0.2", 120));
    }

    #[test]
    fn addresses_that_one_sender_can_choose_from_are_one_source() {
        let take = budget(9, 1);
        assert!(take("2001:db8::1", 0) && !take("2001:db8::ffff:1", 0) && take("2001:db8:0:1::1", 0));
        assert!(take("10.0.0.1", 0) && !take("::ffff:10.0.0.1", 0));
        assert!(take("nobody", 0) && !take("nobody", 0));
    }

    #[test]
    fn a_budget_of_nothing_is_nothing() {
        assert!(!budget(0, 9)("10.0.0.1", 0) && !budget(9, 0)("10.0.0.1", 0));
    }

    proptest! {
        #[test]
        fn no_minute_gives_more_than_is_allowed_and_the_map_stays_small(
            in_all in 0_u32..9, per_source in 0_u32..5, who in prop::collection::vec(0_u8..7, 0..200),
        ) {
            let budget = Budget::new(Allowance { in_all, per_source });
            let now = Instant::now();
            let mut taken = [0; 7];
            for source in who {
                taken[usize::from(source)] += u32::from(budget.take(Some([10, 0, 0, source].into()), now));
            }
            prop_assert!(taken.iter().all(|taken| *taken <= per_source));
            prop_assert!(taken.iter().sum::<u32>() <= in_all);
            let known = budget.spent.lock().expect("nobody panicked").by_source.len();
            prop_assert_eq!(known, taken.iter().filter(|taken| **taken > 0).count());
        }
    }
}
