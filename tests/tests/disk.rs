//! With the broker stopped webhooks are still answered 200, and after its return nothing is doubled or out of order.

use std::time::Duration;

use portal_sim::player::Player;
use tests::cluster::{Cluster, Names};
use tests::kafka;
use tests::load::{Amount, Load, Outcome, send};
use tests::oracle::Oracle;
use tests::process::{Process, Program};
use tests::topics::Isolation;
use tests::verify::{answers_agree, derived_topics_agree, nothing_acked_is_missing, order_per_portal_is_kept, raw_of};
use tests::wait::{alone, eventually};

const PORTALS: u64 = 200;
const CONNECTIONS: usize = 32;
const BACK_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn webhooks_are_answered_while_the_broker_is_down_and_nothing_is_doubled_afterwards() {
    let _alone = alone();
    let test = "webhooks_are_answered_while_the_broker_is_down_and_nothing_is_doubled_afterwards";
    let Some(mut broker) = kafka::own(test) else { return };
    let cluster = Cluster::start(broker.bootstrap(), 1);

    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    let before = load(&cluster.ingress, portals, 5);
    broker.kill();
    let during = load(&cluster.ingress, before.portals, 10);
    assert!(during.acked.iter().all(|acked| acked.kept == "disk"), "there is no Kafka to keep anything");
    broker.restart();
    let after = load(&cluster.ingress, during.portals, 5);

    let acked: Vec<_> = [before.acked, during.acked, after.acked].concat();
    let raw = raw_of(cluster.names(), &acked);
    assert_eq!(raw.len(), acked.len(), "nothing is there twice");
    nothing_acked_is_missing(&acked, &raw);
    order_per_portal_is_kept(&acked, &raw);
    let oracle = Oracle::of(&raw);
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    derived_topics_agree(cluster.names(), &oracle);

    let mut webhooks = cluster.ingress.webhooks();
    let mut portal = Player::new("crm-sync", PORTALS);
    eventually(BACK_WITHIN, "events go straight to Kafka again", || {
        (send(&mut webhooks, portal.next_webhook()).kept == "kafka").then_some(())
    });
}

#[test]
fn what_lies_on_the_disk_of_a_killed_ingress_is_in_kafka_after_its_return() {
    let _alone = alone();
    let test = "what_lies_on_the_disk_of_a_killed_ingress_is_in_kafka_after_its_return";
    let Some(mut broker) = kafka::own(test) else { return };
    let mut cluster = Cluster::start(broker.bootstrap(), 1);
    broker.kill();
    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    let first = load(&cluster.ingress, portals, 3);
    cluster.ingress.kill9();
    // It takes webhooks before there is a broker: what it has on its disk is older and goes first.
    cluster.ingress.restart();
    let second = load(&cluster.ingress, first.portals, 3);
    broker.restart();

    let acked: Vec<_> = [first.acked, second.acked].concat();
    let raw = raw_of(cluster.names(), &acked);
    nothing_acked_is_missing(&acked, &raw);
    order_per_portal_is_kept(&acked, &raw);
    let oracle = Oracle::of(&raw);
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    derived_topics_agree(cluster.names(), &oracle);
}

#[test]
fn an_ingress_that_keeps_on_disk_first_doubles_nothing_either() {
    let Some(servers) = kafka::shared("an_ingress_that_keeps_on_disk_first_doubles_nothing_either") else { return };
    let names = Names::new(servers);
    let ingress = names.start(Program::Ingress, "ingress", &["--keep", "disk"]);
    ingress.ready();
    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    let outcome = load(&ingress, portals, 10);
    assert!(outcome.acked.iter().all(|acked| acked.kept == "disk"), "always on disk first");
    let raw = raw_of(&names, &outcome.acked);
    assert_eq!(names.read("raw", Isolation::Committed).len(), outcome.acked.len(), "nothing is there twice");
    nothing_acked_is_missing(&outcome.acked, &raw);
    order_per_portal_is_kept(&outcome.acked, &raw);
}

#[test]
fn only_a_full_disk_without_kafka_is_answered_503_and_passes_when_kafka_is_back() {
    let _alone = alone();
    let test = "only_a_full_disk_without_kafka_is_answered_503_and_passes_when_kafka_is_back";
    let Some(mut broker) = kafka::own(test) else { return };
    let names = Names::new(broker.bootstrap());
    let ingress = names.start(Program::Ingress, "ingress", &["--disk-log-limit", "64KiB"]);
    ingress.ready();
    broker.kill();

    let mut webhooks = ingress.webhooks();
    let mut portal = Player::new("crm-sync", 0);
    let mut acked = Vec::new();
    let refusal = loop {
        let webhook = portal.next_webhook();
        let answer = webhooks.post(&webhook.path(), webhook.content_type, &webhook.body).expect("an answer");
        if answer.status != 200 {
            break answer;
        }
        acked.push(answer.json()["id"].as_str().expect("an id").to_owned());
        assert!(acked.len() < 1_000, "64 KiB are full after fewer events");
    };
    assert!(acked.len() > 10, "64 KiB hold more events than {}", acked.len());
    assert_eq!(refusal.status, 503, "{}", refusal.text());
    assert!(refusal.header("retry-after").is_some(), "when to come again is said: {:?}", refusal.headers);
    assert_eq!(refusal.header("content-type"), Some("application/problem+json"));

    broker.restart();
    eventually(BACK_WITHIN, "webhooks are taken again", || {
        let webhook = portal.next_webhook();
        let answer = webhooks.post(&webhook.path(), webhook.content_type, &webhook.body).ok()?;
        (answer.status == 200).then_some(())
    });
    eventually(BACK_WITHIN, "all that was answered 200 is in raw", || {
        let raw = names.read("raw", Isolation::Committed);
        let is_there = |id: &String| raw.iter().any(|record| record.header("ce_id") == Some(id));
        acked.iter().all(is_there).then_some(())
    });
}

fn load(ingress: &Process, portals: Vec<Player>, each: usize) -> Outcome {
    let count = portals.len();
    let amount = Amount { each, pause: Duration::ZERO };
    let outcome = Load::start(ingress.address("webhooks"), portals, CONNECTIONS, amount).finish();
    assert_eq!(outcome.refused, Vec::<String>::new());
    assert_eq!(outcome.acked.len(), count * each, "all are answered 200");
    outcome
}
