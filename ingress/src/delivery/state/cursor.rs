//! The sent part of the disk log.

use std::collections::HashSet;

/// Everything before the cursor was sent.
#[derive(Debug)]
pub struct Cursor {
    next: u64,
    end: u64,
    resent_below: u64,
    /// Entries whose record is already in flight.
    queued: HashSet<u64>,
    /// No entry from here on was ever sent.
    sent_below: u64,
}

impl Cursor {
    /// Starts at the first undelivered entry. Entries of the last run may have been sent already.
    pub fn new(first_unsettled: u64, end: u64) -> Self {
        Self { next: first_unsettled.min(end), end, resent_below: end, queued: HashSet::new(), sent_below: 0 }
    }

    pub fn at_end(&self) -> bool {
        self.next >= self.end
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// Entries from here on are not known yet.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Entries of `first..end` are in the log now; some of them need no sending.
    pub fn appended(&mut self, first: u64, end: u64, needs_nobody: impl Fn(u64) -> bool) {
        if self.at_end() {
            self.next = self.next.max(first);
        }
        self.end = self.end.max(end);
        while !self.at_end() && (self.queued.contains(&self.next) || needs_nobody(self.next)) {
            self.next += 1;
        }
    }

    pub fn queue(&mut self, offset: u64) {
        self.queued.insert(offset);
        self.sent_below = self.sent_below.max(offset + 1);
    }

    pub fn unqueue(&mut self, offset: u64) {
        self.queued.remove(&offset);
    }

    pub fn is_queued(&self, offset: u64) -> bool {
        self.queued.contains(&offset)
    }

    /// Whether an entry may have been sent before.
    pub fn is_resent(&self, offset: u64) -> bool {
        offset < self.resent_below
    }

    pub fn pass(&mut self, offset: u64) {
        self.next = self.next.max(offset + 1);
    }

    /// All entries may have been sent without an acknowledgement.
    pub fn flag_to_end(&mut self) {
        self.resent_below = self.resent_below.max(self.end);
    }

    /// Starts over at the first undelivered entry. Sent entries may become second copies.
    pub fn rewind(&mut self, first_unsettled: u64) {
        self.next = first_unsettled.min(self.end);
        self.queued.clear();
        self.resent_below = self.resent_below.max(self.sent_below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_whose_records_are_on_their_way_or_through_need_nobody() {
        let mut cursor = Cursor::new(0, 0);
        cursor.queue(0);
        cursor.queue(2);
        cursor.appended(0, 4, |offset| offset == 1);
        assert_eq!((cursor.next(), cursor.at_end()), (3, false));
        cursor.pass(3);
        assert!(cursor.at_end());
    }

    #[test]
    fn places_that_a_failed_append_left_empty_are_passed() {
        let mut cursor = Cursor::new(0, 0);
        cursor.appended(7, 8, |_| false);
        assert_eq!(cursor.next(), 7);
        cursor.pass(7);
        assert!(cursor.at_end());
    }

    #[test]
    fn what_was_there_at_the_start_or_at_a_rewind_may_have_been_handed_over_before() {
        let mut cursor = Cursor::new(3, 5);
        cursor.appended(5, 9, |_| false);
        assert_eq!([4, 5].map(|offset| cursor.is_resent(offset)), [true, false]);
        cursor.queue(6);
        cursor.unqueue(6);
        cursor.rewind(4);
        assert_eq!([4, 5, 6].map(|offset| cursor.is_resent(offset)), [true; 3]);
        assert!(!cursor.is_resent(7), "it was never sent");
        assert_eq!(cursor.next(), 4);
    }
}
