//! Effects as records, in the partition of the raw event that they follow from.

use bitrix24::Installation;
use bytes::Bytes;
use event_log::contract::{Topic, header};
use event_log::{EventId, HeaderName, Output, Position, RawEvent, Record, is_redriven, made_at, redriven_from};
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::run::inconsistency::What;
use domain::fold::Effect;
use domain::{Change, FactKey, HeldEvent, PermissionRecord, Public, Reason, VaultKey, names_may_be_secret};

pub(crate) const INSTALLATION: &str = "com.hookledger.installation";
pub(crate) const PERMISSION: &str = "com.hookledger.permission";
const REJECTED: &str = "com.hookledger.rejected";
pub(crate) const VAULT: &str = "com.hookledger.vault";
const HELD: &str = "com.hookledger.unverified";

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
pub struct HeardRecord {
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
            Effect::GaveWay(held, bytes) => self.gave_way(held, *bytes),
            Effect::Installation(record) => {
                self.made(Topic::Installations, record.installation.to_string(), INSTALLATION, record)
            }
            Effect::InstallationGone(installation) => {
                self.tombstone(Topic::Installations, installation.to_string(), INSTALLATION)
            }
            Effect::Permission(record) => {
                let about = self.about()?;
                let value = permission_value(&about, record);
                let mut output = self.made(Topic::Permissions, permission_key(&about, record), PERMISSION, &value);
                // One event may change several permissions.
                self.name(&mut output.record, &format!("{}/{}", record.method, record.token));
                output
            }
            Effect::PermissionGone(record) => {
                self.tombstone(Topic::Permissions, permission_key(&self.about()?, record), PERMISSION)
            }
        };
        Some(output)
    }

    /// An event as published; `lies_at` is its own position, which differs for a released event.
    pub fn event(&self, topic: Topic, public: &Public, lies_at: Position) -> Output {
        let without_data = (public.size() as usize > self.event_bytes).then(|| Public::clone(public).without_data());
        let public = without_data.as_ref().unwrap_or(public);
        let mut output = self.made(topic, public.installation.to_string(), &public.type_name(), public);
        let record = &mut output.record;
        set(record, header::ID, public.id.to_string());
        tell_redrive(record, public.id);
        set(record, header::TIME, public.occurred_at.to_string());
        if lies_at != self.place {
            set(record, header::BODY_PARTITION, lies_at.partition.to_string());
            set(record, header::BODY_OFFSET, lies_at.offset.to_string());
        }
        output
    }

    /// Without the body, which `raw` has; without a portal, if its name may be a secret.
    pub fn rejected(&self, reason: Reason) -> Output {
        let raw = RawEvent::from_record(self.raw).ok();
        let is_secret = raw.as_ref().is_some_and(|raw| names_may_be_secret(raw, reason));
        let member_id = raw.as_ref().and_then(|raw| raw.member_id.as_ref()).filter(|_| !is_secret);
        let mut value = json!({
            "id": raw.as_ref().map(|raw| raw.id),
            "reason": reason.label(),
            "app": raw.as_ref().map(|raw| &raw.app),
            "member_id": member_id,
            "received_at": raw.as_ref().map_or(self.at, |raw| raw.received_at),
            "size": self.raw.value.as_ref().map_or(0, Bytes::len),
            "raw": self.place,
        });
        if let Some(of) = raw.as_ref().and_then(|raw| redriven_from(raw.id)) {
            value["redrive_of"] = json!(of);
        }
        let (key, value) = (self.raw.key.clone().filter(|_| !is_secret), Some(json_bytes(&value)));
        let mut output = self.record(Topic::Rejected, key, value, REJECTED);
        let Position { partition, offset } = self.place;
        if let Some(raw) = raw.as_ref().filter(|_| is_secret) {
            set(&mut output.record, header::SOURCE, format!("/{}", raw.app));
        }
        if let Some(raw) = &raw {
            tell_redrive(&mut output.record, raw.id);
        }
        match raw {
            // A second copy is rejected once more, and so is an event that is redriven.
            Some(raw) if raw.resent || raw.redrive.is_some() => {
                self.name(&mut output.record, &format!("{partition}/{offset}"));
            }
            Some(_) => {}
            None => {
                let record = &mut output.record;
                set(record, header::SPEC_VERSION, "1.0".to_owned());
                set(record, header::ID, format!("raw/{partition}/{offset}"));
                set(record, header::SOURCE, "/".to_owned());
                set(record, header::TIME, self.at.to_string());
            }
        }
        set(&mut output.record, header::REASON, reason.label().to_owned());
        output
    }

    /// An event that is held no longer, although its principal is not trusted. Its size is that which was held.
    fn gave_way(&self, held: &HeldEvent, bytes: u32) -> Output {
        let HeldEvent { installation, id, offset, .. } = held;
        let (raw, received_at) = (Position { offset: *offset, ..self.place }, made_at(*id).unwrap_or(self.at));
        let mut value = json!({
            "id": id,
            "reason": Reason::GaveWay.label(),
            "app": installation.app,
            "member_id": installation.member_id,
            "received_at": received_at,
            "size": bytes,
            "raw": raw,
        });
        if let Some(of) = redriven_from(*id) {
            value["redrive_of"] = json!(of);
        }
        let mut output = self.made(Topic::Rejected, installation.to_string(), REJECTED, &value);
        let record = &mut output.record;
        // The cause may be an event of another installation.
        let others = [header::TRACEPARENT, header::TRACESTATE];
        record.headers.retain(|(name, _)| !others.contains(&&**name));
        // An event that is redriven may give way again.
        let suffix = if is_redriven(*id) { format!("/{}/{offset}", raw.partition) } else { String::new() };
        set(record, header::ID, format!("{id}{suffix}"));
        set(record, header::SOURCE, format!("/{installation}"));
        set(record, header::TIME, received_at.to_string());
        set(record, header::BODY_PARTITION, raw.partition.to_string());
        set(record, header::BODY_OFFSET, offset.to_string());
        set(record, header::REASON, Reason::GaveWay.label().to_owned());
        tell_redrive(record, *id);
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
                tell_redrive(&mut output.record, fact.stamp.id);
                set(&mut output.record, header::TIME, fact.stamp.occurred_at.to_string());
                output
            }
            Change::Held(held, details) => {
                let key = FactKey::Held(held.clone()).to_string();
                self.plain(Topic::Facts, key, Some(json_bytes(details)), HELD)
            }
            Change::NoLongerHeld(held) => self.tombstone(Topic::Facts, FactKey::Held(held.clone()).to_string(), HELD),
            Change::Heard(installation, at) => {
                let key = FactKey::Heard(installation.clone()).to_string();
                self.plain(Topic::Facts, key, Some(json_bytes(&HeardRecord { heard_at: *at })), "com.hookledger.heard")
            }
            Change::Vault(key, entry) => {
                let value = entry.as_ref().map(json_bytes);
                self.plain(Topic::Facts, FactKey::Vault(key.clone()).to_string(), value, VAULT)
            }
        }
    }

    /// A sealed entry of the vault, or its tombstone.
    pub(crate) fn vault(&self, key: &VaultKey, sealed: Option<Bytes>) -> Output {
        self.plain(Topic::Vault, key.to_string(), sealed, VAULT)
    }

    fn about(&self) -> Option<Installation> {
        let raw = RawEvent::from_record(self.raw).ok()?;
        Some(Installation { app: raw.app, member_id: raw.member_id? })
    }

    fn made(&self, topic: Topic, key: String, kind: &str, value: &impl Serialize) -> Output {
        self.record(topic, Some(key), Some(json_bytes(value)), kind)
    }

    /// A `CloudEvent`, with the headers of the raw event that still apply.
    fn record(&self, topic: Topic, key: Option<String>, value: Option<Bytes>, kind: &str) -> Output {
        let kept =
            [header::SPEC_VERSION, header::ID, header::SOURCE, header::TIME, header::TRACEPARENT, header::TRACESTATE];
        let kept = self.raw.headers.iter().filter(|(name, _)| kept.contains(&&**name));
        let mut headers: Vec<(HeaderName, Vec<u8>)> = kept.cloned().collect();
        headers.push((header::TYPE.into(), kind.as_bytes().to_vec()));
        headers.push((header::CONTENT_TYPE.into(), b"application/json".to_vec()));
        headers.extend(raw_place(self.place));
        Output { topic, partition: self.place.partition, record: Record { key, value, headers, at: self.at } }
    }

    /// A record that is no `CloudEvent`.
    fn plain(&self, topic: Topic, key: String, value: Option<Bytes>, kind: &str) -> Output {
        let record = Record { key: Some(key), value, headers: plain_headers(kind, self.place), at: self.at };
        Output { topic, partition: self.place.partition, record }
    }

    fn tombstone(&self, topic: Topic, key: String, kind: &str) -> Output {
        self.plain(topic, key, None, kind)
    }

    /// Appends to the id of a record, so that it is unique in its topic.
    fn name(&self, record: &mut Record, suffix: &str) {
        let id = self.raw.header(header::ID).map(String::from_utf8_lossy).unwrap_or_default();
        set(record, header::ID, format!("{id}/{suffix}"));
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
    let headers = plain_headers(kind, place);
    Output { topic: Topic::Facts, partition, record: Record { key, value, headers, at } }
}

pub(crate) fn json_bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("our own types have a JSON form").into()
}

/// The headers of a record that is no `CloudEvent`.
pub(crate) fn plain_headers(kind: &str, place: Position) -> Vec<(HeaderName, Vec<u8>)> {
    let kind = (header::KIND.into(), kind.as_bytes().to_vec());
    [kind].into_iter().chain(raw_place(place)).collect()
}

fn raw_place(place: Position) -> [(HeaderName, Vec<u8>); 2] {
    [
        (header::RAW_PARTITION.into(), place.partition.to_string().into_bytes()),
        (header::RAW_OFFSET.into(), place.offset.to_string().into_bytes()),
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

/// Of the event itself: what it releases, for example, was not redriven.
fn tell_redrive(record: &mut Record, id: EventId) {
    if let Some(of) = redriven_from(id) {
        set(record, header::REDRIVE_OF, of.to_string());
    }
}

pub(crate) fn set(record: &mut Record, name: &'static str, value: String) {
    match record.headers.iter_mut().find(|(header, _)| header == name) {
        Some((_, old)) => *old = value.into_bytes(),
        None => record.headers.push((name.into(), value.into_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use bitrix24::AppName;
    use bitrix24::form::Form;

    use super::*;

    #[test]
    fn a_portal_named_by_a_secret_is_in_no_rejected_record() {
        let rejected = |reason, member: &str| {
            let app = AppName::parse("crm-sync").expect("a name");
            let body = format!("event=ONAPPTEST&auth[member_id]={member}&auth[access_token]=hidden-0123456789");
            let mut raw = RawEvent::new(app, Form::parse(body.as_bytes()).head(), body.into(), Timestamp::from_s(1));
            (raw.traceparent, raw.tracestate) = (Some("00-1-2-00".into()), Some("a=1".into()));
            raw.unknown_source = reason == Reason::UnknownSource;
            let raw = raw.into_record();
            Publisher::new(&raw, Position { partition: 0, offset: 0 }).rejected(reason).record
        };
        for reason in [Reason::MissingToken, Reason::UnknownSource] {
            let ordinary = rejected(reason, "a223");
            assert_eq!(ordinary.key.as_deref(), Some("crm-sync/a223"));
            assert_eq!(ordinary.header(header::SOURCE), Some(&b"/crm-sync/a223"[..]));
            let trace = [header::TRACEPARENT, header::TRACESTATE].map(|name| ordinary.header(name));
            assert_eq!(trace, [Some(&b"00-1-2-00"[..]), Some(b"a=1")]);
        }
        for reason in [Reason::SecretInName, Reason::UnknownSource, Reason::TooManyFields, Reason::Compressed] {
            let secret = rejected(reason, "hidden-0123456789");
            assert_eq!((secret.key.as_deref(), secret.header(header::SOURCE)), (None, Some(&b"/crm-sync"[..])));
            let is_hidden = |value: &[u8]| !value.windows(6).any(|part| part == b"hidden");
            assert!(secret.headers.iter().all(|(_, value)| is_hidden(value)), "{reason:?}");
            assert!(secret.value.as_deref().is_some_and(is_hidden), "{reason:?}");
        }
    }
}
