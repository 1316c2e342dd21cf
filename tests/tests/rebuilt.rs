//! State that was followed, taken over, deleted and read again, or rebuilt by the command, is the same everywhere; and
//! none of it publishes anything.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use portal_sim::player::Player;
use tests::cloudevents::{DERIVED, all, sdks_agree};
use tests::cluster::{Cluster, Names, PARTITIONS};
use tests::group::digests;
use tests::kafka;
use tests::load::{Amount, Load};
use tests::oracle::Oracle;
use tests::process::{Ended, Program, run};
use tests::topics::{self, Found, Isolation};
use tests::verify::{CAUGHT_UP_WITHIN, answers_agree, derived_topics_agree, raw_of};
use tests::wait::eventually;

const PORTALS: u64 = 100;
const CONNECTIONS: usize = 8;
const EACH: usize = 6;

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
    let known = digests(&command(&cluster, "verify", 1), PARTITIONS);
    assert_eq!(digests(&command(&cluster, "verify", 2), PARTITIONS), known, "owner and follower know the same");

    // Deleted, and rebuilt by the command.
    fs::remove_dir_all(state(&cluster, 1)).expect("thrown away");
    let rebuilt = command(&cluster, "rebuild", 1);
    assert_eq!(digests(&rebuilt, PARTITIONS), known, "{rebuilt:?}");
    assert_eq!(digests(&command(&cluster, "verify", 1), PARTITIONS), known);

    // Deleted, and read again by the processor, which then has all partitions to itself: it takes them all over.
    fs::remove_dir_all(state(&cluster, 2)).expect("thrown away");
    cluster.processors[1].restart();
    answers_agree(&mut cluster.processors[1].queries(), &oracle);
    takes_over_all(&cluster, 1);
    cluster.processors[1].terminate();
    assert_eq!(digests(&command(&cluster, "verify", 2), PARTITIONS), known, "taken over");

    // The rebuilt one goes on, too.
    cluster.processors[0].restart();
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    takes_over_all(&cluster, 0);
    assert_eq!(self::published(&cluster), published, "nothing was published by any of this");
    cluster.processors[0].terminate();
    assert_eq!(digests(&command(&cluster, "verify", 1), PARTITIONS), known);
}

#[test]
fn what_an_audit_finds_altered_is_put_right_with_exactly_what_differs_marked_for_subscribers() {
    let test = "what_an_audit_finds_altered_is_put_right_with_exactly_what_differs_marked_for_subscribers";
    let Some(servers) = kafka::shared(test) else { return };
    let mut cluster = Cluster::start(servers, 1);
    let oracle = load(&cluster);
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    let refused = audit(&cluster, &["--repair"]);
    assert_ne!(refused.code, Some(0), "a processor has the partitions: {refused:?}");
    cluster.processors[0].terminate();
    assert_eq!(audit(&cluster, &[]).code, Some(0));

    // One record says something else, one is gone, one is of no installation; and a fact says what its event does not.
    let records = cluster.names().read("installations", Isolation::Committed);
    let newest: BTreeMap<String, Found> =
        records.into_iter().map(|record| (record.key.clone().expect("a key"), record)).collect();
    let mut newest = newest.into_values();
    let mut next = || newest.next().expect("an installation");
    let (other, gone) = (next(), next());
    let altered = String::from_utf8(other.value.clone().expect("a value")).expect("JSON").replace("installed", "lost");
    append(&cluster, "installations", &other, other.key.as_deref(), Some(&altered));
    append(&cluster, "installations", &gone, gone.key.as_deref(), None);
    append(&cluster, "installations", &gone, Some("crm-sync/nobody"), Some("{}"));
    let told = cluster.names().read("facts", Isolation::Committed);
    let told = told.into_iter().rev().find(|record| record.header("ce_type") == Some("com.bitrix24.onappinstall"));
    let told = told.expect("an install");
    let mut fact = told.json();
    (fact["complete"], fact["correction"]) = (false.into(), 1.into());
    append(&cluster, "facts", &told, told.key.as_deref(), Some(&fact.to_string()));

    let found = audit(&cluster, &[]);
    assert_eq!(found.code, Some(3), "{found:?}");
    for what in
        ["has another record", "has no record", "crm-sync/nobody that does not follow", "says something else than raw"]
    {
        assert!(found.stdout.contains(what), "{what}: {found:?}");
    }
    assert_eq!(corrections(&cluster), [], "looking publishes nothing");
    let mended = audit(&cluster, &["--repair"]);
    assert_eq!(mended.code, Some(0), "{mended:?}");
    let key = |record: &Found| record.key.clone().expect("a key");
    let mut expected = [
        ("facts", key(&told), "other"),
        ("installations", key(&other), "other"),
        ("installations", key(&gone), "missing"),
        ("installations", "crm-sync/nobody".to_owned(), "surplus"),
    ]
    .map(|(topic, key, why)| (topic, key, why.to_owned()));
    expected.sort();
    assert_eq!(corrections(&cluster), expected);
    sdks_agree(test, &all(cluster.names()));
    let again = audit(&cluster, &[]);
    assert!(again.code == Some(0) && again.stdout.contains(": 0 differences"), "{again:?}");

    cluster.processors[0].restart();
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
}

fn append(cluster: &Cluster, topic: &str, beside: &Found, key: Option<&str>, value: Option<&str>) {
    let Names { servers, .. } = cluster.names();
    let topic = cluster.names().topic(topic);
    topics::append(servers, &topic, beside.partition, key.expect("a key"), value.map(str::as_bytes));
}

/// Every record that says that it corrects something: its topic, its key, and why.
fn corrections(cluster: &Cluster) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    for topic in DERIVED {
        for record in cluster.names().read(topic, Isolation::Committed) {
            if let Some(why) = record.header("hl_correction") {
                found.push((topic, record.key.clone().expect("a key"), why.to_owned()));
            }
        }
    }
    found.sort();
    found
}

fn audit(cluster: &Cluster, more: &[&str]) -> Ended {
    let arguments = cluster.names().arguments(&home(1));
    let group = format!("{}processor", cluster.names().prefix);
    let ours = ["--group", group.as_str()];
    let arguments =
        ["audit"].into_iter().chain(arguments.iter().map(String::as_str)).chain(ours).chain(more.iter().copied());
    run(Program::Hookledger, &arguments.collect::<Vec<_>>())
}

fn load(cluster: &Cluster) -> Oracle {
    let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
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
