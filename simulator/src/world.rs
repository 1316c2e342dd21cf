//! Everything that the processors share, and what the schedule does to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use fastrand::Rng;

use crate::broker::Broker;
use crate::judge::Judge;
use crate::mutation::Mutation;

/// So many lines of a trace are kept, the last ones.
const LINES_MAX: usize = 20_000;

/// The world, as the holder of the baton may touch it. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<World>>);

impl Handle {
    /// A handle to this world.
    pub fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// The world; nobody else moves meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world, unless the judge holds it: who reads a state then is the judge.
    pub fn unless_judged(&self) -> Option<MutexGuard<'_, World>> {
        match self.0.try_lock() {
            Ok(world) => Some(world),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// One run of a processor, from its start to its end. Each has a number.
pub type Life = u32;

/// The world.
pub struct World {
    /// All logs, and the group.
    pub broker: Broker,
    /// The one source of chance.
    pub random: Rng,
    /// Looks at everything that happens.
    pub judge: Judge,
    /// How often, of a thousand calls, something goes wrong.
    pub faults: Faults,
    /// The bug that was put in on purpose.
    pub mutation: Option<Mutation>,
    /// What the group knows of each life that has an event log: its heart beats while it is not stopped.
    pub hearts: BTreeMap<Life, (String, u64)>,
    /// Lives that were told that they are fenced.
    pub fenced: BTreeSet<Life>,
    /// What a life was brought last of each partition of `raw`.
    pub brought: BTreeMap<(Life, u32), u64>,
    /// The first violation.
    pub violation: Option<String>,
    /// What happened, if somebody wants to read it.
    pub trace: Option<Vec<String>>,
    /// How many steps were taken.
    pub steps: u64,
}

/// How often, of a thousand calls, something goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The broker says: ask again.
    pub again: u32,
    /// The client says: open me anew.
    pub reopen: u32,
    /// The answer to a commit is lost.
    pub answer_lost: u32,
    /// Something that only an operator can mend, for a moment.
    pub broken: u32,
    /// Rows cannot be read or written.
    pub rows: u32,
    /// Whether the broker forgets how it decided transactions when it is killed.
    pub forgets: bool,
}

impl World {
    /// Whether something that goes wrong so often goes wrong now.
    pub fn chance(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.random.u32(..1_000) < of_a_thousand
    }

    /// Whether this bug is in.
    pub fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Says that an invariant does not hold. The first word counts.
    pub fn violate(&mut self, what: String) {
        self.note(|| format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    /// Adds a line to the trace, if there is one.
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
