//! Topics are made where they are missing, and refused where their shape would break a promise.

use tests::cluster::{Cluster, Names, PARTITIONS};
use tests::kafka;
use tests::process::{Program, run};
use tests::topics;

#[test]
fn missing_topics_are_made_in_the_right_shape() {
    let Some(servers) = kafka::shared("missing_topics_are_made_in_the_right_shape") else { return };
    let cluster = Cluster::start(servers, 1);
    let shapes = [
        ("raw", "delete", Some("1209600000")),
        ("facts", "compact", None),
        ("events", "delete", Some("2592000000")),
        ("unverified", "delete", Some("1209600000")),
        ("installations", "compact", None),
        ("permissions", "compact,delete", Some("604800000")),
        ("rejected", "delete", Some("7776000000")),
        ("vault", "compact", None),
    ];
    for (topic, policy, retention_ms) in shapes {
        let topic = cluster.names().topic(topic);
        assert_eq!(topics::partitions(servers, &topic), Some(PARTITIONS as usize), "{topic}");
        let setting = |name: &str| topics::setting(servers, &topic, name).expect("a setting");
        let mut policies: Vec<_> = policy.split(',').collect();
        policies.sort_unstable();
        let found = setting("cleanup.policy");
        let mut found: Vec<_> = found.split(',').collect();
        found.sort_unstable();
        assert_eq!(found, policies, "{topic}");
        if let Some(retention_ms) = retention_ms {
            assert_eq!(setting("retention.ms"), retention_ms, "{topic}");
        }
    }
}

#[test]
fn a_compacted_raw_is_refused() {
    refused("a_compacted_raw_is_refused", Program::Ingress, "raw", PARTITIONS, "compact");
    refused("a_compacted_raw_is_refused", Program::Processor, "raw", PARTITIONS, "compact");
}

#[test]
fn facts_that_are_not_compacted_are_refused() {
    refused("facts_that_are_not_compacted_are_refused", Program::Processor, "facts", PARTITIONS, "delete");
}

#[test]
fn topics_with_different_partitions_are_refused() {
    // The processor is halted: see `inconsistency`.
    refused("topics_with_different_partitions_are_refused", Program::Ingress, "raw", PARTITIONS + 1, "delete");
}

/// The program ends with 1 and says which topic is wrong.
fn refused(test: &str, program: Program, topic: &str, partitions: u32, policy: &str) {
    let Some(servers) = kafka::shared(test) else { return };
    let names = Names::new(servers);
    let topic = names.topic(topic);
    let partitions = i32::try_from(partitions).expect("few");
    topics::make(servers, &topic, partitions, &[("cleanup.policy", policy)]);
    let mut arguments = names.arguments("refused");
    let listeners: &[_] = if program == Program::Ingress {
        &["--ingress-listen", "--admin-listen"]
    } else {
        &["--query-listen", "--admin-listen"]
    };
    arguments.extend(listeners.iter().flat_map(|listener| [(*listener).to_owned(), "127.0.0.1:0".to_owned()]));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let ended = run(program, &arguments);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&topic), "{program:?} does not say that {topic} is wrong:\n{}", ended.stderr);
}
