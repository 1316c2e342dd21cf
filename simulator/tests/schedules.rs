//! No schedule breaks an invariant: `HOOKLEDGER_TEST_SEEDS` says how many are tried, `HOOKLEDGER_TEST_SEEDS_FROM` which
//! is the first, and `HOOKLEDGER_TEST_SEED` names one.

use simulator::ingress::schedule as ingress;
use simulator::schedule as processor;
use simulator::seeds::{Outcome, Tally, explain, search};
use tests::random::number;
use tests::wait::report;

/// In CI.
const SEEDS: u64 = 2_000;

#[test]
fn no_schedule_breaks_an_invariant() {
    let run = |seed, traced| processor::run(seed, None, traced);
    if let Some(counts) = none_breaks_an_invariant("processors", "no_schedule_breaks", run) {
        assert!(counts.digests > counts.lives && counts.quarantined > 0 && counts.stops > 0, "{counts:?}");
        assert!(counts.renewed > 0, "{counts:?}");
        assert!(counts.by_ingress > 0 && counts.hung > 0, "{counts:?}");
    }
}

#[test]
fn no_schedule_of_ingress_breaks_its_promise() {
    let run = |seed, traced| ingress::run(seed, None, traced);
    if let Some(counts) = none_breaks_an_invariant("ingress", "of_ingress", run) {
        assert!(counts.by_kafka > 0 && counts.by_disk > 0 && counts.storage_unavailable > 0, "{counts:?}");
        assert!(counts.copies > 0 && counts.refused > 0 && counts.failures > 0, "{counts:?}");
        assert!(counts.kills > 0 && counts.power_losses > 0 && counts.adoptions > 0, "{counts:?}");
    }
}

#[test]
fn one_seed_is_one_schedule() {
    for seed in 0..20 {
        let (once, again) = (processor::run(seed, None, true), processor::run(seed, None, true));
        assert!(once.trace.len() > 20, "seed {seed} has a schedule");
        assert_eq!(once.trace, again.trace, "seed {seed}");
        let (once, again) = (ingress::run(seed, None, true), ingress::run(seed, None, true));
        assert!(once.trace.len() > 20, "seed {seed} has a schedule of ingress");
        assert_eq!(once.trace, again.trace, "seed {seed} of ingress");
    }
}

/// What all seeds came to; nothing where the environment names one.
fn none_breaks_an_invariant<C: Tally + std::fmt::Debug>(
    what: &str,
    test: &str,
    run: impl Fn(u64, bool) -> Outcome<C> + Sync,
) -> Option<C> {
    if let Some(seed) = number("HOOKLEDGER_TEST_SEED") {
        let outcome = run(seed, false);
        assert!(outcome.violation.is_none(), "{}", explain(seed, test, |seed| run(seed, true)));
        report(&format!("simulator, {what}: seed {seed}: no violation; {:?}", outcome.counts));
        return None;
    }
    let seeds = number("HOOKLEDGER_TEST_SEEDS").unwrap_or(SEEDS);
    let first = number("HOOKLEDGER_TEST_SEEDS_FROM").unwrap_or(0);
    let (counts, done, found) = search(first..first + seeds, Some(what), |seed| run(seed, false));
    if let Some(found) = found {
        panic!("{}", explain(found.seed, test, |seed| run(seed, true)));
    }
    report(&format!("simulator, {what}: {done} seeds from {first} on, no violation; {counts:?}"));
    assert_eq!(done, seeds);
    Some(counts)
}
