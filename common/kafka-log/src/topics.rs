//! Checks that topics exist and keep the promises, before anything starts.
//!
//! Missing topics are created; existing ones whose shape would break a promise are refused, with the reason and the
//! remedy. Other differences are an operator's choice and only logged.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, ConfigResourceResult, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use super::client::{self, ConfigError, LoggingContext, PlainContext, Role};
use super::faults::{Fault, FaultReports};
use event_log::contract::Topic;
use primitives::block_on;
use runtime::settings::KafkaSettings;
use shape::{AHEAD_MAX, broken_policy, check_counts, too_small, wanted};

pub use inspect::{Inspection, inspect};

mod inspect;
mod shape;

/// The longest single request to the brokers.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// The interval of checks for the leaders and the settings of new topics.
const CHECK_WAIT: Duration = Duration::from_millis(50);
/// How long a broker may not know a topic's settings yet. A user without the right to describe them waits as long, since
/// rdkafka tells neither reason: such a topic has no entries.
const DESCRIBE_WAIT_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TopicsError {
    /// A topic exists and would break a promise, or cannot be created: an operator has to decide.
    #[error("{0}")]
    Shape(String),
    /// The number of partitions is wrong: an operator has to decide.
    #[error("{0}")]
    Partitions(String),
    /// We may not create a topic: an operator has to decide.
    #[error("{0}")]
    NotAllowed(String),
    /// Topics are missing, and creating them was not allowed.
    #[error("{0}")]
    Missing(String),
    #[error("ask Kafka for its topics: {0}")]
    Unreachable(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl TopicsError {
    /// Whether the error is permanent until an operator has acted.
    pub(super) fn needs_a_person(&self) -> bool {
        match self {
            Self::Shape(_) | Self::Partitions(_) | Self::NotAllowed(_) | Self::Config(_) => true,
            Self::Missing(_) | Self::Unreachable(_) => false,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Shape(_) | Self::Partitions(_) => Fault::TopicShape,
            Self::NotAllowed(_) => Fault::Authorization,
            Self::Missing(_) => Fault::TopicMissing,
            Self::Unreachable(_) => Fault::Unreachable,
            Self::Config(_) => Fault::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayCreate {
    Yes,
    /// An operator who deleted them may be about to recreate them.
    No,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawTopic {
    pub batch_bytes_max: Option<u32>,
}

impl RawTopic {
    /// Checks or creates all topics. An error is also noted as a fault.
    pub fn ensure(
        settings: &KafkaSettings,
        fault_reports: &Arc<FaultReports>,
        may_create: MayCreate,
        wait: Duration,
    ) -> anyhow::Result<Self> {
        let made = Topics::ask(settings, LoggingContext::reporting(settings, Role::Admin, fault_reports), wait);
        let ensured = made.and_then(|topics| topics.ensure(may_create));
        if let Err(error) = &ensured {
            fault_reports.note(error.fault(), error.to_string());
        }
        Ok(ensured?)
    }

    /// Whether an error of [`ensure`](Self::ensure) says that topics are missing.
    pub fn is_missing(error: &anyhow::Error) -> bool {
        matches!(error.downcast_ref::<TopicsError>(), Some(TopicsError::Missing(_)))
    }

    /// Diagnoses missing acknowledgements, briefly and with a new client, and notes the fault. Returns whether there
    /// is none.
    pub fn diagnose(settings: &KafkaSettings, fault_reports: &Arc<FaultReports>, wait: Duration) -> bool {
        let asked = Topics::ask(settings, LoggingContext::reporting(settings, Role::Admin, fault_reports), wait);
        let asked = asked.map_err(|error| (error.fault(), error.to_string()));
        let found = asked.and_then(|topics| topics.diagnose());
        found.map_err(|(fault, reason)| fault_reports.note(fault, reason)).is_ok()
    }
}

pub(super) fn ensure(settings: &KafkaSettings, may_create: MayCreate, wait: Duration) -> Result<(), TopicsError> {
    let topics = Topics::ask(settings, LoggingContext::new(settings, Role::Admin), wait)?;
    topics.ensure(may_create).map(drop)
}

struct Topics<'a> {
    settings: &'a KafkaSettings,
    admin: AdminClient<PlainContext>,
    until: Instant,
}

impl<'a> Topics<'a> {
    fn ask(settings: &'a KafkaSettings, context: LoggingContext, wait: Duration) -> Result<Self, TopicsError> {
        let admin = client::config(settings, Role::Admin)?.create_with_context(PlainContext(context));
        let admin: AdminClient<PlainContext> = admin.map_err(ConfigError::from)?;
        Ok(Self { settings, admin, until: Instant::now() + wait })
    }

    fn ensure(&self, may_create: MayCreate) -> Result<RawTopic, TopicsError> {
        let missing = self.missing()?;
        if may_create == MayCreate::No && !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|topic| self.settings.topic(*topic)).collect();
            return Err(TopicsError::Missing(format!("topic {} is gone", names.join(", "))));
        }
        self.create(&missing)?;
        self.wait_for_leaders()?;
        self.check_policies()
    }

    fn diagnose(&self) -> Result<(), (Fault, String)> {
        let metadata = self.admin.inner().fetch_metadata(None, self.remaining());
        let metadata = metadata.map_err(|error| (Fault::of(&error), format!("no broker answers: {error}")))?;
        let name = self.settings.topic(Topic::Raw);
        let found = metadata.topics().iter().find(|found| found.name() == name && found.error().is_none());
        let Some(partitions) = found.map(MetadataTopic::partitions) else {
            return Err((Fault::TopicMissing, format!("topic {name} is gone")));
        };
        let count = partitions.len();
        if u32::try_from(count) != Ok(self.settings.partitions) {
            let reason = check_counts(self.settings, &[(Topic::Raw, count)]).err().unwrap_or_default();
            return Err((Fault::TopicShape, reason));
        }
        let leaderless = partitions.iter().filter(|partition| partition.leader() < 0).count();
        if leaderless > 0 {
            let reason = format!("{leaderless} of {count} partitions of {name} have no leader");
            return Err((Fault::Leaders, reason));
        }
        let Some(in_sync_min) = self.in_sync_min(&name) else { return Ok(()) };
        // Kafka never demands more than there are.
        let demands = |partition: &MetadataPartition| in_sync_min.min(partition.replicas().len());
        let short = partitions.iter().filter(|partition| partition.isr().len() < demands(partition)).count();
        if short > 0 {
            let reason = format!(
                "{short} of {count} partitions of {name} have fewer replicas in sync than its min.insync.replicas={in_sync_min}"
            );
            return Err((Fault::Replicas, reason));
        }
        Ok(())
    }

    fn in_sync_min(&self, name: &str) -> Option<usize> {
        let asked = [ResourceSpecifier::Topic(name)];
        let described = block_on(self.admin.describe_configs(&asked, &self.options())).ok()?.pop()?.ok()?;
        described.get("min.insync.replicas")?.value.as_deref()?.parse().ok()
    }

    fn missing(&self) -> Result<Vec<Topic>, TopicsError> {
        let counts = self.partition_counts()?;
        let found = |topic: &Topic| counts.iter().any(|(found, _)| found == topic);
        let counts: Vec<_> = counts.iter().map(|(topic, leaders)| (*topic, leaders.len())).collect();
        check_counts(self.settings, &counts).map_err(TopicsError::Partitions)?;
        Ok(Topic::ALL.into_iter().filter(|topic| !found(topic)).collect())
    }

    fn create(&self, missing: &[Topic]) -> Result<(), TopicsError> {
        if missing.is_empty() {
            return Ok(());
        }
        let partitions = super::record::kafka_partition(self.settings.partitions);
        let replication = self.settings.replication.unwrap_or(-1);
        let names: Vec<String> = missing.iter().map(|topic| self.settings.topic(*topic)).collect();
        let wanted: Vec<_> = missing.iter().map(|topic| wanted(*topic, self.settings.retention)).collect();
        let new: Vec<NewTopic<'_>> = names
            .iter()
            .zip(&wanted)
            .map(|(name, config)| NewTopic {
                name,
                num_partitions: partitions,
                replication: TopicReplication::Fixed(replication),
                config: config.iter().map(|(name, value)| (*name, value.as_str())).collect(),
            })
            .collect();
        let results = block_on(self.admin.create_topics(&new, &self.options()))
            .map_err(|error| TopicsError::Unreachable(error.to_string()))?;
        for result in results {
            match result {
                Ok(name) => tracing::info!(topic = name, "created topic {name}"),
                // Another process was quicker; the check that follows covers its topics.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code @ (RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::OperationTimedOut))) => {
                    return Err(TopicsError::Unreachable(format!("create topic {name}: {code}")));
                }
                Err((name, code)) if Fault::of_code(code) == Fault::Authorization => {
                    return Err(TopicsError::NotAllowed(format!(
                        "topic {name} is not there for us, and we may not create it: {code}. \
                         Create it with {} partitions and let this user describe and write it, or let it create topics",
                        self.settings.partitions
                    )));
                }
                Err((name, code)) => {
                    return Err(TopicsError::Shape(format!(
                        "topic {name} cannot be created: {code}. Create it with {} partitions, or let this user create topics",
                        self.settings.partitions
                    )));
                }
            }
        }
        Ok(())
    }

    fn wait_for_leaders(&self) -> Result<(), TopicsError> {
        loop {
            let counts = self.partition_counts()?;
            let led =
                counts.len() == Topic::ALL.len() && counts.iter().all(|(_, leaders)| leaders.iter().all(|led| *led));
            let counts: Vec<_> = counts.iter().map(|(topic, leaders)| (*topic, leaders.len())).collect();
            check_counts(self.settings, &counts).map_err(TopicsError::Partitions)?;
            if led {
                return Ok(());
            }
            if Instant::now() >= self.until {
                return Err(TopicsError::Unreachable("some partitions have no leader".into()));
            }
            thread::sleep(CHECK_WAIT);
        }
    }

    /// For each existing topic, whether each partition has a leader. Queries all topics of the cluster, since a query
    /// for one by name may create it.
    fn partition_counts(&self) -> Result<Vec<(Topic, Vec<bool>)>, TopicsError> {
        let metadata = loop {
            match self.admin.inner().fetch_metadata(None, self.remaining()) {
                Ok(metadata) => break metadata,
                Err(error) if Instant::now() >= self.until => return Err(TopicsError::Unreachable(error.to_string())),
                Err(_) => thread::sleep(CHECK_WAIT),
            }
        };
        let leaders = |topic: Topic| {
            let name = self.settings.topic(topic);
            let found = metadata.topics().iter().find(|found| found.name() == name && found.error().is_none())?;
            Some((topic, found.partitions().iter().map(|partition| partition.leader() >= 0).collect()))
        };
        Ok(Topic::ALL.into_iter().filter_map(leaders).collect())
    }

    fn check_policies(&self) -> Result<RawTopic, TopicsError> {
        let names: Vec<String> = Topic::ALL.iter().map(|topic| self.settings.topic(*topic)).collect();
        let asked: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let until = self.until.min(Instant::now() + DESCRIBE_WAIT_MAX);
        let ask = || block_on(self.admin.describe_configs(&asked, &self.options()));
        let results = match ask_until_described(ask, until) {
            Ok(results) => results,
            Err(KafkaError::AdminOp(code)) if cannot_be_asked(code) => asked.iter().map(|_| Err(code)).collect(),
            Err(error) => return Err(TopicsError::Unreachable(error.to_string())),
        };
        let mut raw = RawTopic::default();
        for (topic, result) in Topic::ALL.into_iter().zip(results) {
            let name = self.settings.topic(topic);
            match result {
                Ok(config) if config.entries.is_empty() => {
                    tracing::warn!(
                        topic = name,
                        "the settings of topic {name} are not checked: the broker does not describe them (the Kafka \
                         user needs DescribeConfigs on the topic)"
                    );
                }
                Ok(config) => {
                    self.check_policy(topic, &name, &config)?;
                    if topic == Topic::Raw {
                        let limit = config.get("max.message.bytes").and_then(|entry| entry.value.as_deref());
                        raw.batch_bytes_max = limit.and_then(|limit| limit.parse().ok());
                    }
                }
                Err(code) if cannot_be_asked(code) => {
                    tracing::warn!(
                        topic = name,
                        "the settings of topic {name} are not checked: the broker says {code}"
                    );
                }
                Err(code) => return Err(TopicsError::Unreachable(format!("describe topic {name}: {code}"))),
            }
        }
        Ok(raw)
    }

    fn check_policy(&self, topic: Topic, name: &str, config: &ConfigResource) -> Result<(), TopicsError> {
        let value = |setting: &str| config.get(setting).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
        if let Some(wrong) = broken_policy(topic, value("cleanup.policy")) {
            return Err(TopicsError::Shape(format!("topic {name} {wrong}")));
        }
        if let Some(wrong) = too_small(topic, name, value("max.message.bytes")) {
            return Err(TopicsError::Shape(wrong));
        }
        for (setting, wanted) in wanted(topic, self.settings.retention) {
            let found = value(setting);
            if setting == AHEAD_MAX && found != wanted {
                tracing::warn!(
                    topic = name,
                    "topic {name} has {setting}={found}: events of an ingress whose clock is set ahead by more wait on \
                     its disk for as long; set it to {wanted}"
                );
            } else if found != wanted {
                tracing::info!(topic = name, "topic {name} has {setting}={found} where we would set {wanted}");
            }
        }
        Ok(())
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.remaining())).operation_timeout(Some(self.remaining()))
    }

    /// At least a second, so that a short wait still sends one request.
    fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).clamp(Duration::from_secs(1), REQUEST_WAIT_MAX)
    }
}

/// A broker that does not know a new topic yet answers without entries: it is asked again, and what it says last counts.
fn ask_until_described(
    mut ask: impl FnMut() -> KafkaResult<Vec<ConfigResourceResult>>,
    until: Instant,
) -> KafkaResult<Vec<ConfigResourceResult>> {
    loop {
        let results = ask()?;
        let is_unknown = |result: &ConfigResourceResult| result.as_ref().is_ok_and(|config| config.entries.is_empty());
        if !results.iter().any(is_unknown) || Instant::now() >= until {
            return Ok(results);
        }
        thread::sleep(CHECK_WAIT);
    }
}

/// The broker or this user does not have this request, which is no fault.
fn cannot_be_asked(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    use super::*;

    #[test]
    fn a_topic_that_a_broker_does_not_know_yet_is_asked_for_again() {
        let entry = || ConfigEntry {
            name: "cleanup.policy".into(),
            value: Some("compact".into()),
            source: ConfigSource::DynamicTopic,
            is_read_only: false,
            is_default: false,
            is_sensitive: false,
        };
        let topic =
            |entries| Ok(ConfigResource { specifier: OwnedResourceSpecifier::Topic("p.facts".into()), entries });
        let entries = |results: Vec<ConfigResourceResult>| -> Vec<_> {
            results.into_iter().map(|result| result.expect("described").entries).collect()
        };
        let mut answers = vec![vec![entry()], vec![], vec![]];
        let ask = || Ok(vec![topic(answers.pop().expect("not asked after that"))]);
        let described = ask_until_described(ask, Instant::now() + Duration::from_secs(60)).expect("answers");
        assert_eq!(entries(described), [vec![entry()]]);

        let never = ask_until_described(|| Ok(vec![topic(vec![])]), Instant::now()).expect("answers");
        assert_eq!(entries(never), [vec![]], "it is not waited for for ever");
    }
}
