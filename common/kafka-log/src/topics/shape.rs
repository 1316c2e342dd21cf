//! The shape of our topics: what we set on new ones, and what would break a promise.

use std::time::Duration;

use super::super::client::RECORD_BYTES_MAX;
use event_log::contract::{DAY, Policy, Retention, TOMBSTONES_KEPT, Topic};
use runtime::settings::KafkaSettings;

/// How far ahead of the broker's clock a record may be. With Kafka's default of an hour, the events of an ingress whose
/// clock is ahead would be refused until the broker's clock gets there, and block all behind them.
pub(super) const AHEAD_MAX: &str = "message.timestamp.after.max.ms";

pub(super) fn check_counts(settings: &KafkaSettings, found: &[(Topic, usize)]) -> Result<(), String> {
    let wanted = settings.partitions;
    let Some((topic, count)) = found.iter().find(|(_, count)| u32::try_from(*count) != Ok(wanted)) else {
        return Ok(());
    };
    let name = settings.topic(*topic);
    let alike = found.len() == Topic::ALL.len() && found.iter().all(|(_, other)| other == count);
    let remedy = if alike {
        format!("set partitions to {count}")
    } else {
        "all topics must have the same number: delete and create the odd ones, or take another topic-prefix".to_owned()
    };
    Err(format!("topic {name} has {count} partitions where partitions is {wanted}: {remedy}"))
}

pub(super) fn broken_policy(topic: Topic, found: &str) -> Option<String> {
    let has = |policy: &str| found.split(',').any(|part| part.trim() == policy);
    let remedy =
        |policy: &str| format!("set cleanup.policy={policy} on it (kafka-configs --alter --entity-type topics)");
    match topic {
        Topic::Raw if has("compact") => {
            Some(format!("is compacted, so that of each portal only the newest event would stay: {}", remedy("delete")))
        }
        Topic::Facts | Topic::Installations | Topic::Vault | Topic::Forward if has("delete") || !has("compact") => {
            Some(format!("has cleanup.policy={found}, so that what must stay for ever would go: {}", remedy("compact")))
        }
        Topic::Raw
        | Topic::Facts
        | Topic::Events
        | Topic::Unverified
        | Topic::Installations
        | Topic::Permissions
        | Topic::Rejected
        | Topic::Vault
        | Topic::Forward => None,
    }
}

/// A derived record may be this large, even when optional content is left out.
const DERIVED_BYTES_MIN: u32 = 256 * 1024;

pub(super) fn too_small(topic: Topic, name: &str, found: &str) -> Option<String> {
    let takes: u32 = found.parse().unwrap_or(RECORD_BYTES_MAX);
    (topic != Topic::Raw && takes < DERIVED_BYTES_MIN).then(|| {
        format!(
            "topic {name} has max.message.bytes={takes}, but its records may have {DERIVED_BYTES_MIN}: set it to \
             {RECORD_BYTES_MAX}"
        )
    })
}

pub(super) fn wanted(topic: Topic, retention: Retention) -> Vec<(&'static str, String)> {
    let ms = |time: Duration| time.as_millis().to_string();
    // Only whole, closed segments are deleted or compacted: a record can stay this much longer than promised.
    let segment = |kept: Duration| ms((kept / 14).clamp(Duration::from_secs(60), DAY));
    let compact = || {
        vec![
            ("segment.ms", ms(DAY / 4)),
            ("min.cleanable.dirty.ratio", "0.1".to_owned()),
            // Otherwise erased records could wait in a quiet topic for ever.
            ("max.compaction.lag.ms", ms(DAY)),
            ("delete.retention.ms", ms(TOMBSTONES_KEPT)),
        ]
    };
    let mut config = vec![("message.timestamp.type", "CreateTime".to_owned()), (AHEAD_MAX, i64::MAX.to_string())];
    match topic.policy(retention) {
        Policy::Delete(kept) => {
            config.push(("cleanup.policy", "delete".to_owned()));
            config.push(("retention.ms", ms(kept)));
            config.push(("segment.ms", segment(kept)));
        }
        Policy::Compact => {
            config.push(("cleanup.policy", "compact".to_owned()));
            config.extend(compact());
        }
        Policy::CompactAndDelete(kept) => {
            config.push(("cleanup.policy", "compact,delete".to_owned()));
            config.push(("retention.ms", ms(kept)));
            config.extend(compact());
        }
    }
    // A derived record may be larger than its event: JSON writes some bytes as six.
    config.push(("max.message.bytes", RECORD_BYTES_MAX.to_string()));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KafkaSettings {
        KafkaSettings {
            servers: String::new(),
            set: vec![],
            topic_prefix: "p.".into(),
            partitions: 6,
            replication: None,
            retention: Retention::default(),
        }
    }

    #[test]
    fn partitions_that_differ_from_the_setting_are_refused_with_the_remedy() {
        let alike: Vec<_> = Topic::ALL.into_iter().map(|topic| (topic, 4)).collect();
        let error = check_counts(&settings(), &alike).expect_err("differs");
        assert_eq!(error, "topic p.raw has 4 partitions where partitions is 6: set partitions to 4");

        let error = check_counts(&settings(), &[(Topic::Raw, 6), (Topic::Facts, 4)]).expect_err("differs");
        assert!(error.starts_with("topic p.facts has 4 partitions where partitions is 6: all topics must"), "{error}");
        assert_eq!(check_counts(&settings(), &[(Topic::Raw, 6)]), Ok(()));
    }

    #[test]
    fn only_policies_that_break_a_promise_are_refused() {
        for (topic, policy) in [(Topic::Raw, "compact"), (Topic::Raw, "compact,delete")] {
            assert!(broken_policy(topic, policy).is_some(), "{topic:?} {policy}");
        }
        for topic in [Topic::Facts, Topic::Installations, Topic::Vault, Topic::Forward] {
            assert!(broken_policy(topic, "delete").is_some());
            assert!(broken_policy(topic, "compact, delete").is_some());
            assert_eq!(broken_policy(topic, "compact"), None);
        }
        assert_eq!(broken_policy(Topic::Events, "compact"), None);
    }

    #[test]
    fn what_we_create_we_do_not_refuse() {
        for topic in Topic::ALL {
            let wanted = wanted(topic, Retention::default());
            let (_, policy) = wanted.iter().find(|(name, _)| *name == "cleanup.policy").expect("every topic has one");
            assert_eq!(broken_policy(topic, policy), None, "{topic:?}");
        }
    }
}
