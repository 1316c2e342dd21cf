//! Corrections of an audit, published as records that say that they are corrections.

use bitrix24::Installation;
use bytes::Bytes;
use event_log::contract::{Topic, header};
use event_log::{EventId, EventLog, EventLogError, Output, Position, Record};
use primitives::time::Timestamp;

use crate::run::publish::{
    INSTALLATION, PERMISSION, Publisher, json_bytes, permission_key, permission_value, plain_headers, set,
};
use domain::fold::Effect;
use domain::{Change, Fact, InstallationRecord, PermissionRecord};

/// Corrections per partition; further ones are left to the next audit.
pub const CORRECTIONS_MAX: usize = 20_000;
/// Corrections per transaction, which has to end in time.
const PUBLISHED_MAX: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    Missing,
    Other,
}

#[derive(Debug)]
pub enum Correction {
    /// A fact, and the raw event that it follows from.
    Fact(Box<Fact>, Box<Record>, Because),
    Installation(Box<InstallationRecord>, u32, Because),
    Permission(Installation, Box<PermissionRecord>, u32, Because),
    /// A tombstone for a record that does not follow from facts.
    NoRecord(Topic, u32, String),
}

#[derive(Debug, Default)]
pub struct Repairs(Vec<Correction>);

impl Repairs {
    /// Ignored if the list is full.
    pub fn add(&mut self, correction: Correction) {
        if self.0.len() < CORRECTIONS_MAX {
            self.0.push(correction);
        }
    }

    /// Publishes all corrections in the order of discovery, with the unchanged `K`. Returns their number.
    pub fn publish(
        &mut self,
        event_log: &mut dyn EventLog,
        read: Position,
        now: Timestamp,
    ) -> Result<u64, EventLogError> {
        let corrections = std::mem::take(&mut self.0);
        for some in corrections.chunks(PUBLISHED_MAX) {
            let outputs = some.iter().filter_map(|correction| correction.output(now)).collect();
            event_log.publish(outputs, &[read])?;
        }
        Ok(corrections.len() as u64)
    }
}

impl Correction {
    fn output(&self, now: Timestamp) -> Option<Output> {
        let (mut output, because) = match self {
            Self::Fact(fact, raw, because) => {
                let effect = Effect::Changed(Change::Fact(fact.clone()));
                let mut output = Publisher::new(raw, fact.raw).output(&effect)?;
                // The topic may have the fact's own id already.
                let (id, revision) = (fact.stamp.id, fact.revision);
                let id = format!("{id}/{}.{}", revision.interpretation, revision.correction);
                set(&mut output.record, header::ID, id);
                (output, because.label())
            }
            Self::Installation(record, partition, because) => {
                let about = &record.installation;
                let value = json_bytes(record);
                let offset = record.position.map(|place| place.offset);
                (made(Topic::Installations, *partition, about, about.to_string(), value, offset, now), because.label())
            }
            Self::Permission(about, record, partition, because) => {
                let value = json_bytes(&permission_value(about, record));
                let key = permission_key(about, record);
                (made(Topic::Permissions, *partition, about, key, value, None, now), because.label())
            }
            Self::NoRecord(topic, partition, key) => (tombstone(*topic, *partition, key.clone(), now), "surplus"),
        };
        output.record.headers.push((header::CORRECTION.into(), because.as_bytes().to_vec()));
        Some(output)
    }
}

impl Because {
    fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Other => "other",
        }
    }
}

/// A record that follows from no raw event: it has an id of its own, and the place of its source as far as it is known.
fn made(
    topic: Topic,
    partition: u32,
    about: &Installation,
    key: String,
    value: Bytes,
    offset: Option<u64>,
    at: Timestamp,
) -> Output {
    let known = [
        (header::SPEC_VERSION, "1.0".to_owned()),
        (header::ID, EventId::now_v7().to_string()),
        (header::SOURCE, format!("/{about}")),
        (header::TYPE, kind(topic).to_owned()),
        (header::TIME, at.to_string()),
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::RAW_PARTITION, partition.to_string()),
    ];
    let offset = offset.map(|offset| (header::RAW_OFFSET, offset.to_string()));
    let headers = known.into_iter().chain(offset).map(|(name, value)| (name.into(), value.into_bytes())).collect();
    Output { topic, partition, record: Record { key: Some(key), value: Some(value), headers, at } }
}

fn tombstone(topic: Topic, partition: u32, key: String, at: Timestamp) -> Output {
    let mut headers = plain_headers(kind(topic), Position { partition, offset: 0 });
    headers.retain(|(name, _)| name != header::RAW_OFFSET);
    Output { topic, partition, record: Record { key: Some(key), value: None, headers, at } }
}

fn kind(topic: Topic) -> &'static str {
    if topic == Topic::Installations { INSTALLATION } else { PERMISSION }
}
