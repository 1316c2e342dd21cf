//! A log in memory, a handler as a function, and time as a number.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use event_log::EventId;
use proptest::prelude::*;

use super::*;
use crate::forward::lane::{QUEUE_MAX, Room};

const LANE: LaneKey = LaneKey { source: Source::Events, partition: 0 };
const LIMITS: Limits = Limits { parallel: 4, park_after: Duration::from_secs(60) };

/// The log: at each offset the number of an installation.
struct World {
    log: Vec<usize>,
    schedule: Schedule,
    began: Instant,
    now: Duration,
    /// The offsets that were accepted, by installation and in order.
    accepted: BTreeMap<usize, Vec<u64>>,
    body: usize,
    lost: BTreeSet<u64>,
}

fn installation(number: usize) -> Installation {
    Installation::parse("crm-sync", &format!("m{number}")).expect("valid")
}

fn number_of(installation: &Installation) -> usize {
    installation.member_id.as_str()[1..].parse().expect("a number")
}

fn id(offset: u64) -> EventId {
    EventId::from_u128(offset.into())
}

impl World {
    fn new(log: Vec<usize>) -> Self {
        let mut schedule = Schedule::new(LIMITS);
        schedule.resume(LANE, &Watermark::default(), []);
        let (began, now) = (Instant::now(), Duration::ZERO);
        Self { log, schedule, began, now, accepted: BTreeMap::new(), body: 10, lost: BTreeSet::new() }
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_s(1_000_000).plus(self.now)
    }

    fn instant(&self) -> Instant {
        self.began + self.now
    }

    fn event(&self, offset: u64) -> Event {
        let request = Request {
            received_at: self.at(),
            body: Bytes::from(vec![0; self.body]),
            content_type: None,
            query: None,
            compression: None,
        };
        Event {
            installation: installation(self.log[usize::try_from(offset).expect("small")]),
            head: Head { offset, id: id(offset), kind: "onapptest".into(), received_at: self.at() },
            request: (!self.lost.contains(&offset)).then(|| Arc::new(request)),
        }
    }

    /// What the reader's thread does, with small calls.
    fn read(&mut self) {
        let end = self.log.len() as u64;
        if self.schedule.may_read(LANE) {
            let (from, Room { events, .. }) = {
                let lane = self.schedule.lane(LANE).expect("owned");
                (lane.next, lane.room().expect("room"))
            };
            let until = end.min(from + 50.min(events as u64));
            let events = (from..until).map(|offset| self.event(offset)).collect();
            self.schedule.read(LANE, events, until);
        }
        let places = self.schedule.loading_places(LANE);
        let Some(from) = places.values().min().copied() else { return };
        let next = self.schedule.lane(LANE).expect("owned").next;
        let (mut until, mut counts, mut events) = (next.min(from + 70), BTreeMap::new(), Vec::new());
        for offset in from..until {
            let event = self.event(offset);
            if places.get(&event.installation).is_none_or(|place| *place > offset) {
                continue;
            }
            let count: &mut usize = counts.entry(event.installation.clone()).or_default();
            if *count == QUEUE_MAX {
                until = offset;
                break;
            }
            *count += 1;
            events.push(event);
        }
        self.schedule.loaded(LANE, &places, until, events);
    }

    fn finish(&mut self, delivery: &Delivery, outcome: Outcome) -> Became {
        if outcome == Outcome::Delivered {
            let number = number_of(&delivery.installation);
            self.accepted.entry(number).or_default().push(delivery.head.offset);
        }
        let (now, at) = (self.instant(), self.at());
        self.schedule.finished(delivery, outcome, now, at)
    }

    /// Delivers all that may be delivered now.
    fn deliver(&mut self, handler: &mut impl FnMut(&Delivery) -> Outcome) {
        self.read();
        while let Some(delivery) = self.schedule.take(self.instant()) {
            let outcome = handler(&delivery);
            self.finish(&delivery, outcome);
        }
    }

    fn run(&mut self, seconds: u64, mut handler: impl FnMut(&Delivery) -> Outcome) {
        let until = self.now + Duration::from_secs(seconds);
        while self.now < until {
            self.deliver(&mut handler);
            self.now += Duration::from_millis(100);
        }
    }

    /// The process is killed, and another one goes on from what was saved.
    fn take_over(&mut self) {
        let (watermark, places) = self.schedule.snapshot(LANE).expect("owned");
        self.schedule = Schedule::new(LIMITS);
        self.schedule.resume(LANE, &watermark, places);
    }

    /// The handler takes an event of another partition.
    fn takes_another(&mut self) {
        self.schedule.delivered_at = Some(self.at());
    }

    fn expected(&self, of: usize) -> Vec<u64> {
        (0..).zip(&self.log).filter(|(_, number)| **number == of).map(|(offset, _)| offset).collect()
    }

    /// Without the second deliveries after a take-over.
    fn first_accepted(&self, of: usize) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        let accepted = self.accepted.get(&of).into_iter().flatten().copied();
        accepted.filter(|offset| seen.insert(*offset)).collect()
    }

    fn is_whole_for(&self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            assert_eq!(self.first_accepted(number), self.expected(number), "installation {number}");
        }
    }
}

const FAILED: Outcome = Outcome::Failed(Failure::Status(500), None);

#[test]
fn a_sick_installation_with_all_events_of_the_window_holds_up_no_other() {
    // Far more than the window takes of installation 0, and one of each other behind them.
    let mut world = World::new([vec![0; 5_000], (1..20).collect()].concat());
    world.run(20, |delivery| if number_of(&delivery.installation) == 0 { FAILED } else { Outcome::Delivered });
    world.is_whole_for(1..20);
    let (watermark, places) = world.schedule.snapshot(LANE).expect("owned");
    assert_eq!(watermark.next, 5_019, "its place is apart");
    assert_eq!((places.len(), places[&installation(0)].next), (1, 0));
    world.run(700, |_| Outcome::Delivered);
    world.is_whole_for(0..20);
    assert_eq!(world.accepted[&0].len(), 5_000, "each once");
}

#[test]
fn a_target_that_takes_nothing_fills_the_window_and_no_more() {
    let mut world = World::new((0..10_000).map(|offset| offset % 500).collect());
    let mut tries = 0;
    world.run(300, |_| {
        tries += 1;
        Outcome::Failed(Failure::Unreachable, None)
    });
    let lane = world.schedule.lane(LANE).expect("owned");
    assert!(lane.next <= 1_000, "{} of 10000 were read", lane.next);
    assert!((10..60).contains(&tries), "{tries} attempts in five minutes");
    assert_eq!(world.schedule.parked(), 0, "no event is the reason");
    let (watermark, places) = world.schedule.snapshot(LANE).expect("owned");
    assert!(watermark.next <= 20 && places.len() < 60, "{watermark:?} {}", places.len());
    world.run(400, |_| Outcome::Delivered);
    world.is_whole_for(0..500);
}

#[test]
fn bodies_are_bounded_too() {
    let mut world = World::new((0..5_000).map(|offset| offset % 100).collect());
    world.body = 500 * 1024;
    world.run(10, |_| Outcome::Failed(Failure::Unreachable, None));
    assert!(world.schedule.lane(LANE).expect("owned").next <= 100);
}

#[test]
fn an_event_is_parked_and_waits_for_an_operator_and_those_behind_it_wait_too() {
    let mut world = World::new(vec![0, 1, 0, 1, 0]);
    let sick = |delivery: &Delivery| if delivery.head.offset == 0 { FAILED } else { Outcome::Delivered };
    world.run(200, sick);
    world.is_whole_for([1]);
    assert_eq!((world.schedule.parked(), world.accepted.get(&0)), (1, None));
    assert_eq!(world.schedule.oldest(), None, "it counts as decided upon");
    let parked = world.schedule.snapshot(LANE).expect("owned").1[&installation(0)].clone();
    assert_eq!((parked.event.expect("known").id, parked.tries.failure), (id(0), Some(Failure::Status(500))));
    world.take_over();
    world.run(100, |_| Outcome::Delivered);
    assert_eq!((world.schedule.parked(), world.accepted.get(&0)), (1, None), "still, after a take-over");

    let order = |offset, action| Order { id: id(offset), action };
    let sick_one = installation(0);
    assert_eq!(world.schedule.obey(LANE, &sick_one, order(2, Action::Skip)), Obeyed::Unknown, "another event");
    assert_eq!(world.schedule.obey(LANE, &installation(7), order(0, Action::Skip)), Obeyed::Unknown);
    assert_eq!(world.schedule.obey(LANE, &sick_one, order(0, Action::Retry)), Obeyed::Done);
    world.run(10, sick);
    world.takes_another();
    world.run(200, sick);
    assert_eq!(world.schedule.parked(), 1, "parked again");
    assert_eq!(world.schedule.obey(LANE, &sick_one, order(0, Action::Skip)), Obeyed::Done);
    world.run(10, sick);
    assert_eq!(world.accepted[&0], [2, 4]);
    assert_eq!(world.schedule.parked(), 0);
}

#[test]
fn many_sick_installations_hold_up_no_other() {
    // With more events than the window takes, and all before those of the others.
    let sick = (0..10_000).map(|offset| offset % 500).collect();
    let mut world = World::new([sick, (500..540).collect::<Vec<_>>()].concat());
    world.run(60, |delivery| if number_of(&delivery.installation) < 500 { FAILED } else { Outcome::Delivered });
    world.is_whole_for(500..540);
}

#[test]
fn nothing_is_parked_while_the_handler_takes_nothing() {
    let mut world = World::new(vec![0, 1, 2, 3]);
    world.run(600, |_| FAILED);
    assert_eq!(world.schedule.parked(), 0);
    world.takes_another();
    world.run(600, |_| FAILED);
    assert_eq!(world.schedule.parked(), 4);
}

#[test]
fn no_event_is_parked_because_the_process_was_away() {
    let mut world = World::new(vec![0]);
    let mut attempts = 0;
    world.deliver(&mut |_| FAILED);
    world.now += Duration::from_secs(3_600);
    world.take_over();
    world.run(1, |_| {
        attempts += 1;
        FAILED
    });
    assert_eq!((attempts, world.schedule.parked()), (1, 0));
    world.takes_another();
    world.run(5, |_| FAILED);
    assert_eq!(world.schedule.parked(), 1, "after the third attempt");
}

#[test]
fn an_operator_decides_about_an_event_that_waits_for_its_next_attempt() {
    let mut world = World::new(vec![0, 0, 0]);
    let mut attempts = Vec::new();
    world.run(30, |delivery| {
        attempts.push(delivery.attempt);
        if delivery.head.offset < 2 { FAILED } else { Outcome::Delivered }
    });
    assert!(
        (4..8).contains(&attempts.len()) && attempts == (1..).take(attempts.len()).collect::<Vec<_>>(),
        "{attempts:?}"
    );
    let order = |offset, action| Order { id: id(offset), action };
    assert_eq!(world.schedule.obey(LANE, &installation(0), order(0, Action::Skip)), Obeyed::Done);
    let delivery = world.schedule.take(world.instant()).expect("the next one at once");
    assert_eq!((delivery.head.offset, delivery.attempt), (1, 1));
    assert_eq!(world.schedule.obey(LANE, &installation(0), order(1, Action::Skip)), Obeyed::NotNow);
    world.finish(&delivery, FAILED);
    assert_eq!(world.schedule.obey(LANE, &installation(0), order(1, Action::Retry)), Obeyed::Done);
    world.run(1, |_| Outcome::Delivered);
    assert_eq!(world.accepted[&0], [1, 2]);
}

#[test]
fn a_pause_that_the_handler_asks_for_is_kept() {
    let mut world = World::new(vec![0, 0]);
    let mut times = Vec::new();
    let began = world.now;
    let pause = Some(Duration::from_secs(50));
    let delivery = {
        world.read();
        world.schedule.take(world.instant()).expect("one")
    };
    world.finish(&delivery, Outcome::Failed(Failure::Status(429), pause));
    while times.is_empty() {
        world.now += Duration::from_secs(1);
        let now = world.now;
        world.deliver(&mut |_| {
            times.push(now);
            Outcome::Delivered
        });
    }
    assert_eq!(times[0], began + Duration::from_secs(50));
}

#[test]
fn failing_events_leave_places_for_the_others() {
    let mut world = World::new((0..100).collect());
    world.read();
    // Everything up to 10 fails once, with successes between, so that the circuit stays closed.
    let mut held = Vec::new();
    for _ in 0..20 {
        let delivery = world.schedule.take(world.instant()).expect("one");
        let outcome = if delivery.head.offset.is_multiple_of(2) { FAILED } else { Outcome::Delivered };
        world.finish(&delivery, outcome);
    }
    world.now += Duration::from_secs(5);
    while let Some(delivery) = world.schedule.take(world.instant()) {
        held.push(delivery.attempt);
    }
    held.sort_unstable();
    assert_eq!(held, [1, 1, 2, 2], "half of the places");
}

#[test]
fn events_that_raw_has_lost_are_counted_and_the_rest_goes_on() {
    let mut world = World::new(vec![0, 1, 0, 1, 0]);
    world.lost = BTreeSet::from([0, 3]);
    world.run(1, |_| Outcome::Delivered);
    assert_eq!((&world.accepted[&0][..], &world.accepted[&1][..]), (&[2, 4][..], &[1][..]));
    let (watermark, _) = world.schedule.snapshot(LANE).expect("owned");
    assert_eq!((watermark.lost, watermark.last_lost, watermark.next), (2, Some(id(3)), 5));
}

#[test]
fn nothing_is_begun_of_a_partition_that_was_revoked_and_what_is_under_way_changes_nothing() {
    let mut world = World::new(vec![0, 0, 1]);
    world.read();
    let before = world.schedule.take(world.instant()).expect("one");
    world.schedule.revoke(LANE);
    assert!(world.schedule.take(world.instant()).is_none());
    world.schedule.resume(LANE, &Watermark::default(), []);
    world.read();
    let now = world.schedule.take(world.instant()).expect("the same event");
    assert_eq!(now.head, before.head);
    assert_eq!(world.finish(&before, Outcome::Delivered), Became::Revoked);
    assert_eq!(world.schedule.take(world.instant()).expect("another one").installation, installation(1));
    assert!(world.schedule.take(world.instant()).is_none(), "the second event waits for the first");
    assert_eq!(world.finish(&now, Outcome::Delivered), Became::Delivered);
    assert_eq!(world.schedule.take(world.instant()).expect("the second").head.offset, 1);
}

proptest! {
    /// Whatever fails, and however often another process takes over: in order, and none is left out.
    #[test]
    fn every_event_is_delivered_in_order(
        log in prop::collection::vec(0_usize..12, 1..400),
        failures in prop::collection::vec(0_u8..10, 40),
        take_overs in prop::collection::vec(1_u64..20, 0..6),
    ) {
        let mut world = World::new(log);
        let mut call = 0;
        let mut handler = |delivery: &Delivery| {
            call += 1;
            match failures[call % failures.len()] {
                0 if delivery.attempt < 4 => FAILED,
                1 if delivery.attempt < 3 => Outcome::Failed(Failure::Unreachable, None),
                2 if delivery.attempt < 2 => Outcome::Failed(Failure::Timeout, Some(Duration::from_secs(3))),
                _ => Outcome::Delivered,
            }
        };
        for seconds in take_overs {
            world.run(seconds, &mut handler);
            world.take_over();
        }
        world.run(600, &mut handler);
        world.run(600, |_| Outcome::Delivered);
        world.is_whole_for(0..12);
        let (watermark, places) = world.schedule.snapshot(LANE).expect("owned");
        prop_assert_eq!((watermark.next, places.len()), (world.log.len() as u64, 0));
    }
}
