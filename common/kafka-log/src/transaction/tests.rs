//! Single errors of Kafka at each step of a transaction, which librdkafka's mock cluster injects: what passes is waited
//! for, and everything else says whether to open the logs again, to end, or to ask an operator.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr};

use super::*;
use event_log::Record;
use event_log::contract::Retention;
use primitives::time::Timestamp;

/// What a step comes to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Published,
    Reopen,
    Fenced,
    Fatal,
}

#[test]
fn what_passes_is_waited_for_at_each_step() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS as CONCURRENT,
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS as LOADS, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE as AWAY,
        RD_KAFKA_RESP_ERR_NOT_COORDINATOR as MOVED, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as LED_ELSEWHERE,
    };
    let steps: [(Api, &[RDKafkaRespErr]); 6] = [
        (Api::InitProducerId, &[LOADS, CONCURRENT, MOVED]),
        (Api::AddPartitionsToTxn, &[LOADS, CONCURRENT, MOVED]),
        (Api::Produce, &[LED_ELSEWHERE, LED_ELSEWHERE]),
        (Api::AddOffsetsToTxn, &[LOADS, CONCURRENT, AWAY]),
        (Api::TxnOffsetCommit, &[LOADS, MOVED, AWAY]),
        (Api::EndTxn, &[LOADS, CONCURRENT, MOVED]),
    ];
    for (step, errors) in steps {
        assert_eq!(World::new().publish(step, errors), Outcome::Published, "{step:?}");
    }
}

#[test]
fn what_does_not_pass_says_what_it_means() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID as TWIN, RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED as NOT_THE_GROUP,
        RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION as FORMER, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH as OLD_EPOCH,
        RD_KAFKA_RESP_ERR_INVALID_TXN_STATE as WRONG_STATE, RD_KAFKA_RESP_ERR_PRODUCER_FENCED as FENCED,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as NOT_THE_TOPIC,
        RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED as NOT_THE_ID,
        RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID as GONE,
    };
    let steps = [
        (Api::InitProducerId, NOT_THE_ID, Outcome::Fatal),
        (Api::AddPartitionsToTxn, OLD_EPOCH, Outcome::Fenced),
        (Api::AddPartitionsToTxn, FENCED, Outcome::Fenced),
        (Api::AddPartitionsToTxn, WRONG_STATE, Outcome::Reopen),
        (Api::AddPartitionsToTxn, NOT_THE_TOPIC, Outcome::Fatal),
        (Api::AddOffsetsToTxn, NOT_THE_GROUP, Outcome::Fatal),
        (Api::AddOffsetsToTxn, FENCED, Outcome::Fenced),
        (Api::TxnOffsetCommit, FORMER, Outcome::Reopen),
        (Api::TxnOffsetCommit, GONE, Outcome::Reopen),
        (Api::TxnOffsetCommit, TWIN, Outcome::Fenced),
        (Api::EndTxn, FENCED, Outcome::Fenced),
        (Api::EndTxn, WRONG_STATE, Outcome::Reopen),
    ];
    for (step, error, expected) in steps {
        let world = World::new();
        assert_eq!(world.publish(step, &[error]), expected, "{step:?} {error:?}");
        // Whatever it was, a new producer is not held up by it.
        assert_eq!(world.publish(Api::Heartbeat, &[]), Outcome::Published, "after {step:?} {error:?}");
    }
}

#[test]
fn nothing_is_published_beyond_a_broker_that_goes_away() {
    for read in [&[][..], &[Position { partition: 0, offset: 1 }]] {
        let world = World::new();
        let member = world.member();
        let World { cluster, settings } = world;
        let publisher = Publisher::open(&settings, "id", &Stop::default()).expect("opens");
        assert!(!publisher.lost_a_broker());
        drop(cluster);
        match publisher.publish(&fact(), read, Some(&member), &Stop::default()) {
            Err(EventLogError::Reopen(why)) => assert!(why.contains("a broker went away"), "{read:?}: {why}"),
            other => panic!("{read:?}: {other:?}"),
        }
    }
}

/// A mock cluster, which does not look at isolation and keeps no marks: what readers see is tried on a real one.
struct World {
    cluster: MockCluster<'static, DefaultProducerContext>,
    settings: KafkaSettings,
}

impl World {
    fn new() -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        let settings = KafkaSettings {
            servers: cluster.bootstrap_servers(),
            set: vec![],
            topic_prefix: "test.".into(),
            partitions: 1,
            replication: None,
            retention: Retention::default(),
        };
        for topic in [Topic::Facts, Topic::Raw] {
            cluster.create_topic(&settings.topic(topic), 1, 1).expect("created");
        }
        Self { cluster, settings }
    }

    fn member(&self) -> ConsumerGroupMetadata {
        let group = client::config(&self.settings, Role::Reader { group: "group" }).expect("valid");
        let consumer: BaseConsumer = group.create().expect("a consumer");
        consumer.group_metadata().expect("of a group")
    }

    /// Publishes a fact with a new producer, while the cluster answers such requests with these errors first.
    fn publish(&self, requests: Api, errors: &[RDKafkaRespErr]) -> Outcome {
        let member = self.member();
        if !errors.is_empty() {
            self.cluster.request_errors(requests, errors);
        }
        let read = [Position { partition: 0, offset: 1 }];
        let published = Publisher::open(&self.settings, "id", &Stop::default())
            .and_then(|publisher| publisher.publish(&fact(), &read, Some(&member), &Stop::default()));
        match published {
            Ok(_) => Outcome::Published,
            Err(EventLogError::Reopen(_)) => Outcome::Reopen,
            Err(EventLogError::Fenced(_)) => Outcome::Fenced,
            Err(EventLogError::Fatal(_)) => Outcome::Fatal,
            Err(EventLogError::Partitions(why) | EventLogError::TooLarge(why)) => panic!("{why}"),
        }
    }
}

fn fact() -> [Output; 1] {
    let record = Record { key: Some("key".into()), value: None, headers: vec![], at: Timestamp::now() };
    [Output { topic: Topic::Facts, partition: 0, record }]
}
