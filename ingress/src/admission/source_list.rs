//! The published addresses of Bitrix24, kept up to date.
//!
//! A list that is unavailable, empty or unreadable changes nothing: the last good one stays in use, for a
//! day. Without a list, no sender is known or unknown.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use std::{io, thread};

use http_edge::networks::Networks;

mod parse;
mod place;
mod renewal;

pub use place::Place;
use renewal::Renewal;

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

/// The lists, and the thread that renews them, which ends when this is dropped.
pub struct SourceList {
    known: Arc<Known>,
    nudge: SyncSender<()>,
}

impl SourceList {
    /// Reads files at once, and renews all lists from then on. URLs are fetched in the background.
    pub fn start(places: &[Place], refresh: Duration) -> io::Result<Self> {
        let known = Arc::new(Known::new(places.len()));
        let mut renewal = Renewal::new(Arc::clone(&known), places, refresh);
        renewal.read_files();
        let (nudge, nudges) = sync_channel(1);
        thread::Builder::new().name("source-list".into()).spawn(move || renewal.run(&nudges))?;
        Ok(Self { known, nudge })
    }

    /// An unlisted sender may be a new address: it causes a renewal soon.
    pub fn judge(&self, source: IpAddr, now: Instant) -> Verdict {
        let verdict = self.known.judge(source, now);
        if verdict == Verdict::Unlisted && !self.known.nudged.swap(true, Ordering::Relaxed) {
            // Full: a renewal is due already. Disconnected: the thread ended, and the lists grow old.
            let _ = self.nudge.try_send(());
        }
        verdict
    }

    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }
}

pub struct Known {
    lists: RwLock<Vec<Option<List>>>,
    /// A renewal was requested since the last one.
    nudged: AtomicBool,
    since: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    networks: Networks,
    entries: usize,
    read_at: Instant,
}

impl Known {
    fn new(places: usize) -> Self {
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

    fn judge(&self, source: IpAddr, now: Instant) -> Verdict {
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

    fn list(&self, place: usize) -> Option<List> {
        self.lists().get(place).cloned().flatten()
    }

    fn put(&self, place: usize, list: List) {
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

    #[test]
    fn the_thread_ends_with_the_list() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "3.3.3.3\n").expect("written");
        let place = Place::parse(&file.path().display().to_string()).expect("a place");
        let list = SourceList::start(&[place], Duration::from_secs(3_600)).expect("a thread");
        let now = Instant::now();
        assert_eq!(list.judge([3, 3, 3, 3].into(), now), Verdict::Listed, "a file is read before the first webhook");
        assert_eq!(list.judge([4, 4, 4, 4].into(), now), Verdict::Unlisted);
        let known = Arc::downgrade(&list.known());
        drop(list);
        while known.strong_count() > 0 {
            assert!(now.elapsed() < Duration::from_secs(60), "the thread goes on");
            thread::yield_now();
        }
    }
}
