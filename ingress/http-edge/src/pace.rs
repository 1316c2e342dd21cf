//! The rate of reading large requests, in total: the processor takes longer for more bytes, and must
//! not fall behind because of a few senders. Small requests never wait.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Only bytes beyond this count, head and body together. Bitrix24's requests take one or two kilobytes.
pub(super) const SMALL_REQUEST_BYTES: usize = 4 * 1024;
/// A large request waits for this many bytes at a time.
pub(super) const PORTION_BYTES: usize = 16 * 1024;
/// Large requests may come all at once if none have come for this long.
const BURST: Duration = Duration::from_secs(1);

pub(super) struct Pace {
    /// None is unlimited.
    bytes_per_second: Option<u64>,
    /// When the rate has caught up with all bytes that were read or promised.
    paid_at: Cell<Instant>,
    /// The longest turn: a portion for each connection that may be open. A connection that ends does not use its
    /// promise, so without this bound, clients that come and go would make all others wait for ever.
    turn_max: Duration,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>, connections_max: usize, now: Instant) -> Self {
        let portions = connections_max.saturating_mul(PORTION_BYTES);
        let turn_max = bytes_per_second.map_or(Duration::ZERO, |rate| takes(portions, rate));
        Self { bytes_per_second, paid_at: Cell::new(now), turn_max }
    }

    pub(super) fn is_behind(&self, now: Instant) -> bool {
        self.paid_at.get() > now + BURST
    }

    pub(super) fn pay(&self, bytes: usize, now: Instant) {
        let Some(rate) = self.bytes_per_second else { return };
        let paid_at = self.paid_at.get().max(now) + takes(bytes, rate);
        self.paid_at.set(paid_at.min(now + BURST + self.turn_max));
    }

    /// Reserves the next portion. Returns when it may be read: connections take turns.
    pub(super) fn promise(&self, now: Instant) -> Instant {
        let from = self.paid_at.get().checked_sub(BURST).map_or(now, |from| from.max(now));
        self.pay(PORTION_BYTES, now);
        from
    }
}

fn takes(bytes: usize, rate: u64) -> Duration {
    let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1024 * 1024;

    #[test]
    fn a_second_s_worth_comes_at_once_and_then_connections_take_turns() {
        let now = Instant::now();
        let pace = Pace::new(Some(RATE), 64, now);
        pace.pay(1024 * 1024, now);
        assert!(!pace.is_behind(now));
        pace.pay(1, now);
        assert!(pace.is_behind(now));
        let portion = Duration::from_secs(1) / 64;
        let turns: Vec<Duration> = (0..4).map(|_| pace.promise(now).duration_since(now)).collect();
        for (turn, number) in turns.iter().zip(0..) {
            assert!((number * portion..(number + 1) * portion).contains(turn), "{turns:?}");
        }
        assert!(!pace.is_behind(now + Duration::from_secs(1)));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let now = Instant::now();
        let pace = Pace::new(None, 64, now);
        pace.pay(1024 * 1024 * 1024, now);
        assert!(!pace.is_behind(now));
    }

    #[test]
    fn promises_of_connections_that_ended_make_nobody_wait_longer_than_a_turn_of_all() {
        let now = Instant::now();
        let pace = Pace::new(Some(RATE), 64, now);
        let waits = (0..10_000).map(|_| pace.promise(now).duration_since(now)).max();
        // 64 portions of 16 KiB at 1 MiB/s.
        assert!(waits <= Some(Duration::from_secs(1)), "{waits:?}");
    }
}
