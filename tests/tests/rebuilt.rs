//! State that was followed, taken over, deleted and read again, or rebuilt by the command, is the same everywhere; and
//! none of it publishes anything.

use std::fs;
use std::time::Duration;

use tests::cluster::{Cluster, PARTITIONS};
use tests::kafka;
use tests::load::{Amount, Load};
use tests::oracle::Oracle;
use tests::portal::Portal;
use tests::process::{Ended, Program, run};
use tests::topics::Isolation;
use tests::verify::{CAUGHT_UP_WITHIN, answers_agree, derived_topics_agree, raw_of};
use tests::wait::eventually;

const PORTALS: u64 = 100;
const CONNECTIONS: usize = 8;
const EACH: usize = 6;
const DERIVED: [&str; 6] = ["facts", "events", "installations", "permissions", "unproven", "rejected"];

#[test]
fn state_that_was_followed_taken_over_deleted_or_rebuilt_is_the_same_and_publishes_nothing() {
    let test = "state_that_was_followed_taken_over_deleted_or_rebuilt_is_the_same_and_publishes_nothing";
    let Some(servers) = kafka::shared(test) else { return };
    let mut cluster = Cluster::start(servers, 2);
    let oracle = load(&cluster);
    for processor in &cluster.processors {
        answers_agree(&mut processor.queries(), &oracle);
    }
    derived_topics_agree(cluster.names(), &oracle);
    let published = published(&cluster);

    let audited = command(&cluster, "audit", 1);
    assert_eq!(audited.code, Some(0), "{audited:?}");
    let events = format!("{} events of raw", PORTALS * EACH as u64);
    assert!(audited.stdout.starts_with(&events) && audited.stdout.contains(": 0 differences"), "{audited:?}");

    // Some partitions were owned by the one and followed by the other, the rest the other way round.
    let running = command(&cluster, "verify", 1);
    assert_eq!(running.code, Some(2), "a processor has it: {running:?}");
    for processor in &mut cluster.processors {
        processor.terminate();
    }
    let known = digests(&command(&cluster, "verify", 1));
    assert_eq!(digests(&command(&cluster, "verify", 2)), known, "owner and follower know the same");

    // Deleted, and rebuilt by the command.
    fs::remove_dir_all(state(&cluster, 1)).expect("thrown away");
    let rebuilt = command(&cluster, "rebuild", 1);
    assert_eq!(digests(&rebuilt), known, "{rebuilt:?}");
    assert_eq!(digests(&command(&cluster, "verify", 1)), known);

    // Deleted, and read again by the processor, which then has all partitions to itself: it takes them all over.
    fs::remove_dir_all(state(&cluster, 2)).expect("thrown away");
    cluster.processors[1].restart();
    answers_agree(&mut cluster.processors[1].queries(), &oracle);
    takes_over_all(&cluster, 1);
    cluster.processors[1].terminate();
    assert_eq!(digests(&command(&cluster, "verify", 2)), known, "taken over");

    // The rebuilt one goes on, too.
    cluster.processors[0].restart();
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    takes_over_all(&cluster, 0);
    assert_eq!(self::published(&cluster), published, "nothing was published by any of this");
    cluster.processors[0].terminate();
    assert_eq!(digests(&command(&cluster, "verify", 1)), known);
}

fn load(cluster: &Cluster) -> Oracle {
    let portals = (0..PORTALS).map(|number| Portal::new("crm-sync", number)).collect();
    let amount = Amount { each: EACH, pause: Duration::ZERO };
    let outcome = Load::start(cluster.ingress.address("webhooks"), portals, CONNECTIONS, amount).finish();
    assert_eq!(outcome.refused, Vec::<String>::new());
    Oracle::of(&raw_of(cluster.names(), &outcome.acked))
}

fn takes_over_all(cluster: &Cluster, index: usize) {
    let processor = &cluster.processors[index];
    eventually(CAUGHT_UP_WITHIN, "it owns every partition", || {
        let owned = |partition: &u32| {
            processor.metric("hookledger_processor_lag_events", &format!("partition=\"{partition}\"")).is_some()
        };
        (0..PARTITIONS).all(|partition| owned(&partition)).then_some(())
    });
}

/// How many records each derived topic has for those who read committed ones.
fn published(cluster: &Cluster) -> Vec<usize> {
    DERIVED.iter().map(|topic| cluster.names().read(topic, Isolation::Committed).len()).collect()
}

fn home(number: usize) -> String {
    format!("processor-{number}")
}

fn state(cluster: &Cluster, number: usize) -> std::path::PathBuf {
    cluster.names().home(&home(number)).join("processor/state")
}

/// Runs a command for a processor, with what that was told.
fn command(cluster: &Cluster, command: &str, number: usize) -> Ended {
    let mut arguments = vec![command.to_owned()];
    if command == "verify" {
        let data = cluster.names().home(&home(number)).display().to_string();
        arguments.extend(["--data-dir".to_owned(), data]);
    } else {
        arguments.extend(cluster.names().arguments(&home(number)));
    }
    run(Program::Hookledger, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// `F` and the digest of each partition, as the command prints them.
fn digests(ended: &Ended) -> Vec<(String, String)> {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.stdout.lines().skip_while(|line| !line.starts_with("partition")).skip(1);
    let found: Vec<_> = lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .take_while(|cells| cells.len() == 4 && cells[0].parse::<u32>().is_ok())
        .map(|cells| (cells[1].to_owned(), cells[3].to_owned()))
        .collect();
    assert_eq!(found.len(), PARTITIONS as usize, "{ended:?}");
    found
}
