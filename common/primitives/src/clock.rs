//! What time it is for whoever waits and measures: as the machine says, or as somebody says who plays it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A clock that never goes back. A clone shows the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Played>>);

#[derive(Debug)]
struct Played {
    origin: Instant,
    ms: AtomicU64,
}

impl Clock {
    /// A clock that stands still unless it is told to go on.
    pub fn played() -> Self {
        Self(Some(Arc::new(Played { origin: Instant::now(), ms: AtomicU64::new(0) })))
    }

    /// What it says.
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(played) => played.origin + Duration::from_millis(played.ms.load(Ordering::Acquire)),
        }
    }

    /// How long ago that was.
    pub fn since(&self, at: Instant) -> Duration {
        self.now().saturating_duration_since(at)
    }

    /// Lets so many milliseconds go by, if it is played.
    pub fn pass(&self, ms: u64) {
        if let Some(played) = &self.0 {
            played.ms.fetch_add(ms, Ordering::AcqRel);
        }
    }
}
