//! Everything that ingresses share, and the faults around them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use primitives::clock::Clock;
use primitives::time::Timestamp;

use super::judge::Judge;
use super::mutation::Mutation;

pub mod broker;

use broker::Broker;

/// The last lines of a trace are kept.
const LINES_MAX: usize = 20_000;

/// Access for the holder of the baton. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<Stage>>);

impl Handle {
    pub fn new(stage: Stage) -> Self {
        Self(Arc::new(Mutex::new(stage)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Stage {
    /// The only source of randomness.
    pub random: Rng,
    pub clock: Clock,
    pub now_ms: u64,
    pub broker: Broker,
    pub judge: Judge,
    pub faults: Faults,
    pub mutation: Option<Mutation>,
    pub violation: Option<String>,
    pub trace: Option<Vec<String>>,
    pub steps: u64,
}

/// Faults per thousand calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A write or a sync fails.
    pub disk: u32,
    pub full: u32,
    /// A record is reported as failed, stored or not.
    pub failed: u32,
    /// The producer fails.
    pub fatal: u32,
}

impl Stage {
    pub fn chance(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.random.u32(..1_000) < of_a_thousand
    }

    pub fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms)
    }

    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.clock.pass(ms);
    }

    /// Only the first violation counts.
    pub fn judged(&mut self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.note(|| format!("VIOLATION: {what}"));
            self.violation.get_or_insert(what);
        }
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let (steps, now_ms) = (self.steps, self.now_ms % 100_000_000);
        if let Some(trace) = &mut self.trace {
            if trace.len() >= LINES_MAX {
                trace.drain(..LINES_MAX / 2);
            }
            trace.push(format!("{steps:>6} {now_ms:>9} ms  {}", line()));
        }
    }
}
