//! A budget for junk: bodies and bytes per minute in total, and per source.
//!
//! So an operator with curl finds the rejected body, and a flood of such bodies fills neither `raw` nor a disk.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use runtime::settings::{Settings, SettingsError};

/// The upper limit of the setting. Also the most sources that are remembered at a time.
const JUNK_PER_MINUTE_MAX: u32 = 100_000;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub bodies: u32,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub in_all: Amount,
    pub per_source: Amount,
}

impl Amount {
    /// None if the sum is more than the limit.
    fn plus(self, bytes: u64, limit: Self) -> Option<Self> {
        let sum = Self { bodies: self.bodies.saturating_add(1), bytes: self.bytes.saturating_add(bytes) };
        (sum.bodies <= limit.bodies && sum.bytes <= limit.bytes).then_some(sum)
    }
}

impl Allowance {
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let amount = |bodies, bytes| {
            let given = settings.number(bodies)?.filter(|given| *given <= JUNK_PER_MINUTE_MAX);
            let wrong = || SettingsError(format!("{bodies} is at most {JUNK_PER_MINUTE_MAX} bodies a minute"));
            Ok(Amount { bodies: given.ok_or_else(wrong)?, bytes: settings.size(bytes)? })
        };
        Ok(Self {
            in_all: amount("junk-per-minute", "junk-bytes-per-minute")?,
            per_source: amount("junk-per-minute-per-source", "junk-bytes-per-minute-per-source")?,
        })
    }
}

#[derive(Debug)]
pub struct Budget {
    allowance: Allowance,
    spent: Mutex<Spent>,
}

/// The amounts of the minute that began with the first body.
#[derive(Debug, Default)]
struct Spent {
    since: Option<Instant>,
    in_all: Amount,
    /// Only sources with a kept body: never more entries than kept bodies.
    by_source: HashMap<Option<IpAddr>, Amount>,
}

impl Budget {
    pub fn new(allowance: Allowance) -> Self {
        Self { allowance, spent: Mutex::default() }
    }

    /// Takes the share of a body, if there is enough left for this source.
    pub fn take(&self, source: Option<IpAddr>, bytes: usize, now: Instant) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.since.is_none_or(|since| now.saturating_duration_since(since) >= MINUTE) {
            *spent = Spent { since: Some(now), ..Spent::default() };
        }
        let (source, bytes) = (source.map(sender), u64::try_from(bytes).unwrap_or(u64::MAX));
        let by_source = spent.by_source.get(&source).copied().unwrap_or_default();
        let by_source = by_source.plus(bytes, self.allowance.per_source);
        let (Some(by_source), Some(in_all)) = (by_source, spent.in_all.plus(bytes, self.allowance.in_all)) else {
            return false;
        };
        spent.by_source.insert(source, by_source);
        spent.in_all = in_all;
        true
    }
}

/// With IPv6, one sender has at least a /64 to choose from.
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

    /// So many bodies of any size.
    fn bodies(in_all: u32, per_source: u32) -> Allowance {
        let amount = |bodies| Amount { bodies, bytes: u64::MAX };
        Allowance { in_all: amount(in_all), per_source: amount(per_source) }
    }

    /// So many bytes in any number of bodies.
    fn bytes(in_all: u64, per_source: u64) -> Allowance {
        let amount = |bytes| Amount { bodies: u32::MAX, bytes };
        Allowance { in_all: amount(in_all), per_source: amount(per_source) }
    }

    /// Takes so many bytes for a source at a second.
    fn budget(allowance: Allowance) -> impl Fn(&str, usize, u64) -> bool {
        let (budget, start) = (Budget::new(allowance), Instant::now());
        move |source, bytes, second| budget.take(source.parse().ok(), bytes, start + Duration::from_secs(second))
    }

    #[test]
    fn one_sources_flood_leaves_the_others_theirs() {
        let take = budget(bodies(5, 2));
        let taken: Vec<_> = (0..9).map(|_| take("10.0.0.1", 9, 0)).collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 2);
        assert!(take("10.0.0.2", 9, 1) && take("10.0.0.2", 9, 1) && !take("10.0.0.2", 9, 1));
        assert!(take("10.0.0.3", 9, 2), "the fifth in all");
        assert!(!take("10.0.0.4", 9, 2), "the sixth in all");
    }

    #[test]
    fn few_large_bodies_use_a_budget_up_as_many_small_ones_do() {
        let take = budget(bytes(250, 100));
        assert!(take("10.0.0.1", 60, 0) && !take("10.0.0.1", 41, 0) && take("10.0.0.1", 40, 0));
        assert!(!take("10.0.0.1", 1, 0), "its hundred bytes are used up");
        assert!(!take("10.0.0.2", 101, 0) && take("10.0.0.2", 100, 0), "what does not fit takes nothing");
        assert!(take("10.0.0.3", 50, 1) && !take("10.0.0.4", 1, 1), "250 in all");
        assert!(take("10.0.0.4", 100, 60), "a minute later");
    }

    #[test]
    fn a_minute_later_there_is_a_new_budget() {
        let take = budget(bodies(1, 1));
        assert!(take("10.0.0.1", 9, 0) && !take("10.0.0.1", 9, 59));
        assert!(take("10.0.0.1", 9, 60) && !take("10.0.0.2", 9, 119) && take("10.0.0.2", 9, 120));
    }

    #[test]
    fn addresses_that_one_sender_can_choose_from_are_one_source() {
        let take = budget(bodies(9, 1));
        assert!(take("2001:db8::1", 9, 0) && !take("2001:db8::ffff:1", 9, 0) && take("2001:db8:0:1::1", 9, 0));
        assert!(take("10.0.0.1", 9, 0) && !take("::ffff:10.0.0.1", 9, 0));
        assert!(take("nobody", 9, 0) && !take("nobody", 9, 0));
    }

    #[test]
    fn a_budget_of_nothing_is_nothing() {
        for allowance in [bodies(0, 9), bodies(9, 0), bytes(0, 9), bytes(9, 0)] {
            assert!(!budget(allowance)("10.0.0.1", 1, 0), "{allowance:?}");
        }
    }

    proptest! {
        #[test]
        fn no_minute_gives_more_than_is_allowed_and_the_map_stays_small(
            bodies in 0_u32..9, of_source in 0_u32..5, bytes in 0_u64..90, bytes_of_source in 0_u64..50,
            who in prop::collection::vec((0_u8..7, 0_usize..30), 0..200),
        ) {
            let (in_all, per_source) = (Amount { bodies, bytes }, Amount { bodies: of_source, bytes: bytes_of_source });
            let budget = Budget::new(Allowance { in_all, per_source });
            let now = Instant::now();
            let mut taken = [Amount::default(); 7];
            for (source, bytes) in who {
                if budget.take(Some([10, 0, 0, source].into()), bytes, now) {
                    let taken = &mut taken[usize::from(source)];
                    *taken = Amount { bodies: taken.bodies + 1, bytes: taken.bytes + bytes as u64 };
                }
            }
            let within = |taken: Amount, limit: Amount| taken.bodies <= limit.bodies && taken.bytes <= limit.bytes;
            prop_assert!(taken.iter().all(|taken| within(*taken, per_source)));
            let sum = |amount: fn(&Amount) -> u64| taken.iter().map(amount).sum::<u64>();
            prop_assert!(sum(|taken| taken.bodies.into()) <= in_all.bodies.into() && sum(|taken| taken.bytes) <= in_all.bytes);
            let known = budget.spent.lock().expect("no panic").by_source.len();
            prop_assert_eq!(known, taken.iter().filter(|taken| taken.bodies > 0).count());
        }
    }
}
