//! Each bug that is put in on purpose is caught within so many seeds.

use std::fmt::Debug;

use simulator::ingress;
use simulator::mutation::Mutation;
use simulator::schedule::run;
use simulator::seeds::{Outcome, Tally, search};
use tests::wait::report;

/// What a bug may take to be seen.
const SEEDS_MAX: u64 = 2_000;

#[test]
fn every_bug_that_is_put_in_on_purpose_is_caught() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        missed.extend(miss(mutation, |seed| run(seed, Some(mutation), false)));
    }
    for mutation in ingress::mutation::Mutation::ALL {
        missed.extend(miss(mutation, |seed| ingress::schedule::run(seed, Some(mutation), false)));
    }
    assert!(missed.is_empty(), "not caught within {SEEDS_MAX} seeds: {missed:?}");
}

/// The bug, if it is not caught.
fn miss<C: Tally>(mutation: impl Debug, run: impl Fn(u64) -> Outcome<C> + Sync) -> Option<String> {
    let (_, seeds, found) = search(0..SEEDS_MAX, None, run);
    let Some(found) = found else { return Some(format!("{mutation:?}")) };
    let violation = found.violation.lines().next().unwrap_or_default();
    report(&format!("simulator: {mutation:?} is caught after {seeds} seeds: {violation}"));
    None
}
