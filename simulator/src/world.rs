//! Everything that the processors share, and the faults around them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use fastrand::Rng;

use crate::broker::Broker;
use crate::judge::Judge;
use crate::mutation::Mutation;

/// The last lines of a trace are kept.
const LINES_MAX: usize = 20_000;

/// Access for the holder of the baton. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<World>>);

impl Handle {
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while the judge holds the world, and reads a state itself.
    pub fn unless_judged(&self) -> Option<MutexGuard<'_, World>> {
        match self.0.try_lock() {
            Ok(world) => Some(world),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// One run of a processor, by its number.
pub type Life = u32;

pub struct World {
    pub broker: Broker,
    /// The only source of randomness.
    pub random: Rng,
    pub judge: Judge,
    pub faults: Faults,
    pub mutation: Option<Mutation>,
    /// The member id of each life with an event log: it sends heartbeats unless stopped.
    pub hearts: BTreeMap<Life, (String, u64)>,
    /// Lives that were fenced.
    pub fenced: BTreeSet<Life>,
    /// The last fetched offset of each life and partition of `raw`.
    pub brought: BTreeMap<(Life, u32), u64>,
    pub violation: Option<String>,
    pub trace: Option<Vec<String>>,
    pub steps: u64,
}

/// Faults per thousand calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The broker asks for a retry.
    pub again: u32,
    /// The client has to be reopened.
    pub reopen: u32,
    /// The answer to a commit is lost.
    pub answer_lost: u32,
    /// A fatal error, for a moment.
    pub broken: u32,
    /// Rows cannot be read or written.
    pub rows: u32,
    /// Whether a restarted broker forgets the outcome of transactions.
    pub forgets: bool,
}

impl World {
    pub fn chance(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.random.u32(..1_000) < of_a_thousand
    }

    pub fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Only the first violation counts.
    pub fn violate(&mut self, what: String) {
        self.note(|| format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let (steps, now_ms) = (self.steps, self.broker.now_ms % 100_000_000);
        if let Some(trace) = &mut self.trace {
            if trace.len() >= LINES_MAX {
                trace.drain(..LINES_MAX / 2);
            }
            trace.push(format!("{steps:>6} {now_ms:>9} ms  {}", line()));
        }
    }
}
