//! Recently folded events, for queries that wait for one; and numbers of rejected ones, for the page.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitrix24::{AppName, Installation};
use event_log::EventId;
use primitives::time::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::run::rejected_counts::RejectedCounts;
use domain::Reason;

const IDS_MAX: usize = 100_000;
/// Installations share these counters of changes. A waiting query checks again when its counter has changed.
const COUNTERS: usize = 1_024;

/// An event that was rejected.
#[derive(Clone, Debug)]
pub struct RejectedEvent {
    pub received_at: Timestamp,
    pub app: AppName,
    pub reason: Reason,
}

#[derive(Clone, Default)]
pub struct RecentEvents(Arc<Inner>);

struct Inner {
    known: Mutex<Remembered>,
    changed: Notify,
    changes: Vec<AtomicU64>,
}

impl Default for Inner {
    fn default() -> Self {
        let changes = (0..COUNTERS).map(|_| AtomicU64::default()).collect();
        Self { known: Mutex::default(), changed: Notify::default(), changes }
    }
}

#[derive(Default)]
struct Remembered {
    ids: HashSet<EventId>,
    order: VecDeque<EventId>,
    rejected: RejectedCounts,
}

impl RecentEvents {
    /// Adds events, and wakes all waiting queries.
    pub fn add(&self, ids: impl IntoIterator<Item = EventId>, rejected: impl IntoIterator<Item = RejectedEvent>) {
        let mut known = self.known();
        for id in ids {
            if known.ids.insert(id) {
                known.order.push_back(id);
            }
        }
        while known.order.len() > IDS_MAX {
            if let Some(id) = known.order.pop_front() {
                known.ids.remove(&id);
            }
        }
        for RejectedEvent { received_at, app, reason } in rejected {
            known.rejected.add(received_at, &app, reason);
        }
        drop(known);
        self.0.changed.notify_waiters();
    }

    /// Notes changes; [`RecentEvents::add`] wakes the queries that wait for them.
    pub fn change<'a>(&self, installations: impl IntoIterator<Item = &'a Installation>) {
        for installation in installations {
            self.counter(installation).fetch_add(1, Ordering::Release);
        }
    }

    /// A counter that differs after the installation has changed.
    pub fn changes(&self, installation: &Installation) -> u64 {
        self.counter(installation).load(Ordering::Acquire)
    }

    fn counter(&self, installation: &Installation) -> &AtomicU64 {
        let mut hasher = DefaultHasher::new();
        installation.hash(&mut hasher);
        let place = hasher.finish() % COUNTERS as u64;
        &self.0.changes[usize::try_from(place).expect("below the number of counters")]
    }

    pub fn has(&self, id: EventId) -> bool {
        self.known().ids.contains(&id)
    }

    /// Waits until the event has been folded; returns whether it was in time.
    pub async fn wait(&self, id: EventId, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        self.until(deadline, || self.has(id)).await
    }

    /// Waits until a condition is true, checking whenever events were folded; returns whether it was in time.
    pub async fn until(&self, deadline: Instant, mut is_true: impl FnMut() -> bool) -> bool {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_true() {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return is_true();
            }
        }
    }

    /// Resolves when events were folded after the call.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.0.changed.notified()
    }

    /// How many events were rejected within the day before `now`, by app and reason; an app is none where there are too
    /// many.
    pub(crate) fn rejected(&self, now: Timestamp) -> BTreeMap<(Option<AppName>, Reason), u64> {
        self.known().rejected.since(now)
    }

    fn known(&self) -> MutexGuard<'_, Remembered> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_event() {
        let recent_events = RecentEvents::default();
        let id = EventId::now_v7();
        let waiting = tokio::spawn({
            let recent_events = recent_events.clone();
            async move { recent_events.wait(id, Duration::from_secs(60)).await }
        });
        recent_events.add([EventId::now_v7(), id], []);
        assert!(waiting.await.expect("no panic"));
        assert!(!recent_events.wait(EventId::now_v7(), Duration::ZERO).await);
    }

    #[test]
    fn a_change_is_seen_by_those_that_wait_for_its_installation() {
        let (recent_events, one) = (RecentEvents::default(), Installation::parse("crm-sync", "a223").expect("valid"));
        let other = Installation::parse("crm-sync", "b334").expect("valid");
        let before = [&one, &other].map(|installation| recent_events.changes(installation));
        recent_events.change([&one]);
        assert_ne!(recent_events.changes(&one), before[0]);
        assert_eq!(recent_events.changes(&other), before[1], "it has another counter");
    }

    #[test]
    fn memory_is_bounded() {
        let recent_events = RecentEvents::default();
        let first = EventId::now_v7();
        recent_events.add([first], []);
        recent_events.add((0..IDS_MAX).map(|_| EventId::now_v7()), []);
        assert!(!recent_events.has(first));
    }
}
