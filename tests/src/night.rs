//! A bad night: an ingress under load while something happens to its Kafka, and what has to be true in the morning.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::Names;
use crate::load::{Amount, Load, Outcome, send};
use crate::process::{Process, Program};
use crate::topics::Found;
use crate::verify::{nothing_acked_is_missing, order_per_portal_is_kept, raw_of};
use crate::wait::{eventually, report};
use portal_sim::player::Player;

/// How many portals send.
pub const PORTALS: u64 = 32;
const CONNECTIONS: usize = 8;
const PAUSE: Duration = Duration::from_millis(5);
/// Answered in each phase of a night.
pub const BETWEEN: u64 = 200;
/// Until a fault shows, or is over: a topic that is gone is recreated after 30 s, a refused event is tried every 30 s.
pub const SHOWS_WITHIN: Duration = Duration::from_secs(90);

/// An ingress under load while something happens to its Kafka.
pub struct Night {
    /// The ingress.
    pub ingress: Process,
    /// Where its topics and data are.
    pub names: Names,
    /// What is sent.
    pub load: Load,
    stopped: bool,
}

/// What is there when it is over.
pub struct Morning {
    /// The ingress is still there.
    pub night: Night,
    /// What was answered.
    pub outcome: Outcome,
    /// What lies in `raw`.
    pub raw: Vec<Found>,
}

impl Night {
    /// Begins well, with topics of its own.
    pub fn begin(servers: &str) -> Self {
        Self::begin_as(Names::new(servers), &[])
    }

    /// As [`Night::begin`], with these names and more settings.
    pub fn begin_as(names: Names, more: &[&str]) -> Self {
        let ingress = names.start(Program::Ingress, "ingress", more);
        ingress.ready();
        let night = Self { load: load(&ingress), names, ingress, stopped: false };
        night.goes_straight();
        night.load.goes_on(BETWEEN, SHOWS_WITHIN);
        night
    }

    /// People and metrics are told of this fault, while webhooks are answered.
    pub fn shows(&self, fault: &str) {
        eventually(SHOWS_WITHIN, &format!("{fault} is said"), || {
            (!self.ingress.lines("fault", fault).is_empty()).then_some(())
        });
        if fault != "silent" {
            let label = format!("kind=\"{fault}\"");
            assert!(self.metric("hookledger_kafka_errors_total", &label) >= 1.0, "{fault} is counted");
        }
        self.load.goes_on(BETWEEN, SHOWS_WITHIN);
    }

    /// New events go to Kafka, and nothing waits on the disk before them.
    pub fn goes_straight(&self) {
        let mut portal = Player::new("crm-sync", PORTALS + 1);
        eventually(SHOWS_WITHIN, "events go straight to Kafka", || {
            let up = self.metric("hookledger_kafka_up", "") > 0.5;
            // A connection that was quiet while Kafka was down would be closed by now.
            (up && send(&mut self.ingress.webhooks(), portal.next_webhook()).kept == "kafka").then_some(())
        });
    }

    /// It is over: all is as before, and what was answered 200 is in `raw`.
    pub fn is_over(mut self) -> Morning {
        self.goes_straight();
        eventually(SHOWS_WITHIN, "it is said that it is over", || {
            self.ingress.logs().contains("Kafka takes events again").then_some(())
        });
        let outcome = self.quiet();
        let raw = raw_of(&self.names, &outcome.acked);
        let doubled = nothing_acked_is_missing(&outcome.acked, &raw);
        report(&format!("Kafka faults: {} events, {doubled} of them twice", outcome.acked.len()));
        Morning { night: self, outcome, raw }
    }

    /// Ends the load: everything was answered, and answered 200.
    pub fn quiet(&mut self) -> Outcome {
        assert!(!std::mem::replace(&mut self.stopped, true));
        let none = Load::start(self.ingress.address("webhooks"), vec![], 0, Amount { each: 0, pause: PAUSE });
        let outcome = std::mem::replace(&mut self.load, none).stop();
        assert_eq!(outcome.refused, Vec::<String>::new(), "only 200s");
        assert_eq!((outcome.unanswered.len(), outcome.unsent), (0, 0), "all are answered");
        outcome
    }

    /// A metric's value; 0 if there is none yet.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        self.ingress.metric(name, label).unwrap_or(0.0)
    }

    /// How many events the disk kept.
    pub fn kept_on_disk(&self) -> f64 {
        self.metric("hookledger_ingress_events_total", "outcome=\"disk\"")
    }

    /// People were told of this fault so often, and there were few other loud lines.
    pub fn was_said(&self, fault: &str, times: usize) {
        let said = self.ingress.lines("fault", fault);
        assert_eq!(said.len(), times, "{fault} is said once: {said:#?}");
        let loud = [self.ingress.lines("level", "ERROR"), self.ingress.lines("level", "WARN")].concat();
        assert!(loud.len() <= times + 3, "people are not flooded: {loud:#?}");
    }
}

impl Morning {
    /// Everything is there once, in order, and nothing is marked.
    pub fn nothing_is_doubled(&self) {
        let ids: BTreeSet<_> = self.raw.iter().map(|record| record.header("ce_id")).collect();
        assert_eq!(ids.len(), self.raw.len(), "nothing is in raw twice");
        assert!(self.raw.iter().all(|record| record.header("hl_resent").is_none()), "and nothing is marked");
        order_per_portal_is_kept(&self.outcome.acked, &self.raw);
    }

    /// As [`Night::was_said`].
    pub fn was_said(&self, fault: &str, times: usize) {
        self.night.was_said(fault, times);
    }
}

fn load(ingress: &Process) -> Load {
    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    Load::start(ingress.address("webhooks"), portals, CONNECTIONS, Amount { each: usize::MAX, pause: PAUSE })
}
