//! Random schedules. One that fails is printed as an expression that a regression test can hold.

use std::collections::BTreeMap;
use std::fmt;

use proptest::prelude::*;

use super::super::Reported::{Failed, Kept, Refused};
use super::super::Role::{Append, Drain, Move, Retry, Send};
use super::super::{Reply, Rules};
use super::world::Step::{self, Connect, Done, Fail, LoseReport, Offer, Pass, Poll, Report};
use super::world::{World, partition, rules};

#[derive(Clone)]
struct Schedule {
    disk_first: bool,
    records_max: usize,
    /// Entries of an earlier run.
    earlier: u64,
    steps: Vec<Step>,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { disk_first, records_max, earlier, steps } = self;
        write!(
            f,
            "Schedule {{ disk_first: {disk_first}, records_max: {records_max}, earlier: {earlier}, steps: vec!{steps:?} }}"
        )
    }
}

impl Schedule {
    fn world(&self) -> World {
        let Self { disk_first, records_max, earlier, .. } = *self;
        World::new(Rules { disk_first, records_max, ..rules() }, earlier)
    }

    /// What was answered is in Kafka, and twice only if flagged.
    fn loses_nothing(&self) {
        let mut world = self.world();
        for step in &self.steps {
            world.play(*step);
        }
        world.heal();
        let mut seen: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        for (number, flagged) in world.kafka.values().flatten() {
            seen.entry(*number).or_default().push(*flagged);
        }
        for (number, copies) in &seen {
            assert!(copies.iter().skip(1).all(|flagged| *flagged), "{number}: {copies:?}");
        }
        assert_eq!(world.replies.len() as u64, world.offered, "every request is answered");
        for (number, reply) in &world.replies {
            assert!(*reply == Reply::StorageUnavailable || seen.contains_key(number), "{number} is missing");
        }
        assert_eq!(world.delivered.len() as u64, world.disk_end(), "every entry is delivered");
    }

    /// Nothing is in Kafka twice, and what was answered before a request came lies before it.
    fn keeps_order(&self) {
        let mut world = self.world();
        let mut before: BTreeMap<u64, Vec<u64>> = (0..self.earlier).map(|number| (1_000 + number, vec![])).collect();
        for step in &self.steps {
            if let Offer = step {
                let number = world.offered;
                let same = |other: &u64| partition(*other) == partition(number);
                let kept = world.replies.iter().filter(|(_, reply)| **reply != Reply::StorageUnavailable);
                before.insert(number, kept.map(|(other, _)| *other).filter(same).collect());
            }
            world.play(*step);
        }
        world.heal();
        for log in world.kafka.values() {
            let places: BTreeMap<u64, usize> = log.iter().enumerate().map(|(at, (number, _))| (*number, at)).collect();
            assert_eq!(places.len(), log.len(), "something is doubled");
            for (number, at) in &places {
                for earlier in &before[number] {
                    assert!(places[earlier] < *at, "{earlier} was answered before {number} came");
                }
            }
        }
    }
}

fn schedules(is_calm: bool) -> impl Strategy<Value = Schedule> {
    let faults =
        if is_calm { vec![Offer] } else { vec![Report(Refused), Report(Refused), Report(Failed), LoseReport, Fail] };
    let mostly = || prop::bool::weighted(0.9);
    let step = prop_oneof![
        8 => Just(Offer),
        3 => (0..400_u64).prop_map(Pass),
        6 => Just(Report(Kept)),
        3 => prop::sample::select(faults),
        2 => Just(Connect),
        8 => Just(Poll(Send)),
        8 => mostly().prop_map(|succeeds| Done(Send, succeeds)),
        4 => Just(Poll(Append)),
        4 => mostly().prop_map(|succeeds| Done(Append, succeeds)),
        5 => prop::sample::select(vec![Drain, Drain, Drain, Retry, Move]).prop_map(Poll),
        5 => mostly().prop_map(|succeeds| Done(Drain, succeeds)),
    ];
    let steps = prop::collection::vec(step, 0..300);
    (any::<bool>(), 1..20_usize, 0..5_u64, steps).prop_map(|(disk_first, records_max, earlier, steps)| Schedule {
        disk_first,
        records_max,
        earlier,
        steps,
    })
}

/// Pasted from a run in which `Appends::producer_failed` was broken.
#[test]
fn what_waits_for_the_disk_when_the_producer_fails_is_flagged() {
    let steps = vec![Connect, Offer, Poll(Send), Done(Send, true), LoseReport];
    Schedule { disk_first: true, records_max: 2, earlier: 0, steps }.loses_nothing();
}

proptest! {
    #[test]
    fn whatever_happens_what_was_answered_is_in_kafka_and_twice_only_if_flagged(schedule in schedules(false)) {
        schedule.loses_nothing();
    }

    #[test]
    fn without_failures_and_refusals_nothing_is_doubled_and_what_was_answered_first_lies_first(
        schedule in schedules(true),
    ) {
        schedule.keeps_order();
    }
}
