//! How long a directory has had no owner, from periodic observations. Pure: time comes in.

use std::time::{Duration, Instant};

/// One observation of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has an owner, or no event that Kafka lacks.
    Fine,
    /// It has events and no owner. The number changes with each opening.
    Left(u64),
}

/// Since when the same events have been without an owner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vacancy {
    since: Option<(Instant, u64)>,
}

impl Vacancy {
    /// Takes an observation. Returns whether the directory has been without an owner for `after`.
    ///
    /// An owner that keeps crashing is detected by the number, even if it is never observed itself.
    pub fn observe(&mut self, now: Instant, seen: Seen, after: Duration) -> bool {
        self.since = match (seen, self.since) {
            (Seen::Fine, _) => None,
            (Seen::Left(number), Some((since, before))) if number == before => Some((since, before)),
            (Seen::Left(number), _) => Some((now, number)),
        };
        self.since.is_some_and(|(since, _)| now.saturating_duration_since(since) >= after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(10);

    /// Looks once a second; the second in which the directory is adopted.
    fn adopted_in(observations: &[Seen]) -> Option<usize> {
        let (start, mut vacancy) = (Instant::now(), Vacancy::default());
        let due = |(second, seen): (usize, &Seen)| {
            vacancy.observe(start + Duration::from_secs(second as u64), *seen, AFTER).then_some(second)
        };
        observations.iter().enumerate().find_map(due)
    }

    #[test]
    fn a_directory_is_adopted_once_it_was_left_alone_for_long_enough() {
        assert_eq!(adopted_in(&[Seen::Left(4); 30]), Some(10));
        assert_eq!(adopted_in(&[Seen::Fine; 30]), None);
    }

    #[test]
    fn an_owner_that_was_there_meanwhile_begins_the_wait_anew() {
        let mut seen = [Seen::Left(4); 30];
        seen[8] = Seen::Fine;
        assert_eq!(adopted_in(&seen), Some(19));
    }

    #[test]
    fn an_owner_that_dies_over_and_over_is_left_to_its_supervisor() {
        let seen: Vec<_> = (0..30).map(|second| Seen::Left(second / 7)).collect();
        assert_eq!(adopted_in(&seen), None);
    }
}
