//! The raw event: a webhook as received, with the fields that ingress adds, and its form in a log.

use std::net::IpAddr;

use bitrix24::{AppName, MemberId};
use bytes::Bytes;
use uuid::Uuid;

use crate::contract::{header, partition_of};
use crate::record::Record;
use bitrix24::form::Head;
use primitives::time::Timestamp;

/// A `UUIDv7`, given by ingress, the same in every topic.
pub type EventId = Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    pub id: EventId,
    pub app: AppName,
    /// From the body; none if it names no valid portal.
    pub member_id: Option<MemberId>,
    /// The `event` field in lower case, if it is plausible; of a command its name.
    pub kind: Option<String>,
    /// A command of an operator, which no webhook can be.
    pub is_command: bool,
    /// Bitrix24's `ts`.
    pub occurred_at: Option<Timestamp>,
    pub received_at: Timestamp,
    pub content_type: Option<String>,
    /// The query of the request's URL, as sent, with bytes that a URL must not have escaped.
    pub query: Option<String>,
    /// The compression of the body, which is not read then.
    pub compression: Option<String>,
    pub source: Option<IpAddr>,
    pub traceparent: Option<String>,
    /// Only together with `traceparent`.
    pub tracestate: Option<String>,
    /// Whether ingress refused the sender: the event is kept, but not folded.
    pub unknown_source: bool,
    /// Whether a crash may have made this the second copy in the log.
    pub resent: bool,
    /// Of which event an operator made this one.
    pub redrive: Option<Redrive>,
    pub body: Bytes,
}

/// That an operator brought an event in again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// The event as ingress kept it.
    pub of: EventId,
    pub at: Timestamp,
}

/// Why a record of `raw` is no raw event: another program wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header {0} is missing or malformed")]
pub struct NotARawEvent(pub &'static str);

/// The beginning of `ce_type`.
const BITRIX24: &str = "com.bitrix24.";
const COMMAND: &str = "com.hookledger.";

/// Most records have no more headers.
const USUAL_HEADERS: usize = 8;
/// Longer values of `Content-Type` and `traceparent` are dropped.
const HEADER_BYTES_MAX: usize = 256;
/// The length that the W3C's recommendation asks to pass on at least.
pub const TRACESTATE_BYTES_MAX: usize = 512;

impl RawEvent {
    pub fn new(app: AppName, head: Head, body: Bytes, received_at: Timestamp) -> Self {
        Self {
            id: Uuid::now_v7(),
            app,
            member_id: head.member_id,
            kind: head.kind,
            is_command: false,
            occurred_at: head.occurred_at,
            received_at,
            content_type: None,
            query: None,
            compression: None,
            source: None,
            traceparent: None,
            tracestate: None,
            unknown_source: false,
            resent: false,
            redrive: None,
            body,
        }
    }

    /// `{app}/{member_id}`, none if the portal is unknown.
    pub fn key(&self) -> Option<String> {
        self.member_id.as_ref().map(|member_id| [self.app.as_str(), "/", member_id.as_str()].concat())
    }

    pub fn partition(&self, partitions: u32) -> u32 {
        match self.key() {
            Some(key) => partition_of(&key, partitions),
            None => partition_of(&self.id.to_string(), partitions),
        }
    }

    pub fn into_record(self) -> Record {
        let text = |text: String| text.into_bytes();
        let key = self.key();
        let source = ["/", key.as_deref().unwrap_or(self.app.as_str())].concat();
        let prefix = if self.is_command { COMMAND } else { BITRIX24 };
        let kind = [prefix, self.kind.as_deref().unwrap_or("unknown")].concat();
        let occurred_at = self.occurred_at.unwrap_or(self.received_at);
        let mut headers = Vec::with_capacity(USUAL_HEADERS);
        headers.extend([
            (header::SPEC_VERSION.into(), b"1.0".to_vec()),
            (header::ID.into(), self.id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes().to_vec()),
            (header::SOURCE.into(), text(source)),
            (header::TYPE.into(), text(kind)),
            (header::TIME.into(), occurred_at.text().to_vec()),
            (header::RECEIVED.into(), self.received_at.text().to_vec()),
        ]);
        let short = |value: &String| value.len() <= HEADER_BYTES_MAX;
        if let Some(content_type) = self.content_type.filter(short).filter(|value| !claims_to_be_whole(value)) {
            headers.push((header::CONTENT_TYPE.into(), text(content_type)));
        }
        if let Some(query) = self.query {
            headers.push((header::QUERY.into(), text(query)));
        }
        if let Some(compression) = self.compression.filter(short) {
            headers.push((header::COMPRESSION.into(), text(compression)));
        }
        if let Some(source) = self.source {
            headers.push((header::SOURCE_ADDRESS.into(), text(source.to_string())));
        }
        if let Some(traceparent) = self.traceparent.filter(short) {
            headers.push((header::TRACEPARENT.into(), text(traceparent)));
            if let Some(tracestate) = self.tracestate.filter(|state| state.len() <= TRACESTATE_BYTES_MAX) {
                headers.push((header::TRACESTATE.into(), text(tracestate)));
            }
        }
        if self.unknown_source {
            headers.push((header::UNKNOWN_SOURCE.into(), b"1".to_vec()));
        }
        if self.resent {
            headers.push((header::RESENT.into(), b"1".to_vec()));
        }
        if let Some(Redrive { of, at }) = self.redrive {
            headers.push((header::REDRIVE_OF.into(), text(of.to_string())));
            headers.push((header::REDRIVEN.into(), text(at.to_string())));
        }
        Record { key, value: Some(self.body), headers, at: self.received_at }
    }

    pub fn from_record(record: &Record) -> Result<Self, NotARawEvent> {
        let text = |name: &'static str| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let need = |name: &'static str| text(name).ok_or(NotARawEvent(name));

        let source = need(header::SOURCE)?.strip_prefix('/').ok_or(NotARawEvent(header::SOURCE))?;
        let (app, member_id) = source.split_once('/').unzip();
        let app = AppName::parse(app.unwrap_or(source)).ok_or(NotARawEvent(header::SOURCE))?;
        let member_id = match member_id {
            Some(text) => Some(MemberId::parse(text).ok_or(NotARawEvent(header::SOURCE))?),
            None => None,
        };
        let received_at = Timestamp::parse(need(header::RECEIVED)?).ok_or(NotARawEvent(header::RECEIVED))?;
        let kind = need(header::TYPE)?;
        let is_command = kind.starts_with(COMMAND);
        let kind = kind.strip_prefix(if is_command { COMMAND } else { BITRIX24 }).ok_or(NotARawEvent(header::TYPE))?;
        Ok(Self {
            id: Uuid::parse_str(need(header::ID)?).map_err(|_| NotARawEvent(header::ID))?,
            app,
            member_id,
            kind: (kind != "unknown").then(|| kind.to_owned()),
            is_command,
            occurred_at: text(header::TIME).and_then(Timestamp::parse),
            received_at,
            content_type: text(header::CONTENT_TYPE).map(str::to_owned),
            query: text(header::QUERY).map(str::to_owned),
            compression: text(header::COMPRESSION).map(str::to_owned),
            source: text(header::SOURCE_ADDRESS).and_then(|text| text.parse().ok()),
            traceparent: text(header::TRACEPARENT).map(str::to_owned),
            tracestate: text(header::TRACESTATE).map(str::to_owned),
            unknown_source: record.header(header::UNKNOWN_SOURCE) == Some(b"1"),
            resent: record.header(header::RESENT) == Some(b"1"),
            redrive: text(header::REDRIVE_OF)
                .and_then(|of| Uuid::parse_str(of).ok())
                .map(|of| Redrive { of, at: text(header::REDRIVEN).and_then(Timestamp::parse).unwrap_or(received_at) }),
            body: record.value.clone().unwrap_or_default(),
        })
    }
}

/// Whether a content type claims, to a reader in Kafka's binding of `CloudEvents`, that the value is a whole event or a
/// batch of them. Anyone can send it.
fn claims_to_be_whole(content_type: &str) -> bool {
    const WHOLE: &str = "application/cloudevents";
    content_type.trim_start().get(..WHOLE.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(WHOLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_event_survives_its_record() {
        let app = AppName::parse("crm-sync").expect("a name");
        let head = Head {
            member_id: MemberId::parse("a223"),
            kind: Some("onappinstall".into()),
            occurred_at: Some(Timestamp::from_s(5)),
        };
        let mut event = RawEvent::new(app, head, Bytes::from_static(b"\0\xff"), Timestamp::from_ms(7_001));
        event.content_type = Some("application/x-www-form-urlencoded".into());
        event.query = Some(format!("deal_id=42&title={}", "%D0%AF".repeat(2_000)));
        event.compression = Some("gzip".into());
        event.source = Some([10, 0, 0, 1].into());
        event.traceparent = Some("00-1-2-00".into());
        event.tracestate = Some("a=1".into());
        event.resent = true;
        event.unknown_source = true;
        event.redrive = Some(Redrive { of: Uuid::from_u128(7), at: Timestamp::from_ms(9_001) });
        assert_eq!(RawEvent::from_record(&event.clone().into_record()), Ok(event.clone()));

        event.is_command = true;
        assert_eq!(RawEvent::from_record(&event.clone().into_record()), Ok(event.clone()));

        event.is_command = false;
        event.member_id = None;
        event.kind = None;
        assert_eq!(RawEvent::from_record(&event.clone().into_record()), Ok(event));
    }

    #[test]
    fn a_trace_state_goes_with_a_trace_and_is_bounded() {
        let header = |traceparent: Option<&str>, tracestate: &str| {
            let app = AppName::parse("crm-sync").expect("a name");
            let mut event = RawEvent::new(app, Head::default(), Bytes::new(), Timestamp::from_s(1));
            event.traceparent = traceparent.map(str::to_owned);
            event.tracestate = Some(tracestate.to_owned());
            event.into_record().header(header::TRACESTATE).map(<[u8]>::len)
        };
        assert_eq!(header(Some("00-1-2-00"), &"a".repeat(512)), Some(512));
        assert_eq!(header(Some("00-1-2-00"), &"a".repeat(513)), None);
        assert_eq!(header(None, "a=1"), None);
    }

    #[test]
    fn no_content_type_says_that_the_body_is_a_whole_cloudevent() {
        let kept = |content_type: &str| {
            let app = AppName::parse("crm-sync").expect("a name");
            let mut event = RawEvent::new(app, Head::default(), Bytes::new(), Timestamp::from_s(1));
            event.content_type = Some(content_type.to_owned());
            event.into_record().header(header::CONTENT_TYPE).is_some()
        };
        for whole in ["application/cloudevents+json", "application/cloudevents-batch+json", " Application/CloudEvents"]
        {
            assert!(!kept(whole), "{whole}");
        }
        assert!(kept("application/json") && kept("application/cloud") && kept("é"));
    }

    #[test]
    fn a_record_of_somebody_else_is_refused_by_the_header_that_is_wrong() {
        let record = Record { key: None, value: None, headers: vec![], at: Timestamp::default() };
        assert_eq!(RawEvent::from_record(&record), Err(NotARawEvent(header::SOURCE)));
    }
}
