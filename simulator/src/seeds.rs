//! Runs many seeds on all cores, and prints how to repeat one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use tests::wait::report;

use crate::judge::Counts;

/// Seeds between two progress reports.
const SAY_EVERY: u64 = 10_000;
const WORKERS_PER_CORE: usize = 4;

pub struct Outcome<C = Counts> {
    pub counts: C,
    pub violation: Option<String>,
    pub trace: Vec<String>,
}

pub trait Tally: Default + Send {
    fn add(&mut self, other: &Self);
}

#[derive(Clone, Debug)]
pub struct Found {
    pub seed: u64,
    pub violation: String,
}

/// Runs seeds until one breaks an invariant; returns the lowest such seed. `what` enables progress reports.
pub fn search<C: Tally>(
    seeds: std::ops::Range<u64>,
    what: Option<&str>,
    run: impl Fn(u64) -> Outcome<C> + Sync,
) -> (C, u64, Option<Found>) {
    let (next, done, is_found) = (AtomicU64::new(seeds.start), AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new((C::default(), None::<Found>));
    let began = Instant::now();
    let work = || {
        while !is_found.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let Outcome { counts, violation, .. } = caught(|| run(seed));
            let mut total = total.lock().expect("no panic");
            total.0.add(&counts);
            if let Some(violation) = violation {
                is_found.store(true, Ordering::Relaxed);
                if total.1.as_ref().is_none_or(|found| found.seed > seed) {
                    total.1 = Some(Found { seed, violation });
                }
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(what) = what.filter(|_| done % SAY_EVERY == 0) {
                let of = seeds.end - seeds.start;
                report(&format!("simulator, {what}: {done} of {of} seeds in {} s", began.elapsed().as_secs()));
            }
        }
    };
    thread::scope(|scope| {
        // Schedules mostly wait for the baton to change threads: several share a core.
        for _ in 0..WORKERS_PER_CORE * thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
    });
    let (counts, found) = total.into_inner().expect("no panic");
    (counts, done.into_inner(), found)
}

/// Describes a violation, from another run with a trace; `test` is the test that runs it.
pub fn explain<C: Tally>(seed: u64, test: &str, run: impl Fn(u64) -> Outcome<C>) -> String {
    let Outcome { violation, trace, .. } = caught(|| run(seed));
    let violation = violation.unwrap_or_else(|| "none, this time: the schedule is not deterministic".to_owned());
    let replay = format!("HOOKLEDGER_TEST_SEED={seed} cargo test -p simulator --test schedules {test}");
    format!("{}\n\nseed {seed}: {violation}\nreplay it with: {replay}\n", trace.join("\n"))
}

fn caught<C: Tally>(run: impl Fn() -> Outcome<C>) -> Outcome<C> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Outcome { counts: C::default(), violation: Some(format!("panic: {words}")), trace: Vec::new() }
    })
}

impl Tally for Counts {
    fn add(&mut self, other: &Self) {
        self.raw += other.raw;
        self.outputs += other.outputs;
        self.lives += other.lives;
        self.kills += other.kills;
        self.stops += other.stops;
        self.quarantined += other.quarantined;
        self.hung += other.hung;
        self.renewed += other.renewed;
        self.lost += other.lost;
        self.by_ingress += other.by_ingress;
        self.digests += other.digests;
    }
}
