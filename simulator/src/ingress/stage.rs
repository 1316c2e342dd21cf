//! Everything that ingresses share, and what goes wrong around them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use primitives::clock::Clock;
use primitives::time::Timestamp;

use super::broker::Broker;
use super::judge::Judge;
use super::mutation::Mutation;

/// So many lines of a trace are kept, the last ones.
const LINES_MAX: usize = 20_000;

/// The stage, as the holder of the baton may touch it. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Mutex<Stage>>);

impl Handle {
    /// A handle to this stage.
    pub fn new(stage: Stage) -> Self {
        Self(Arc::new(Mutex::new(stage)))
    }

    /// The stage; nobody else moves meanwhile.
    pub fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stage.
pub struct Stage {
    /// The one source of chance.
    pub random: Rng,
    /// What all clocks say.
    pub clock: Clock,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Kafka.
    pub broker: Broker,
    /// Looks at everything that happens.
    pub judge: Judge,
    /// How often, of a thousand calls, something goes wrong.
    pub faults: Faults,
    /// The bug that was put in on purpose.
    pub mutation: Option<Mutation>,
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
    /// A write or a sync of the disk fails.
    pub disk: u32,
    /// The client's queue is full.
    pub full: u32,
    /// A record is reported as failed, whatever became of it.
    pub failed: u32,
    /// The producer is done for.
    pub fatal: u32,
}

impl Stage {
    /// Whether something that goes wrong so often goes wrong now.
    pub fn chance(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.random.u32(..1_000) < of_a_thousand
    }

    /// Whether this bug is in.
    pub fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms)
    }

    /// Time goes by, for everybody.
    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.clock.pass(ms);
    }

    /// What the judge says, if it is a violation. The first one counts.
    pub fn judged(&mut self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.note(|| format!("VIOLATION: {what}"));
            self.violation.get_or_insert(what);
        }
    }

    /// Adds a line to the trace, if there is one.
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
