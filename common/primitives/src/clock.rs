//! The clock for waits and measurements: the machine's, or a simulated one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Monotonic. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<SimulatedClock>>);

#[derive(Debug)]
struct SimulatedClock {
    origin: Instant,
    ms: AtomicU64,
}

impl Clock {
    /// A clock that only [`pass`](Self::pass) moves.
    pub fn simulated() -> Self {
        Self(Some(Arc::new(SimulatedClock { origin: Instant::now(), ms: AtomicU64::new(0) })))
    }

    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(simulated) => simulated.origin + Duration::from_millis(simulated.ms.load(Ordering::Acquire)),
        }
    }

    pub fn since(&self, at: Instant) -> Duration {
        self.now().saturating_duration_since(at)
    }

    pub fn pass(&self, ms: u64) {
        if let Some(simulated) = &self.0 {
            simulated.ms.fetch_add(ms, Ordering::AcqRel);
        }
    }
}
