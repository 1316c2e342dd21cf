//! The circuit of a target: while nothing is answered, the target is asked now and then by one delivery alone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bitrix24::Installation;

use super::backoff::backoff;

/// Failures without a success in between that open the circuit: of as many installations, or as many deliveries that
/// did not reach the handler. One installation that the handler cannot take never opens it.
const FAILURES: usize = 5;
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A handler that answers is not spared for long: others may be waiting behind the installations that it cannot take.
const ANSWERED_PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Circuit(State);

#[derive(Debug)]
enum State {
    Closed {
        failed: BTreeSet<Installation>,
        unreached: usize,
    },
    /// Nothing is delivered until then.
    Open {
        until: Instant,
        times: u32,
    },
    /// One delivery is under way.
    Probing {
        times: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Closed,
    /// One delivery may try: it is told by [`Circuit::probe`].
    Probe,
    Open {
        until: Option<Instant>,
    },
}

impl Default for Circuit {
    fn default() -> Self {
        Self(closed())
    }
}

fn closed() -> State {
    State::Closed { failed: BTreeSet::new(), unreached: 0 }
}

impl Circuit {
    pub fn gate(&self, now: Instant) -> Gate {
        match &self.0 {
            State::Closed { .. } => Gate::Closed,
            State::Open { until, .. } if *until <= now => Gate::Probe,
            State::Open { until, .. } => Gate::Open { until: Some(*until) },
            State::Probing { .. } => Gate::Open { until: None },
        }
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.0, State::Closed { .. })
    }

    pub fn probe(&mut self) {
        if let State::Open { times, .. } = self.0 {
            self.0 = State::Probing { times };
        }
    }

    pub fn succeeded(&mut self) {
        self.0 = closed();
    }

    /// `pause` is what the handler asked for.
    pub fn failed(&mut self, of: &Installation, reached: bool, pause: Duration, now: Instant) {
        let times = match &mut self.0 {
            State::Closed { failed, unreached } => {
                if reached {
                    failed.insert(of.clone());
                } else {
                    *unreached += 1;
                }
                if failed.len() + *unreached < FAILURES {
                    return;
                }
                0
            }
            State::Probing { times } => times.saturating_add(1),
            // Of a delivery that began before.
            State::Open { .. } => return,
        };
        let most = if reached { ANSWERED_PAUSE_MAX } else { PAUSE_MAX };
        let until = now + backoff(times, 0, most).max(pause.min(PAUSE_MAX));
        self.0 = State::Open { until, times };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(number: usize) -> Installation {
        Installation::parse("crm-sync", &format!("m{number}")).expect("valid")
    }

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::default();
        (0..FAILURES).for_each(|number| circuit.failed(&installation(number), true, Duration::ZERO, now));
        circuit
    }

    #[test]
    fn one_installation_that_fails_for_ever_does_not_open_the_circuit_and_five_do() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        (0..100).for_each(|_| circuit.failed(&installation(1), true, Duration::ZERO, now));
        assert_eq!(circuit.gate(now), Gate::Closed);
        (2..5).for_each(|number| circuit.failed(&installation(number), true, Duration::ZERO, now));
        assert_eq!(circuit.gate(now), Gate::Closed);
        circuit.succeeded();
        circuit.failed(&installation(6), true, Duration::ZERO, now);
        assert_eq!(circuit.gate(now), Gate::Closed, "a success came between");
        assert!(matches!(opened(now).gate(now), Gate::Open { until: Some(_) }));
    }

    #[test]
    fn a_handler_that_is_not_there_opens_it_also_for_one_installation() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        (0..FAILURES).for_each(|_| circuit.failed(&installation(1), false, Duration::ZERO, now));
        assert!(!circuit.is_closed());
    }

    #[test]
    fn an_open_circuit_lets_one_probe_through_at_a_time_and_waits_longer_after_each() {
        let pauses_of = |reached: bool| {
            let mut now = Instant::now();
            let mut circuit = opened(now);
            let mut pauses = Vec::new();
            for _ in 0..10 {
                let Gate::Open { until: Some(until) } = circuit.gate(now) else { panic!("open: {circuit:?}") };
                pauses.push(until - now);
                now = until;
                assert_eq!(circuit.gate(now), Gate::Probe);
                circuit.probe();
                assert_eq!(circuit.gate(now), Gate::Open { until: None }, "one at a time");
                circuit.failed(&installation(9), reached, Duration::ZERO, now);
            }
            pauses
        };
        let pauses = pauses_of(false);
        assert!(pauses[0] <= Duration::from_secs(1) && pauses[9] > Duration::from_secs(20), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX), "{pauses:?}");
        let pauses = pauses_of(true);
        assert!(pauses.iter().all(|pause| *pause <= ANSWERED_PAUSE_MAX), "a handler that answers: {pauses:?}");
        let mut now = Instant::now();
        let mut circuit = opened(now);
        now += PAUSE_MAX;
        circuit.probe();
        circuit.succeeded();
        assert_eq!(circuit.gate(now), Gate::Closed);
    }

    #[test]
    fn the_pause_that_the_handler_asks_for_is_kept_up_to_a_limit() {
        let now = Instant::now();
        for (asked, kept) in [(30, 30), (10_000, 60)] {
            let mut circuit = opened(now);
            circuit.probe();
            circuit.failed(&installation(1), true, Duration::from_secs(asked), now);
            assert_eq!(circuit.gate(now), Gate::Open { until: Some(now + Duration::from_secs(kept)) });
        }
    }
}
