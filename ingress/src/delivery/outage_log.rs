//! Log lines about an outage of Kafka: its cause once, and once that it is over.
//!
//! Pure: observations come in with the time, notices come out.

use std::time::{Duration, Instant};

use kafka_log::{Fault, FaultReport};

/// A shorter outage shows in metrics only. Meanwhile the cause becomes known.
const LOG_AFTER: Duration = Duration::from_secs(1);
/// Interval between two lines about the same outage.
const REPEAT_EVERY: Duration = Duration::from_secs(60);
/// How long Kafka must be healthy before an outage counts as over, at first and at most.
const RECOVERED_AFTER_MIN: Duration = Duration::from_secs(1);
const RECOVERED_AFTER_MAX: Duration = Duration::from_secs(60);
/// A fault reported this long before the first missing acknowledgement can be its cause.
const CAUSE_BEFORE: Duration = Duration::from_secs(2);
/// A fault not reported for this long is no longer the cause. Every attempt to connect reports it again.
const CAUSE_LASTS: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaHealth {
    /// Events go straight to Kafka, and are acknowledged in time.
    Healthy,
    /// Kafka acknowledges in time; events from the disk log go first.
    CatchingUp,
    /// Kafka does not acknowledge in time, or not at all.
    Unavailable,
}

#[derive(Clone, Debug)]
pub struct Observation {
    pub health: KafkaHealth,
    /// The most specific fault since [`OutageLog::cause_since`].
    pub cause: Option<FaultReport>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutageNotice {
    /// How long Kafka has taken no events, and the cause, if it is known.
    Lasting(Duration, Option<FaultReport>),
    Over(Duration),
}

#[derive(Clone, Debug)]
pub struct OutageLog {
    outage: Option<Outage>,
    /// How long Kafka has to be healthy before the outage counts as over.
    recovered_after: Duration,
    /// The end of the last logged outage.
    over_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Outage {
    since: Instant,
    healthy_since: Option<Instant>,
    logged_at: Option<Instant>,
    logged: Vec<Fault>,
}

impl OutageLog {
    pub fn new(now: Instant) -> Self {
        Self { outage: Some(Outage::new(now)), recovered_after: RECOVERED_AFTER_MIN, over_at: None }
    }

    /// The earliest time of a fault that can be the cause.
    pub fn cause_since(&self, now: Instant) -> Instant {
        let since = self.outage.as_ref().map_or(now, |outage| outage.since);
        let first = since.checked_sub(CAUSE_BEFORE).unwrap_or(since);
        now.checked_sub(CAUSE_LASTS).map_or(first, |newest| newest.max(first))
    }

    /// Whether a line is due, so that the cause should be diagnosed first.
    pub fn wants_cause(&self, now: Instant) -> bool {
        self.outage.as_ref().is_some_and(|outage| outage.is_due(now))
    }

    /// Returns the line that is due.
    pub fn observe(&mut self, now: Instant, seen: &Observation) -> Option<OutageNotice> {
        if seen.health == KafkaHealth::Unavailable {
            let outage = self.outage.get_or_insert_with(|| Outage::new(now));
            outage.healthy_since = None;
            return outage.notice(now, seen.cause.as_ref());
        }
        let outage = self.outage.as_mut()?;
        if seen.health == KafkaHealth::CatchingUp {
            outage.healthy_since = None;
            return None;
        }
        let healthy_since = *outage.healthy_since.get_or_insert(now);
        if now.saturating_duration_since(healthy_since) < self.recovered_after {
            return None;
        }
        let Outage { since, logged_at, .. } = self.outage.take()?;
        logged_at?;
        // A Kafka that fails repeatedly is not announced as recovered each time.
        let again = self.over_at.is_some_and(|at| since.saturating_duration_since(at) < RECOVERED_AFTER_MAX);
        self.recovered_after =
            if again { (self.recovered_after * 2).min(RECOVERED_AFTER_MAX) } else { RECOVERED_AFTER_MIN };
        self.over_at = Some(now);
        Some(OutageNotice::Over(healthy_since.saturating_duration_since(since)))
    }

    /// Whether a fault is new in this outage. The caller logs it.
    pub fn is_news(&mut self, now: Instant, fault: Fault) -> bool {
        let outage = self.outage.get_or_insert_with(|| Outage::new(now));
        let news = !outage.logged.contains(&fault);
        if news {
            outage.logged.push(fault);
            outage.logged_at = Some(now);
        }
        news
    }
}

impl Outage {
    fn new(since: Instant) -> Self {
        Self { since, healthy_since: None, logged_at: None, logged: Vec::new() }
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.logged_at {
            None => now.saturating_duration_since(self.since) >= LOG_AFTER,
            Some(at) => now.saturating_duration_since(at) >= REPEAT_EVERY,
        }
    }

    /// Due by the interval, and at once when a more specific cause becomes known.
    fn notice(&mut self, now: Instant, cause: Option<&FaultReport>) -> Option<OutageNotice> {
        let fault = cause.map(|cause| cause.fault);
        let news = self.logged_at.is_some() && fault.is_some_and(|fault| self.is_better(fault));
        if !news && !self.is_due(now) {
            return None;
        }
        self.logged_at = Some(now);
        self.logged.extend(fault.filter(|fault| !self.logged.contains(fault)));
        Some(OutageNotice::Lasting(now.saturating_duration_since(self.since), cause.cloned()))
    }

    /// Whether a fault is more specific than all that were logged.
    fn is_better(&self, fault: Fault) -> bool {
        self.logged.iter().all(|logged| fault < *logged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn fault_report(fault: Fault, at: Instant) -> FaultReport {
        FaultReport { fault, reason: fault.label().to_owned(), at }
    }

    /// A log while Kafka has been healthy for long.
    fn healthy() -> (OutageLog, Instant) {
        let mut now = Instant::now();
        let mut log = OutageLog::new(now);
        observe(&mut log, now, true, None);
        now += RECOVERED_AFTER_MIN;
        assert_eq!(observe(&mut log, now, true, None), None, "a start that went well is not worth a line");
        (log, now + RECOVERED_AFTER_MAX * 2)
    }

    fn observe(log: &mut OutageLog, now: Instant, is_healthy: bool, cause: Option<Fault>) -> Option<OutageNotice> {
        let health = if is_healthy { KafkaHealth::Healthy } else { KafkaHealth::Unavailable };
        log.observe(now, &Observation { health, cause: cause.map(|fault| fault_report(fault, now)) })
    }

    #[test]
    fn an_outage_is_logged_once_with_its_cause_and_once_that_it_is_over() {
        let (mut log, begin) = healthy();
        let mut said = Vec::new();
        for ms in (0..40_000).step_by(100) {
            let now = begin + ms * MS;
            said.extend(observe(&mut log, now, ms >= 30_000, Some(Fault::Unreachable)));
        }
        let [OutageNotice::Lasting(after, Some(cause)), OutageNotice::Over(lasted)] = &said[..] else {
            panic!("{said:?}")
        };
        assert_eq!((*after, cause.fault, *lasted), (LOG_AFTER, Fault::Unreachable, 30_000 * MS));
    }

    #[test]
    fn catching_up_is_neither_an_outage_nor_its_end() {
        let (mut log, begin) = healthy();
        observe(&mut log, begin, false, None);
        assert!(observe(&mut log, begin + LOG_AFTER, false, None).is_some());
        for s in 2..300 {
            let seen = Observation { health: KafkaHealth::CatchingUp, cause: None };
            assert_eq!(log.observe(begin + LOG_AFTER * s, &seen), None);
        }
    }

    #[test]
    fn a_short_outage_is_not_logged() {
        let (mut log, begin) = healthy();
        for ms in (0..10_000).step_by(100) {
            assert_eq!(observe(&mut log, begin + ms * MS, ms >= 900, None), None);
        }
    }

    #[test]
    fn an_outage_is_logged_again_after_a_while_and_when_a_more_specific_cause_is_known() {
        let (mut log, begin) = healthy();
        let mut said = Vec::new();
        for ms in (0..150_000).step_by(100) {
            let cause = if ms < 5_000 { Fault::Unreachable } else { Fault::Tls };
            said.extend(observe(&mut log, begin + ms * MS, false, Some(cause)));
        }
        let said: Vec<_> = said
            .iter()
            .map(|notice| match notice {
                OutageNotice::Lasting(after, cause) => (after.as_secs(), cause.as_ref().map(|cause| cause.fault)),
                OutageNotice::Over(_) => panic!("it is not over"),
            })
            .collect();
        let tls = Some(Fault::Tls);
        assert_eq!(said, [(1, Some(Fault::Unreachable)), (5, tls), (65, tls), (125, tls)]);
    }

    #[test]
    fn outages_in_a_row_are_not_announced_each_time() {
        let (mut log, begin) = healthy();
        let mut lines = 0;
        // Two seconds outage, two seconds well, for ten minutes.
        for ms in (0..600_000).step_by(100) {
            lines += usize::from(observe(&mut log, begin + ms * MS, ms / 2_000 % 2 == 1, None).is_some());
        }
        assert!(lines <= 16, "{lines} lines in ten minutes");
    }

    #[test]
    fn a_fault_from_elsewhere_is_logged_once() {
        let (mut log, now) = healthy();
        assert!(log.is_news(now, Fault::LostTail));
        assert!(!log.is_news(now + MS, Fault::LostTail));
        observe(&mut log, now + MS, true, None);
        assert_eq!(observe(&mut log, now + MS + RECOVERED_AFTER_MIN, true, None), Some(OutageNotice::Over(MS)));
        assert!(log.is_news(now + RECOVERED_AFTER_MAX, Fault::LostTail));
    }
}
