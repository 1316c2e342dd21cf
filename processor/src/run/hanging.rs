//! Hanging transactions: open in an output partition for longer than the processor's transaction timeout.
//!
//! Kafka can accept a commit, or decide an abort, and never tell a partition. Only the producer of that transaction can
//! end it, by reopening the logs; readers of committed records block until then, and so may this processor. One attempt
//! for each position is enough until a broker fails: if it did not help, the transaction belongs to another producer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use event_log::Position;
use event_log::contract::Topic;

#[derive(Default)]
pub struct Hanging(BTreeMap<(Topic, Position), Seen>);

struct Seen {
    since: Instant,
    was_tried: bool,
}

impl Hanging {
    /// Updates the set of undecided positions. Returns how many have been undecided for `long`.
    pub fn update(&mut self, undecided: Vec<(Topic, Position)>, now: Instant, long: Duration) -> usize {
        let mut known = std::mem::take(&mut self.0);
        let seen = |place| {
            let seen = known.remove(&place).unwrap_or(Seen { since: now, was_tried: false });
            (place, seen)
        };
        self.0 = undecided.into_iter().map(seen).collect();
        self.0.values().filter(|seen| now.duration_since(seen.since) >= long).count()
    }

    /// After a broker failure, transactions may hang again at the same positions.
    pub fn forget_tries(&mut self) {
        self.0.values_mut().for_each(|seen| seen.was_tried = false);
    }

    /// Whether a position has been undecided for `long` without an attempt. Counts as the attempt.
    pub fn try_once(&mut self, now: Instant, long: Duration) -> bool {
        let mut is_new = false;
        for seen in self.0.values_mut().filter(|seen| now.duration_since(seen.since) >= long) {
            is_new |= !std::mem::replace(&mut seen.was_tried, true);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(40);

    fn place(partition: u32, offset: u64) -> (Topic, Position) {
        (Topic::Events, Position { partition, offset })
    }

    #[test]
    fn a_place_that_stays_undecided_is_tried_once_and_one_that_moves_is_not() {
        let (mut hanging, began) = (Hanging::default(), Instant::now());
        let mut update = |seconds: u64, undecided: &[(u32, u64)]| {
            let now = began + Duration::from_secs(seconds);
            let undecided = undecided.iter().map(|(partition, offset)| place(*partition, *offset)).collect();
            (hanging.update(undecided, now, LONG), hanging.try_once(now, LONG))
        };
        assert_eq!(update(0, &[(0, 7), (1, 3)]), (0, false));
        assert_eq!(update(39, &[(0, 7), (1, 4)]), (0, false), "partition 1 goes on");
        assert_eq!(update(40, &[(0, 7), (1, 4)]), (1, true));
        assert_eq!(update(60, &[(0, 7), (1, 5)]), (1, false), "it did not help");
        assert_eq!(update(70, &[(1, 6)]), (0, false));
        assert_eq!(update(80, &[(0, 9), (1, 6)]), (0, false), "another one");
        assert_eq!(update(120, &[(0, 9), (1, 6)]), (2, true));
        assert_eq!(update(130, &[(0, 9), (1, 6)]), (2, false));
        hanging.forget_tries();
        let places = vec![place(0, 9), place(1, 7)];
        assert_eq!(hanging.update(places, began + Duration::from_secs(140), LONG), 1);
        assert!(hanging.try_once(began + Duration::from_secs(140), LONG), "it may hang again");
    }
}
