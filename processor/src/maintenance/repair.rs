//! What an audit found to be different, published as what it is: records that say that they correct something.

use bitrix24::Installation;
use bytes::Bytes;
use event_log::EventId;
use event_log::contract::{Topic, header};
use event_log::{EventLog, EventLogError, Output, Position, Record};
use primitives::time::Timestamp;

use crate::run::publish::{Publisher, permission_key, permission_value};
use domain::fold::Effect;
use domain::{Change, Fact, InstallationRecord, PermissionRecord};

/// So many corrections of one partition are remembered; what is beyond is left to the next audit.
pub const CORRECTIONS_MAX: usize = 20_000;
/// So many are published at once: a transaction has to end in time.
const PUBLISHED_MAX: usize = 500;

/// Why a record is published that follows from no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// There was none.
    Missing,
    /// It said something else.
    Other,
}

/// One correction.
#[derive(Debug)]
pub enum Correction {
    /// A fact, and the raw event that it follows from.
    Fact(Box<Fact>, Box<Record>, Because),
    /// An installation record of a partition.
    Installation(Box<InstallationRecord>, u32, Because),
    /// A method-permission record.
    Permission(Installation, Box<PermissionRecord>, u32, Because),
    /// The end of a record of which facts know nothing.
    NoRecord(Topic, u32, String),
}

/// Corrections that are yet to be published.
#[derive(Debug, Default)]
pub struct Repairs(Vec<Correction>);

impl Repairs {
    /// Takes one more, if there is room.
    pub fn add(&mut self, correction: Correction) {
        if self.0.len() < CORRECTIONS_MAX {
            self.0.push(correction);
        }
    }

    /// Publishes all of them, in the order in which they were found, with how far `raw` was read all the same.
    /// Returns how many there were.
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
                let value = serde_json::to_vec(record).expect("our own types have a JSON form");
                let last = record.last_fact.as_ref();
                let made = made(Topic::Installations, *partition, about.to_string(), Some(value.into()), now);
                let id = last.map(|last| last.id);
                (from(made, about, id, record.position.map(|place| place.offset)), because.label())
            }
            Self::Permission(about, record, partition, because) => {
                let value = permission_value(about, record).to_string();
                let key = permission_key(about, record);
                (
                    from(made(Topic::Permissions, *partition, key, Some(value.into()), now), about, None, None),
                    because.label(),
                )
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

/// A record that no raw event makes.
fn made(topic: Topic, partition: u32, key: String, value: Option<Bytes>, at: Timestamp) -> Output {
    let kind = if topic == Topic::Installations { "com.hookledger.installation" } else { "com.hookledger.permission" };
    let mut headers = Vec::new();
    for (name, value) in [
        (header::SPEC_VERSION, "1.0"),
        (header::TYPE, kind),
        (header::CONTENT_TYPE, "application/json"),
        (header::RAW_PARTITION, &partition.to_string()),
    ] {
        headers.push((name.to_owned(), value.as_bytes().to_vec()));
    }
    Output { topic, partition, record: Record { key: Some(key), value, headers, at } }
}

/// With what is known of where it comes from.
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
