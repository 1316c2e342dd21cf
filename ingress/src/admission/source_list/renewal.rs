//! The thread that renews lists: each periodically, a file as soon as it changes, sooner after an unlisted sender.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::known::{Known, LIST_AGE_MAX, List};
use super::parse;
use super::place::{Place, Stamp};

/// Bitrix24 asks for at most one request in a minute. Also the retry interval.
const ASK_AGAIN_WAIT: Duration = Duration::from_secs(60);
/// How often a file is checked. A change is read after two equal checks: it may be half written.
const FILE_WAIT: Duration = Duration::from_secs(1);
const LOG_AGAIN_WAIT: Duration = Duration::from_secs(10 * 60);

pub struct Renewal {
    known: Arc<Known>,
    tended: Vec<Tended>,
    refresh: Duration,
}

struct Tended {
    place: Place,
    /// When it is read again at the latest.
    due: Instant,
    tried: Instant,
    /// The file's metadata when it was read.
    read: Option<Stamp>,
    /// The file's metadata at the last check.
    seen: Option<Stamp>,
    logged_at: Option<Instant>,
}

impl Renewal {
    /// All lists are due at first.
    pub fn new(known: Arc<Known>, places: &[Place], refresh: Duration) -> Self {
        let now = Instant::now();
        let tended = |place: &Place| Tended {
            place: place.clone(),
            due: now,
            tried: now,
            read: None,
            seen: place.stamp(),
            logged_at: None,
        };
        Self { known, tended: places.iter().map(tended).collect(), refresh }
    }

    pub fn read_files(&mut self) {
        for index in 0..self.tended.len() {
            if matches!(self.tended[index].place, Place::File(_)) {
                self.renew(index);
            }
        }
    }

    /// Runs until all senders are gone.
    pub fn run(mut self, nudges: &Receiver<()>) {
        loop {
            for index in 0..self.tended.len() {
                if self.tended[index].is_due(Instant::now()) {
                    self.renew(index);
                }
            }
            let now = Instant::now();
            let next = self.tended.iter().map(|tended| tended.next(now)).min().unwrap_or(self.refresh);
            match nudges.recv_timeout(next) {
                Ok(()) => self.tended.iter_mut().for_each(Tended::hasten),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn renew(&mut self, index: usize) {
        let (tended, before) = (&mut self.tended[index], self.known.list(index));
        tended.tried = Instant::now();
        self.known.nudged.store(false, Ordering::Relaxed);
        match tended.list() {
            Ok(list) => {
                tended.due = tended.tried + self.refresh;
                tended.tell_list(&list, before.as_ref());
                self.known.put(index, list);
            }
            Err(error) => {
                tended.due = tended.tried + self.refresh.min(ASK_AGAIN_WAIT);
                tended.tell_failure(&error, before.as_ref());
            }
        }
    }
}

impl Tended {
    fn is_due(&mut self, now: Instant) -> bool {
        let Some(stamp) = self.place.stamp() else { return now >= self.due };
        let settled = self.seen.replace(stamp) == Some(stamp);
        settled && (now >= self.due || self.read != Some(stamp))
    }

    fn next(&self, now: Instant) -> Duration {
        let due = self.due.saturating_duration_since(now);
        match self.place {
            Place::File(_) => due.min(FILE_WAIT),
            Place::Url(_) => due,
        }
    }

    /// After an unlisted sender.
    fn hasten(&mut self) {
        self.due = self.due.min(self.tried + ASK_AGAIN_WAIT);
    }

    fn list(&mut self) -> anyhow::Result<List> {
        // An invalid file is not read again until it changes or is due.
        self.read = self.place.stamp();
        let bytes = self.place.read()?;
        anyhow::ensure!(self.place.stamp() == self.read, "it changed while it was read");
        let (networks, entries) = parse::parse(&bytes)?;
        Ok(List { networks, entries, read_at: Instant::now() })
    }

    fn tell_list(&mut self, list: &List, before: Option<&List>) {
        let place = &self.place;
        let entries = list.entries;
        if self.logged_at.take().is_some() {
            tracing::info!(%place, entries, "the source list is good again: {entries} entries from {place}");
        } else if before.is_none_or(|before| before.networks != list.networks) {
            let before = before.map_or(0, |before| before.entries);
            tracing::info!(%place, entries, "the source list has {entries} entries from {place}, {before} before");
        }
    }

    fn tell_failure(&mut self, error: &anyhow::Error, before: Option<&List>) {
        if self.logged_at.is_some_and(|logged_at| logged_at.elapsed() < LOG_AGAIN_WAIT) {
            return;
        }
        self.logged_at = Some(Instant::now());
        let place = &self.place;
        if let Some(list) = before.filter(|list| list.read_at.elapsed() <= LIST_AGE_MAX) {
            let minutes = list.read_at.elapsed().as_secs() / 60;
            tracing::warn!(
                %place, minutes,
                "the source list from {place} cannot be had: {error:#}. The one from {minutes} minutes ago stays in \
                 use; after a day no sender is refused"
            );
        } else {
            tracing::error!(
                %place,
                "there is no source list from {place}: {error:#}. Until there is one, source-check refuses no sender"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// One list in a file.
    struct World {
        renewal: Renewal,
        dir: TempDir,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let place = Place::File(dir.path().join("list"));
            Self { renewal: Renewal::new(Arc::new(Known::new(1)), &[place], HOUR), dir }
        }

        /// Replaces the file as a whole, or takes it away.
        fn write(&self, list: Option<&str>) {
            let (file, new) = (self.dir.path().join("list"), self.dir.path().join("new"));
            match list {
                Some(list) => fs::write(&new, list).and_then(|()| fs::rename(new, file)).expect("written"),
                None => fs::remove_file(file).expect("removed"),
            }
        }

        /// Looks twice, as the thread does in two seconds.
        fn renew(&mut self) -> Option<usize> {
            for _ in 0..2 {
                if self.renewal.tended[0].is_due(Instant::now()) {
                    self.renewal.renew(0);
                }
            }
            self.renewal.known.list(0).map(|list| list.entries)
        }
    }

    #[test]
    fn a_file_is_read_when_it_changes_and_a_bad_one_changes_nothing() {
        let mut world = World::new();
        assert_eq!(world.renew(), None, "there is none yet");
        world.write(Some("3.3.3.3"));
        assert_eq!(world.renew(), Some(1));
        world.write(Some("3.3.3.3\n4.4.4.4"));
        assert_eq!(world.renew(), Some(2));
        for bad in ["", "garbage", "{\"nodes\":[]}"] {
            world.write(Some(bad));
            assert_eq!(world.renew(), Some(2), "{bad}");
        }
        world.write(None);
        assert_eq!(world.renew(), Some(2));
        world.write(Some("5.5.5.5"));
        assert_eq!(world.renew(), Some(1));
    }

    #[test]
    fn a_file_that_is_being_written_is_not_read() {
        let mut world = World::new();
        world.write(Some("3.3.3.3"));
        assert_eq!(world.renew(), Some(1));
        for written in ["3.3.3.3\n4.4.4.", "3.3.3.3\n4.4.4.4\n5", "3.3.3.3\n4.4.4.4\n5.5.5.5"] {
            world.write(Some(written));
            assert!(!world.renewal.tended[0].is_due(Instant::now()), "it has just changed");
        }
        assert_eq!(world.renew(), Some(3));
    }

    #[test]
    fn a_stranger_hastens_what_was_not_asked_for_in_the_last_minute() {
        let mut world = World::new();
        world.write(Some("3.3.3.3"));
        world.renew();
        let tended = &mut world.renewal.tended[0];
        assert_eq!(tended.due, tended.tried + HOUR);
        tended.hasten();
        assert_eq!(tended.due, tended.tried + ASK_AGAIN_WAIT);
        tended.hasten();
        assert_eq!(tended.due, tended.tried + ASK_AGAIN_WAIT);
    }

    #[test]
    fn what_failed_is_tried_again_soon() {
        let mut world = World::new();
        world.renew();
        let tended = &world.renewal.tended[0];
        assert_eq!(tended.due, tended.tried + ASK_AGAIN_WAIT);
    }
}
