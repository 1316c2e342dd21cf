//! An event that was understood, with what may be shown of it.

use std::sync::Arc;

use bitrix24::Installation;
use event_log::EventId;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fact::{Fact, FactKind, Revision};
use super::stamp::{Place, Stamp};

/// What one raw event says: which principal reported what about which installation.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// About which installation.
    pub installation: Installation,
    /// When, and its id.
    pub stamp: Stamp,
    /// The principal that reported it.
    pub principal: Fingerprint,
    /// Where the raw event lies.
    pub raw: Place,
    /// How many bytes its body has.
    pub body_bytes: u32,
    /// What it means for us; none for an event that is verified and only passed on.
    pub kind: Option<FactKind>,
    /// What may be shown of it.
    pub public: Public,
}

/// An event as the topics `events` and `unverified` show it: without secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Public {
    /// The event's id.
    pub id: EventId,
    /// Bitrix24's name for it, in upper case.
    pub event: String,
    /// Which installation.
    #[serde(flatten)]
    pub installation: Installation,
    /// When it occurred.
    pub occurred_at: Timestamp,
    /// When it was received.
    pub received_at: Timestamp,
    /// The principal that sent it.
    pub principal: Fingerprint,
    /// `data`, with `[secret]` where a secret stood.
    pub data: Json,
    /// What is harmless of `auth`: endpoints, domain, scope, status, user.
    pub auth: Json,
    /// What is too large to be shown: it is `null` above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<Part>,
    /// Where the raw event lies, if something is omitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Place>,
}

/// A part of an event that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// `data`.
    Data,
    /// What is shown of `auth`.
    Auth,
}

/// JSON as it will be written: a tree of values would take many times its size.
#[derive(Clone, Debug)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Nothing to show.
    pub fn null() -> Self {
        Self(Arc::from(RawValue::NULL.to_owned()))
    }

    /// From a text that is JSON.
    pub fn new(text: String) -> Result<Self, serde_json::Error> {
        Ok(Self(Arc::from(RawValue::from_string(text)?)))
    }

    /// The text.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// What it says.
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
    /// By way of values: beside fields that are flattened, a text cannot be taken as it stands.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Value::deserialize(deserializer)?.to_string();
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

/// About what stands around `data` and `auth`.
const AROUND_BYTES: usize = 400;

impl Public {
    /// The same without `data`, which lies at this place.
    #[must_use]
    pub fn without_data(mut self, place: Place) -> Self {
        self.data = Json::null();
        if !self.omitted.contains(&Part::Data) {
            self.omitted.insert(0, Part::Data);
        }
        self.raw = Some(place);
        self
    }

    /// About how many bytes it takes as JSON.
    pub fn size(&self) -> u32 {
        let text = self.data.text().len() + self.auth.text().len() + AROUND_BYTES;
        u32::try_from(text).unwrap_or(u32::MAX)
    }
}

impl Event {
    /// The fact that follows from the event, if it is one.
    pub fn fact(&self) -> Option<Fact> {
        self.kind.clone().map(|kind| self.fact_of(kind))
    }

    /// A fact of this event's principal, place and time.
    pub fn fact_of(&self, kind: FactKind) -> Fact {
        let (installation, revision) = (self.installation.clone(), Revision::default());
        Fact { installation, stamp: self.stamp, principal: self.principal, raw: self.raw, revision, kind }
    }
}
