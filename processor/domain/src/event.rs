//! An interpreted event, with its redacted content.

use std::sync::Arc;

use bitrix24::Installation;
use event_log::EventId;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{Fact, FactKind, Position, Profile, Revision, Stamp};

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub installation: Installation,
    pub stamp: Stamp,
    pub principal: Fingerprint,
    pub raw: Position,
    pub body_bytes: u32,
    /// `None` for an event that is only passed on.
    pub kind: Option<FactKind>,
    /// What an event that is only passed on says about the portal.
    pub profile: Profile,
    pub public: Public,
}

/// An event as published in `events` and `unverified`: without secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Public {
    pub id: EventId,
    /// Bitrix24's name of the event, in upper case.
    pub event: String,
    #[serde(flatten)]
    pub installation: Installation,
    pub occurred_at: Timestamp,
    pub received_at: Timestamp,
    pub principal: Fingerprint,
    /// `data`, with secrets replaced by `[secret]`.
    pub data: Json,
    /// The harmless fields of `auth`: endpoints, domain, scope, status, user.
    pub auth: Json,
    /// Parts that are too large to be shown: they are `null` above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<Part>,
    /// The position of the raw event, if something is omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Position>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Data,
    Auth,
}

/// JSON as text: a tree of values would take many times its size.
#[derive(Clone, Debug)]
pub struct Json(Arc<RawValue>);

impl Json {
    pub fn null() -> Self {
        Self(Arc::from(RawValue::NULL.to_owned()))
    }

    pub fn new(text: String) -> Result<Self, serde_json::Error> {
        Ok(Self(Arc::from(RawValue::from_string(text)?)))
    }

    pub(crate) fn text(&self) -> &str {
        self.0.get()
    }

    pub fn value(&self) -> Value {
        serde_json::from_str(self.text()).expect("it is JSON")
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    /// Goes through `Value`: raw values do not work next to flattened fields.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Value::deserialize(deserializer)?.to_string();
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

/// Approximate size of the fields around `data` and `auth`.
const AROUND_BYTES: usize = 400;

impl Public {
    /// The same without `data`, which consumers find at `place`.
    #[must_use]
    pub fn without_data(mut self, place: Position) -> Self {
        self.data = Json::null();
        if !self.omitted.contains(&Part::Data) {
            self.omitted.insert(0, Part::Data);
        }
        self.raw = Some(place);
        self
    }

    /// Approximate size as JSON, in bytes.
    pub fn size(&self) -> u32 {
        let text = self.data.text().len() + self.auth.text().len() + AROUND_BYTES;
        u32::try_from(text).unwrap_or(u32::MAX)
    }
}

impl Event {
    pub fn fact(&self) -> Option<Fact> {
        self.kind.clone().map(|kind| self.fact_of(kind))
    }

    /// What an event without a fact of its own says about the portal.
    pub fn described(&self) -> Fact {
        self.fact_of(FactKind::Described { profile: self.profile.clone() })
    }

    /// A fact with this event's principal, position and time.
    pub fn fact_of(&self, kind: FactKind) -> Fact {
        let (installation, revision) = (self.installation.clone(), Revision::default());
        Fact { installation, stamp: self.stamp, principal: self.principal, raw: self.raw, revision, kind }
    }
}
