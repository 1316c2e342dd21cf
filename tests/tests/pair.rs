//! Two processors: each answers for every installation, and when one is killed the other goes on.

use std::time::Duration;

use portal_sim::player::Player;
use tests::cluster::{Cluster, PARTITIONS};
use tests::kafka;
use tests::load::{Acked, Amount, Load, Outcome};
use tests::oracle::Oracle;
use tests::verify::{CAUGHT_UP_WITHIN, answers_agree, derived_topics_agree, raw_of};
use tests::wait::eventually;

const PORTALS: u64 = 200;
const CONNECTIONS: usize = 8;

#[test]
fn each_of_two_answers_for_every_installation_and_one_goes_on_when_the_other_is_killed() {
    let test = "each_of_two_answers_for_every_installation_and_one_goes_on_when_the_other_is_killed";
    let Some(servers) = kafka::shared(test) else { return };
    let mut cluster = Cluster::start(servers, 2);
    both_own_partitions(&cluster);
    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
    let first = load(&cluster, portals);
    let mut acked = first.acked;
    all_agree(&cluster, &acked);

    // Under load, and for good: the other takes its partitions when its session has run out.
    cluster.processors[0].kill9();
    let killed = cluster.processors.remove(0);
    let second = load(&cluster, first.portals);
    acked.extend(second.acked);
    all_agree(&cluster, &acked);

    cluster.processors.insert(0, killed);
    cluster.processors[0].restart();
    let third = load(&cluster, second.portals);
    acked.extend(third.acked);
    let oracle = all_agree(&cluster, &acked);
    derived_topics_agree(cluster.names(), &oracle);
}

/// The lag of a partition is told by its owner alone.
fn both_own_partitions(cluster: &Cluster) {
    eventually(CAUGHT_UP_WITHIN, "each processor owns partitions", || {
        let owned = |index: usize| {
            let process = &cluster.processors[index];
            let owns = |partition: &u32| {
                process.metric("hookledger_processor_lag_events", &format!("partition=\"{partition}\"")).is_some()
            };
            (0..PARTITIONS).filter(owns).count()
        };
        (owned(0) > 0 && owned(1) > 0).then_some(())
    });
}

fn all_agree(cluster: &Cluster, acked: &[Acked]) -> Oracle {
    let oracle = Oracle::of(&raw_of(cluster.names(), acked));
    for processor in &cluster.processors {
        answers_agree(&mut processor.queries(), &oracle);
    }
    oracle
}

fn load(cluster: &Cluster, portals: Vec<Player>) -> Outcome {
    let count = portals.len();
    let amount = Amount { each: 6, pause: Duration::ZERO };
    let outcome = Load::start(cluster.ingress.address("webhooks"), portals, CONNECTIONS, amount).finish();
    assert_eq!(outcome.refused, Vec::<String>::new());
    assert_eq!(outcome.acked.len(), count * 6, "all are answered 200");
    outcome
}
