//! Entries of the disk log that Kafka refused for what they are: they stay there and hold nobody up.
//!
//! Each was answered 200, so it is kept until Kafka takes it. The smallest is tried first: while it is refused,
//! so are all others.

use std::collections::{BTreeMap, BTreeSet};

/// How many may be set aside, since each takes room in memory. Beyond it the hand-over stands still.
pub const REFUSED_MAX: usize = 100_000;

/// What is set aside, by its place in the disk log.
#[derive(Debug, Default)]
pub struct Aside {
    entries: BTreeMap<u64, Refused>,
    by_size: BTreeSet<(usize, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    size: usize,
    /// It is being written to the end of the log, and its place there is not known yet.
    moving: bool,
}

impl Aside {
    /// Sets an entry aside.
    pub fn put(&mut self, offset: u64, size: usize) {
        self.entries.insert(offset, Refused { size, moving: false });
        self.by_size.insert((size, offset));
    }

    /// Takes an entry back.
    pub fn take(&mut self, offset: u64) {
        if let Some(Refused { size, .. }) = self.entries.remove(&offset) {
            self.by_size.remove(&(size, offset));
        }
    }

    /// Whether an entry is set aside.
    pub fn contains(&self, offset: u64) -> bool {
        self.entries.contains_key(&offset)
    }

    /// The entry to try first.
    pub fn smallest(&self) -> Option<u64> {
        self.by_size.iter().map(|(_, offset)| *offset).find(|offset| !self.entries[offset].moving)
    }

    /// The oldest entry, unless it is on the move.
    pub fn oldest(&self) -> Option<u64> {
        self.entries.first_key_value().filter(|(_, refused)| !refused.moving).map(|(offset, _)| *offset)
    }

    /// Says whether an entry is being written to the end of the log.
    pub fn set_moving(&mut self, offset: u64, moving: bool) {
        if let Some(refused) = self.entries.get_mut(&offset) {
            refused.moving = moving;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no more may be set aside.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= REFUSED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_tried_first_and_what_is_on_the_move_is_left_alone() {
        let mut aside = Aside::default();
        for (offset, size) in [(3, 70), (5, 20), (9, 40)] {
            aside.put(offset, size);
        }
        assert_eq!((aside.smallest(), aside.oldest(), aside.len()), (Some(5), Some(3), 3));
        aside.set_moving(5, true);
        aside.set_moving(3, true);
        assert_eq!((aside.smallest(), aside.oldest()), (Some(9), None));
        aside.take(3);
        aside.set_moving(5, false);
        assert_eq!((aside.smallest(), aside.oldest(), aside.len()), (Some(5), Some(5), 2));
        assert!(!aside.contains(3) && aside.contains(9));
    }
}
