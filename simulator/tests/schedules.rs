//! No schedule breaks an invariant: `HOOKLEDGER_TEST_SEEDS` says how many are tried, `HOOKLEDGER_TEST_SEED` names one.

use simulator::schedule::run;
use simulator::seeds::{explain, search};
use tests::random::number;
use tests::wait::report;

/// In CI.
const SEEDS: u64 = 2_000;

#[test]
fn no_schedule_breaks_an_invariant() {
    if let Some(seed) = number("HOOKLEDGER_TEST_SEED") {
        let explained = explain(seed, None);
        let outcome = run(seed, None, false);
        assert!(outcome.violation.is_none(), "{explained}");
        report(&format!("simulator: seed {seed}: no violation; {:?}", outcome.counts));
        return;
    }
    let seeds = number("HOOKLEDGER_TEST_SEEDS").unwrap_or(SEEDS);
    let (counts, done, found) = search(0..seeds, None);
    if let Some(found) = found {
        panic!("{}", explain(found.seed, None));
    }
    report(&format!("simulator: {done} seeds, no violation; {counts:?}"));
    assert_eq!(done, seeds);
    assert!(counts.digests > counts.lives && counts.set_aside > 0 && counts.stops > 0, "{counts:?}");
}

#[test]
fn one_seed_is_one_schedule() {
    for seed in 0..20 {
        let (once, again) = (run(seed, None, true), run(seed, None, true));
        assert!(once.trace.len() > 50, "seed {seed} has a schedule");
        assert_eq!(once.trace, again.trace, "seed {seed}");
    }
}
