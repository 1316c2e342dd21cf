//! What was answered 200 is kept, byte for byte, and ends as the right records, each published once.

use std::time::Duration;

use portal_sim::player::Player;
use tests::cluster::Cluster;
use tests::kafka;
use tests::load::{Amount, Load};
use tests::oracle::Oracle;
use tests::topics::Isolation;
use tests::verify::{answers_agree, derived_topics_agree, nothing_acked_is_missing, order_per_portal_is_kept, raw_of};
use tests::wait::report;

const PORTALS: u64 = 10_000;
const EACH: usize = 10;
const CONNECTIONS: usize = 64;

#[test]
fn a_hundred_thousand_events_of_ten_thousand_portals_are_kept_and_end_as_the_right_records() {
    let test = "a_hundred_thousand_events_of_ten_thousand_portals_are_kept_and_end_as_the_right_records";
    let Some(servers) = kafka::shared(test) else { return };
    let cluster = Cluster::start(servers, 1);
    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    let start = std::time::Instant::now();
    let amount = Amount { each: EACH, pause: Duration::ZERO };
    let outcome = Load::start(cluster.ingress.address("webhooks"), portals, CONNECTIONS, amount).finish();
    let on_disk = outcome.acked.iter().filter(|acked| acked.kept == "disk").count();
    report(&format!(
        "kept: {} events in {:?}, slowest answer {:?}, {on_disk} by way of the disk",
        outcome.acked.len(),
        start.elapsed(),
        outcome.slowest,
    ));
    assert_eq!(outcome.refused, Vec::<String>::new());
    assert_eq!(outcome.unanswered, []);
    assert_eq!(outcome.acked.len(), usize::try_from(PORTALS).expect("fits") * EACH);

    // A disk entry may still be on its way to Kafka when its webhook was answered.
    let raw = raw_of(cluster.names(), &outcome.acked);
    assert_eq!(raw.len(), outcome.acked.len(), "nothing is there twice");
    nothing_acked_is_missing(&outcome.acked, &raw);
    order_per_portal_is_kept(&outcome.acked, &raw);

    let oracle = Oracle::of(&raw);
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    report(&format!("kept: all records agree after {:?}", start.elapsed()));
    derived_topics_agree(cluster.names(), &oracle);
    report(&format!("kept: all topics agree after {:?}", start.elapsed()));
    assert_eq!(cluster.names().read("raw", Isolation::Committed).len(), raw.len());
}
