//! An event that was understood, with what may be shown of it.

use common::event::{EventId, Installation};
use common::secret::Fingerprint;
use common::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fact::{Fact, Revision, Told};
use super::stamp::{Place, Stamp};

/// What one raw event says: who told what about whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// About which installation.
    pub installation: Installation,
    /// When, and its id.
    pub stamp: Stamp,
    /// Who says so.
    pub teller: Fingerprint,
    /// Where the raw event lies.
    pub raw: Place,
    /// How many bytes its body has.
    pub body_bytes: u32,
    /// What it means for us; none for a foreign event, which is verified and passed on.
    pub told: Option<Told>,
    /// What may be shown of it.
    pub public: Public,
}

/// An event as the topics `events` and `unproven` show it: without secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Public {
    /// The event's id.
    pub id: EventId,
    /// Bitrix24's name for it, in upper case.
    pub event: String,
    /// Which installation.
    #[serde(flatten)]
    pub installation: Installation,
    /// When it was told.
    pub told_at: Timestamp,
    /// When it was received.
    pub received_at: Timestamp,
    /// Who told it.
    pub teller: Fingerprint,
    /// `data`, with `[secret]` where a secret stood.
    pub data: Value,
    /// What is harmless of `auth`: endpoints, domain, scope, status, user.
    pub auth: Value,
}

impl Public {
    /// How many bytes it takes as JSON.
    pub fn size(&self) -> u32 {
        let text = serde_json::to_vec(self).expect("our own types have a JSON form");
        u32::try_from(text.len()).unwrap_or(u32::MAX)
    }
}

impl Event {
    /// The fact that follows from the event, if it is one.
    pub fn fact(&self) -> Option<Fact> {
        self.told.clone().map(|told| self.fact_of(told))
    }

    /// A fact of this event's teller, place and time.
    pub fn fact_of(&self, told: Told) -> Fact {
        let (installation, revision) = (self.installation.clone(), Revision::default());
        Fact { installation, stamp: self.stamp, teller: self.teller, raw: self.raw, revision, told }
    }
}
