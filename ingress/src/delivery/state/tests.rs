use std::collections::{BTreeMap, BTreeSet, VecDeque};

use primitives::time::Timestamp;
use proptest::prelude::*;

use super::*;

const DEADLINE: Duration = Duration::from_millis(300);

/// Kafka and a disk around the state machine: both do what the test says, when it says so.
struct World {
    state: DeliveryState,
    now: Instant,
    partitions: u32,
    /// Passed to the client and not reported: ticket, partition, number of the record, whether flagged.
    client: VecDeque<(u64, u32, u64, bool)>,
    /// In Kafka, per partition.
    kafka: BTreeMap<u32, Vec<(u64, bool)>>,
    /// In the disk log, by offset.
    disk: BTreeMap<u64, (u64, bool)>,
    disk_end: u64,
    delivered: BTreeSet<u64>,
    writing: Option<Vec<(Arc<Record>, bool)>>,
    replies: BTreeMap<u64, Reply>,
    offered: u64,
}

impl World {
    fn new(rules: Rules) -> Self {
        Self::with_disk(rules, 0)
    }

    /// With entries of an earlier run, numbered from 1,000.
    fn with_disk(rules: Rules, entries: u64) -> Self {
        Self {
            state: DeliveryState::new(rules, 2, 0, entries),
            now: Instant::now(),
            partitions: 2,
            client: VecDeque::new(),
            kafka: BTreeMap::new(),
            disk: (0..entries).map(|offset| (offset, (1_000 + offset, false))).collect(),
            disk_end: entries,
            delivered: BTreeSet::new(),
            writing: None,
            replies: BTreeMap::new(),
            offered: 0,
        }
    }

    /// Offers the next record and returns its number.
    fn offer(&mut self) -> u64 {
        let number = self.offered;
        self.offered += 1;
        let waiter = waiter(number);
        let offer = Offer { waiter, partition: self.partition(number), record: record(number) };
        self.state.offer(self.now, offer);
        self.send(usize::MAX);
        number
    }

    fn partition(&self, number: u64) -> u32 {
        u32::try_from(number % u64::from(self.partitions)).expect("small")
    }

    /// Lets all batches that may go go; the client takes this many records of each.
    fn send(&mut self, taken_max: usize) {
        while let Some(Batch { partition, mut records }) = self.state.next_batch(self.now) {
            let refused = records.split_off(records.len().min(taken_max));
            let none = records.is_empty();
            for (ticket, record) in records {
                let flagged = record.header("hl_resent").is_some();
                self.client.push_back((ticket, partition, number_of(&record), flagged));
            }
            self.state.sent(partition, refused);
            if none {
                break;
            }
        }
    }

    fn report(&mut self, reported: Reported) {
        self.report_in_truth(reported, reported == Reported::Kept);
    }

    /// Kafka rejects the oldest record permanently.
    fn refuse(&mut self) {
        self.report_in_truth(Reported::Refused, false);
    }

    /// A parked entry is retried.
    fn retry_parked(&mut self) {
        if let Some((offset, resent)) = self.state.next_parked(self.now) {
            let (number, record) = self.entry(offset, resent);
            self.state.retry_parked(self.now, offset, self.partition(number), record);
            self.send(usize::MAX);
        }
    }

    /// The oldest parked entry is moved to the end of the disk log.
    fn move_to_end(&mut self) {
        if let Some((offset, resent)) = self.state.oldest_parked() {
            let (_, record) = self.entry(offset, resent);
            self.state.move_to_end(offset, resent, record);
        }
    }

    fn entry(&self, offset: u64, resent: bool) -> (u64, Arc<Record>) {
        let (number, flagged) = self.disk[&offset];
        (number, if resent || flagged { flagged_record(number) } else { record(number) })
    }

    /// Kafka says of the oldest record that it is kept, or that it is not known whether it is.
    fn report_in_truth(&mut self, reported: Reported, kept: bool) {
        let Some((ticket, partition, number, flagged)) = self.client.pop_front() else { return };
        if kept {
            self.kafka.entry(partition).or_default().push((number, flagged));
        }
        let mut effects = Effects::default();
        self.state.reported(self.now, ticket, reported, &mut effects);
        self.take(effects);
        self.send(usize::MAX);
    }

    fn report_all(&mut self) {
        while !self.client.is_empty() {
            self.report(Reported::Kept);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let mut effects = Effects::default();
        self.state.tick(self.now, &mut effects);
        self.take(effects);
        self.send(usize::MAX);
    }

    fn begin_append(&mut self) {
        if self.writing.is_none() {
            self.writing = self.state.next_append();
        }
    }

    fn end_append(&mut self, room: bool) {
        let Some(group) = self.writing.take() else { return };
        let mut effects = Effects::default();
        if room {
            let first = self.disk_end;
            for (record, resent) in group {
                let flagged = resent || record.header("hl_resent").is_some();
                self.disk.insert(self.disk_end, (number_of(&record), flagged));
                self.disk_end += 1;
            }
            self.state.appended(first, &mut effects);
        } else {
            self.state.not_appended(group, &mut effects);
        }
        self.take(effects);
    }

    fn append(&mut self, room: bool) {
        self.begin_append();
        self.end_append(room);
    }

    fn drain(&mut self) {
        while let Some((offset, _)) = self.state.drainable() {
            match self.state.wants(offset).filter(|_| !self.delivered.contains(&offset)) {
                None => self.state.pass(offset),
                Some(resent) => {
                    let (number, record) = self.entry(offset, resent);
                    self.state.drain(self.now, offset, self.partition(number), record);
                }
            }
        }
        self.send(usize::MAX);
    }

    fn renew(&mut self) {
        if self.state.is_empty_after_failure() {
            let first = (0..self.disk_end).find(|offset| !self.delivered.contains(offset));
            self.state.renewed(first.unwrap_or(self.disk_end));
        }
    }

    fn take(&mut self, effects: Effects) {
        for (waiter, reply) in effects.replies {
            let number = u64::from(waiter.slot);
            assert_eq!(self.replies.insert(number, reply), None, "{number} was answered twice");
            match reply {
                Reply::Kafka => assert!(self.is_in_kafka(number), "{number}"),
                Reply::Disk => assert!(self.disk.values().any(|(other, _)| *other == number), "{number}"),
                Reply::StorageUnavailable => {}
            }
        }
        for offset in effects.delivered {
            let number = self.disk[&offset].0;
            let elsewhere = self.disk.iter().any(|(other, (twin, _))| *other > offset && *twin == number);
            assert!(self.is_in_kafka(number) || elsewhere, "entry {offset} was delivered too early");
            self.delivered.insert(offset);
        }
    }

    fn is_in_kafka(&self, number: u64) -> bool {
        self.kafka.values().flatten().any(|(other, _)| *other == number)
    }

    /// What is in Kafka, partition after partition.
    fn in_kafka(&self) -> Vec<u64> {
        self.kafka.values().flatten().map(|(number, _)| *number).collect()
    }
}

fn rules() -> Rules {
    Rules {
        disk_first: false,
        deadline: DEADLINE,
        report_wait_max: Duration::from_secs(10),
        records_max: 20_000,
        bytes_max: 32 * 1024 * 1024,
        move_parked_above_bytes: 0,
    }
}

fn connected(rules: Rules) -> World {
    let mut world = World::new(rules);
    world.state.connected();
    world
}

fn waiter(number: u64) -> Waiter {
    Waiter { worker: 0, slot: u32::try_from(number).expect("small"), generation: 0 }
}

fn record(number: u64) -> Arc<Record> {
    Arc::new(Record { key: Some(number.to_string()), value: None, headers: vec![], at: Timestamp::default() })
}

fn flagged_record(number: u64) -> Arc<Record> {
    let headers = vec![("hl_resent".into(), b"1".to_vec())];
    Arc::new(Record { headers, ..(*record(number)).clone() })
}

fn number_of(record: &Record) -> u64 {
    record.key.as_ref().and_then(|key| key.parse().ok()).expect("a number")
}

#[test]
fn a_healthy_kafka_keeps_the_disk_out_of_it() {
    let mut world = connected(rules());
    for _ in 0..10 {
        world.offer();
    }
    world.report_all();
    world.pass(DEADLINE);
    world.begin_append();
    assert!(world.writing.is_none());
    assert_eq!(world.replies.len(), 10);
    assert!(world.replies.values().all(|reply| *reply == Reply::Kafka));
}

#[test]
fn after_the_deadline_the_disk_answers_and_the_report_settles_the_entry() {
    let mut world = connected(rules());
    let number = world.offer();
    world.pass(Duration::from_millis(299));
    world.append(true);
    assert!(world.replies.is_empty());
    world.pass(Duration::from_millis(1));
    world.append(true);
    assert_eq!(world.replies[&number], Reply::Disk);
    assert!(world.state.is_direct(), "the entry is already in flight, so no cursor is needed");
    world.drain();
    world.report_all();
    assert_eq!(world.in_kafka(), [number], "once");
    assert_eq!(world.delivered, [0].into());
}

#[test]
fn a_report_that_comes_while_the_disk_writes_answers_at_once_and_settles_the_entry_later() {
    let mut world = connected(rules());
    let number = world.offer();
    world.pass(DEADLINE);
    world.begin_append();
    world.report(Reported::Kept);
    assert_eq!(world.replies[&number], Reply::Kafka);
    world.end_append(true);
    assert_eq!(world.delivered, [0].into());
    assert!(world.state.is_direct());
}

#[test]
fn a_report_that_comes_before_the_disk_begins_spares_it() {
    let mut world = connected(rules());
    world.offer();
    world.pass(DEADLINE);
    world.report(Reported::Kept);
    world.begin_append();
    assert!(world.writing.is_none());
    assert!(world.state.nothing_to_write());
}

#[test]
fn while_the_oldest_record_is_overdue_nobody_waits_for_the_deadline() {
    let mut world = connected(rules());
    world.offer();
    world.pass(DEADLINE + Duration::from_millis(1));
    let second = world.offer();
    world.append(true);
    assert_eq!(world.replies[&second], Reply::Disk);
    world.report_all();
    let third = world.offer();
    world.report_all();
    assert_eq!(world.replies[&third], Reply::Kafka);
    assert_eq!(world.in_kafka().len(), 3);
}

#[test]
fn beyond_the_limit_records_are_on_disk_only_and_a_cursor_follows_in_order() {
    let mut world = connected(Rules { records_max: 3, ..rules() });
    for _ in 0..8 {
        world.offer();
    }
    world.append(true);
    assert_eq!(world.replies.len(), 5, "those beyond the limit");
    assert!(!world.state.is_direct());
    while world.in_kafka().len() < 8 {
        world.report_all();
        world.drain();
    }
    assert_eq!(world.kafka[&0], [0, 2, 4, 6].map(|number| (number, false)));
    assert_eq!(world.kafka[&1], [1, 3, 5, 7].map(|number| (number, false)));
    assert_eq!(world.delivered.len(), 5);
    assert!(world.state.is_direct());
}

#[test]
fn disk_first_answers_from_the_disk_and_hands_over_at_once() {
    let mut world = connected(Rules { disk_first: true, ..rules() });
    let number = world.offer();
    world.report(Reported::Kept);
    assert!(world.replies.is_empty(), "the disk replies, always");
    world.append(true);
    assert_eq!(world.replies[&number], Reply::Disk);
    assert_eq!(world.delivered, [0].into());
}

#[test]
fn without_room_on_the_disk_the_report_is_awaited_but_not_for_ever() {
    let mut world = connected(rules());
    let (first, second) = (world.offer(), world.offer());
    world.pass(DEADLINE);
    world.append(false);
    world.report(Reported::Kept);
    assert_eq!(world.replies[&first], Reply::Kafka);
    world.pass(Duration::from_secs(9));
    assert_eq!(world.replies.get(&second), None);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.replies[&second], Reply::StorageUnavailable);
}

#[test]
fn when_the_producer_fails_a_disk_that_had_no_room_is_asked_again() {
    let mut world = connected(rules());
    let number = world.offer();
    world.pass(DEADLINE);
    world.append(false);
    assert!(world.replies.is_empty());
    world.state.fail();
    world.append(true);
    assert_eq!(world.replies[&number], Reply::Disk);
}

#[test]
fn without_kafka_and_without_room_storage_is_unavailable() {
    let mut world = World::new(rules());
    let number = world.offer();
    world.append(false);
    assert_eq!(world.replies[&number], Reply::StorageUnavailable);
}

#[test]
fn entries_of_an_earlier_run_go_first_and_say_that_they_may_be_second_copies() {
    let mut world = World::with_disk(rules(), 2);
    let new = world.offer();
    world.append(true);
    assert_eq!(world.replies[&new], Reply::Disk, "Kafka was not reached yet");
    world.state.connected();
    let newer = world.offer();
    world.append(true);
    assert_eq!(world.replies[&newer], Reply::Disk, "older ones go first");
    world.drain();
    world.report_all();
    assert_eq!(world.kafka[&0], [(1_000, true), (new, false)]);
    assert_eq!(world.kafka[&1], [(1_001, true), (newer, false)]);
}

#[test]
fn after_a_failure_all_that_waits_is_written_to_disk_and_handed_over_again() {
    let mut world = connected(rules());
    let sent = world.offer();
    let behind = [world.offer(), world.offer()];
    world.report(Reported::Failed);
    world.append(true);
    assert_eq!(world.replies.len(), 3, "nobody waits for the new producer");
    assert!(!world.state.is_direct());
    while !world.state.is_empty_after_failure() {
        world.report(Reported::Failed);
    }
    world.append(true);
    world.renew();
    for _ in 0..2 {
        world.drain();
        world.report_all();
    }
    assert_eq!(world.kafka[&0], [(behind[1], true), (sent, true)], "unanswered requests have no order");
    assert_eq!(world.kafka[&1], [(behind[0], true)]);
}

#[test]
fn what_the_client_has_no_room_for_waits_for_the_next_turn() {
    let mut world = connected(rules());
    let offer = Offer { waiter: waiter(0), partition: 0, record: record(0) };
    world.offered = 1;
    world.state.offer(world.now, offer);
    world.send(0);
    assert!(world.client.is_empty());
    world.pass(Duration::from_millis(20));
    world.report_all();
    assert_eq!(world.replies[&0], Reply::Kafka);
}

#[test]
fn an_entry_that_kafka_refuses_is_parked_and_does_not_block_the_rest() {
    let mut world = connected(rules());
    let (large, behind) = (world.offer(), world.offer());
    world.refuse();
    world.append(true);
    assert_eq!(world.replies[&large], Reply::Disk, "it is kept, so it is answered 200");
    world.report_all();
    assert_eq!(world.replies[&behind], Reply::Kafka);
    let next = world.offer();
    world.report_all();
    assert_eq!(world.replies[&next], Reply::Kafka, "others go on as if nothing had been");
    assert_eq!((world.state.parked(), world.delivered.len()), (1, 0));

    world.retry_parked();
    world.refuse();
    assert_eq!(world.state.parked(), 1);
    world.retry_parked();
    world.report_all();
    assert_eq!((world.state.parked(), world.delivered.len()), (0, 1));
    assert_eq!(world.kafka[&0], [(next, false), (large, false)], "late, but no second copy");
}

#[test]
fn a_parked_entry_is_moved_to_the_end_of_the_log_so_that_its_segment_can_go() {
    let mut world = connected(rules());
    world.offer();
    world.refuse();
    world.append(true);
    world.move_to_end();
    world.retry_parked();
    assert!(world.client.is_empty(), "it is on the move");
    world.append(true);
    assert_eq!((world.state.parked(), world.delivered.clone()), (1, [0].into()));
    assert!(world.state.is_direct(), "nobody waits for it");
    world.retry_parked();
    world.report_all();
    assert_eq!((world.kafka[&0].len(), world.delivered.len()), (1, 2));
}

#[test]
fn a_refused_event_for_which_the_disk_has_no_room_is_answered_storage_unavailable() {
    let mut world = connected(rules());
    let number = world.offer();
    world.refuse();
    world.append(false);
    assert_eq!(world.replies[&number], Reply::StorageUnavailable);
    assert_eq!(world.state.parked(), 0);
}

#[test]
fn a_new_producer_is_tried_with_one_record_before_it_gets_more() {
    let mut world = connected(rules());
    for _ in 0..4 {
        world.offer();
    }
    while !world.client.is_empty() {
        world.report(Reported::Failed);
    }
    world.append(true);
    world.renew();
    world.drain();
    assert_eq!(world.client.len(), 1);
    assert!(world.state.on_probation() && !world.state.is_direct());
    world.report(Reported::Failed);
    world.renew();
    world.drain();
    assert_eq!(world.client.len(), 1, "the next one too");
    world.report(Reported::Kept);
    world.drain();
    assert!(world.client.len() > 1, "what waited for the same partition goes at once");
    world.report_all();
    assert!(world.state.is_direct());
    let flagged = world.kafka.values().flatten().filter(|(_, flagged)| *flagged).count();
    assert_eq!(flagged, 4, "all of them had been sent without an acknowledgement");
}

#[test]
fn only_what_was_handed_over_in_vain_is_marked_after_a_failure() {
    let mut world = connected(rules());
    let sent = world.offer();
    world.report(Reported::Failed);
    let during = [world.offer(), world.offer()];
    world.append(true);
    world.renew();
    for _ in 0..3 {
        world.drain();
        world.report_all();
    }
    assert_eq!(world.kafka[&0], [(sent, true), (during[1], false)]);
    assert_eq!(world.kafka[&1], [(during[0], false)]);
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Offer,
    Report,
    ReportFailure { although_kept: bool },
    Pass(u64),
    BeginAppend,
    EndAppend(bool),
    Drain,
    Renew,
    Refuse,
    TryRefused,
    Carry,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Offer),
        6 => Just(Step::Report),
        1 => any::<bool>().prop_map(|although_kept| Step::ReportFailure { although_kept }),
        3 => (0..400_u64).prop_map(Step::Pass),
        4 => Just(Step::BeginAppend),
        4 => prop::bool::weighted(0.9).prop_map(Step::EndAppend),
        3 => Just(Step::Drain),
        2 => Just(Step::Renew),
        2 => Just(Step::Refuse),
        1 => Just(Step::TryRefused),
        1 => Just(Step::Carry),
    ];
    prop::collection::vec(step, 0..200)
}

fn play(world: &mut World, step: Step) {
    match step {
        Step::Offer => drop(world.offer()),
        Step::Report => world.report(Reported::Kept),
        Step::ReportFailure { although_kept } => world.report_in_truth(Reported::Failed, although_kept),
        Step::Pass(ms) => world.pass(Duration::from_millis(ms)),
        Step::BeginAppend => world.begin_append(),
        Step::EndAppend(room) => world.end_append(room),
        Step::Drain => world.drain(),
        Step::Renew => world.renew(),
        Step::Refuse => world.refuse(),
        Step::TryRefused => world.retry_parked(),
        Step::Carry => world.move_to_end(),
    }
}

/// All faults end; everything that is possible happens.
fn heal(world: &mut World) {
    world.pass(DEADLINE);
    for _ in 0..1_000 {
        world.end_append(true);
        world.append(true);
        world.report_all();
        world.renew();
        world.drain();
        world.retry_parked();
    }
}

proptest! {
    #[test]
    fn whatever_happens_what_was_answered_is_in_kafka_and_twice_only_if_flagged(
        steps in steps(), records_max in 1..20_usize, disk_first: bool, earlier in 0..5_u64,
    ) {
        let mut world = World::with_disk(Rules { disk_first, records_max, ..rules() }, earlier);
        world.state.connected();
        for step in steps {
            play(&mut world, step);
        }
        heal(&mut world);

        let mut seen: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        for (number, flagged) in world.kafka.values().flatten() {
            seen.entry(*number).or_default().push(*flagged);
        }
        for (number, copies) in &seen {
            prop_assert!(copies.iter().skip(1).all(|flagged| *flagged), "{number}: {copies:?}");
        }
        prop_assert_eq!(world.replies.len() as u64, world.offered, "everybody is answered");
        for (number, reply) in &world.replies {
            prop_assert!(*reply == Reply::StorageUnavailable || seen.contains_key(number), "{} is missing", number);
        }
        prop_assert_eq!(world.delivered.len() as u64, world.disk_end, "every entry is delivered");
        prop_assert!(world.state.is_direct());
    }

    #[test]
    fn without_failures_and_refusals_nothing_is_doubled_and_what_was_answered_first_lies_first(
        steps in steps(), records_max in 1..20_usize, disk_first: bool,
    ) {
        let mut world = connected(Rules { disk_first, records_max, ..rules() });
        // For each record those of its partition that had been answered when it came.
        let mut before: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for step in steps.into_iter().filter(|step| !matches!(step, Step::ReportFailure { .. } | Step::Refuse)) {
            if let Step::Offer = step {
                let number = world.offered;
                let same = |other: &u64| world.partition(*other) == world.partition(number);
                let kept = world.replies.iter().filter(|(_, reply)| **reply != Reply::StorageUnavailable);
                before.insert(number, kept.map(|(other, _)| *other).filter(same).collect());
            }
            play(&mut world, step);
        }
        heal(&mut world);
        for log in world.kafka.values() {
            let places: BTreeMap<u64, usize> = log.iter().enumerate().map(|(at, (number, _))| (*number, at)).collect();
            prop_assert_eq!(places.len(), log.len(), "something is doubled");
            for (number, at) in &places {
                for earlier in &before[number] {
                    prop_assert!(places[earlier] < *at, "{} was answered before {} came", earlier, number);
                }
            }
        }
    }
}
