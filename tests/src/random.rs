//! Randomness that can be had again: its users report the seed when something fails.

use std::ops::RangeInclusive;
use std::time::Duration;

pub use fastrand::Rng;

use crate::wait::report;

/// Names a seed, to repeat what a run that failed had chosen.
const SEED: &str = "HOOKLEDGER_TEST_SEED";

/// The seed that the environment names, else any.
pub fn seed() -> u64 {
    number(SEED).unwrap_or_else(|| fastrand::u64(..))
}

/// Begins at [`seed`], and says where that is.
pub fn of_this_run(test: &str) -> Rng {
    let seed = seed();
    report(&format!("{test}: {SEED}={seed}"));
    Rng::with_seed(seed)
}

/// What a variable of the environment says, if it is set: a number, perhaps with `_` in it.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// One of these.
pub fn pick<'a, T: ?Sized>(random: &mut Rng, from: &[&'a T]) -> &'a T {
    from[random.usize(..from.len())]
}

/// A time between two, in milliseconds.
pub fn milliseconds(random: &mut Rng, between: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(random.u64(between))
}
