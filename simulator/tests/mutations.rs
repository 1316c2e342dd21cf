//! Each bug that is put in on purpose is caught within so many seeds.

use simulator::mutation::Mutation;
use simulator::seeds::search;
use tests::wait::report;

/// What a bug may take to be seen.
const SEEDS_MAX: u64 = 300;

#[test]
fn every_bug_that_is_put_in_on_purpose_is_caught() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let (_, seeds, found) = search(0..SEEDS_MAX, Some(mutation));
        match found {
            Some(found) => {
                let violation = found.violation.lines().next().unwrap_or_default();
                report(&format!("simulator: {mutation:?} is caught after {seeds} seeds: {violation}"));
            }
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not caught within {SEEDS_MAX} seeds: {missed:?}");
}
