//! State that all handles of a log share: its segments, and their durable ends.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::files::Files;
use super::options::{Leaves, Place};
use super::segment::{self, Previous, Segment};
use primitives::time::Timestamp;

/// Shared by handles, readers and the writer, which alone adds to it.
#[derive(Debug)]
pub(super) struct Shared {
    pub dir: PathBuf,
    pub files: Files,
    pub log: Uuid,
    /// In order; the last one is the current one, if there is room for one.
    segments: Mutex<VecDeque<Segment>>,
    /// The end while there is no segment.
    base: u64,
    grown: Condvar,
    /// Serialises deletions: whether the directory still has to be synced.
    deleting: Mutex<bool>,
    /// Files of void segments that could not be removed.
    leftovers: Mutex<Vec<PathBuf>>,
    /// The reason why nothing can be written now.
    fault: Mutex<Option<String>>,
    /// Everything derived from records before this was written. Initially the end of the log.
    used: Mutex<Place>,
}

impl Shared {
    /// `base` is the start of the next segment.
    pub fn new(dir: PathBuf, files: Files, log: Uuid, segments: VecDeque<Segment>, base: u64) -> Self {
        let (segments, grown, deleting) = (Mutex::new(segments), Condvar::new(), Mutex::default());
        let (leftovers, fault) = (Mutex::default(), Mutex::default());
        let used = Mutex::new(Place { segment: u64::MAX, at: 0 });
        Self { dir, files, log, segments, base, grown, deleting, leftovers, fault, used }
    }

    fn segments(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bounds(&self) -> (u64, u64) {
        let segments = self.segments();
        (segments.front().map_or(self.base, |first| first.base), self.end(&segments))
    }

    pub fn wait_beyond(&self, offset: u64, wait: Duration) -> bool {
        let waiting = |segments: &mut VecDeque<Segment>| self.end(segments) <= offset;
        let (segments, _) =
            self.grown.wait_timeout_while(self.segments(), wait, waiting).unwrap_or_else(PoisonError::into_inner);
        self.end(&segments) > offset
    }

    /// Bytes up to the durable end of each segment.
    pub fn bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes behind the place up to which all was used.
    pub fn unused(&self) -> u64 {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = |segment: &Segment| match segment.number.cmp(&used.segment) {
            Ordering::Less => 0,
            Ordering::Equal => segment.bytes.saturating_sub(used.at),
            Ordering::Greater => segment.bytes,
        };
        self.segments().iter().map(behind).sum()
    }

    /// Free bytes, less those reserved for records derived from them. Reserves as much for records derived from
    /// earlier ones.
    pub fn room_with_what_follows(&self, Leaves { bytes, times_unused }: Leaves) -> io::Result<u64> {
        self.files.leave(bytes.saturating_add(self.unused().saturating_mul(times_unused)));
        Ok(self.files.room(&self.dir)? / times_unused.max(1))
    }

    pub fn was_used(&self, until: Place) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Everything counts as used until the reader reports a place.
    pub fn use_all(&self) {
        let end =
            self.current().map_or(Place { segment: 0, at: 0 }, |last| Place { segment: last.number, at: last.bytes });
        self.was_used(end);
    }

    /// The first offset whose record may be as young as `at`.
    pub fn offset_at(&self, at: Timestamp) -> u64 {
        let segments = self.segments();
        let young = segments.iter().find(|segment| !segment.is_empty() && segment.latest >= at);
        young.map_or_else(|| self.end(&segments), |segment| segment.base)
    }

    /// The segment of the next durable record at or after `offset`.
    pub fn locate(&self, offset: u64) -> Option<Segment> {
        let segments = self.segments();
        let after = segments.partition_point(|segment| segment.end <= offset);
        segments.range(after..).find(|segment| !segment.is_empty()).copied()
    }

    pub fn previous(&self) -> Option<Previous> {
        let segments = self.segments();
        let last = segments.iter().rev().find(|segment| !segment.is_empty())?;
        Some(Previous { number: last.number, end: last.end, bytes: last.bytes, latest: last.latest })
    }

    pub fn current(&self) -> Option<Segment> {
        self.segments().back().copied()
    }

    /// Ranges of offsets without records, left by a salvage.
    pub fn gaps(&self) -> Vec<Range<u64>> {
        let segments = self.segments();
        let pairs = segments.iter().zip(segments.iter().skip(1));
        pairs.map(|(one, next)| one.end..next.base).filter(|gap| !gap.is_empty()).collect()
    }

    pub fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_fault(&self, why: Option<String>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub fn grow(&self, current: Segment) {
        if let Some(last) = self.segments().back_mut() {
            *last = current;
        }
        self.grown.notify_all();
    }

    /// Returns the former one.
    pub fn begin(&self, current: Segment) -> Option<Segment> {
        let mut segments = self.segments();
        let former = segments.back().copied();
        if former.is_some_and(|former| former.is_empty()) {
            segments.pop_back();
        }
        segments.push_back(current);
        drop(segments);
        self.grown.notify_all();
        former
    }

    /// Deletes segments from the oldest one on while they are doomed, but never the current one.
    ///
    /// Each deletion is durable before the next begins, so that no gap is left. Leftovers go first, since before a gap
    /// they could not be recognised as void.
    pub fn delete_while(&self, doomed: impl Fn(&Segment) -> bool) -> io::Result<()> {
        let mut owes_sync = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if *owes_sync {
                self.files.sync_dir(&self.dir)?;
                *owes_sync = false;
            }
            let Some(oldest) = self.pop_oldest(&doomed) else { return Ok(()) };
            if !self.leftovers().is_empty() {
                self.segments().push_front(oldest);
                if self.remove_leftovers() > 0 {
                    return Err(io::Error::other("void segment files cannot be removed"));
                }
                *owes_sync = true;
                continue;
            }
            if let Err(error) = self.files.remove(&segment::path(&self.dir, oldest.number)) {
                self.segments().push_front(oldest);
                return Err(error);
            }
            *owes_sync = true;
        }
    }

    pub fn leave(&self, path: PathBuf) {
        self.leftovers().push(path);
    }

    /// Returns how many are left.
    pub fn remove_leftovers(&self) -> usize {
        let found = self.leftovers().clone();
        let gone: Vec<_> = found.into_iter().filter(|path| self.files.remove(path).is_ok()).collect();
        let mut left = self.leftovers();
        left.retain(|path| !gone.contains(path));
        left.len()
    }

    fn leftovers(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.leftovers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, segments: &VecDeque<Segment>) -> u64 {
        segments.back().map_or(self.base, |last| last.end)
    }

    fn pop_oldest(&self, doomed: impl Fn(&Segment) -> bool) -> Option<Segment> {
        let mut segments = self.segments();
        let oldest = *segments.front()?;
        (segments.len() > 1 && doomed(&oldest)).then(|| segments.pop_front()).flatten()
    }
}
