//! How long it takes until an existing fleet is imported and what was held of it flows.
//!
//! `HOOKLEDGER_TEST_FLEET` says how many portals it has.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use portal_sim::player::{Player, Step};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tests::cluster::{Cluster, PARTITIONS};
use tests::kafka;
use tests::load::send;
use tests::process::{Process, Program, run};
use tests::random::number;
use tests::topics;
use tests::wait::{eventually, report};

/// In CI.
const FLEET: u64 = 1_000;
const CONNECTIONS: usize = 32;
const EVENTS: [Step; 2] = [Step::Payment, Step::PassedOn];
const WITHIN: Duration = Duration::from_secs(600);

#[test]
fn a_fleet_is_imported_and_all_of_its_held_events_flow_once_and_in_order() {
    let test = "a_fleet_is_imported_and_all_of_its_held_events_flow_once_and_in_order";
    let Some(servers) = kafka::shared(test) else { return };
    let fleet = number("HOOKLEDGER_TEST_FLEET").unwrap_or(FLEET);
    // Else the events of a part of the fleet give way before it is imported. Each partition has an equal part of it.
    let limit = (2 * fleet).to_string();
    let cluster = Cluster::start_with(servers, 2, &[("HOOKLEDGER_UNTRUSTED_INSTALLATIONS_LIMIT", &limit)]);
    let events = usize::try_from(fleet).expect("small") * EVENTS.len();
    let portals = send_events(&cluster.ingress, fleet);
    eventually(WITHIN, "all events are held", || {
        let held = cluster
            .processors
            .iter()
            .filter_map(|processor| processor.metric("hookledger_processor_events_total", "outcome=\"unverified\""));
        (held.sum::<f64>() >= as_f64(events)).then_some(())
    });

    let list = cluster.names().directory.path().join("portals.csv");
    let lines: Vec<String> =
        portals.iter().map(|portal| format!("{},{}", portal.member_id, portal.secrets()[0])).collect();
    fs::write(&list, format!("member_id,application_token\n{}\n", lines.join("\n"))).expect("written");
    let topic = cluster.names().topic("events");
    let subscriber = subscribe(servers, &topic);
    let reader = thread::spawn(move || read(&subscriber, events));
    let began = Instant::now();
    let query = format!("http://{}", cluster.processors[0].address("queries"));
    let ended =
        run(Program::Hookledger, &["import", &list.display().to_string(), "--app", "crm-sync", "--query", &query]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let imported = began.elapsed();
    let ends = topics::ends(servers, &topic);
    let (found, last) = reader.join().expect("all of them");
    report(&format!("fleet: {fleet} portals imported, and their {events} held events in `events`, in {imported:?}"));
    for (partition, offset) in last {
        assert!(offset < ends[&partition].1, "the import ended before {partition}/{offset} was in `events`");
    }

    assert_eq!(found.len(), portals.len(), "of each portal");
    for (key, types) in found {
        assert!(types.len() == EVENTS.len() && types[0] == "com.bitrix24.onapppayment", "{key}: {types:?}");
    }
}

/// Each portal sends its events, before its principal is trusted.
fn send_events(ingress: &Process, fleet: u64) -> Vec<Player> {
    let mut portals: Vec<Player> = (0..fleet).map(|number| Player::new("crm-sync", number)).collect();
    let share = portals.len().div_ceil(CONNECTIONS);
    thread::scope(|scope| {
        for portals in portals.chunks_mut(share) {
            scope.spawn(|| {
                let mut webhooks = ingress.webhooks();
                for portal in portals {
                    for step in EVENTS {
                        send(&mut webhooks, portal.webhook(step));
                    }
                }
            });
        }
    });
    portals
}

fn subscribe(servers: &str, topic: &str) -> BaseConsumer {
    let subscriber: BaseConsumer = topics::client(servers)
        .set("group.id", "fleet")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..i32::try_from(PARTITIONS).expect("few") {
        all.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    subscriber.assign(&all).expect("assigned");
    subscriber
}

/// Reads so many events: their types by key, and the offset of the last one in each partition.
fn read(subscriber: &BaseConsumer, events: usize) -> (HashMap<String, Vec<String>>, HashMap<i32, i64>) {
    let (began, mut number, mut last) = (Instant::now(), 0, HashMap::new());
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    while number < events {
        assert!(began.elapsed() < WITHIN, "{number} of {events} events came");
        let Some(Ok(message)) = subscriber.poll(Duration::from_millis(100)) else { continue };
        last.insert(message.partition(), message.offset());
        let record = topics::Found::of(&message);
        let Some(kind) = record.header("ce_type") else { continue };
        found.entry(record.key.clone().expect("a key")).or_default().push(kind.to_owned());
        number += 1;
    }
    (found, last)
}

fn as_f64(number: usize) -> f64 {
    f64::from(u32::try_from(number).expect("small"))
}
