//! Many seeds, on all cores, and what to type to see one again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use tests::wait::report;

use crate::judge::Counts;
use crate::mutation::Mutation;
use crate::schedule::{Outcome, run};

/// So often is said how far it got.
const SAY_EVERY: u64 = 10_000;

/// A seed whose schedule breaks an invariant.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The invariant.
    pub violation: String,
}

/// Runs seeds until one breaks an invariant; of several that do, the lowest is told.
pub fn search(seeds: std::ops::Range<u64>, mutation: Option<Mutation>) -> (Counts, u64, Option<Found>) {
    let (next, done, is_found) = (AtomicU64::new(seeds.start), AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new((Counts::default(), None::<Found>));
    let began = Instant::now();
    let work = || {
        while !is_found.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let Outcome { counts, violation, .. } = run_caught(seed, mutation, false);
            let mut total = total.lock().expect("nobody panics with it");
            total.0.add(&counts);
            if let Some(violation) = violation {
                is_found.store(true, Ordering::Relaxed);
                if total.1.as_ref().is_none_or(|found| found.seed > seed) {
                    total.1 = Some(Found { seed, violation });
                }
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if mutation.is_none() && done % SAY_EVERY == 0 {
                let of = seeds.end - seeds.start;
                report(&format!("simulator: {done} of {of} seeds in {} s", began.elapsed().as_secs()));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
    });
    let (counts, found) = total.into_inner().expect("nobody panics with it");
    (counts, done.into_inner(), found)
}

/// Runs one seed again with its trace, and says everything there is to say about it.
pub fn explain(seed: u64, mutation: Option<Mutation>) -> String {
    let Outcome { violation, trace, .. } = run_caught(seed, mutation, true);
    let violation = violation.unwrap_or_else(|| "none, this time: the schedule is not deterministic".to_owned());
    let replay = format!("HOOKLEDGER_TEST_SEED={seed} cargo test -p simulator --test schedules");
    format!("{}\n\nseed {seed}: {violation}\nreplay it with: {replay}\n", trace.join("\n"))
}

fn run_caught(seed: u64, mutation: Option<Mutation>, traced: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed, mutation, traced))).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Outcome { counts: Counts::default(), violation: Some(format!("panic: {words}")), trace: Vec::new() }
    })
}

impl Counts {
    /// Adds what another schedule came to.
    pub fn add(&mut self, other: &Self) {
        self.raw += other.raw;
        self.outputs += other.outputs;
        self.lives += other.lives;
        self.kills += other.kills;
        self.stops += other.stops;
        self.set_aside += other.set_aside;
        self.lost += other.lost;
        self.digests += other.digests;
    }
}
