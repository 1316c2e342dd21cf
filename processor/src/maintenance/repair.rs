//! Corrections of an audit, published as records that say that they are corrections.

use bitrix24::Installation;
use bytes::Bytes;
use event_log::contract::{Topic, header};
use event_log::{EventId, EventLog, EventLogError, Output, Position, Record};
use primitives::time::Timestamp;

use crate::run::publish::{Publisher, json_bytes, permission_key, permission_value};
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
                (Publisher::new(raw, fact.raw).output(&effect)?, because.label())
            }
            Self::Installation(record, partition, because) => {
                let about = &record.installation;
                let value = Some(json_bytes(record));
                let made = made(Topic::Installations, *partition, about.to_string(), value, now);
                let id = record.last_fact.as_ref().map(|last| last.id);
                (from(made, about, id, record.position.map(|place| place.offset)), because.label())
            }
            Self::Permission(about, record, partition, because) => {
                let value = permission_value(about, record).to_string();
                let key = permission_key(about, record);
                let made = made(Topic::Permissions, *partition, key, Some(value.into()), now);
                (from(made, about, None, None), because.label())
            }
            Self::NoRecord(topic, partition, key) => (made(*topic, *partition, key.clone(), None, now), "surplus"),
        };
        output.record.headers.push((header::CORRECTION.to_owned(), because.as_bytes().to_vec()));
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

/// A record that follows from no raw event.
fn made(topic: Topic, partition: u32, key: String, value: Option<Bytes>, at: Timestamp) -> Output {
    let kind = if topic == Topic::Installations { "com.hookledger.installation" } else { "com.hookledger.permission" };
    let known = [
        (header::SPEC_VERSION, "1.0"),
        (header::TYPE, kind),
        (header::CONTENT_TYPE, "application/json"),
        (header::RAW_PARTITION, &partition.to_string()),
    ];
    let headers = known.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into();
    Output { topic, partition, record: Record { key: Some(key), value, headers, at } }
}

/// Adds headers for the origin, if known.
fn from(mut output: Output, about: &Installation, id: Option<EventId>, offset: Option<u64>) -> Output {
    let known = [
        Some((header::SOURCE, format!("/{about}"))),
        id.map(|id| (header::ID, id.to_string())),
        offset.map(|offset| (header::RAW_OFFSET, offset.to_string())),
    ];
    let known = known.into_iter().flatten().map(|(name, value)| (name.to_owned(), value.into_bytes()));
    output.record.headers.extend(known);
    output
}
