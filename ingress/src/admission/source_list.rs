//! The published addresses of Bitrix24, kept up to date.
//!
//! A list that is unavailable, empty or unreadable changes nothing: the last good one stays in use, for a
//! day. Without a list, no sender is known or unknown.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

mod known;
mod parse;
mod place;
mod renewal;

pub use known::{Known, Verdict};
pub use place::Place;
use renewal::Renewal;

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

#[cfg(test)]
mod tests {
    use super::*;

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
