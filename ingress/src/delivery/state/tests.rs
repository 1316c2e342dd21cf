use super::Reported::{Failed, Kept, Refused};
use super::Role::{Append, Move, Retry, Send};
use super::{Reply, Rules};

mod schedules;
mod world;

use world::Step::{Connect, Done, Fail, Offer, Pass, Poll, Report};
use world::{World, rules};

/// Offers the next record and returns its number.
fn offer(world: &mut World) -> u64 {
    world.run(Offer);
    world.offered - 1
}

fn connected(rules: Rules) -> World {
    let mut world = World::new(rules, 0);
    world.run(Connect);
    world
}

fn is_direct(world: &World) -> bool {
    world.state.status(world.now).direct
}

#[test]
fn a_healthy_kafka_keeps_the_disk_out_of_it() {
    let mut world = connected(rules());
    for _ in 0..10 {
        offer(&mut world);
    }
    world.report_all();
    world.run(Pass(300));
    world.run(Poll(Append));
    assert!(!world.is_busy(Append));
    assert_eq!(world.replies.len(), 10);
    assert!(world.replies.values().all(|reply| *reply == Reply::Kafka));
}

#[test]
fn after_the_deadline_the_disk_answers_and_the_report_settles_the_entry() {
    let mut world = connected(rules());
    let number = offer(&mut world);
    world.run(Pass(299));
    world.work(Append, true);
    assert!(world.replies.is_empty());
    world.run(Pass(1));
    world.work(Append, true);
    assert_eq!(world.replies[&number], Reply::Disk);
    assert!(is_direct(&world), "the entry is already in flight, so no cursor is needed");
    world.drain();
    world.report_all();
    assert_eq!(world.kafka[&0], [(number, false)], "once");
    assert_eq!(world.delivered, [0].into());
}

#[test]
fn a_report_that_comes_while_the_disk_writes_answers_at_once_and_settles_the_entry_later() {
    let mut world = connected(rules());
    let number = offer(&mut world);
    world.run(Pass(300));
    world.run(Poll(Append));
    world.run(Report(Kept));
    assert_eq!(world.replies[&number], Reply::Kafka);
    world.run(Done(Append, true));
    assert_eq!(world.delivered, [0].into());
    assert!(is_direct(&world));
}

#[test]
fn a_report_that_comes_before_the_disk_begins_spares_it() {
    let mut world = connected(rules());
    offer(&mut world);
    world.run(Pass(300));
    world.run(Report(Kept));
    world.run(Poll(Append));
    assert!(!world.is_busy(Append));
    assert!(world.state.status(world.now).appends == 0);
}

#[test]
fn while_the_oldest_record_is_overdue_nobody_waits_for_the_deadline() {
    let mut world = connected(rules());
    offer(&mut world);
    world.run(Pass(301));
    let second = offer(&mut world);
    world.work(Append, true);
    assert_eq!(world.replies[&second], Reply::Disk);
    world.report_all();
    let third = offer(&mut world);
    world.report_all();
    assert_eq!(world.replies[&third], Reply::Kafka);
    assert_eq!(world.kafka.values().flatten().count(), 3);
}

#[test]
fn beyond_the_limit_records_are_on_disk_only_and_a_cursor_follows_in_order() {
    let mut world = connected(Rules { records_max: 3, ..rules() });
    for _ in 0..8 {
        offer(&mut world);
    }
    world.work(Append, true);
    assert_eq!(world.replies.len(), 5, "those beyond the limit");
    assert!(!is_direct(&world));
    while world.kafka.values().flatten().count() < 8 {
        world.report_all();
        world.drain();
    }
    assert_eq!(world.kafka[&0], [0, 2, 4, 6].map(|number| (number, false)));
    assert_eq!(world.kafka[&1], [1, 3, 5, 7].map(|number| (number, false)));
    assert_eq!(world.delivered.len(), 5);
    assert!(is_direct(&world));
}

#[test]
fn disk_first_answers_from_the_disk_and_hands_over_at_once() {
    let mut world = connected(Rules { disk_first: true, ..rules() });
    let number = offer(&mut world);
    world.run(Report(Kept));
    assert!(world.replies.is_empty(), "the disk replies, always");
    world.work(Append, true);
    assert_eq!(world.replies[&number], Reply::Disk);
    assert_eq!(world.delivered, [0].into());
}

#[test]
fn without_room_on_the_disk_the_report_is_awaited_but_not_for_ever() {
    let mut world = connected(rules());
    let (first, second) = (offer(&mut world), offer(&mut world));
    world.run(Pass(300));
    world.work(Append, false);
    world.run(Report(Kept));
    assert_eq!(world.replies[&first], Reply::Kafka);
    world.run(Pass(9_000));
    assert_eq!(world.replies.get(&second), None);
    world.run(Pass(1_000));
    assert_eq!(world.replies[&second], Reply::StorageUnavailable);
}

#[test]
fn when_the_producer_fails_a_disk_that_had_no_room_is_asked_again() {
    let mut world = connected(rules());
    let number = offer(&mut world);
    world.run(Pass(300));
    world.work(Append, false);
    assert!(world.replies.is_empty());
    world.run(Fail);
    world.work(Append, true);
    assert_eq!(world.replies[&number], Reply::Disk);
}

#[test]
fn without_kafka_and_without_room_storage_is_unavailable() {
    let mut world = World::new(rules(), 0);
    let number = offer(&mut world);
    world.work(Append, false);
    assert_eq!(world.replies[&number], Reply::StorageUnavailable);
}

#[test]
fn entries_of_an_earlier_run_go_first_and_say_that_they_may_be_second_copies() {
    let mut world = World::new(rules(), 2);
    let new = offer(&mut world);
    world.work(Append, true);
    assert_eq!(world.replies[&new], Reply::Disk, "Kafka was not reached yet");
    world.run(Connect);
    let newer = offer(&mut world);
    world.work(Append, true);
    assert_eq!(world.replies[&newer], Reply::Disk, "older ones go first");
    world.drain();
    world.report_all();
    assert_eq!(world.kafka[&0], [(1_000, true), (new, false)]);
    assert_eq!(world.kafka[&1], [(1_001, true), (newer, false)]);
}

#[test]
fn after_a_failure_all_that_waits_is_written_to_disk_and_handed_over_again() {
    let mut world = connected(rules());
    let sent = offer(&mut world);
    let behind = [offer(&mut world), offer(&mut world)];
    world.run(Report(Failed));
    world.work(Append, true);
    assert_eq!(world.replies.len(), 3, "no request waits for the new producer");
    assert!(!is_direct(&world));
    while !world.state.status(world.now).replaceable {
        world.run(Report(Failed));
    }
    world.work(Append, true);
    world.run(Connect);
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
    for step in [Offer, Poll(Send), Done(Send, false)] {
        world.play(step);
    }
    assert!(world.client.is_empty());
    world.run(Pass(20));
    world.report_all();
    assert_eq!(world.replies[&0], Reply::Kafka);
}

#[test]
fn an_entry_that_kafka_refuses_is_parked_and_does_not_block_the_rest() {
    let mut world = connected(rules());
    let (large, behind) = (offer(&mut world), offer(&mut world));
    world.run(Report(Refused));
    world.work(Append, true);
    assert_eq!(world.replies[&large], Reply::Disk, "it is kept, so it is answered 200");
    world.report_all();
    assert_eq!(world.replies[&behind], Reply::Kafka);
    let next = offer(&mut world);
    world.report_all();
    assert_eq!(world.replies[&next], Reply::Kafka, "others go on as if nothing had been");
    assert_eq!((world.state.status(world.now).parked, world.delivered.len()), (1, 0));

    world.work(Retry, true);
    world.run(Report(Refused));
    assert_eq!(world.state.status(world.now).parked, 1);
    world.work(Retry, true);
    world.report_all();
    assert_eq!((world.state.status(world.now).parked, world.delivered.len()), (0, 1));
    assert_eq!(world.kafka[&0], [(next, false), (large, false)], "late, but no second copy");
}

#[test]
fn a_parked_entry_is_moved_to_the_end_of_the_log_so_that_its_segment_can_go() {
    let mut world = connected(rules());
    offer(&mut world);
    world.run(Report(Refused));
    world.work(Append, true);
    world.work(Move, true);
    world.work(Retry, true);
    assert!(world.client.is_empty(), "it is on the move");
    world.work(Append, true);
    assert_eq!((world.state.status(world.now).parked, world.delivered.clone()), (1, [0].into()));
    assert!(is_direct(&world), "no request waits for it");
    world.work(Retry, true);
    world.report_all();
    assert_eq!((world.kafka[&0].len(), world.delivered.len()), (1, 2));
}

#[test]
fn a_refused_event_for_which_the_disk_has_no_room_is_answered_storage_unavailable() {
    let mut world = connected(rules());
    let number = offer(&mut world);
    world.run(Report(Refused));
    world.work(Append, false);
    assert_eq!(world.replies[&number], Reply::StorageUnavailable);
    assert_eq!(world.state.status(world.now).parked, 0);
}

#[test]
fn a_new_producer_is_tried_with_one_record_before_it_gets_more() {
    let mut world = connected(rules());
    for _ in 0..4 {
        offer(&mut world);
    }
    while !world.client.is_empty() {
        world.run(Report(Failed));
    }
    world.work(Append, true);
    world.run(Connect);
    world.drain();
    assert_eq!(world.client.len(), 1);
    assert!(!world.state.status(world.now).kafka_up && !is_direct(&world));
    world.run(Report(Failed));
    world.run(Connect);
    world.drain();
    assert_eq!(world.client.len(), 1, "the next one too");
    world.run(Report(Kept));
    world.drain();
    assert!(world.client.len() > 1, "what waited for the same partition goes at once");
    world.report_all();
    assert!(is_direct(&world));
    let flagged = world.kafka.values().flatten().filter(|(_, flagged)| *flagged).count();
    assert_eq!(flagged, 4, "all of them had been sent without an acknowledgement");
}

#[test]
fn only_what_was_handed_over_in_vain_is_marked_after_a_failure() {
    let mut world = connected(rules());
    let sent = offer(&mut world);
    world.run(Report(Failed));
    let during = [offer(&mut world), offer(&mut world)];
    world.work(Append, true);
    world.run(Connect);
    for _ in 0..3 {
        world.drain();
        world.report_all();
    }
    assert_eq!(world.kafka[&0], [(sent, true), (during[1], false)]);
    assert_eq!(world.kafka[&1], [(during[0], false)]);
}
