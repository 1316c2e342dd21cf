//! How long to wait before the next attempt.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);

/// Doubles with each failure up to `most`. The last half of it is jitter: the same for the same seed, so that the
/// schedule stays a pure function, and different for each installation.
pub fn backoff(failures: u32, seed: u64, most: Duration) -> Duration {
    let full = FIRST.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(most);
    let mut hasher = DefaultHasher::new();
    (failures, seed).hash(&mut hasher);
    let permille = u32::try_from(hasher.finish() % 501).unwrap_or_default();
    full / 2 + full / 1_000 * permille
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_its_limit_and_differs_between_installations() {
        let most = Duration::from_secs(300);
        for failures in [0, 1, 5, 8, 9, 31, 32, u32::MAX] {
            let full = Duration::from_secs(1_u64.checked_shl(failures).unwrap_or(300).min(300));
            let waits: Vec<Duration> = (0..50).map(|seed| backoff(failures, seed, most)).collect();
            assert!(waits.iter().all(|wait| (full / 2..=full).contains(wait)), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{failures}: {waits:?}");
            assert_eq!(backoff(failures, 7, most), waits[7]);
        }
    }
}
