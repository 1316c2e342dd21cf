//! Says what is wrong with Kafka once, and once that it is over, however often it is looked at.
//!
//! Pure: what is seen comes in with the time, what is to be said comes out.

use std::time::{Duration, Instant};

use common::log::kafka::{Complaint, Trouble};

/// A dip that is shorter is for the metrics, not for people. Meanwhile the cause becomes known.
const SAY_AFTER: Duration = Duration::from_secs(1);
/// How often people are told that nothing has changed.
const REMIND_EVERY: Duration = Duration::from_secs(60);
/// Kafka takes events for so long, at first and at most, before people are told that it is over.
const CALM_MIN: Duration = Duration::from_secs(1);
const CALM_MAX: Duration = Duration::from_secs(60);
/// A cause that was heard so long before the first missing acknowledgement belongs to it.
const CAUSE_BEFORE: Duration = Duration::from_secs(2);
/// A cause that was not heard of for so long is no longer one. Whoever tries to connect hears it more often.
const CAUSE_LASTS: Duration = Duration::from_secs(15);

/// How Kafka is just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Events go straight to it, and are acknowledged in time.
    Well,
    /// It acknowledges in time; what waited on disk goes first.
    CatchingUp,
    /// It does not acknowledge in time, or not at all.
    Ill,
}

/// What is seen.
#[derive(Clone, Debug)]
pub struct Sight {
    /// How Kafka is.
    pub how: How,
    /// What was complained of since [`Mood::cause_since`] and tells most.
    pub cause: Option<Complaint>,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saying {
    /// Kafka takes no events, for so long, and why, as far as that is known.
    Ill(Duration, Option<Complaint>),
    /// It does again, after so long.
    Over(Duration),
}

/// How Kafka is, as people were told.
#[derive(Clone, Debug)]
pub struct Mood {
    /// Since when it has been ill, unless it is well.
    ill: Option<Illness>,
    /// How long it has to be well before that is said.
    calm: Duration,
    /// When the last illness that people were told of was over.
    over_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Illness {
    since: Instant,
    well_since: Option<Instant>,
    spoke_at: Option<Instant>,
    told: Vec<Trouble>,
}

impl Mood {
    /// Before Kafka was reached.
    pub fn new(now: Instant) -> Self {
        Self { ill: Some(Illness::new(now)), calm: CALM_MIN, over_at: None }
    }

    /// Since when complaints may be the cause of what is seen.
    pub fn cause_since(&self, now: Instant) -> Instant {
        let since = self.ill.as_ref().map_or(now, |ill| ill.since);
        let first = since.checked_sub(CAUSE_BEFORE).unwrap_or(since);
        now.checked_sub(CAUSE_LASTS).map_or(first, |newest| newest.max(first))
    }

    /// Whether somebody should find out the cause before it is said.
    pub fn wants_cause(&self, now: Instant) -> bool {
        self.ill.as_ref().is_some_and(|ill| ill.is_due(now))
    }

    /// Takes in what is seen.
    pub fn look(&mut self, now: Instant, sight: &Sight) -> Option<Saying> {
        if sight.how == How::Ill {
            let ill = self.ill.get_or_insert_with(|| Illness::new(now));
            ill.well_since = None;
            return ill.speak(now, sight.cause.as_ref());
        }
        let ill = self.ill.as_mut()?;
        if sight.how == How::CatchingUp {
            ill.well_since = None;
            return None;
        }
        let well_since = *ill.well_since.get_or_insert(now);
        if now.saturating_duration_since(well_since) < self.calm {
            return None;
        }
        let Illness { since, spoke_at, .. } = self.ill.take()?;
        spoke_at?;
        // Who falls ill again and again is not announced well each time.
        let again = self.over_at.is_some_and(|at| since.saturating_duration_since(at) < CALM_MAX);
        self.calm = if again { (self.calm * 2).min(CALM_MAX) } else { CALM_MIN };
        self.over_at = Some(now);
        Some(Saying::Over(well_since.saturating_duration_since(since)))
    }

    /// Whether a trouble that somebody has met is news, so that it is to be said now.
    pub fn is_news(&mut self, now: Instant, trouble: Trouble) -> bool {
        let ill = self.ill.get_or_insert_with(|| Illness::new(now));
        let news = !ill.told.contains(&trouble);
        if news {
            ill.told.push(trouble);
            ill.spoke_at = Some(now);
        }
        news
    }
}

impl Illness {
    fn new(since: Instant) -> Self {
        Self { since, well_since: None, spoke_at: None, told: Vec::new() }
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.spoke_at {
            None => now.saturating_duration_since(self.since) >= SAY_AFTER,
            Some(at) => now.saturating_duration_since(at) >= REMIND_EVERY,
        }
    }

    /// Speaks when it is time, and at once when another cause becomes known.
    fn speak(&mut self, now: Instant, cause: Option<&Complaint>) -> Option<Saying> {
        let trouble = cause.map(|cause| cause.trouble);
        let news = self.spoke_at.is_some() && trouble.is_some_and(|trouble| self.is_better(trouble));
        if !news && !self.is_due(now) {
            return None;
        }
        self.spoke_at = Some(now);
        self.told.extend(trouble.filter(|trouble| !self.told.contains(trouble)));
        Some(Saying::Ill(now.saturating_duration_since(self.since), cause.cloned()))
    }

    /// Whether a trouble tells more than all that were told.
    fn is_better(&self, trouble: Trouble) -> bool {
        self.told.iter().all(|told| trouble < *told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn complaint(trouble: Trouble, at: Instant) -> Complaint {
        Complaint { trouble, reason: trouble.label().to_owned(), at }
    }

    /// A mood that was well for long.
    fn well() -> (Mood, Instant) {
        let mut now = Instant::now();
        let mut mood = Mood::new(now);
        see(&mut mood, now, true, None);
        now += CALM_MIN;
        assert_eq!(see(&mut mood, now, true, None), None, "a start that went well is not worth a line");
        (mood, now + CALM_MAX * 2)
    }

    fn see(mood: &mut Mood, now: Instant, well: bool, cause: Option<Trouble>) -> Option<Saying> {
        let how = if well { How::Well } else { How::Ill };
        mood.look(now, &Sight { how, cause: cause.map(|trouble| complaint(trouble, now)) })
    }

    #[test]
    fn an_illness_is_said_once_with_its_cause_and_once_that_it_is_over() {
        let (mut mood, begin) = well();
        let mut said = Vec::new();
        for ms in (0..40_000).step_by(100) {
            let now = begin + ms * MS;
            said.extend(see(&mut mood, now, ms >= 30_000, Some(Trouble::Unreachable)));
        }
        let [Saying::Ill(after, Some(cause)), Saying::Over(lasted)] = &said[..] else { panic!("{said:?}") };
        assert_eq!((*after, cause.trouble, *lasted), (SAY_AFTER, Trouble::Unreachable, 30_000 * MS));
    }

    #[test]
    fn who_catches_up_is_neither_ill_nor_over_it() {
        let (mut mood, begin) = well();
        see(&mut mood, begin, false, None);
        assert!(see(&mut mood, begin + SAY_AFTER, false, None).is_some());
        for s in 2..300 {
            let sight = Sight { how: How::CatchingUp, cause: None };
            assert_eq!(mood.look(begin + SAY_AFTER * s, &sight), None);
        }
    }

    #[test]
    fn a_short_dip_is_not_said() {
        let (mut mood, begin) = well();
        for ms in (0..10_000).step_by(100) {
            assert_eq!(see(&mut mood, begin + ms * MS, ms >= 900, None), None);
        }
    }

    #[test]
    fn people_are_reminded_and_told_of_a_cause_that_tells_more() {
        let (mut mood, begin) = well();
        let mut said = Vec::new();
        for ms in (0..150_000).step_by(100) {
            let cause = if ms < 5_000 { Trouble::Unreachable } else { Trouble::Tls };
            said.extend(see(&mut mood, begin + ms * MS, false, Some(cause)));
        }
        let said: Vec<_> = said
            .iter()
            .map(|saying| match saying {
                Saying::Ill(after, cause) => (after.as_secs(), cause.as_ref().map(|cause| cause.trouble)),
                Saying::Over(_) => panic!("it is not over"),
            })
            .collect();
        let tls = Some(Trouble::Tls);
        assert_eq!(said, [(1, Some(Trouble::Unreachable)), (5, tls), (65, tls), (125, tls)]);
    }

    #[test]
    fn who_falls_ill_again_and_again_is_not_announced_each_time() {
        let (mut mood, begin) = well();
        let mut lines = 0;
        // Two seconds ill, two seconds well, for ten minutes.
        for ms in (0..600_000).step_by(100) {
            lines += usize::from(see(&mut mood, begin + ms * MS, ms / 2_000 % 2 == 1, None).is_some());
        }
        assert!(lines <= 16, "{lines} lines in ten minutes");
    }

    #[test]
    fn what_was_met_by_others_is_said_once() {
        let (mut mood, now) = well();
        assert!(mood.is_news(now, Trouble::LostTail));
        assert!(!mood.is_news(now + MS, Trouble::LostTail));
        see(&mut mood, now + MS, true, None);
        assert_eq!(see(&mut mood, now + MS + CALM_MIN, true, None), Some(Saying::Over(MS)));
        assert!(mood.is_news(now + CALM_MAX, Trouble::LostTail));
    }
}
