//! Faults of Kafka: webhooks are answered 200 meanwhile, the log names the fault once and says once that it is over, and
//! afterwards every event is in `raw`, once unless it is marked.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portal_sim::player::{Player, Webhook};
use tests::cluster::{Names, PARTITIONS};
use tests::http::FORM;
use tests::kafka::{self, Broker};
use tests::load::{Acked, send};
use tests::night::{BETWEEN, Night, PORTALS, SHOWS_WITHIN};
use tests::oracle::Oracle;
use tests::process::Program;
use tests::topics;
use tests::verify::{answers_agree, nothing_acked_is_missing, order_per_portal_is_kept, raw_of};
use tests::wait::{Place, eventually, in_pairs, report};

#[test]
fn a_kafka_that_stands_still_is_waited_for_on_the_disk_and_nothing_is_doubled() {
    let test = "a_kafka_that_stands_still_is_waited_for_on_the_disk_and_nothing_is_doubled";
    let Some((_place, broker)) = own(test) else { return };
    let night = Night::begin(broker.bootstrap());
    broker.freeze();
    night.shows("unreachable");
    broker.thaw();
    let morning = night.is_over();
    morning.nothing_is_doubled();
    morning.was_said("unreachable", 1);
}

#[test]
fn a_slow_kafka_answers_within_the_deadline_or_the_disk_does() {
    let test = "a_slow_kafka_answers_within_the_deadline_or_the_disk_does";
    let Some((_place, broker)) = own(test) else { return };
    let night = Night::begin(broker.bootstrap());
    let slow = Slow::begin(broker, Duration::from_millis(100));
    let (before, acked) = (night.kept_on_disk(), night.load.acked());
    night.load.goes_on(BETWEEN, SHOWS_WITHIN);
    let (disk, all) = (night.kept_on_disk() - before, night.load.acked() - acked);
    report(&format!("Kafka faults: with pauses of 100 ms the disk kept {disk} of {all}"));

    let slow = Slow::begin(slow.end(), Duration::from_millis(700));
    eventually(SHOWS_WITHIN, "people are told", || {
        // Whether it answers when it is asked for the cause is a matter of luck.
        let said = ["silent", "unreachable"].iter().any(|fault| !night.ingress.lines("fault", fault).is_empty());
        said.then_some(())
    });
    night.load.goes_on(BETWEEN, SHOWS_WITHIN);
    let _broker = slow.end();
    let morning = night.is_over();
    morning.nothing_is_doubled();
}

#[test]
fn a_killed_kafka_is_named_as_unreachable_and_caught_up_with_when_it_is_back() {
    let test = "a_killed_kafka_is_named_as_unreachable_and_caught_up_with_when_it_is_back";
    let Some((_place, mut broker)) = own(test) else { return };
    let night = Night::begin(broker.bootstrap());
    broker.kill();
    night.shows("unreachable");
    broker.restart();
    let morning = night.is_over();
    morning.nothing_is_doubled();
    morning.was_said("unreachable", 1);
}

#[test]
fn a_broker_that_lost_the_end_of_its_log_costs_only_what_it_had_acknowledged() {
    let test = "a_broker_that_lost_the_end_of_its_log_costs_only_what_it_had_acknowledged";
    let Some((_place, mut broker)) = own(test) else { return };
    let mut night = Night::begin(broker.bootstrap());
    broker.kill();
    let copy = broker.copy_of_data();
    broker.restart();
    night.goes_straight();
    // What is acknowledged from here on is lost by the broker: no other log can have it.
    night.load.goes_on(BETWEEN, SHOWS_WITHIN);
    broker.kill();
    let lost_at = Instant::now();
    broker.put_back(&copy);
    broker.restart();
    night.shows("lost_tail");
    let outcome = night.quiet();
    eventually(SHOWS_WITHIN, "the producer is replaced", || {
        (night.metric("hookledger_ingress_producers_renewed_total", "") > 0.5).then_some(())
    });

    let taken = outcome.acked.into_iter().zip(outcome.took);
    let (since, before): (Vec<_>, Vec<_>) = taken.partition(|taken| is_kept_since(lost_at, taken));
    let [since, before] = [since, before].map(|all| all.into_iter().map(|(acked, _)| acked).collect::<Vec<Acked>>());
    let raw = raw_of(&night.names, &since);
    let is_there = |acked: &Acked| raw.iter().any(|record| record.header("ce_id") == Some(&acked.id));
    let (mut there, lost): (Vec<Acked>, Vec<Acked>) = before.into_iter().partition(is_there);
    assert!(!lost.is_empty(), "the broker lost nothing that it had acknowledged, so this test shows nothing");
    there.extend(since);
    let doubled = nothing_acked_is_missing(&there, &raw);
    report(&format!(
        "Kafka faults: a broker lost {} events, {doubled} of {} are in raw twice",
        lost.len(),
        there.len()
    ));
    night.was_said("lost_tail", 1);
}

/// Whether an event was kept by the log that keeps events since then: what Kafka had acknowledged just before may have been
/// answered just after.
fn is_kept_since(then: Instant, (acked, (at, took)): &(Acked, (Instant, Duration))) -> bool {
    *at > then && (acked.kept == "disk" || at.duration_since(then) > *took)
}

#[test]
fn a_deleted_topic_is_made_anew_and_loses_only_what_the_deletion_took() {
    let test = "a_deleted_topic_is_made_anew_and_loses_only_what_the_deletion_took";
    let Some((_place, broker)) = own(test) else { return };
    let mut night = Night::begin(broker.bootstrap());
    topics::delete(broker.bootstrap(), &night.names.topic("raw"));
    let gone_at = Instant::now();
    night.shows("topic_missing");
    night.goes_straight();
    let outcome = night.quiet();
    // What was acknowledged before is gone with the topic.
    let taken = outcome.acked.into_iter().zip(outcome.took).filter(|taken| is_kept_since(gone_at, taken));
    let since: Vec<Acked> = taken.map(|(acked, _)| acked).collect();
    assert!(since.iter().filter(|acked| acked.kept == "disk").count() as u64 > BETWEEN, "it was gone for a while");
    let raw = raw_of(&night.names, &since);
    nothing_acked_is_missing(&since, &raw);
    night.was_said("topic_missing", 1);
}

#[test]
fn a_topic_made_anew_with_other_partitions_gets_nothing_until_it_is_right() {
    let test = "a_topic_made_anew_with_other_partitions_gets_nothing_until_it_is_right";
    let Some((_place, broker)) = own(test) else { return };
    let servers = broker.bootstrap();
    for wrong in [PARTITIONS + 3, PARTITIONS - 2] {
        let mut night = Night::begin(servers);
        let topic = night.names.topic("raw");
        topics::delete(servers, &topic);
        topics::make(servers, &topic, i32::try_from(wrong).expect("few"), &[("cleanup.policy", "delete")]);
        night.shows("topic_shape");
        let known_at = Instant::now();
        let settled = topics::ends(servers, &topic);
        night.load.goes_on(BETWEEN, SHOWS_WITHIN);
        assert_eq!(topics::ends(servers, &topic), settled, "nothing is put where no reader looks for it");

        // A restart during this fault takes webhooks too: Kafka was reached once with this disk log.
        let first = night.quiet();
        let status = night.ingress.terminate();
        assert!(status.success(), "ingress ended with {status}");
        night.ingress.restart();
        let mut portal = Player::new("crm-sync", PORTALS);
        let meanwhile = send(&mut night.ingress.webhooks(), portal.next_webhook());
        assert_eq!(meanwhile.kept, "disk");

        topics::delete(servers, &topic);
        topics::make(servers, &topic, i32::try_from(PARTITIONS).expect("few"), &[("cleanup.policy", "delete")]);
        // A few went to the wrong topic in the moment before ingress knew, and are gone with it.
        let taken = first.acked.into_iter().zip(first.took);
        let (since, before): (Vec<_>, Vec<_>) = taken.partition(|(_, (at, _))| *at > known_at);
        let mut since: Vec<Acked> = since.into_iter().map(|(acked, _)| acked).collect();
        assert!(since.iter().all(|acked| acked.kept == "disk"), "nothing is handed over");
        since.push(meanwhile);
        let raw = raw_of(&night.names, &since);
        nothing_acked_is_missing(&since, &raw);
        let gone =
            before.iter().filter(|(acked, _)| raw.iter().all(|record| record.header("ce_id") != Some(&acked.id)));
        report(&format!("Kafka faults: {} of {} were in the topics that are gone", gone.count(), before.len()));
    }
}

#[test]
fn who_may_not_write_any_more_keeps_everything_until_he_may() {
    let _place = in_pairs();
    let more = |_: &kafka::Place| {
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nallow.everyone.if.no.acl.found=true\n"
            .to_owned()
    };
    let Some(broker) = kafka::own_as("who_may_not_write_any_more_keeps_everything_until_he_may", &more) else { return };
    let night = Night::begin(broker.bootstrap());
    let topic = night.names.topic("raw");
    let deny = ["--deny-principal", "User:*", "--operation", "Write", "--topic", &topic];
    // With a rule that denies there are rules, and what is not allowed by one is denied.
    let allow = ["--allow-principal", "User:*", "--operation", "All", "--topic", &topic];
    acl(&broker, &[&["--add"], &allow[..]].concat());
    acl(&broker, &[&["--add"], &deny[..]].concat());
    night.shows("authorization");
    acl(&broker, &[&["--remove", "--force"], &deny[..]].concat());
    let morning = night.is_over();
    morning.was_said("authorization", 1);
}

#[test]
fn an_event_too_large_for_the_topic_stays_on_disk_and_others_go_on() {
    let test = "an_event_too_large_for_the_topic_stays_on_disk_and_others_go_on";
    let Some((_place, broker)) = own(test) else { return };
    let night = Night::begin(broker.bootstrap());
    configure(&broker, &night.names.topic("raw"), "max.message.bytes=4000");
    let body = format!("event=ONCRMLEADADD&auth[member_id]=large&filler={}", "x".repeat(20_000));
    let large = Webhook { app: "crm-sync".to_owned(), content_type: FORM, body: body.into_bytes() };
    let large = send(&mut night.ingress.webhooks(), large);
    assert_eq!(large.kept, "disk", "it is kept, so it is answered 200");
    let refused = "hookledger_ingress_refused_by_kafka_events";
    eventually(SHOWS_WITHIN, "it is counted", || (night.metric(refused, "") > 0.5).then_some(()));
    night.goes_straight();
    assert!((night.metric(refused, "") - 1.0).abs() < 0.5, "only the large one is refused");
    eventually(SHOWS_WITHIN, "no event waits behind it", || {
        ((night.metric("hookledger_disk_log_events", "") - 1.0).abs() < 0.5).then_some(())
    });

    configure(&broker, &night.names.topic("raw"), "max.message.bytes=100000");
    eventually(SHOWS_WITHIN, "it is taken", || (night.metric(refused, "") < 0.5).then_some(()));
    let mut morning = night.is_over();
    morning.outcome.acked.push(large);
    let doubled =
        nothing_acked_is_missing(&morning.outcome.acked, &raw_of(&morning.night.names, &morning.outcome.acked));
    report(&format!("Kafka faults: a limit of 4,000 bytes made {doubled} events lie in raw twice"));
    assert!(morning.night.ingress.logs().contains("has taken all events that it had refused"));
}

#[test]
fn too_few_replicas_in_sync_are_named_and_waited_for() {
    let _place = in_pairs();
    let test = "too_few_replicas_in_sync_are_named_and_waited_for";
    let Some(mut brokers) = kafka::cluster(test, 3) else { return };
    // Two replicas, and both have to acknowledge: without one broker some partitions have one, and two still vote.
    let night = Night::begin_as(Names::new(brokers.bootstrap()), &["--replication", "2"]);
    brokers.node(0).kill();
    night.shows("not_enough_replicas");
    brokers.node(0).restart();
    let morning = night.is_over();
    morning.nothing_is_doubled();
    morning.was_said("not_enough_replicas", 1);
}

#[test]
fn a_name_that_does_not_resolve_at_the_start_keeps_no_webhook_out() {
    let test = "a_name_that_does_not_resolve_at_the_start_keeps_no_webhook_out";
    let Some((_place, broker)) = own(test) else { return };
    let names = Names::new("hookledger-test.invalid:9092");
    let mut ingress = names.start(Program::Ingress, "ingress", &[]);
    ingress.ready();
    let mut portal = Player::new("crm-sync", 0);
    let acked: Vec<Acked> = (0..20).map(|_| send(&mut ingress.webhooks(), portal.next_webhook())).collect();
    assert!(acked.iter().all(|acked| acked.kept == "disk"));
    eventually(SHOWS_WITHIN, "it is said", || (!ingress.lines("fault", "dns").is_empty()).then_some(()));
    assert!(ingress.terminate().success());
    assert_eq!(ingress.lines("fault", "dns").len(), 1, "once");
    assert!(ingress.metric("hookledger_kafka_up", "").is_none(), "it has ended");

    let names = Names { servers: broker.bootstrap().to_owned(), ..names };
    let ingress = names.start(Program::Ingress, "ingress", &[]);
    ingress.ready();
    let raw = raw_of(&names, &acked);
    assert_eq!(raw.len(), acked.len());
    order_per_portal_is_kept(&acked, &raw);
}

#[test]
fn a_name_that_is_gone_while_we_run_is_told_and_waited_for() {
    let test = "a_name_that_is_gone_while_we_run_is_told_and_waited_for";
    let Some((_place, mut broker)) = own(test) else { return };
    let night = Night::begin(broker.bootstrap());
    without_its_name(&mut broker, || night.shows("dns"));
    let morning = night.is_over();
    morning.nothing_is_doubled();
}

/// librdkafka can forget for ever where its first brokers were. Here it is told not to look there again, which comes to the
/// same.
#[test]
fn a_client_that_does_not_find_kafka_again_is_replaced() {
    let test = "a_client_that_does_not_find_kafka_again_is_replaced";
    let Some((_place, mut broker)) = own(test) else { return };
    let lost = ["--kafka-set", "metadata.recovery.strategy=none"];
    let night = Night::begin_as(Names::new(broker.bootstrap()), &lost);
    let mut processor = night.names.start(Program::Processor, "processor", &lost);
    processor.ready();
    without_its_name(&mut broker, || night.shows("dns"));
    let morning = night.is_over();
    assert!(morning.night.metric("hookledger_ingress_producers_renewed_total", "") >= 1.0);
    answers_agree(&mut processor.queries(), &Oracle::of(&morning.raw));
    assert!(processor.terminate().success());
}

/// For a while a broker tells clients to come to a name that does not resolve.
fn without_its_name(broker: &mut Broker, meanwhile: impl FnOnce()) {
    let file = broker.directory().join("server.properties");
    let settings = fs::read_to_string(&file).expect("its settings");
    broker.kill();
    let nameless = format!("{settings}advertised.listeners=PLAINTEXT://hookledger-test.invalid:9092\n");
    fs::write(&file, nameless).expect("write its settings");
    broker.restart();
    meanwhile();
    broker.kill();
    fs::write(&file, settings).expect("write its settings");
    broker.restart();
}

/// A broker that stands still for so long, again and again.
struct Slow {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Broker>,
}

impl Slow {
    fn begin(broker: Broker, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                broker.freeze();
                std::thread::sleep(pause);
                broker.thaw();
                std::thread::sleep(pause / 10);
            }
            broker
        });
        Self { stop, thread }
    }

    fn end(self) -> Broker {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

/// One at a time, each with a broker of its own.
fn own(test: &str) -> Option<(Place, Broker)> {
    let place = in_pairs();
    Some((place, kafka::own(test)?))
}

fn acl(broker: &Broker, arguments: &[&str]) {
    broker.tool("org.apache.kafka.tools.AclCommand", arguments);
}

fn configure(broker: &Broker, topic: &str, setting: &str) {
    let what = ["--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", setting];
    broker.tool("kafka.admin.ConfigCommand", &what);
}
