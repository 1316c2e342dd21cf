//! Entries that Kafka rejects permanently, because they are too large. They are parked and do not block the rest.
//!
//! Each was answered 200, so it stays in the disk log until Kafka takes it. The smallest is retried first: while it is
//! rejected, so are all others.

use std::collections::{BTreeMap, BTreeSet};

/// How many entries may be parked, since each takes memory. Beyond it a rejected record fails the producer.
pub const PARKED_MAX: usize = 100_000;

/// By offset in the disk log.
#[derive(Debug, Default)]
pub struct Parked {
    entries: BTreeMap<u64, ParkedEntry>,
    by_size: BTreeSet<(usize, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct ParkedEntry {
    size: usize,
    /// It is being written to the end of the log; its new offset is not known yet.
    moving: bool,
}

impl Parked {
    pub fn put(&mut self, offset: u64, size: usize) {
        self.entries.insert(offset, ParkedEntry { size, moving: false });
        self.by_size.insert((size, offset));
    }

    pub fn take(&mut self, offset: u64) {
        if let Some(ParkedEntry { size, .. }) = self.entries.remove(&offset) {
            self.by_size.remove(&(size, offset));
        }
    }

    pub fn contains(&self, offset: u64) -> bool {
        self.entries.contains_key(&offset)
    }

    /// The entry to retry first.
    pub fn smallest(&self) -> Option<u64> {
        self.by_size.iter().map(|(_, offset)| *offset).find(|offset| !self.entries[offset].moving)
    }

    /// The oldest entry, unless it is being moved.
    pub fn oldest(&self) -> Option<u64> {
        self.entries.first_key_value().filter(|(_, entry)| !entry.moving).map(|(offset, _)| *offset)
    }

    pub fn set_moving(&mut self, offset: u64, moving: bool) {
        if let Some(entry) = self.entries.get_mut(&offset) {
            entry.moving = moving;
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_full(&self) -> bool {
        self.entries.len() >= PARKED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_retried_first_and_an_entry_being_moved_is_left_alone() {
        let mut parked = Parked::default();
        for (offset, size) in [(3, 70), (5, 20), (9, 40)] {
            parked.put(offset, size);
        }
        assert_eq!((parked.smallest(), parked.oldest(), parked.len()), (Some(5), Some(3), 3));
        parked.set_moving(5, true);
        parked.set_moving(3, true);
        assert_eq!((parked.smallest(), parked.oldest()), (Some(9), None));
        parked.take(3);
        parked.set_moving(5, false);
        assert_eq!((parked.smallest(), parked.oldest(), parked.len()), (Some(5), Some(5), 2));
        assert!(!parked.contains(3) && parked.contains(9));
    }
}
