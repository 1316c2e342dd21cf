//! What an operator should know about the topics, all at once; nothing is created and nothing changed.

use std::time::Duration;

use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use super::shape::{broken_policy, check_counts, too_small, wanted};
use super::{LoggingContext, Role, Topics, cannot_be_asked};
use event_log::contract::Topic;
use primitives::block_on;
use rdkafka::admin::ResourceSpecifier;
use runtime::settings::KafkaSettings;

/// With as many brokers a topic can have a second replica in sync while one broker is away.
const BROKERS_FOR_REPLICAS: usize = 3;

#[derive(Debug, Default)]
pub struct Inspection {
    pub brokers: usize,
    /// What breaks a promise, each with its remedy behind the first colon.
    pub faults: Vec<String>,
    /// What an operator may have wanted.
    pub notes: Vec<String>,
}

/// Asks the brokers; an error if none answers.
pub fn inspect(settings: &KafkaSettings, wait: Duration) -> anyhow::Result<Inspection> {
    let topics = Topics::ask(settings, LoggingContext::new(settings, Role::Admin), wait)?;
    let metadata = topics.admin.inner().fetch_metadata(None, topics.remaining())?;
    let mut found = Inspection { brokers: metadata.brokers().len(), ..Inspection::default() };
    let mut present = Vec::new();
    for topic in Topic::ALL {
        let name = settings.topic(topic);
        match metadata.topics().iter().find(|found| found.name() == name && found.error().is_none()) {
            Some(there) => present.push((topic, name, there)),
            None => {
                found.notes.push(format!("topic {name} is not there: a start of ingress or a processor creates it"));
            }
        }
    }
    if !present.is_empty() && present.len() < Topic::ALL.len() {
        // Of a system that has run, one that is gone was deleted.
        found.faults.append(&mut found.notes);
    }
    let counts: Vec<_> = present.iter().map(|(topic, _, there)| (*topic, there.partitions().len())).collect();
    found.faults.extend(check_counts(settings, &counts).err());
    for (topic, name, there) in present {
        found.check_replicas(&name, there);
        topics.check_settings(topic, &name, there, &mut found)?;
    }
    Ok(found)
}

impl Inspection {
    fn check_replicas(&mut self, name: &str, topic: &MetadataTopic) {
        let leaderless = topic.partitions().iter().filter(|partition| partition.leader() < 0).count();
        if leaderless > 0 {
            self.faults
                .push(format!("{leaderless} partitions of {name} have no leader: start the brokers that have it"));
        }
        let behind = |partition: &&MetadataPartition| partition.isr().len() < partition.replicas().len();
        let behind = topic.partitions().iter().filter(behind).count();
        if behind > 0 {
            self.faults
                .push(format!("{behind} partitions of {name} have replicas that are not in sync: look at the brokers"));
        }
        let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        if replicas < 2 && self.brokers >= BROKERS_FOR_REPLICAS {
            self.faults.push(format!(
                "topic {name} has one replica, though there are {} brokers: with the disk of one its events are lost: \
                 give it three (kafka-reassign-partitions)",
                self.brokers
            ));
        }
    }
}

impl Topics<'_> {
    fn check_settings(
        &self,
        topic: Topic,
        name: &str,
        metadata: &MetadataTopic,
        found: &mut Inspection,
    ) -> anyhow::Result<()> {
        let described = block_on(self.admin.describe_configs(&[ResourceSpecifier::Topic(name)], &self.options()))?;
        let config = match described.into_iter().next() {
            Some(Ok(config)) => config,
            Some(Err(code)) if !cannot_be_asked(code) => anyhow::bail!("describe topic {name}: {code}"),
            Some(Err(_)) | None => {
                found
                    .notes
                    .push(format!("the settings of {name} cannot be seen: this user needs DescribeConfigs on it"));
                return Ok(());
            }
        };
        let value = |setting: &str| config.get(setting).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
        found.faults.extend(broken_policy(topic, value("cleanup.policy")).map(|wrong| format!("topic {name} {wrong}")));
        found.faults.extend(too_small(topic, name, value("max.message.bytes")));
        if value("unclean.leader.election.enable") == "true" {
            found.faults.push(format!(
                "topic {name} has unclean.leader.election.enable=true: a broker that missed events may become the \
                 leader, and they are lost: set it to false"
            ));
        }
        let replicas = metadata.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        if replicas >= BROKERS_FOR_REPLICAS && value("min.insync.replicas").parse().is_ok_and(|least: usize| least < 2)
        {
            found.faults.push(format!(
                "topic {name} has min.insync.replicas=1: an event is acknowledged when one broker has it: set it to 2"
            ));
        }
        let wanted = wanted(topic, self.settings.retention);
        let ms = |text: &str| text.parse::<i64>().ok().filter(|ms| *ms >= 0);
        let kept = wanted.iter().find(|(setting, _)| *setting == "retention.ms").and_then(|(_, kept)| ms(kept));
        if let (Some(kept), Some(is)) = (kept, ms(value("retention.ms")))
            && is < kept
        {
            found.faults.push(format!(
                "topic {name} has retention.ms={is}, less than the {kept} of the settings: records go earlier than \
                 these say: change one of them"
            ));
        }
        Ok(())
    }
}
