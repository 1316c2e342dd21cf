//! The broker that everything else is tested on is real, and comes back from what tests do to it.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tests::kafka;
use tests::topics::{self, Isolation};

const WAIT: Duration = Duration::from_secs(30);

#[test]
fn committed_records_survive_a_kill_and_aborted_ones_are_not_seen() {
    let Some(mut broker) = kafka::own("committed_records_survive_a_kill_and_aborted_ones_are_not_seen") else { return };
    let servers = broker.bootstrap().to_owned();
    topics::make(&servers, "tried", 2, &[("cleanup.policy", "compact")]);
    publish(&servers);
    let seen = ["kept", "kept too"];
    let all = ["kept", "aborted", "kept too"];
    assert_eq!(values(&servers, Isolation::Committed), seen);
    assert_eq!(values(&servers, Isolation::Uncommitted), all);

    broker.kill();
    broker.restart();
    assert_eq!(values(&servers, Isolation::Committed), seen);

    broker.freeze();
    let client: BaseConsumer = topics::client(&servers).create().expect("a client");
    assert!(client.fetch_metadata(None, Duration::from_millis(500)).is_err(), "a frozen broker answers nothing");
    broker.thaw();
    assert_eq!(values(&servers, Isolation::Committed), seen);
    assert_eq!(topics::partitions(&servers, "tried"), Some(2));
    assert_eq!(topics::setting(&servers, "tried", "cleanup.policy").as_deref(), Some("compact"));
}

fn publish(servers: &str) {
    let producer: ThreadedProducer<DefaultProducerContext> =
        topics::client(servers).set("transactional.id", "tried").create().expect("a producer");
    producer.init_transactions(WAIT).expect("a producer id");
    for (value, committed) in [("kept", true), ("aborted", false), ("kept too", true)] {
        producer.begin_transaction().expect("begin");
        let record = BaseRecord::<str, str>::to("tried").partition(1).key(value).payload(value);
        assert!(producer.send(record).is_ok(), "hand over {value}");
        producer.flush(WAIT).expect("flush");
        let end = if committed { producer.commit_transaction(WAIT) } else { producer.abort_transaction(WAIT) };
        end.expect("end the transaction");
    }
}

fn values(servers: &str, isolation: Isolation) -> Vec<String> {
    let found = topics::read(servers, "tried", isolation);
    found.into_iter().filter_map(|record| String::from_utf8(record.value?).ok()).collect()
}
