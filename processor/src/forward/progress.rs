//! How far events were forwarded, as records of the log `forward`, each in the partition of the events.
//!
//! For each app a watermark: all events below it were delivered, or are of installations with a place of their own. For
//! each of those its place, and why it waits. What an operator decides is a record, too: the owner of the partition may
//! be another processor than the one that was told.

use std::fmt;

use bitrix24::{AppName, Installation};
use bytes::Bytes;
use event_log::contract::{Topic, header};
use event_log::{EventId, Record};
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::failure::Failure;

const KIND: &str = "com.hookledger.forward";

/// Whose events: the two are forwarded independently of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Of trusted principals.
    Events,
    /// Of the others.
    Unverified,
}

impl Source {
    pub fn topic(self) -> Topic {
        match self {
            Self::Events => Topic::Events,
            Self::Unverified => Topic::Unverified,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Events, Self::Unverified].into_iter().find(|source| source.topic().name() == text)
    }
}

/// The key of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Watermark(Source, AppName),
    Place(Source, Installation),
    /// With an id of its own: when an order was obeyed its record goes, and not that of a later one.
    Order(Source, Installation, EventId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watermark(source, app) => write!(f, "watermark/{}/{app}", source.topic().name()),
            Self::Place(source, installation) => write!(f, "place/{}/{installation}", source.topic().name()),
            Self::Order(source, installation, id) => write!(f, "order/{}/{installation}/{id}", source.topic().name()),
        }
    }
}

impl Key {
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        let (source, name) = rest.split_once('/')?;
        let source = Source::parse(source)?;
        let installation = |name: &str| {
            let (app, member_id) = name.split_once('/')?;
            Installation::parse(app, member_id)
        };
        match kind {
            "watermark" => AppName::parse(name).map(|app| Self::Watermark(source, app)),
            "place" => installation(name).map(|installation| Self::Place(source, installation)),
            "order" => {
                let (name, id) = name.rsplit_once('/')?;
                Some(Self::Order(source, installation(name)?, EventId::parse_str(id).ok()?))
            }
            _ => None,
        }
    }

    /// Its record; without a value, a tombstone.
    pub fn with(&self, value: Option<Bytes>, at: Timestamp) -> Record {
        let headers = vec![(header::KIND.into(), KIND.as_bytes().to_vec())];
        Record { key: Some(self.to_string()), value, headers, at }
    }
}

pub fn value<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    pub next: u64,
    /// Events that were no longer in `raw` when it was their turn.
    #[serde(default)]
    pub lost: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_lost: Option<EventId>,
}

/// Where an installation goes on, apart from the watermark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub next: u64,
    /// The event that is next, if it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Head>,
    #[serde(flatten)]
    pub tries: Tries,
}

/// What is shown of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub offset: u64,
    pub id: EventId,
    #[serde(rename = "type")]
    pub kind: String,
    pub received_at: Timestamp,
}

/// The attempts for the event that is next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    pub attempts: u32,
    /// When the first attempt failed, or the first one after an operator said to retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_at: Option<Timestamp>,
}

/// What an operator decided about the event that an installation waits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub id: EventId,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Retry,
    Skip,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let installation = Installation::parse("crm-sync", "a223").expect("valid");
        for source in [Source::Events, Source::Unverified] {
            for key in [
                Key::Watermark(source, installation.app.clone()),
                Key::Place(source, installation.clone()),
                Key::Order(source, installation.clone(), EventId::from_u128(7)),
            ] {
                assert_eq!(Key::parse(&key.to_string()), Some(key));
            }
        }
        for other in [
            "",
            "noop",
            "place/events",
            "place/facts/crm-sync/a223",
            "place/events/crm-sync",
            "x/events/a/b",
            "order/events/a/b",
        ] {
            assert_eq!(Key::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_a_bare_one_is_read() {
        let head = Head {
            offset: 7,
            id: EventId::from_u128(7),
            kind: "onappinstall".into(),
            received_at: Timestamp::from_s(1),
        };
        let tries = Tries {
            attempts: 3,
            since: Some(Timestamp::from_s(2)),
            failure: Some(Failure::Status(500)),
            parked_at: Some(Timestamp::from_s(3)),
        };
        let place = Place { next: 7, event: Some(head), tries };
        assert_eq!(value(&serde_json::to_vec(&place).expect("JSON")), Some(place));
        let bare = Place { next: 7, event: None, tries: Tries::default() };
        assert_eq!(value(br#"{"next":7,"attempts":0}"#), Some(bare));
    }
}
