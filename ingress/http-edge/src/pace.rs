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
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>, now: Instant) -> Self {
        Self { bytes_per_second, paid_at: Cell::new(now) }
    }

    pub(super) fn is_behind(&self, now: Instant) -> bool {
        self.paid_at.get() > now + BURST
    }

    pub(super) fn pay(&self, bytes: usize, now: Instant) {
        let Some(rate) = self.bytes_per_second else { return };
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(rate);
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.paid_at.set(self.paid_at.get().max(now) + takes);
    }

    /// Reserves the next portion. Returns when it may be read: connections take turns.
    pub(super) fn promise(&self, now: Instant) -> Instant {
        let from = self.paid_at.get().checked_sub(BURST).map_or(now, |from| from.max(now));
        self.pay(PORTION_BYTES, now);
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1024 * 1024;

    #[test]
    fn a_second_s_worth_comes_at_once_and_then_connections_take_turns() {
        let now = Instant::now();
        let pace = Pace::new(Some(RATE), now);
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
        let pace = Pace::new(None, now);
        pace.pay(1024 * 1024 * 1024, now);
        assert!(!pace.is_behind(now));
    }
}
