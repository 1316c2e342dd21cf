//! A histogram of latencies in a few kilobytes, exact to one part in 64.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: u32 = 64;
/// Below this every microsecond has a bucket of its own.
const EXACT: u32 = 2 * STEPS;
/// For all of `u32`: over an hour in microseconds.
const BUCKETS: usize = (EXACT + (31 - EXACT.ilog2() + 1) * STEPS) as usize;

#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    max_us: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max_us: 0 }
    }
}

impl Latencies {
    pub fn record(&mut self, took: Duration) {
        let us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.buckets[bucket(us)] += 1;
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The latency that `percent` of all do not exceed; zero without any.
    pub fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(u64::from(upper_us(bucket).min(self.max_us)));
            }
        }
        Duration::ZERO
    }

    /// Exact.
    pub fn max(&self) -> Duration {
        Duration::from_micros(u64::from(self.max_us))
    }
}

fn bucket(us: u32) -> usize {
    if us < EXACT {
        return us as usize;
    }
    // The highest seven bits give the place in its power of two.
    let shift = us.ilog2() - STEPS.ilog2();
    (EXACT + (shift - 1) * STEPS + ((us >> shift) - STEPS)) as usize
}

fn upper_us(bucket: usize) -> u32 {
    let bucket = u32::try_from(bucket).expect("fewer buckets than that");
    if bucket < EXACT {
        return bucket;
    }
    let shift = (bucket - EXACT) / STEPS + 1;
    let step = (bucket - EXACT) % STEPS + STEPS;
    u32::try_from(((u64::from(step) + 1) << shift) - 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_has_a_bucket_that_is_right_to_one_part_in_64() {
        let mut last = 0;
        for us in (0..20_000).chain((0..32).flat_map(|shift| [(1 << shift) - 1, 1 << shift])).chain([u32::MAX]) {
            let upper = upper_us(bucket(us));
            assert!(upper >= us && u64::from(upper - us) * 64 <= u64::from(us), "{us}: {upper}");
            if us == last + 1 {
                assert!(bucket(us) - bucket(last) <= 1, "{us}");
            }
            last = us;
        }
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let mut all = Latencies::default();
        assert_eq!(all.percentile(50), Duration::ZERO);
        let (mut some, mut rest) = (Latencies::default(), Latencies::default());
        for us in 1..=100 {
            if us % 3 == 0 { &mut some } else { &mut rest }.record(Duration::from_micros(us));
        }
        all.merge(&some);
        all.merge(&rest);
        assert_eq!(all.percentile(50), Duration::from_micros(50));
        assert_eq!(all.percentile(99), Duration::from_micros(99));
        assert_eq!((all.percentile(100), all.max()), (Duration::from_micros(100), Duration::from_micros(100)));
    }
}
