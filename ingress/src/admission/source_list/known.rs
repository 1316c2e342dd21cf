//! The lists that were read, and the verdict about a sender.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use http_edge::networks::Networks;

/// Older lists make no sender unlisted: Bitrix24 adds addresses, and Bitrix24 sends once.
pub const LIST_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Listed,
    /// All lists are available, and its address is in none.
    Unlisted,
    /// A list is missing or too old for a verdict.
    NoList,
}

impl Verdict {
    pub const ALL: [Self; 3] = [Self::Listed, Self::Unlisted, Self::NoList];

    pub fn label(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Unlisted => "unlisted",
            Self::NoList => "no_list",
        }
    }
}

pub struct Known {
    lists: RwLock<Vec<Option<List>>>,
    /// A renewal was requested since the last one.
    pub nudged: AtomicBool,
    since: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    pub networks: Networks,
    pub entries: usize,
    pub read_at: Instant,
}

impl Known {
    pub fn new(places: usize) -> Self {
        Self { lists: RwLock::new(vec![None; places]), nudged: AtomicBool::new(false), since: Instant::now() }
    }

    /// The age of the oldest list; since the start where one was never read.
    pub fn age(&self, now: Instant) -> Duration {
        let read_at = |list: &Option<List>| list.as_ref().map_or(self.since, |list| list.read_at);
        let oldest = self.lists().iter().map(read_at).min().unwrap_or(self.since);
        now.saturating_duration_since(oldest)
    }

    /// The number of addresses and networks in all lists.
    pub fn entries(&self) -> usize {
        self.lists().iter().flatten().map(|list| list.entries).sum()
    }

    pub fn judge(&self, source: IpAddr, now: Instant) -> Verdict {
        let lists = self.lists();
        let is_old = |list: &List| now.saturating_duration_since(list.read_at) > LIST_AGE_MAX;
        if lists.iter().flatten().any(|list| list.networks.contains(source)) {
            Verdict::Listed
        } else if lists.iter().all(|list| list.as_ref().is_some_and(|list| !is_old(list))) {
            Verdict::Unlisted
        } else {
            Verdict::NoList
        }
    }

    pub fn list(&self, place: usize) -> Option<List> {
        self.lists().get(place).cloned().flatten()
    }

    pub fn put(&self, place: usize, list: List) {
        self.lists.write().unwrap_or_else(PoisonError::into_inner)[place] = Some(list);
    }

    fn lists(&self) -> impl std::ops::Deref<Target = Vec<Option<List>>> {
        self.lists.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str], read_at: Instant) -> List {
        let networks = Networks::parse(texts.iter().copied()).expect("networks");
        List { networks, entries: texts.len(), read_at }
    }

    #[test]
    fn nobody_is_a_stranger_while_a_list_is_missing_or_too_old() {
        let (known, start) = (Known::new(2), Instant::now());
        let judge =
            |source: [u8; 4], hours: u64| known.judge(source.into(), start + Duration::from_secs(hours * 3_600));
        assert_eq!(judge([3, 3, 3, 3], 0), Verdict::NoList);
        known.put(0, list(&["3.3.3.3"], start));
        assert_eq!((judge([3, 3, 3, 3], 0), judge([4, 4, 4, 4], 0)), (Verdict::Listed, Verdict::NoList));
        known.put(1, list(&["5.0.0.0/8", "6.6.6.6"], start + Duration::from_secs(3_600)));
        assert_eq!((judge([5, 4, 4, 4], 24), judge([4, 4, 4, 4], 24)), (Verdict::Listed, Verdict::Unlisted));
        assert_eq!((judge([5, 4, 4, 4], 25), judge([4, 4, 4, 4], 25)), (Verdict::Listed, Verdict::NoList));
        assert_eq!(known.entries(), 3);
        assert_eq!(known.age(start + Duration::from_secs(7_200)), Duration::from_secs(7_200));
    }
}
