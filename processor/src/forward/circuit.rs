//! The circuit of a target: while it cannot be reached, one delivery alone tries now and then.
//!
//! What a handler answers never opens it: anyone can have portals that a handler does not take.

use std::time::{Duration, Instant};

use super::backoff::backoff;

/// Deliveries in a row that do not reach the handler, and open the circuit.
const FAILURES: usize = 5;
const PAUSE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Circuit(State);

#[derive(Debug)]
enum State {
    Closed {
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
        Self(State::Closed { unreached: 0 })
    }
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

    /// The handler got a request, whatever it answered.
    pub fn reached(&mut self) {
        *self = Self::default();
    }

    pub fn failed(&mut self, now: Instant) {
        let times = match &mut self.0 {
            State::Closed { unreached } => {
                *unreached += 1;
                if *unreached < FAILURES {
                    return;
                }
                0
            }
            State::Probing { times } => times.saturating_add(1),
            // Of a delivery that began before.
            State::Open { .. } => return,
        };
        self.0 = State::Open { until: now + backoff(times, 0, PAUSE_MAX), times };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::default();
        (0..FAILURES).for_each(|_| circuit.failed(now));
        circuit
    }

    #[test]
    fn a_handler_that_is_reached_in_between_keeps_it_closed() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        for _ in 0..100 {
            (1..FAILURES).for_each(|_| circuit.failed(now));
            circuit.reached();
        }
        assert_eq!(circuit.gate(now), Gate::Closed);
        assert!(matches!(opened(now).gate(now), Gate::Open { until: Some(_) }));
    }

    #[test]
    fn an_open_circuit_lets_one_probe_through_at_a_time_and_waits_longer_after_each() {
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
            circuit.failed(now);
        }
        assert!(pauses[0] <= Duration::from_secs(1) && pauses[9] > Duration::from_secs(20), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX), "{pauses:?}");
        now += PAUSE_MAX;
        circuit.probe();
        circuit.reached();
        assert_eq!(circuit.gate(now), Gate::Closed);
    }
}
