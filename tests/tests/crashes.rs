//! However often ingress is killed: what it answered 200 is in `raw`, whole, in order, and second copies say so.
//!
//! What is promised across kills, and checked for each portal:
//!
//! - Each event that was answered 200 is in `raw`, byte for byte. One that got no answer may be there or not.
//! - Nothing is there that was not sent, and nothing in part.
//! - What is there more than once carries `hl_resent` on each copy but the first, and the same id on all.
//! - The first copy of an event that was answered lies before the first copy of whatever its portal sent later.
//!
//! `HOOKLEDGER_TEST_KILLS` says how often it is killed; `HOOKLEDGER_TEST_SEED` repeats the choices of a run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;
use tests::cluster::{Names, PARTITIONS};
use tests::kafka::{self, Broker};
use tests::process::{Process, Program};
use tests::random::{Rng, milliseconds, number, of_this_run};
use tests::topics;
use tests::truth::{Book, Plan, Reader, Senders, Verdict};
use tests::wait::{alone, eventually, eventually_ok, report};

const KILLS: &str = "HOOKLEDGER_TEST_KILLS";
const KILLS_IN_CI: u64 = 30;

/// So often with one state of Kafka.
const KILLS_OF_A_MOOD: u64 = 5;

const CONNECTIONS: usize = 32;
const PORTALS_OF_EACH: usize = 25;

/// Between two kills at most so many webhooks are answered 200.
const BETWEEN_MAX: u64 = 4_000;

/// By when webhooks are answered after a kill.
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);

/// By when what is on the disk is in Kafka, while more comes.
const STRAIGHT_WITHIN: Duration = Duration::from_secs(180);

/// Events that may be on the disk at any moment without anything being wrong.
const NEARLY_NONE: f64 = 500.0;

/// Between two webhooks of one connection: what is on the disk has to become less at times.
const PAUSE: Duration = Duration::from_millis(4);

const TELL_EVERY: Duration = Duration::from_secs(10);

const RAW: &[(&str, &str)] = &[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("segment.bytes", "67108864")];

#[test]
fn however_often_ingress_is_killed_what_it_answered_200_is_in_raw_and_second_copies_say_so() {
    let test = "however_often_ingress_is_killed_what_it_answered_200_is_in_raw_and_second_copies_say_so";
    let _alone = alone();
    let Some(mut broker) = kafka::own(test) else { return };
    let kills = number(KILLS).unwrap_or(KILLS_IN_CI);
    let mut random = of_this_run("crashes");

    let names = Names::new(broker.bootstrap());
    let raw = names.topic("raw");
    topics::make(broker.bootstrap(), &raw, i32::try_from(PARTITIONS).expect("few"), RAW);
    let mut ingress = names.start(Program::Ingress, "ingress", &[]);
    ingress.ready();

    let book = Arc::new(Book::new(CONNECTIONS, PORTALS_OF_EACH));
    let reader = Reader::start(broker.bootstrap(), &raw, &book);
    let start = Instant::now();
    let plan = Plan { pause: PAUSE, ..Plan::default() };
    let senders = Senders::start(ingress.address("webhooks"), &book, plan, &mut random);
    kill_again_and_again(kills, &mut ingress, &mut broker, &senders, &book, &mut random);
    let (_, not_connected) = senders.stop();
    book.comes_to_rest(&ingress);
    reader.finish();

    let (verdict, offences) = book.verdict();
    let left = left_on_disk(&ingress);
    report(&format!(
        "crashes: {kills} kills, {} of them with entries on the disk, {} at most; {verdict}; {not_connected} \
         connections refused, {:.0} seconds",
        left.len(),
        left.iter().max().unwrap_or(&0),
        start.elapsed().as_secs_f64()
    ));
    assert!(left.len() as u64 > kills / 4, "the disk log is full at many kills: {left:?}");
    assert!(verdict.unanswered > 0, "it is killed while it has something to answer: {verdict}");
    assert!(verdict.resent > 0, "what was on its way is handed over again: {verdict}");
    let expected = Verdict {
        requests: verdict.requests,
        kafka: verdict.kafka,
        disk: verdict.disk,
        unanswered: verdict.unanswered,
        found: verdict.found,
        resent: verdict.resent,
        ..Verdict::default()
    };
    assert_eq!(verdict, expected, "{offences:#?}");
}

/// With Kafka well, frozen and away by turns, and with either way to keep events on the same disk.
fn kill_again_and_again(
    kills: u64,
    ingress: &mut Process,
    broker: &mut Broker,
    senders: &Senders,
    book: &Book,
    random: &mut Rng,
) {
    let mut told = Instant::now();
    let mut state = KafkaState::Well;
    for kill in 0..kills {
        if kill > 0 && kill % KILLS_OF_A_MOOD == 0 {
            // So that something is on its way when Kafka stops, sometimes from the disk, sometimes past it.
            match state {
                KafkaState::Well => some_are_found(book, random),
                KafkaState::WellAgain => nearly_all_is_in_kafka(ingress),
                KafkaState::Frozen | KafkaState::Away => {}
            }
            state = state.next(broker);
        }
        match random.u64(..4) {
            // Hardly started.
            0 => std::thread::sleep(milliseconds(random, 0..=150)),
            // With what it left on the disk on its way to Kafka.
            1 | 2 if state.is_well() => some_are_found(book, random),
            _ => senders.goes_on(1 + random.u64(..BETWEEN_MAX), GOES_ON_WITHIN),
        }
        assert_eq!(ingress.ended(), None, "it ended by itself");
        ingress.kill9();
        // Mostly as Kafka lets it, so that events exist that are only in flight and can be lost.
        ingress.set_variable("HOOKLEDGER_KEEP", if random.u64(..3) > 0 { "kafka" } else { "disk" });
        ingress.restart_without_waiting();
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            let ((kafka, disk), found) = (book.kept(), book.seen());
            report(&format!("crashes: {} of {kills} kills; {kafka} by Kafka, {disk} by disk; {found} found", kill + 1));
        }
    }
    while state != KafkaState::Well {
        state = state.next(broker);
    }
    senders.goes_on(BETWEEN_MAX, GOES_ON_WITHIN);
}

/// Waits until some more of what was sent is in Kafka.
fn some_are_found(book: &Book, random: &mut Rng) {
    let until = book.seen() + 1 + random.u64(..BETWEEN_MAX);
    eventually_ok(GOES_ON_WITHIN, "events come to Kafka", || {
        let (seen, (kafka, disk)) = (book.seen(), book.kept());
        ensure!(seen >= until, "found {seen} of {until}; answered 200: {kafka} by Kafka, {disk} by disk");
        Ok(())
    });
}

/// Waits until hardly anything is on the disk alone: new events go past it, unless it is told to keep them there first.
fn nearly_all_is_in_kafka(ingress: &Process) {
    eventually(STRAIGHT_WITHIN, "what is on the disk goes to Kafka", || {
        ingress.metric("hookledger_disk_log_events", "").filter(|events| *events < NEARLY_NONE)
    });
}

/// How Kafka is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KafkaState {
    Well,
    Frozen,
    WellAgain,
    Away,
}

impl KafkaState {
    fn is_well(self) -> bool {
        matches!(self, Self::Well | Self::WellAgain)
    }

    /// Makes it the next one.
    fn next(self, broker: &mut Broker) -> Self {
        match self {
            Self::Well => {
                broker.freeze();
                Self::Frozen
            }
            Self::Frozen => {
                broker.thaw();
                Self::WellAgain
            }
            Self::WellAgain => {
                broker.kill();
                Self::Away
            }
            Self::Away => {
                broker.restart();
                Self::Well
            }
        }
    }
}

/// At each start that found some: how many events of earlier runs were on the disk alone.
fn left_on_disk(ingress: &Process) -> Vec<u64> {
    let logs = ingress.logs();
    let lines = logs.lines().filter(|line| line.contains("\"undelivered\""));
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| line["fields"]["undelivered"].as_u64().or(line["undelivered"].as_u64())).collect()
}
