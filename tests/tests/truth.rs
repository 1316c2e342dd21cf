//! Whatever happens to Kafka: each 200 is in `raw`, byte for byte, once, in order, nothing else is, and nothing is refused.
//!
//! `HOOKLEDGER_TEST_REQUESTS` says how many webhooks are sent; `HOOKLEDGER_TEST_SEED` repeats the choices of a run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tests::cluster::{Names, PARTITIONS};
use tests::kafka;
use tests::process::Program;
use tests::proxy::{Language, Proxy};
use tests::random::{Rng, number, of_this_run};
use tests::topics;
use tests::truth::{Book, Fault, Plan, Reader, Senders, Stage, Verdict};
use tests::wait::{alone, eventually, report};

const REQUESTS: &str = "HOOKLEDGER_TEST_REQUESTS";
const REQUESTS_IN_CI: u64 = 200_000;

const CONNECTIONS: usize = 64;
const PORTALS_OF_EACH: usize = 50;
const HANG_UP_ONE_IN: u64 = 5_000;

/// What is told of a long run, and how often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// At most so many go straight to Kafka between two faults; in long runs a part of all, so that faults do not become
/// the rule.
const BETWEEN_MAX: u64 = 30_000;
const PART_BETWEEN: u64 = 25;

/// By when events go straight to Kafka again after a fault: all that waits on the disk goes first, while more comes.
const STRAIGHT_WITHIN: Duration = Duration::from_secs(180);

/// Small segments, so that a broker that was killed has little to look through; nothing is deleted.
const RAW: &[(&str, &str)] = &[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("segment.bytes", "67108864")];

#[test]
fn whatever_happens_to_kafka_each_200_is_in_raw_once_in_order_byte_for_byte_and_nothing_is_refused() {
    let test = "whatever_happens_to_kafka_each_200_is_in_raw_once_in_order_byte_for_byte_and_nothing_is_refused";
    let _alone = alone();
    let mut proxy = Proxy::bind();
    let Some(mut broker) = kafka::own_behind(test, proxy.port()) else { return };
    proxy.serve(broker.back(), Language::Kafka);
    let requests = number(REQUESTS).unwrap_or(REQUESTS_IN_CI);
    let mut random = of_this_run("truth");

    let direct = broker.bootstrap().to_owned();
    let names = Names::new(&format!("127.0.0.1:{}", proxy.port()));
    let raw = names.topic("raw");
    topics::make(&direct, &raw, i32::try_from(PARTITIONS).expect("few"), RAW);
    let ingress = names.start(Program::Ingress, "ingress", &[]);
    ingress.ready();

    let book = Arc::new(Book::new(CONNECTIONS, PORTALS_OF_EACH));
    let reader = Reader::start(&direct, &raw, &book);
    let plan = Plan { hang_up_one_in: HANG_UP_ONE_IN, ..Plan::default() };
    let start = Instant::now();
    let senders = Senders::start(ingress.address("webhooks"), &book, plan, &mut random);
    let stage = Stage { broker: &mut broker, proxy: &proxy, ingress: &ingress, senders: &senders };
    let faults = play(stage, &book, requests, &mut random);
    let (hung_up, not_connected) = senders.stop();
    book.comes_to_rest(&ingress);
    reader.finish();

    let (verdict, offences) = book.verdict();
    // A broker that is killed may forget which batches it has: the client is told that its records are out of order,
    // cannot go on, and ingress takes a new one. Only then something may be there twice, and says so.
    let replaced = ingress.metric("hookledger_ingress_producers_renewed_total", "").unwrap_or_default();
    report(&format!(
        "truth: {verdict}, {faults} faults, {replaced} producers replaced, {hung_up} hung up, {not_connected} connections \
         refused, {:.0} seconds",
        start.elapsed().as_secs_f64()
    ));
    for line in ingress.logs().lines().filter(|line| line.contains("the Kafka producer is done for")) {
        report(&format!("truth: {line}"));
    }
    assert_eq!(not_connected, 0, "ingress was there all the while");
    assert!(verdict.kafka > 0 && verdict.disk > 0, "events came by both ways: {verdict}");
    let expected = Verdict {
        requests: verdict.requests,
        kafka: verdict.kafka,
        disk: verdict.disk,
        found: verdict.found,
        unanswered: hung_up,
        resent: if replaced > 0.0 { verdict.resent } else { 0 },
        ..Verdict::default()
    };
    assert_eq!(verdict, expected, "{offences:#?}");
}

/// Plays all faults in any order, again and again until enough was answered. Returns how many were played.
fn play(mut stage: Stage<'_>, book: &Book, requests: u64, random: &mut Rng) -> u64 {
    let (mut played, mut told) = (0, Instant::now());
    let mut deck = Vec::new();
    let enough = |played: u64| {
        let (kafka, disk) = book.kept();
        kafka + disk >= requests && played >= Fault::ALL.len() as u64
    };
    while !enough(played) {
        let fault = deck.pop().unwrap_or_else(|| {
            deck = Fault::ALL.to_vec();
            random.shuffle(&mut deck);
            deck.pop().expect("there are faults")
        });
        let (before, begun) = (book.kept(), Instant::now());
        stage.play(fault, random);
        let (after, lasted) = (book.kept(), begun.elapsed());
        // Every other time the next one comes before all is well again.
        if random.bool() {
            let mut more = 1 + random.u64(..BETWEEN_MAX.max(requests / PART_BETWEEN));
            while more > 0 {
                let some = more.min(BETWEEN_MAX);
                goes_straight_again(book, some);
                more -= some;
            }
        } else {
            stage.senders.goes_on(1 + random.u64(..10_000), STRAIGHT_WITHIN);
        }
        played += 1;
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            let ((kafka, disk), found) = (book.kept(), book.seen());
            report(&format!(
                "truth: {} of {requests} answered 200, {kafka} by Kafka, {disk} by disk; {found} found; {played} faults, \
                 {fault:?} was the last, {lasted:?}, {} by Kafka and {} by disk meanwhile",
                kafka + disk,
                after.0 - before.0,
                after.1 - before.1,
            ));
        }
    }
    goes_straight_again(book, 1);
    played
}

/// By itself, while webhooks keep coming.
fn goes_straight_again(book: &Book, more: u64) {
    let until = book.kept().0 + more;
    eventually(STRAIGHT_WITHIN, "events go straight to Kafka again", || (book.kept().0 >= until).then_some(()));
}
