//! Whatever dies: nothing that was answered 200 is missing, nothing is folded or published twice, all catches up.

use std::fs;
use std::time::Duration;

use portal_sim::player::Player;
use tests::cluster::Cluster;
use tests::kafka::{self, Broker};
use tests::load::{Amount, Load, send};
use tests::oracle::Oracle;
use tests::topics::{Found, Isolation};
use tests::verify::{answers_agree, derived_topics_agree, nothing_acked_is_missing, order_per_portal_is_kept, raw_of};
use tests::wait::{alone, report};

const ROUNDS: usize = 10;
const PORTALS: u64 = 300;
const CONNECTIONS: usize = 16;

/// Webhooks that are answered between two faults, and during those that webhooks must get through.
const BETWEEN: u64 = 150;

/// By when webhooks are answered again.
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);

const DERIVED: [&str; 6] = ["facts", "events", "unverified", "installations", "permissions", "rejected"];

#[test]
fn ten_rounds_of_kills_and_a_frozen_broker_lose_nothing_and_double_nothing() {
    let test = "ten_rounds_of_kills_and_a_frozen_broker_lose_nothing_and_double_nothing";
    let _alone = alone();
    let Some(mut broker) = kafka::own(test) else { return };
    let mut cluster = Cluster::start(broker.bootstrap(), 1);
    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    let amount = Amount { each: usize::MAX, pause: Duration::from_millis(15) };
    let load = Load::start(cluster.ingress.address("webhooks"), portals, CONNECTIONS, amount);
    for round in 0..ROUNDS {
        load.goes_on(BETWEEN, GOES_ON_WITHIN);
        match round % 3 {
            0 => {
                cluster.ingress.kill9();
                cluster.ingress.restart();
            }
            1 => {
                cluster.processors[0].kill9();
                load.goes_on(BETWEEN, GOES_ON_WITHIN);
                cluster.processors[0].restart();
            }
            _ => break_the_broker(&mut broker, &load),
        }
    }
    load.goes_on(BETWEEN, GOES_ON_WITHIN);
    let mut outcome = load.stop();
    assert_eq!(outcome.refused, Vec::<String>::new());

    let raw = raw_of(cluster.names(), &outcome.acked);
    let doubled = nothing_acked_is_missing(&outcome.acked, &raw);
    order_per_portal_is_kept(&outcome.acked, &raw);
    let on_disk = outcome.acked.iter().filter(|acked| acked.kept == "disk").count();
    report(&format!(
        "kills: {} answered 200, {on_disk} of them by way of the disk, {} without an answer, {} not sent, {doubled} resent",
        outcome.acked.len(),
        outcome.unanswered.len(),
        outcome.unsent,
    ));
    assert!(on_disk > 0, "a broken broker makes events go to the disk");
    let oracle = Oracle::of(&raw);
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    derived_topics_agree(cluster.names(), &oracle);

    a_deleted_state_changes_nothing(&mut cluster, &oracle);
    let mut webhooks = cluster.ingress.webhooks();
    let more: Vec<_> = outcome.portals.iter_mut().map(|portal| send(&mut webhooks, portal.next_webhook())).collect();
    let oracle = Oracle::of(&raw_of(cluster.names(), &more));
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    derived_topics_agree(cluster.names(), &oracle);
}

#[test]
fn what_a_killed_ingress_had_handed_to_a_frozen_broker_is_folded_and_published_once() {
    let _alone = alone();
    let test = "what_a_killed_ingress_had_handed_to_a_frozen_broker_is_folded_and_published_once";
    let Some(broker) = kafka::own(test) else { return };
    let mut cluster = Cluster::start(broker.bootstrap(), 1);
    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    let amount = Amount { each: 3, pause: Duration::ZERO };
    broker.freeze();
    // Handed over to a broker that will find it in its sockets, and kept on disk when the deadline had passed.
    let outcome = Load::start(cluster.ingress.address("webhooks"), portals, CONNECTIONS, amount).finish();
    cluster.ingress.kill9();
    broker.thaw();
    cluster.ingress.restart();

    let raw = raw_of(cluster.names(), &outcome.acked);
    let doubled = nothing_acked_is_missing(&outcome.acked, &raw);
    report(&format!("kills: {doubled} of {} are in raw twice", outcome.acked.len()));
    assert!(doubled > 0, "the broker took what the killed ingress had handed over");
    order_per_portal_is_kept(&outcome.acked, &raw);
    // Once more, so that second copies that come late are seen too.
    let mut webhooks = cluster.ingress.webhooks();
    let mut portals = outcome.portals;
    let more: Vec<_> = portals.iter_mut().map(|portal| send(&mut webhooks, portal.next_webhook())).collect();
    let oracle = Oracle::of(&raw_of(cluster.names(), &more));
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    derived_topics_agree(cluster.names(), &oracle);
}

/// Frozen for longer than the deadline, then killed: webhooks are answered all the while.
fn break_the_broker(broker: &mut Broker, load: &Load) {
    broker.freeze();
    // One answer for each connection may have been on its way; the others come after the deadline only.
    load.goes_on(BETWEEN, GOES_ON_WITHIN);
    broker.thaw();
    load.goes_on(BETWEEN, GOES_ON_WITHIN);
    broker.kill();
    load.goes_on(BETWEEN, GOES_ON_WITHIN);
    broker.restart();
}

/// The state is a cache: without it the processor answers the same and publishes nothing again.
fn a_deleted_state_changes_nothing(cluster: &mut Cluster, oracle: &Oracle) {
    let published = |cluster: &Cluster| -> Vec<Vec<Found>> {
        DERIVED.iter().map(|topic| cluster.names().read(topic, Isolation::Uncommitted)).collect()
    };
    let before = published(cluster);
    let status = cluster.processors[0].terminate();
    assert!(status.success(), "the processor ended with {status}");
    fs::remove_dir_all(cluster.names().home("processor-1")).expect("delete the state");
    cluster.processors[0].restart();
    cluster.processors[0].ready();
    answers_agree(&mut cluster.processors[0].queries(), oracle);
    for (topic, (before, after)) in DERIVED.iter().zip(before.iter().zip(published(cluster))) {
        assert_eq!(before.len(), after.len(), "{topic}: records published again: {:?}", after.get(before.len()));
    }
}
