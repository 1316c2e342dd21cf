//! Effects as records: what subscribers see, in the partition of the raw event that it follows from.

use bitrix24::Installation;
use bytes::Bytes;
use event_log::contract::{Topic, header};
use event_log::{EventId, RawEvent};
use event_log::{Output, Record};
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::run::inconsistency::What;
use domain::fold::Effect;
use domain::{Change, FactKey, PermissionRecord, Place, Public, Reason};

/// The progress record of a partition: how far `raw` has been read. In the same transaction as what followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `K`: the next offset of `raw`.
    pub raw: u64,
    /// The log's own id, made with its first progress record: a topic that was made anew has another.
    pub log: EventId,
    /// The events of this step, so that followers know them too.
    pub folded: Vec<EventId>,
    /// The event before `K`, if it has an id: `raw` must hold it there for as long as it reaches back so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<EventId>,
    /// How many partitions there were: with another number, events of an installation would lie elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// An operator let the partition go on from here although logs were inconsistent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
}

/// What an operator accepted: written into `facts` twice, as part of the progress record that goes on from there, and
/// under a key of its own, so that it can be seen for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// How logs were inconsistent.
    pub what: What,
    /// `K` as it was told before; none if nothing told it.
    pub from: Option<u64>,
    /// `K` from now on.
    pub to: u64,
    /// When.
    pub at: Timestamp,
    /// Which log `facts` said it was before, where it says another id from now on: state of that one is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<EventId>,
    /// From where on `facts` are all that there is to know, where what lay before was deleted: state that was folded
    /// from more is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<u64>,
}

/// Makes records that follow from one raw record.
pub struct Publisher<'a> {
    raw: &'a Record,
    place: Place,
    at: Timestamp,
    event_bytes: usize,
}

impl<'a> Publisher<'a> {
    /// For what follows from this record of `raw`.
    pub fn new(raw: &'a Record, place: Place) -> Self {
        Self { raw, place, at: raw.at, event_bytes: usize::MAX }
    }

    /// From now on events that take more bytes are shown without their data.
    #[must_use]
    pub fn showing(self, event_bytes: usize) -> Self {
        Self { event_bytes, ..self }
    }

    /// The partition of all that follows.
    pub fn partition(&self) -> u32 {
        self.place.partition
    }

    /// The record of an effect; none for a release, which needs the event that is to be released.
    pub fn output(&self, effect: &Effect) -> Option<Output> {
        let output = match effect {
            Effect::Changed(change) => self.change(change),
            Effect::Verified(public) => self.event(Topic::Events, public, self.place),
            Effect::Unverified(public) => self.event(Topic::Unverified, public, self.place),
            Effect::Release(_) => return None,
            Effect::Installation(record) => {
                self.made(Topic::Installations, record.installation.to_string(), "com.hookledger.installation", record)
            }
            Effect::InstallationGone(installation) => {
                let key = Some(installation.to_string());
                self.record(Topic::Installations, key, None, "com.hookledger.installation")
            }
            Effect::Permission(record) => {
                let about = self.about()?;
                let value = permission_value(&about, record);
                self.made(Topic::Permissions, permission_key(&about, record), "com.hookledger.permission", &value)
            }
            Effect::PermissionGone(record) => {
                let key = permission_key(&self.about()?, record);
                self.record(Topic::Permissions, Some(key), None, "com.hookledger.permission")
            }
        };
        Some(output)
    }

    /// An event that is shown, which lies there: here, or elsewhere where it is released.
    pub fn event(&self, topic: Topic, public: &Public, lies_at: Place) -> Output {
        let kind = format!("com.bitrix24.{}", public.event.to_ascii_lowercase());
        let without_data = (public.size() as usize > self.event_bytes).then(|| public.clone().without_data(lies_at));
        let public = without_data.as_ref().unwrap_or(public);
        let mut output = self.made(topic, public.installation.to_string(), &kind, public);
        set(&mut output.record, header::ID, public.id.to_string());
        set(&mut output.record, header::TIME, public.occurred_at.to_string());
        output
    }

    /// Why the event was rejected: no body, `raw` has it.
    pub fn rejected(&self, reason: Reason) -> Output {
        let mut output = self.record(Topic::Rejected, self.raw.key.clone(), None, "com.hookledger.rejected");
        set(&mut output.record, header::REASON, reason.label().to_owned());
        output
    }

    fn change(&self, change: &Change) -> Output {
        match change {
            Change::Fact(fact) => {
                let key = FactKey::Fact(fact.installation.clone(), fact.stamp.id);
                let kind = match fact.kind.name() {
                    name if name.contains('.') => name.to_owned(),
                    name => format!("com.bitrix24.{}", name.to_ascii_lowercase()),
                };
                let mut output = self.made(Topic::Facts, key.to_string(), &kind, fact);
                // The event itself may have been held until the one that this follows from.
                set(&mut output.record, header::ID, fact.stamp.id.to_string());
                set(&mut output.record, header::TIME, fact.stamp.occurred_at.to_string());
                output
            }
            Change::Held(held, details) => {
                let key = FactKey::Held(held.clone()).to_string();
                self.made(Topic::Facts, key, "com.hookledger.unverified", details)
            }
            Change::NoLongerHeld(held) => {
                let key = FactKey::Held(held.clone()).to_string();
                self.record(Topic::Facts, Some(key), None, "com.hookledger.unverified")
            }
        }
    }

    fn about(&self) -> Option<Installation> {
        let raw = RawEvent::from_record(self.raw).ok()?;
        Some(Installation { app: raw.app, member_id: raw.member_id? })
    }

    fn made(&self, topic: Topic, key: String, kind: &str, value: &impl Serialize) -> Output {
        let value = serde_json::to_vec(value).expect("our own types have a JSON form");
        self.record(topic, Some(key), Some(value.into()), kind)
    }

    /// The headers of the raw event, as far as they are still true here.
    fn record(&self, topic: Topic, key: Option<String>, value: Option<Bytes>, kind: &str) -> Output {
        let kept = [header::SPEC_VERSION, header::ID, header::SOURCE, header::TIME, header::TRACEPARENT];
        let kept = self.raw.headers.iter().filter(|(name, _)| kept.contains(&name.as_str()));
        let mut headers: Vec<(String, Vec<u8>)> = kept.cloned().collect();
        headers.extend([
            (header::TYPE.to_owned(), kind.as_bytes().to_vec()),
            (header::CONTENT_TYPE.to_owned(), b"application/json".to_vec()),
            (header::RAW_PARTITION.to_owned(), self.place.partition.to_string().into_bytes()),
            (header::RAW_OFFSET.to_owned(), self.place.offset.to_string().into_bytes()),
        ]);
        Output { topic, partition: self.place.partition, record: Record { key, value, headers, at: self.at } }
    }
}

/// The progress record behind a step, with the time of its last raw record.
pub fn progress(progress: &Progress, partition: u32, at: Timestamp) -> Output {
    let value = serde_json::to_vec(progress).expect("our own types have a JSON form");
    let offset = progress.raw.saturating_sub(1);
    let headers = vec![
        (header::TYPE.to_owned(), b"com.hookledger.progress".to_vec()),
        (header::CONTENT_TYPE.to_owned(), b"application/json".to_vec()),
        (header::RAW_PARTITION.to_owned(), partition.to_string().into_bytes()),
        (header::RAW_OFFSET.to_owned(), offset.to_string().into_bytes()),
    ];
    let key = Some(FactKey::Progress.to_string());
    Output { topic: Topic::Facts, partition, record: Record { key, value: Some(value.into()), headers, at } }
}

/// What was accepted, to be seen for ever.
pub fn accepted(accepted: &Accepted, id: EventId, partition: u32) -> Output {
    let value = serde_json::to_vec(accepted).expect("our own types have a JSON form");
    let headers = vec![
        (header::TYPE.to_owned(), b"com.hookledger.accepted".to_vec()),
        (header::CONTENT_TYPE.to_owned(), b"application/json".to_vec()),
        (header::RAW_PARTITION.to_owned(), partition.to_string().into_bytes()),
        (header::RAW_OFFSET.to_owned(), accepted.to.saturating_sub(1).to_string().into_bytes()),
    ];
    let key = Some(FactKey::Accepted(id).to_string());
    let record = Record { key, value: Some(value.into()), headers, at: accepted.at };
    Output { topic: Topic::Facts, partition, record }
}

/// A method-permission record as subscribers read it.
pub fn permission_value(about: &Installation, record: &PermissionRecord) -> Value {
    let mut value = json!({ "app": about.app, "member_id": about.member_id });
    if let (Some(value), Ok(Value::Object(fields))) = (value.as_object_mut(), serde_json::to_value(record)) {
        value.extend(fields);
    }
    value
}

/// Its key.
pub fn permission_key(about: &Installation, record: &PermissionRecord) -> String {
    format!("{about}/{}/{}", record.method, record.token)
}

fn set(record: &mut Record, name: &str, value: String) {
    match record.headers.iter_mut().find(|(header, _)| header == name) {
        Some((_, old)) => *old = value.into_bytes(),
        None => record.headers.push((name.to_owned(), value.into_bytes())),
    }
}
