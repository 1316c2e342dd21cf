//! Kafka as logs, against a real broker; those that only need a producer use librdkafka's mock cluster.
//!
//! Every test has topics and a group of its own, so that all share one broker, but for those that break it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_log::contract::{Retention, Topic};
use event_log::{Entry, EventLog, EventLogError, FactOffsets, LogEvent, LogReader, Output, Position, Record};
use kafka_log::{Batches, Fault, FaultScope, KafkaEventLog, RawProducer, ReportError, Reports, SendError};
use primitives::time::Timestamp;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Offset};
use runtime::lifecycle::Stop;
use runtime::settings::KafkaSettings;
use tests::proxy::{Language, Proxy};
use tests::topics::Isolation;
use uuid::Uuid;

/// Long enough for two sessions and a broker that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

// Topics

#[test]
fn missing_topics_are_created_even_by_three_at_once() {
    let Some(world) = World::real("missing_topics_are_created_even_by_three_at_once") else { return };
    let settings = &world.settings;
    thread::scope(|scope| {
        let tries: Vec<_> = (0..3).map(|_| scope.spawn(|| producer(settings).1.connect(PATIENCE))).collect();
        for tried in tries {
            tried.join().expect("no panic").expect("connects");
        }
    });
    assert_eq!(world.setting(Topic::Facts, "cleanup.policy"), "compact");
    assert_eq!(world.setting(Topic::Installations, "cleanup.policy"), "compact");
    assert_eq!(world.setting(Topic::Permissions, "cleanup.policy"), "compact,delete");
    assert_eq!(world.setting(Topic::Raw, "cleanup.policy"), "delete");
    assert_eq!(world.setting(Topic::Raw, "retention.ms"), "1209600000");
    assert_eq!(world.setting(Topic::Raw, "max.message.bytes"), "2097152");
}

#[test]
fn topics_that_would_break_a_promise_are_refused_by_name() {
    let name = "topics_that_would_break_a_promise_are_refused_by_name";
    let cases: [(Topic, i32, &str, &str); 5] = [
        (Topic::Events, 5, "delete", "has 5 partitions where partitions is 2"),
        (Topic::Facts, 2, "delete", "has cleanup.policy=delete"),
        (Topic::Facts, 2, "compact,delete", "has cleanup.policy=compact,delete"),
        (Topic::Installations, 2, "delete", "has cleanup.policy=delete"),
        (Topic::Raw, 2, "compact", "is compacted"),
    ];
    for (topic, partitions, policy, wrong) in cases {
        let Some(world) = World::real(name) else { return };
        world.create(topic, partitions, policy);
        let error = world.producer().1.connect(PATIENCE).expect_err("refused");
        assert!(RawProducer::needs_a_person(&error));
        let wanted = format!("topic {} {wrong}", world.settings.topic(topic));
        assert!(error.to_string().starts_with(&wanted), "{error}");
        let error = world.try_open("a").err().expect("refused");
        let is_refused = match &error {
            EventLogError::Fatal(reason) => partitions == 2 && reason.starts_with(&wanted),
            EventLogError::Partitions(reason) => partitions != 2 && reason.starts_with(&wanted),
            EventLogError::Reopen(_) | EventLogError::Fenced(_) | EventLogError::TooLarge(_) => false,
        };
        assert!(is_refused, "{error}");
    }
}

#[test]
fn a_broker_that_is_not_there_is_an_error_after_the_wait_and_no_fault_of_the_topics() {
    let (_, producer) = World::on("127.0.0.1:1").producer();
    let error = producer.connect(Duration::from_millis(200)).expect_err("no broker");
    assert!(!RawProducer::needs_a_person(&error), "{error}");
}

// Producer

#[test]
fn every_record_is_reported_once_and_read_back_as_it_was() {
    let Some(world) = World::real("every_record_is_reported_once_and_read_back_as_it_was") else { return };
    let (heard, producer) = world.producer();
    producer.connect(PATIENCE).expect("connects");
    for ticket in 0..1_000 {
        let partition = u32::try_from(ticket % 2).expect("small");
        assert_eq!(producer.send(partition, &record(&format!("{ticket}")), ticket), Ok(()));
    }
    assert!(producer.flush(PATIENCE));
    assert_eq!((producer.in_flight(), producer.fatal()), (0, None));
    let heard = heard.0.lock().expect("no panic");
    assert_eq!(heard.len(), 1_000);
    assert!(heard.iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(heard.iter().map(|(ticket, _)| *ticket).collect::<BTreeSet<_>>(), (0..1_000).collect());

    let mut event_log = world.open("a");
    for partition in 0..2 {
        let asked = Instant::now();
        let read = read(&mut event_log, Topic::Raw, partition, 0);
        println!("500 records were read in {:?}", asked.elapsed());
        let wanted: Vec<_> = (0..1_000).filter(|n| n % 2 == partition).map(|n| record(&n.to_string())).collect();
        assert_eq!(read.into_iter().map(|entry| entry.record).collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn a_record_that_can_never_go_is_fatal_with_its_reason() {
    let Some(world) = World::real("a_record_that_can_never_go_is_fatal_with_its_reason") else { return };
    let (_, producer) = world.producer();
    producer.connect(PATIENCE).expect("connects");
    assert_eq!(producer.send(99, &record("x"), 1), Err(SendError::Fatal));
    assert!(producer.fatal().is_some_and(|(_, reason)| reason.contains("Unknown partition")), "{:?}", producer.fatal());
    assert_eq!(producer.in_flight(), 0);
}

#[test]
fn records_left_behind_are_reported_as_errors() {
    let world = World::on("127.0.0.1:1");
    let (heard, producer) = world.producer();
    assert_eq!(producer.send(0, &record("x"), 7), Ok(()));
    assert!(!producer.flush(Duration::from_millis(50)));
    assert_eq!(producer.in_flight(), 1);
    drop(producer);
    let heard = heard.0.lock().expect("no panic");
    assert!(matches!(heard.as_slice(), [(7, Err(_))]), "{heard:?}");
}

#[test]
fn errors_that_pass_are_never_reported_and_change_no_order() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    let world = World::on(&mock.bootstrap_servers());
    let topic = world.settings.topic(Topic::Raw);
    mock.create_topic(&topic, 2, 1).expect("creates");
    let passing = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ];
    mock.request_errors(RDKafkaApiKey::Produce, &passing);
    let (heard, producer) = world.producer();
    for ticket in 0..100 {
        assert_eq!(producer.send(0, &record(&ticket.to_string()), ticket), Ok(()));
    }
    assert!(producer.flush(PATIENCE));
    let heard = heard.0.lock().expect("no panic");
    let tickets: Vec<_> = heard.iter().map(|(ticket, outcome)| (*ticket, outcome.is_ok())).collect();
    assert_eq!(tickets, (0..100).map(|ticket| (ticket, true)).collect::<Vec<_>>());
    assert_eq!(producer.fatal(), None);
}

#[test]
fn a_broker_that_lost_the_end_of_its_log_makes_the_producer_fatal() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    let world = World::on(&mock.bootstrap_servers());
    mock.create_topic(&world.settings.topic(Topic::Raw), 2, 1).expect("creates");
    mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let (heard, producer) = world.producer();
    assert_eq!(producer.send(0, &record("x"), 1), Ok(()));
    assert!(producer.flush(PATIENCE));
    assert!(matches!(heard.0.lock().expect("no panic").as_slice(), [(1, Err(_))]));
    assert!(producer.fatal().is_some());
    assert_eq!(producer.send(0, &record("y"), 2), Err(SendError::Fatal));
}

#[test]
fn a_refusal_of_the_cluster_is_told_as_what_it_is() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    let world = World::on(&mock.bootstrap_servers());
    mock.create_topic(&world.settings.topic(Topic::Raw), 2, 1).expect("creates");
    for (error, fault) in [
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, Fault::Authorization),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Fault::Authorization),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD, Fault::Other),
    ] {
        mock.request_errors(RDKafkaApiKey::Produce, &[error]);
        let (heard, producer) = world.producer();
        assert_eq!(producer.send(0, &record("x"), 1), Ok(()));
        assert!(producer.flush(PATIENCE));
        let heard = heard.0.lock().expect("no panic");
        let [(1, Err(error))] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!((error.fault, error.scope), (fault, FaultScope::Producer), "{error}");
    }
}

#[test]
fn a_batch_that_is_too_large_blames_a_record_only_if_that_is_to_blame() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    let world = World::on(&mock.bootstrap_servers());
    mock.create_topic(&world.settings.topic(Topic::Raw), 2, 1).expect("creates");
    let blamed = |batches: Batches, bytes: usize| {
        mock.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        let heard = Arc::new(Heard::default());
        let producer = RawProducer::with(&world.settings, heard.clone(), &Arc::default(), batches).expect("a producer");
        assert_eq!(producer.send(0, &record(&"x".repeat(bytes)), 1), Ok(()));
        assert_eq!(producer.send(0, &record("behind it"), 2), Ok(()));
        assert!(producer.flush(PATIENCE));
        let heard = heard.0.lock().expect("no panic");
        let (_, outcome) = heard.iter().find(|(ticket, _)| *ticket == 1).expect("is reported");
        let error = outcome.clone().expect_err("too large");
        assert_eq!(error.fault, Fault::TooLarge);
        (error.scope, producer.fatal().is_some())
    };
    assert_eq!(blamed(Batches::Usual, 9_000), (FaultScope::Producer, false), "the limit is not known");
    assert_eq!(blamed(Batches::UpTo(10_000), 100), (FaultScope::Producer, false), "the record is smaller");
    assert_eq!(blamed(Batches::UpTo(4_000), 9_000), (FaultScope::Record, false));
    assert_eq!(blamed(Batches::Alone, 100), (FaultScope::Record, false), "there was no other in its batch");
}

#[test]
fn a_record_that_the_client_never_takes_lets_others_go_on() {
    let mock = MockCluster::new(1).expect("a mock cluster");
    let mut world = World::on(&mock.bootstrap_servers());
    world.settings.set.push(("message.max.bytes".into(), "2000".into()));
    mock.create_topic(&world.settings.topic(Topic::Raw), 2, 1).expect("creates");
    let (heard, producer) = world.producer();
    assert_eq!(producer.send(0, &record(&"x".repeat(3_000)), 1), Err(SendError::TooLarge));
    assert_eq!(producer.send(0, &record("small"), 2), Ok(()));
    assert!(producer.flush(PATIENCE));
    assert_eq!(producer.fatal(), None);
    assert!(matches!(heard.0.lock().expect("no panic").as_slice(), [(2, Ok(()))]));
}

#[test]
fn a_topic_that_has_other_partitions_than_it_should_ends_the_producer() {
    let Some(mut world) = World::real("a_topic_that_has_other_partitions_than_it_should_ends_the_producer") else {
        return;
    };
    world.create(Topic::Raw, 5, "delete");
    world.settings.partitions = 2;
    let (_, producer) = world.producer();
    // It would be refused at the start; so the topic was recreated while a processor ran.
    let began = Instant::now();
    let _ = producer.send(0, &record("x"), 1);
    let found = loop {
        if let Some((fault, reason)) = producer.fatal() {
            break (fault, reason);
        }
        assert!(began.elapsed() < PATIENCE, "the loss was not noticed");
        thread::sleep(POLL);
    };
    assert_eq!(found.0, Fault::TopicShape);
    assert!(found.1.contains("has 5 partitions where partitions is 2"), "{}", found.1);
}

#[test]
fn a_frozen_broker_delays_reports_and_loses_none() {
    let Some(broker) = tests::kafka::own("a_frozen_broker_delays_reports_and_loses_none") else { return };
    let world = World::on(broker.bootstrap());
    let (heard, producer) = world.producer();
    producer.connect(PATIENCE).expect("connects");
    broker.freeze();
    for ticket in 0..100 {
        assert_eq!(producer.send(0, &record(&ticket.to_string()), ticket), Ok(()));
    }
    assert!(!producer.flush(Duration::from_secs(1)));
    assert_eq!(producer.in_flight(), 100);
    broker.thaw();
    assert!(producer.flush(PATIENCE));
    let heard = heard.0.lock().expect("no panic");
    assert!(heard.iter().enumerate().all(|(n, (ticket, outcome))| *ticket == n as u64 && outcome.is_ok()), "{heard:?}");
    let mut event_log = world.open("a");
    let wanted: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(values(&read(&mut event_log, Topic::Raw, 0, 0)), wanted);
}

// The group

#[test]
fn two_share_the_partitions_and_one_takes_over_when_the_other_is_gone() {
    let Some(world) = World::real("two_share_the_partitions_and_one_takes_over_when_the_other_is_gone") else { return };
    let mut first = Owner::new(world.open("a"));
    first.until("first owns all", |owner| owner.owned.len() == 2);
    let mut second = Owner::new(world.open("b"));
    both(&mut first, &mut second, "each owns one", |first, second| first.owned.len() == 1 && second.owned.len() == 1);
    world.send(0, "left");
    world.send(1, "right");
    both(&mut first, &mut second, "both are read", |first, second| first.raw.len() + second.raw.len() == 2);
    drop(first);
    second.until("the other takes over", |owner| owner.owned.len() == 2);
}

#[test]
fn what_was_gained_and_lost_before_it_was_started_comes_again() {
    let Some(world) = World::real("what_was_gained_and_lost_before_it_was_started_comes_again") else { return };
    world.send(0, "zero");
    world.send(1, "one");
    let mut first = world.open("a");
    let assigned = next_change(&mut first);
    assert_eq!(assigned, (vec![0, 1], vec![]));
    // Not started: it is lost to a second member, and what comes of it then is a new gain.
    let mut second = Owner::new(world.open("b"));
    let began = Instant::now();
    let mut lost = false;
    while second.owned.len() != 1 {
        assert!(began.elapsed() < PATIENCE, "the second gains one");
        second.turn();
        match first.next(POLL).expect("goes on") {
            LogEvent::Revoked(partitions) => {
                assert_eq!(partitions, vec![0, 1]);
                lost = true;
                // Too late: it must not bring anything.
                first.start(&[Position { partition: 0, offset: 0 }]).expect("is ignored");
            }
            LogEvent::Assigned(partitions) => assert!(lost && partitions.len() == 1),
            LogEvent::Quiet => {}
            LogEvent::Raw(_) | LogEvent::Facts(_) => panic!("nothing was started"),
        }
    }
    second.until("its record comes", |owner| owner.raw.len() == 1);
}

#[test]
fn partitions_that_nobody_owns_are_counted() {
    let Some(world) = World::real("partitions_that_nobody_owns_are_counted") else { return };
    let mut owner = Owner::new(world.open("a"));
    owner.until("owns all", |owner| owner.owned.len() == 2);
    assert_eq!(owner.event_log.unowned(), Some(0));
}

#[test]
fn a_second_process_with_our_identity_ends_us() {
    let Some(world) = World::real("a_second_process_with_our_identity_ends_us") else { return };
    let mut first = Owner::new(world.open("a"));
    first.until("owns all", |owner| owner.owned.len() == 2);
    let mut second = Owner::new(world.open("a"));
    second.until("owns all", |owner| owner.owned.len() == 2);
    let error = first.event_log.publish(vec![output(Topic::Facts, 0, "f")], &[]).expect_err("fenced");
    assert!(matches!(error, EventLogError::Fenced(_)), "{error}");
    let began = Instant::now();
    let error = loop {
        assert!(began.elapsed() < PATIENCE, "the group says so too");
        if let Err(error) = first.event_log.next(POLL) {
            break error;
        }
    };
    assert!(matches!(error, EventLogError::Fenced(_)), "{error}");
    second.event_log.publish(vec![output(Topic::Facts, 0, "f")], &[]).expect("the successor goes on");
}

#[test]
fn a_start_behind_the_end_is_refused_with_the_bounds() {
    let Some(world) = World::real("a_start_behind_the_end_is_refused_with_the_bounds") else { return };
    let mut event_log = world.open("a");
    next_change(&mut event_log);
    event_log.start(&[Position { partition: 1, offset: 17 }]).expect("starts");
    let began = Instant::now();
    let error = loop {
        assert!(began.elapsed() < PATIENCE, "out of range");
        if let Err(error) = event_log.next(POLL) {
            break error;
        }
    };
    let place = format!("{}/1 holds 0 to 0, but we are at 17", world.settings.topic(Topic::Raw));
    assert!(matches!(&error, EventLogError::Reopen(reason) if reason.contains(&place)), "{error}");
}

// Publishing

#[test]
fn what_is_published_is_read_where_it_was_said_to_be_and_raw_goes_on_behind_it() {
    let name = "what_is_published_is_read_where_it_was_said_to_be_and_raw_goes_on_behind_it";
    let Some(world) = World::real(name) else { return };
    for n in 0..5 {
        world.send(0, &n.to_string());
    }
    let mut owner = Owner::new(world.open("a"));
    owner.until("raw comes", |owner| owner.raw.len() == 5);
    for round in 0_u64..3 {
        let outputs = vec![
            output(Topic::Facts, 0, &format!("{round} first")),
            output(Topic::Events, 0, "event"),
            output(Topic::Facts, 1, "other"),
            output(Topic::Facts, 0, &format!("{round} last")),
            Output { record: Record { value: None, ..record("gone") }, ..output(Topic::Installations, 0, "") },
        ];
        let offsets =
            owner.event_log.publish(outputs, &[Position { partition: 0, offset: round + 1 }]).expect("publishes");
        for (partition, offsets) in offsets {
            let facts = read(&mut owner.event_log, Topic::Facts, partition, 0);
            let lie_at: Vec<u64> = facts.iter().map(|fact| fact.position.offset).collect();
            assert!(lie_at.ends_with(&offsets), "round {round}: {lie_at:?} and {offsets:?}");
        }
        assert_eq!(owner.event_log.committed(0).expect("answers"), Some(round + 1));
    }
    assert_eq!(owner.event_log.committed(1).expect("answers"), None);
    let facts = read(&mut owner.event_log, Topic::Facts, 0, 0);
    let facts: Vec<_> = facts.iter().map(|entry| value(&entry.record)).collect();
    assert_eq!(facts, ["0 first", "0 last", "1 first", "1 last", "2 first", "2 last"]);

    // Offsets alone are a transaction too.
    owner.event_log.publish(vec![], &[Position { partition: 0, offset: 4 }]).expect("publishes");
    drop(owner);

    let mut successor = Owner::new(world.open("a"));
    successor.until("raw goes on", |owner| !owner.raw.is_empty());
    assert_eq!(values(&successor.raw), ["4"]);
}

#[test]
fn nobody_sees_a_batch_whose_process_died_before_the_commit() {
    let Some(world) = World::real("nobody_sees_a_batch_whose_process_died_before_the_commit") else { return };
    let mut owner = Owner::new(world.open("a"));
    owner.until("owns all", |owner| owner.owned.len() == 2);
    owner.event_log.publish(vec![output(Topic::Facts, 0, "kept")], &[]).expect("publishes");
    drop(owner);
    // The same identity dies between send and commit.
    let dead = world.transactional(&format!("{}-a", world.group));
    dead.send(BaseRecord::to(&world.settings.topic(Topic::Facts)).partition(0).key("k").payload("torn"))
        .map_err(|(error, _)| error)
        .expect("sends");
    dead.flush(PATIENCE).expect("is with the broker");
    let mut successor = world.open("a");
    let (_, end) = successor.bounds(Topic::Facts, 0).expect("answers");
    assert_eq!(end, 4, "a fact, its marker, the torn fact, its abort");
    assert_eq!(values(&read(&mut successor, Topic::Facts, 0, 0)), ["kept"]);
    assert_eq!(values(&read(&mut successor, Topic::Facts, 0, 2)), [""; 0], "only what was aborted and markers");
    drop(dead);
}

#[test]
fn a_read_waits_for_a_strangers_open_transaction() {
    let Some(world) = World::real("a_read_waits_for_a_strangers_open_transaction") else { return };
    let mut event_log = world.open("a");
    let stranger = world.transactional(&format!("{}-stranger", world.group));
    stranger
        .send(BaseRecord::to(&world.settings.topic(Topic::Facts)).partition(1).key("k").payload("late"))
        .map_err(|(error, _)| error)
        .expect("sends");
    stranger.flush(PATIENCE).expect("is with the broker");
    assert_eq!(event_log.bounds(Topic::Facts, 1).expect("answers"), (0, 1), "open transactions are counted");
    let decided = Arc::new(Mutex::new(false));
    let deciding = thread::spawn({
        let decided = Arc::clone(&decided);
        move || {
            thread::sleep(Duration::from_millis(700));
            *decided.lock().expect("no panic") = true;
            stranger.commit_transaction(PATIENCE).expect("commits");
        }
    });
    let mut seen = vec![];
    let from = Position { partition: 1, offset: 0 };
    let read = event_log.read(Topic::Facts, from, 1, &mut |entry| {
        assert!(*decided.lock().expect("no panic"), "not before it is decided");
        seen.push(entry);
        ControlFlow::Continue(())
    });
    read.expect("reads");
    assert_eq!(values(&seen), ["late"]);
    deciding.join().expect("no panic");
}

#[test]
fn a_successor_finds_what_was_committed_before_the_crash() {
    let Some(world) = World::real("a_successor_finds_what_was_committed_before_the_crash") else { return };
    world.send(0, "zero");
    world.send(0, "one");
    let mut owner = Owner::new(world.open("a"));
    owner.until("raw comes", |owner| owner.raw.len() == 2);
    let outputs = [(Topic::Facts, 0, "f"), (Topic::Events, 0, "e"), (Topic::Facts, 1, "h"), (Topic::Facts, 0, "g")];
    let outputs = outputs.map(|(topic, partition, value)| output(topic, partition, value)).to_vec();
    let offsets = owner.event_log.publish(outputs, &[Position { partition: 0, offset: 1 }]).expect("publishes");
    drop(owner);

    let mut successor = world.open("a");
    let (assigned, _) = next_change(&mut successor);
    assert_eq!(assigned, [0, 1]);
    assert_eq!(successor.committed(0).expect("answers"), Some(1));
    let facts = read(&mut successor, Topic::Facts, 0, 0);
    assert_eq!(values(&facts), ["f", "g"]);
    let lie_at = |facts: &[Entry]| facts.iter().map(|fact| fact.position.offset).collect::<Vec<_>>();
    let others = read(&mut successor, Topic::Facts, 1, 0);
    assert_eq!(offsets, FactOffsets::from([(0, lie_at(&facts)), (1, lie_at(&others))]));
}

#[test]
fn a_batch_of_a_former_generation_is_not_published() {
    let Some(mut world) = World::real("a_batch_of_a_former_generation_is_not_published") else { return };
    // A member that does not poll for that long leaves the group.
    for name in ["session.timeout.ms", "max.poll.interval.ms"] {
        world.settings.set.push((name.into(), "6000".into()));
    }
    world.send(0, "zero");
    let mut first = Owner::new(world.open("a"));
    first.until("raw comes", |owner| owner.raw.len() == 1);
    // While the first holds its batch, the group goes on without it.
    let mut second = Owner::new(world.open("b"));
    second.until("the second owns all", |owner| owner.owned.len() == 2);
    let read = [Position { partition: 0, offset: 1 }];
    let error = first.event_log.publish(vec![output(Topic::Facts, 0, "late")], &read).expect_err("refused");
    assert!(matches!(error, EventLogError::Reopen(_)), "{error}");
    drop(first);
    let mut again = world.open("a");
    assert_eq!(values(&self::read(&mut again, Topic::Facts, 0, 0)), [""; 0]);
    assert_eq!(again.committed(0).expect("answers"), None);
}

#[test]
fn a_record_that_is_too_large_is_named_and_nothing_of_its_transaction_is_seen() {
    let name = "a_record_that_is_too_large_is_named_and_nothing_of_its_transaction_is_seen";
    let Some(world) = World::real(name) else { return };
    // As an operator may have made it: it takes what the broker's default is, and not what ours is.
    world.create(Topic::Events, 2, "delete");
    let large = "x".repeat(1_500_000);
    for topic in [Topic::Events, Topic::Facts] {
        let mut owner = Owner::new(world.open("a"));
        owner.until("owns all", |owner| owner.owned.len() == 2);
        let outputs = vec![output(Topic::Facts, 0, "small"), Output { topic, partition: 0, record: record(&large) }];
        let published = owner.event_log.publish(outputs, &[Position { partition: 0, offset: 0 }]);
        match (topic, published) {
            (Topic::Facts, published) => drop(published.expect("ours take it")),
            (_, published) => {
                let error = published.expect_err("refused");
                let events = world.settings.topic(Topic::Events);
                assert!(matches!(&error, EventLogError::TooLarge(why) if why.contains(&events)), "{error}");
            }
        }
    }
    let mut successor = world.open("a");
    let facts = values(&read(&mut successor, Topic::Facts, 0, 0));
    assert_eq!(facts.len(), 2, "of the refused transaction nothing is seen");
}

#[test]
fn a_transaction_that_was_open_for_too_long_is_told_apart_from_a_twins() {
    let name = "a_transaction_that_was_open_for_too_long_is_told_apart_from_a_twins";
    let mut proxy = Proxy::bind();
    let Some(broker) = tests::kafka::own_behind(name, proxy.port()) else { return };
    proxy.serve(broker.back(), Language::Any);
    let front = format!("127.0.0.1:{}", proxy.port());
    let worlds = [World::on(&front), World::on(&front)];
    let late = || (vec![output(Topic::Facts, 0, "late")], [Position { partition: 0, offset: 0 }]);
    let owners = worlds.each_ref().map(|world| {
        let mut owner = Owner::new(world.open("a"));
        owner.until("owns all", |owner| owner.owned.len() == 2);
        // Connections come before transactions.
        owner.event_log.publish(vec![output(Topic::Facts, 0, "early")], &late().1).expect("publishes");
        owner
    });
    let end = |world: &World| tests::topics::ends(broker.bootstrap(), &world.settings.topic(Topic::Facts))[&0].1;
    let early = worlds.each_ref().map(end);
    // Each question and each answer takes so long that Kafka ends the transaction before we do.
    proxy.delay(Duration::from_millis(1_600));
    let publishing = owners.map(|mut owner| {
        let (outputs, read) = late();
        thread::spawn(move || {
            let published = owner.event_log.publish(outputs, &read);
            (owner, published)
        })
    });
    wait_until("both have begun", || worlds.iter().zip(early).all(|(world, early)| end(world) > early));
    // Of the one there is a second process by now; the other is only slow.
    let mut direct = World::on(broker.bootstrap());
    direct.settings.topic_prefix.clone_from(&worlds[1].settings.topic_prefix);
    direct.group.clone_from(&worlds[1].group);
    let mut twin = Owner::new(direct.open("a"));
    twin.until("owns all", |owner| owner.owned.len() == 2);
    // A committed reader waits for an open transaction: then it was ended.
    let facts = worlds[0].settings.topic(Topic::Facts);
    let seen = tests::topics::read(broker.bootstrap(), &facts, Isolation::Committed);
    assert_eq!(seen.len(), 1, "only the early one");
    proxy.delay(Duration::ZERO);
    let [frozen, doubled] = publishing.map(|publishing| publishing.join().expect("no panic").1);
    let (frozen, doubled) = (frozen.expect_err("it was ended"), doubled.expect_err("it was ended"));
    assert!(matches!(&frozen, EventLogError::Reopen(why) if why.contains("was open for more than")), "{frozen}");
    assert!(matches!(doubled, EventLogError::Fenced(_)), "{doubled}");
    assert!(Owner::new(worlds[0].open("a")).event_log.publish(vec![output(Topic::Facts, 0, "on")], &[]).is_ok());
}

#[test]
fn a_transaction_of_our_former_self_that_kafka_forgot_to_end_is_ended_as_kafka_had_decided() {
    let name = "a_transaction_of_our_former_self_that_kafka_forgot_to_end_is_ended_as_kafka_had_decided";
    let Some(mut broker) = tests::kafka::own(name) else { return };
    // Aborted, and all marks are lost; committed, and only that of the offsets is left.
    for is_committed in [false, true] {
        let world = World::on(broker.bootstrap());
        let made_of = |value: &str, raw: u64| {
            let mut outputs = vec![output(Topic::Facts, 0, value), output(Topic::Events, 0, value)];
            for output in &mut outputs {
                output.record.headers.push(("hl_raw_offset".into(), raw.to_string().into_bytes()));
            }
            outputs
        };
        let mut owner = Owner::new(world.open("a"));
        owner.until("owns all", |owner| owner.owned.len() == 2);
        owner.event_log.publish(made_of("early", 0), &[Position { partition: 0, offset: 1 }]).expect("publishes");
        drop(owner);

        let (facts, events) = (world.settings.topic(Topic::Facts), world.settings.topic(Topic::Events));
        let members = world.consumer();
        let former_id = format!("{}-a", world.group);
        let former = world.transactional(&former_id);
        for topic in [&facts, &events] {
            let headers = OwnedHeaders::new().insert(Header { key: "hl_raw_offset", value: Some("1") });
            let record = BaseRecord::to(topic).partition(0).key("k").payload("never told").headers(headers);
            former.send(record).map_err(|(error, _)| error).expect("sends");
        }
        let offsets = [(world.settings.topic(Topic::Raw), 0, Offset::Offset(2))].into_iter().collect();
        let member = members.group_metadata().expect("of a group");
        former.send_offsets_to_transaction(&offsets, &member, PATIENCE).expect("sends offsets");
        former.flush(PATIENCE).expect("is with the broker");
        // What the broker does when it decides a transaction and loses marks: its coordinator knows that it is over,
        // and partitions do not.
        broker.kill();
        let mut forgetful = vec![facts.as_str(), &events];
        forgetful.extend((!is_committed).then_some("__consumer_offsets"));
        let open = broker.copy_of_topics(&forgetful);
        broker.restart();
        if is_committed {
            former.commit_transaction(PATIENCE).expect("commits");
        }
        // Initialised again only when the coordinator has written that it is over.
        drop(world.transactional(&former_id));
        broker.kill();
        broker.put_back_topics(&open);
        broker.restart();
        // The client finds the broker again in its own time.
        let stable = |topic: &str| Some(members.fetch_watermarks(topic, 0, Duration::from_secs(5)).ok()?.1);
        let hangs = [&facts, &events].map(|topic| (topic, Some(2)));
        wait_until("it hangs behind a record and its mark", || hangs.iter().all(|(topic, at)| stable(topic) == *at));
        drop(former);

        let mut successor = Owner::new(world.open("a"));
        successor.until("owns all", |owner| owner.owned.len() == 2);
        let read_to = if is_committed { 2 } else { 1 };
        assert_eq!(successor.event_log.committed(0).expect("answers"), Some(read_to));
        successor
            .event_log
            .publish(made_of("late", read_to), &[Position { partition: 0, offset: 3 }])
            .expect("publishes");
        let all: &[&str] = if is_committed { &["early", "never told", "late"] } else { &["early", "late"] };
        let say_something = |entry: &Entry| entry.record.value.is_some();
        for topic in [Topic::Facts, Topic::Events] {
            let seen: Vec<Entry> =
                read(&mut successor.event_log, topic, 0, 0).into_iter().filter(say_something).collect();
            assert_eq!(values(&seen), all, "{topic:?}");
        }
        assert_eq!(successor.event_log.committed(0).expect("answers"), Some(3));
    }
}

#[test]
fn a_command_that_publishes_is_refused_while_somebody_works_and_leaves_no_place_behind() {
    let name = "a_command_that_publishes_is_refused_while_somebody_works_and_leaves_no_place_behind";
    let Some(world) = World::real(name) else { return };
    let mut owner = Owner::new(world.open("a"));
    owner.until("owns all", |owner| owner.owned.len() == 2);
    let alone = || KafkaEventLog::open_alone(&world.settings, &world.group, Stop::default());
    let refused = thread::scope(|scope| {
        let opening = scope.spawn(alone);
        while !opening.is_finished() {
            owner.turn();
        }
        opening.join().expect("no panic").err().expect("refused")
    });
    assert!(matches!(&refused, EventLogError::Fatal(why) if why.contains("are running: a-")), "{refused}");
    assert_eq!(owner.owned.len(), 2, "who works is not disturbed");
    drop(owner);
    let mut command = Owner::new(alone().expect("no processor runs"));
    command.until("owns all", |owner| owner.owned.len() == 2);
    command
        .event_log
        .publish(vec![output(Topic::Facts, 0, "f")], &[Position { partition: 0, offset: 0 }])
        .expect("may");
    drop(command);
    drop(alone().expect("the place is free at once"));
}

// Following

#[test]
fn followers_see_facts_of_others_soon_and_raw_does_not_starve_them() {
    /// Many batches, but not more than fits into a client's queue.
    const RAW: u32 = 40_000;
    let Some(world) = World::real("followers_see_facts_of_others_soon_and_raw_does_not_starve_them") else { return };
    let mut owner = Owner::new(world.open("a"));
    owner.until("owns all", |owner| owner.owned.len() == 2);
    let mut follower = world.follower("b");
    follower.follow(&[Position { partition: 0, offset: 0 }, Position { partition: 1, offset: 0 }]).expect("follows");
    let mut waits = vec![];
    for n in 0..20_u32 {
        owner.event_log.publish(vec![output(Topic::Facts, n % 2, &n.to_string())], &[]).expect("publishes");
        let published = Instant::now();
        let entries = loop {
            assert!(published.elapsed() < PATIENCE, "fact {n} comes");
            if let LogEvent::Facts(entries) = follower.next(POLL).expect("goes on") {
                break entries;
            }
        };
        waits.push(published.elapsed());
        assert_eq!(values(&entries), [n.to_string()]);
    }
    waits.sort();
    println!("a follower sees a fact after {:?} (median), {:?} at most", waits[10], waits[19]);

    // The owner follows its own facts too. While it looks away, both logs grow.
    let asked = Instant::now();
    owner.event_log.follow(&[Position { partition: 0, offset: 0 }]).expect("follows");
    owner.until("facts come", |owner| owner.facts.len() == 10);
    println!("the first facts came {:?} after they were asked for", asked.elapsed());
    for n in 0..RAW {
        world.send_without_waiting(n % 2, &n.to_string());
    }
    assert!(world.sender.1.flush(PATIENCE));
    for n in 0..10 {
        owner.event_log.publish(vec![output(Topic::Facts, 0, &format!("more {n}"))], &[]).expect("publishes");
    }
    let mut order = vec![];
    let began = Instant::now();
    while owner.raw.len() < RAW as usize || owner.facts.len() < 20 {
        assert!(began.elapsed() < PATIENCE, "both come");
        order.push(owner.turn());
    }
    let first_fact = order.iter().position(|turn| *turn == "facts").expect("facts came");
    let last_raw = order.iter().rposition(|turn| *turn == "raw").expect("raw came");
    assert!(first_fact < last_raw, "facts do not wait until raw is empty: {order:?}");
    for partition in 0..2 {
        let offsets = owner.raw.iter().filter(|entry| entry.position.partition == partition);
        assert!(offsets.map(|entry| entry.position.offset).eq(0..u64::from(RAW / 2)), "in order, once");
    }
}

// Questions

#[test]
fn a_time_is_found_and_the_logs_say_who_they_are() {
    let Some(world) = World::real("a_time_is_found_and_the_logs_say_who_they_are") else { return };
    let mut event_log = world.open("a");
    assert!(event_log.identity().starts_with("kafka:"));
    assert!(event_log.identity().ends_with(&format!(":{}", world.settings.topic_prefix)));
    assert_eq!(event_log.partitions(), 2);
    let at = |s| AT.minus(Duration::from_secs(1_000)).plus(Duration::from_secs(s));
    assert_eq!(event_log.offset_at(0, at(0)).expect("answers"), 0);
    for s in [100, 200, 300] {
        world.send_record(0, &Record { at: at(s), ..record("x") });
    }
    assert_eq!(event_log.bounds(Topic::Raw, 0).expect("answers"), (0, 3));
    assert_eq!(event_log.offset_at(0, at(150)).expect("answers"), 1);
    assert_eq!(event_log.offset_at(0, at(301)).expect("answers"), 3);
    assert!(event_log.close());
}

#[test]
fn a_ledger_closes_in_time_at_any_moment_of_joining() {
    let Some(world) = World::real("a_ledger_closes_in_time_at_any_moment_of_joining") else { return };
    let mut event_log = world.open("a");
    // From before anything is served to after the first assignment.
    for turns in 0..12 {
        for _ in 0..turns {
            event_log.next(Duration::from_millis(turns)).expect("goes on");
        }
        assert!(event_log.close(), "after {turns} turns");
        event_log = world.open("a");
    }
}

#[test]
fn a_frozen_broker_keeps_neither_a_publication_nor_a_close_for_ever() {
    let name = "a_frozen_broker_keeps_neither_a_publication_nor_a_close_for_ever";
    let Some(broker) = tests::kafka::own(name) else { return };
    let world = World::on(broker.bootstrap());
    let mut owner = Owner::new(world.open("a"));
    owner.until("owns all", |owner| owner.owned.len() == 2);
    owner.event_log.publish(vec![output(Topic::Facts, 0, "before")], &[]).expect("publishes");
    broker.freeze();
    let error = owner.event_log.publish(vec![output(Topic::Facts, 0, "frozen")], &[]).expect_err("no answer");
    assert!(matches!(error, EventLogError::Reopen(_)), "{error}");
    let closing = Instant::now();
    drop(owner);
    assert!(closing.elapsed() < PATIENCE);
    broker.thaw();
    // Whichever became of it, it is decided, and nothing is there twice.
    let mut successor = world.open("a");
    let facts = values(&read(&mut successor, Topic::Facts, 0, 0));
    assert!(facts == ["before"] || facts == ["before", "frozen"], "{facts:?}");
    successor.publish(vec![output(Topic::Facts, 0, "after")], &[]).expect("publishes");
}

#[test]
fn waiting_for_a_broker_ends_when_asked_to_stop() {
    let world = World::on("127.0.0.1:1");
    let stop = Stop::default();
    let opening = thread::spawn({
        let (settings, stop) = (world.settings.clone(), stop.clone());
        move || KafkaEventLog::open(&settings, "group", "a", stop).err()
    });
    stop.request();
    let error = opening.join().expect("no panic").expect("no broker");
    assert!(matches!(error, EventLogError::Reopen(_)), "{error}");
}

// What the tests stand on

/// Topics and a group of one test, on some Kafka.
struct World {
    settings: KafkaSettings,
    group: String,
    sender: (Arc<Heard>, RawProducer),
    leaves_topics: bool,
}

impl World {
    /// On the broker that tests share; none, said loudly, if there is none.
    fn real(test: &str) -> Option<Self> {
        let mut world = Self::on(tests::kafka::shared(test)?);
        world.leaves_topics = true;
        Some(world)
    }

    fn on(servers: &str) -> Self {
        let unique = Uuid::now_v7();
        let settings = KafkaSettings {
            servers: servers.into(),
            set: vec![],
            topic_prefix: format!("test-{unique}."),
            partitions: 2,
            replication: None,
            retention: Retention::default(),
        };
        let sender = producer(&settings);
        Self { settings, group: format!("group-{unique}"), sender, leaves_topics: false }
    }

    fn producer(&self) -> (Arc<Heard>, RawProducer) {
        producer(&self.settings)
    }

    fn open(&self, instance: &str) -> KafkaEventLog {
        self.try_open(instance).expect("opens")
    }

    fn try_open(&self, instance: &str) -> Result<KafkaEventLog, EventLogError> {
        let mut event_log = KafkaEventLog::open(&self.settings, &self.group, instance, Stop::default())?;
        event_log.recover(&[])?;
        Ok(event_log)
    }

    /// A member of another group: it owns partitions of that group, but is not started.
    fn follower(&self, instance: &str) -> KafkaEventLog {
        let group = format!("{}-followers", self.group);
        KafkaEventLog::open(&self.settings, &group, instance, Stop::default()).expect("opens")
    }

    fn send(&self, partition: u32, value: &str) {
        self.send_record(partition, &record(value));
    }

    fn send_record(&self, partition: u32, record: &Record) {
        self.connected().send(partition, record, 0).expect("is handed over");
        assert!(self.sender.1.flush(PATIENCE));
    }

    fn send_without_waiting(&self, partition: u32, value: &str) {
        self.connected().send(partition, &record(value), 0).expect("is handed over");
    }

    fn connected(&self) -> &RawProducer {
        if !self.sender.1.is_connected() {
            self.sender.1.connect(PATIENCE).expect("connects");
        }
        &self.sender.1
    }

    fn transactional(&self, id: &str) -> BaseProducer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.settings.servers)
            .set("transactional.id", id)
            .create()
            .expect("a producer");
        producer.init_transactions(PATIENCE).expect("initialises");
        producer.begin_transaction().expect("begins");
        producer
    }

    /// A committed reader that is in no group, and knows the name of ours.
    fn consumer(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.servers).set("group.id", &self.group);
        config.set("isolation.level", "read_committed").create().expect("a consumer")
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.settings.servers).create().expect("a client")
    }

    fn create(&self, topic: Topic, partitions: i32, policy: &str) {
        let name = self.settings.topic(topic);
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1)).set("cleanup.policy", policy);
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let made = wait_for(self.admin().create_topics([&new], &options)).expect("answers");
        assert_eq!(made, [Ok(name.clone())]);
    }

    fn setting(&self, topic: Topic, name: &str) -> String {
        let topic = self.settings.topic(topic);
        let asked = [rdkafka::admin::ResourceSpecifier::Topic(&topic)];
        let answer = wait_for(self.admin().describe_configs(&asked, &AdminOptions::new())).expect("answers");
        let config = answer.into_iter().next().expect("one").expect("is there");
        config.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.leaves_topics {
            return;
        }
        let names: Vec<_> = Topic::ALL.iter().map(|topic| self.settings.topic(*topic)).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        // Some are missing in some tests; the broker's disk is all that is at stake.
        let _ = wait_for(self.admin().delete_topics(&names, &AdminOptions::new()));
    }
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "{what}");
    }
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn producer(settings: &KafkaSettings) -> (Arc<Heard>, RawProducer) {
    let heard = Arc::new(Heard::default());
    let producer = RawProducer::new(settings, heard.clone()).expect("a producer");
    (heard, producer)
}

#[derive(Default)]
struct Heard(Mutex<Vec<(u64, Result<(), ReportError>)>>);

impl Reports for Heard {
    fn reported(&self, ticket: u64, outcome: Result<(), ReportError>, _last: bool) {
        self.0.lock().expect("no panic").push((ticket, outcome));
    }
}

/// Plays the owner: starts what it gains where the group left off, and keeps what comes.
struct Owner {
    event_log: KafkaEventLog,
    owned: BTreeSet<u32>,
    raw: Vec<Entry>,
    facts: Vec<Entry>,
}

impl Owner {
    fn new(event_log: KafkaEventLog) -> Self {
        Self { event_log, owned: BTreeSet::new(), raw: vec![], facts: vec![] }
    }

    fn until(&mut self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !reached(self) {
            assert!(began.elapsed() < PATIENCE, "{what}");
            self.turn();
        }
    }

    fn turn(&mut self) -> &'static str {
        match self.event_log.next(POLL).expect("goes on") {
            LogEvent::Assigned(partitions) => {
                let mut starts = vec![];
                for partition in partitions {
                    let offset = self.event_log.committed(partition).expect("answers").unwrap_or_default();
                    starts.push(Position { partition, offset });
                    self.owned.insert(partition);
                }
                self.event_log.start(&starts).expect("starts");
                "assigned"
            }
            LogEvent::Revoked(partitions) => {
                self.owned.retain(|partition| !partitions.contains(partition));
                "revoked"
            }
            LogEvent::Raw(entries) => {
                assert!(entries.iter().all(|entry| self.owned.contains(&entry.position.partition)));
                self.raw.extend(entries);
                "raw"
            }
            LogEvent::Facts(entries) => {
                self.facts.extend(entries);
                "facts"
            }
            LogEvent::Quiet => "quiet",
        }
    }
}

fn both(first: &mut Owner, second: &mut Owner, what: &str, reached: impl Fn(&Owner, &Owner) -> bool) {
    let began = Instant::now();
    while !reached(first, second) {
        assert!(began.elapsed() < PATIENCE, "{what}");
        first.turn();
        second.turn();
    }
}

/// What the next change of ownership says: assigned, revoked.
fn next_change(event_log: &mut KafkaEventLog) -> (Vec<u32>, Vec<u32>) {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "a change comes");
        match event_log.next(POLL).expect("goes on") {
            LogEvent::Assigned(partitions) => return (partitions, vec![]),
            LogEvent::Revoked(partitions) => return (vec![], partitions),
            LogEvent::Raw(_) | LogEvent::Facts(_) | LogEvent::Quiet => {}
        }
    }
}

fn read(event_log: &mut KafkaEventLog, topic: Topic, partition: u32, offset: u64) -> Vec<Entry> {
    let (_, until) = event_log.bounds(topic, partition).expect("answers");
    let mut entries = vec![];
    let read = event_log.read(topic, Position { partition, offset }, until, &mut |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    });
    read.expect("reads");
    entries
}

/// Young enough for retention to leave it alone.
static AT: LazyLock<Timestamp> = LazyLock::new(Timestamp::now);

fn record(value: &str) -> Record {
    Record {
        key: Some("crm-sync/a223".into()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: vec![("ce_id".into(), b"\0\xff".to_vec()), ("hl_empty".into(), vec![])],
        at: *AT,
    }
}

fn output(topic: Topic, partition: u32, value: &str) -> Output {
    // A key of its own: the topics that matter are compacted.
    Output { topic, partition, record: Record { key: Some(value.to_owned()), ..record(value) } }
}

fn value(record: &Record) -> String {
    String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned()
}

fn values(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| value(&entry.record)).collect()
}
