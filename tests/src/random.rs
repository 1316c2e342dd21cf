//! Randomness that can be had again: whoever draws from it says the seed when something fails.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of `HOOKLEDGER_TEST_SEED`, or one that nobody has had before.
pub fn seed() -> u64 {
    number("HOOKLEDGER_TEST_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970");
        u64::try_from(now.as_micros()).expect("a number of 64 bits")
    })
}

/// What a variable of the environment says, if it is set: a number, perhaps with `_` in it.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Numbers that look random and are the same for the same seed (`SplitMix64`).
pub struct Random(u64);

impl Random {
    /// Begins at this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody goes through it")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// Whether something happens that happens once in so many times.
    pub fn one_in(&mut self, end: usize) -> bool {
        self.below(end) == 0
    }

    /// One of these.
    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}
