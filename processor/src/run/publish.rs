//! Effects as records, in the partition of the raw event that they follow from.

use bitrix24::Installation;
use bytes::Bytes;
use event_log::contract::{Topic, header};
use event_log::{EventId, Output, Position, RawEvent, Record};
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::run::inconsistency::What;
use domain::fold::Effect;
use domain::{Change, FactKey, PermissionRecord, Public, Reason};

/// The progress record of a partition, in the same transaction as the records that follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// `K`: the next offset of `raw`.
    pub raw: u64,
    /// The id of the log, generated with its first progress record: a recreated topic has another one.
    pub log: EventId,
    /// The events of this step, for followers.
    pub folded: Vec<EventId>,
    /// The event before `K`, if it has an id: `raw` must hold it there unless retention removed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<EventId>,
    /// The number of partitions: with another number, events of an installation would lie elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// An operator resumed the partition from here, although logs were inconsistent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Accepted>,
}

/// The value of a record of `facts` that tells when a trusted principal was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    pub heard_at: Timestamp,
}

/// An accepted inconsistency: part of the progress record that resumes, and a record under a key of its own, which
/// compaction keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub what: What,
    /// `K` before, if known.
    pub from: Option<u64>,
    /// `K` after.
    pub to: u64,
    pub at: Timestamp,
    /// The previous id of the log, if it has changed: state of that log is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<EventId>,
    /// The accepted beginning of `facts`, if older ones were deleted: state that was folded from more is void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<u64>,
}

/// Builds the records that follow from one raw record.
pub struct Publisher<'a> {
    raw: &'a Record,
    place: Position,
    at: Timestamp,
    event_bytes: usize,
}

impl<'a> Publisher<'a> {
    pub fn new(raw: &'a Record, place: Position) -> Self {
        Self { raw, place, at: raw.at, event_bytes: usize::MAX }
    }

    /// Larger events are published without their data.
    #[must_use]
    pub(crate) fn showing(self, event_bytes: usize) -> Self {
        Self { event_bytes, ..self }
    }

    pub fn partition(&self) -> u32 {
        self.place.partition
    }

    /// `None` for a release, which needs the released event.
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

    /// An event as published; `lies_at` is its own position, which differs for a released event.
    pub fn event(&self, topic: Topic, public: &Public, lies_at: Position) -> Output {
        let kind = format!("com.bitrix24.{}", public.event.to_ascii_lowercase());
        let without_data = (public.size() as usize > self.event_bytes).then(|| public.clone().without_data(lies_at));
        let public = without_data.as_ref().unwrap_or(public);
        let mut output = self.made(topic, public.installation.to_string(), &kind, public);
        set(&mut output.record, header::ID, public.id.to_string());
        set(&mut output.record, header::TIME, public.occurred_at.to_string());
        output
    }

    /// Without a value, since `raw` has the body; without a portal, if its name is a secret.
    pub fn rejected(&self, reason: Reason) -> Output {
        let is_secret = reason == Reason::SecretInName;
        let key = self.raw.key.clone().filter(|_| !is_secret);
        let mut output = self.record(Topic::Rejected, key, None, "com.hookledger.rejected");
        if is_secret && let Ok(raw) = RawEvent::from_record(self.raw) {
            set(&mut output.record, header::SOURCE, format!("/{}", raw.app));
        }
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
                // A released fact has the id of its own event, not of the one that released it.
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
            Change::Heard(installation, at) => {
                let key = FactKey::Heard(installation.clone()).to_string();
                self.made(Topic::Facts, key, "com.hookledger.heard", &Heard { heard_at: *at })
            }
        }
    }

    fn about(&self) -> Option<Installation> {
        let raw = RawEvent::from_record(self.raw).ok()?;
        Some(Installation { app: raw.app, member_id: raw.member_id? })
    }

    fn made(&self, topic: Topic, key: String, kind: &str, value: &impl Serialize) -> Output {
        self.record(topic, Some(key), Some(json_bytes(value)), kind)
    }

    /// With the headers of the raw event that still apply.
    fn record(&self, topic: Topic, key: Option<String>, value: Option<Bytes>, kind: &str) -> Output {
        let kept =
            [header::SPEC_VERSION, header::ID, header::SOURCE, header::TIME, header::TRACEPARENT, header::TRACESTATE];
        let kept = self.raw.headers.iter().filter(|(name, _)| kept.contains(&name.as_str()));
        let mut headers: Vec<(String, Vec<u8>)> = kept.cloned().collect();
        headers.extend(self::headers(kind, self.place));
        Output { topic, partition: self.place.partition, record: Record { key, value, headers, at: self.at } }
    }
}

/// The progress record of a step, with the time of its last raw record.
pub fn progress(progress: &Progress, partition: u32, at: Timestamp) -> Output {
    of_partition(&FactKey::Progress, progress, "com.hookledger.progress", partition, progress.raw, at)
}

pub fn accepted(accepted: &Accepted, id: EventId, partition: u32) -> Output {
    of_partition(&FactKey::Accepted(id), accepted, "com.hookledger.accepted", partition, accepted.to, accepted.at)
}

/// A record of `facts` about the partition, at `K` of `raw`.
fn of_partition(key: &FactKey, value: &impl Serialize, kind: &str, partition: u32, raw: u64, at: Timestamp) -> Output {
    let place = Position { partition, offset: raw.saturating_sub(1) };
    let (key, value) = (Some(key.to_string()), Some(json_bytes(value)));
    Output { topic: Topic::Facts, partition, record: Record { key, value, headers: headers(kind, place).into(), at } }
}

pub(crate) fn json_bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("our own types have a JSON form").into()
}

fn headers(kind: &str, place: Position) -> [(String, Vec<u8>); 4] {
    [
        (header::TYPE.to_owned(), kind.as_bytes().to_vec()),
        (header::CONTENT_TYPE.to_owned(), b"application/json".to_vec()),
        (header::RAW_PARTITION.to_owned(), place.partition.to_string().into_bytes()),
        (header::RAW_OFFSET.to_owned(), place.offset.to_string().into_bytes()),
    ]
}

pub(crate) fn permission_value(about: &Installation, record: &PermissionRecord) -> Value {
    let mut value = json!({ "app": about.app, "member_id": about.member_id });
    if let (Some(value), Ok(Value::Object(fields))) = (value.as_object_mut(), serde_json::to_value(record)) {
        value.extend(fields);
    }
    value
}

pub(crate) fn permission_key(about: &Installation, record: &PermissionRecord) -> String {
    format!("{about}/{}/{}", record.method, record.token)
}

fn set(record: &mut Record, name: &str, value: String) {
    match record.headers.iter_mut().find(|(header, _)| header == name) {
        Some((_, old)) => *old = value.into_bytes(),
        None => record.headers.push((name.to_owned(), value.into_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use bitrix24::AppName;
    use bitrix24::form::Form;

    use super::*;

    #[test]
    fn a_portal_named_by_a_secret_is_in_no_rejected_record() {
        let rejected = |reason| {
            let app = AppName::parse("crm-sync").expect("a name");
            let head = Form::parse(b"event=ONAPPTEST&auth[member_id]=hidden").head();
            let mut raw = RawEvent::new(app, head, Bytes::new(), Timestamp::from_s(1));
            (raw.traceparent, raw.tracestate) = (Some("00-1-2-00".into()), Some("a=1".into()));
            let raw = raw.into_record();
            Publisher::new(&raw, Position { partition: 0, offset: 0 }).rejected(reason).record
        };
        let ordinary = rejected(Reason::MissingToken);
        assert_eq!(ordinary.key.as_deref(), Some("crm-sync/hidden"));
        assert_eq!(ordinary.header(header::SOURCE), Some(&b"/crm-sync/hidden"[..]));
        let trace = [header::TRACEPARENT, header::TRACESTATE].map(|name| ordinary.header(name));
        assert_eq!(trace, [Some(&b"00-1-2-00"[..]), Some(b"a=1")]);
        let secret = rejected(Reason::SecretInName);
        assert_eq!((secret.key.as_deref(), secret.header(header::SOURCE)), (None, Some(&b"/crm-sync"[..])));
        let is_hidden = |value: &[u8]| !value.windows(6).any(|part| part == b"hidden");
        assert!(secret.headers.iter().all(|(_, value)| is_hidden(value)));
    }
}
