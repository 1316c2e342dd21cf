//! A record of `events` as the feed shows it, and which of them a reader wants.

use std::sync::Arc;

use bitrix24::{AppName, MemberId};
use bytes::Bytes;
use event_log::Entry;
use primitives::time::Timestamp;
use serde::Deserialize;

use super::cursor::Mark;
use crate::query::access::Caller;
use crate::query::parameters::Parameters;
use crate::query::problem::Problem;

/// Longer types are of no event.
const TYPE_BYTES_MAX: usize = 128;
const TYPE_PREFIX: &str = "com.bitrix24.";

#[derive(Debug)]
pub struct Event {
    pub partition: u32,
    pub mark: Mark,
    pub at: Timestamp,
    pub app: AppName,
    member_id: MemberId,
    /// In lower case, as behind `com.bitrix24.` in `ce_type`.
    kind: String,
    /// The value of the record: JSON in one line.
    pub value: Bytes,
}

#[derive(Deserialize)]
struct Head {
    app: AppName,
    member_id: MemberId,
    event: Option<String>,
    call: Option<String>,
}

impl Event {
    /// None for a noop record, and for what another program wrote.
    pub fn of(entry: &Entry) -> Option<Arc<Self>> {
        let value = entry.record.value.clone()?;
        // Only JSON that is UTF-8 throughout can be a part of an answer.
        let text = std::str::from_utf8(&value).ok()?;
        let head: Head = serde_json::from_str(text).ok()?;
        let kind = head.event.or(head.call).unwrap_or_else(|| "unknown".to_owned()).to_ascii_lowercase();
        let is_line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let value = if value.iter().any(is_line_end) { Bytes::from(text.replace(['\n', '\r'], " ")) } else { value };
        let (partition, at) = (entry.position.partition, entry.record.at);
        let mark = Mark::of(entry.position.offset, &entry.record);
        Some(Arc::new(Self { partition, mark, at, app: head.app, member_id: head.member_id, kind, value }))
    }

    /// Approximate size in memory.
    pub fn size(&self) -> usize {
        self.value.len() + self.kind.len() + 256
    }
}

/// Which events a reader wants, and may see.
#[derive(Clone)]
pub struct Filter {
    app: Option<AppName>,
    member_id: Option<MemberId>,
    kind: Option<String>,
    caller: Caller,
}

impl Filter {
    pub const NAMES: [&str; 3] = ["app", "member_id", "type"];

    pub fn read(parameters: &Parameters, caller: Caller) -> Result<Self, Problem> {
        let app = parameters.parsed("app", "an app's name", AppName::parse)?;
        app.as_ref().map_or(Ok(()), |app| caller.must_see(app))?;
        let kind = "the name of an event in any case, such as ONCRMDEALADD, or robot or placement";
        Ok(Self {
            app,
            member_id: parameters.parsed("member_id", "a portal's member_id", MemberId::parse)?,
            kind: parameters.parsed("type", kind, kind_of)?,
            caller,
        })
    }

    pub fn takes(&self, event: &Event) -> bool {
        self.app.as_ref().is_none_or(|app| *app == event.app)
            && self.member_id.as_ref().is_none_or(|member_id| *member_id == event.member_id)
            && self.kind.as_ref().is_none_or(|kind| *kind == event.kind)
            && self.caller.sees(&event.app)
    }
}

#[cfg(test)]
impl Filter {
    pub fn of(app: Option<&str>, caller: Caller) -> Self {
        Self { app: app.and_then(AppName::parse), member_id: None, kind: None, caller }
    }
}

/// The data of events of a [`MemoryLog`](super::memory_log::MemoryLog).
#[cfg(test)]
pub fn numbers(events: &[Arc<Event>]) -> Vec<u64> {
    let number = |event: &Arc<Event>| serde_json::from_slice::<serde_json::Value>(&event.value).ok()?["data"].as_u64();
    events.iter().map(|event| number(event).expect("a number")).collect()
}

/// `ONCRMDEALADD`, or the whole `ce_type`.
fn kind_of(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let kind = text.strip_prefix(TYPE_PREFIX).unwrap_or(&text);
    let is_name = |byte: u8| byte.is_ascii_graphic();
    (!kind.is_empty() && kind.len() <= TYPE_BYTES_MAX && kind.bytes().all(is_name)).then(|| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use event_log::{Position, Record};

    use super::*;

    fn event(value: &[u8]) -> Option<Arc<Event>> {
        let record =
            Record { value: Some(Bytes::copy_from_slice(value)), key: None, headers: vec![], at: Timestamp::from_s(1) };
        Event::of(&Entry { position: Position { partition: 2, offset: 7 }, record })
    }

    #[test]
    fn only_events_in_json_are_shown() {
        let value = br#"{"event":"ONAPPINSTALL","app":"crm-sync","member_id":"a223","data":{"x":"y"}}"#;
        assert_eq!(event(value).expect("an event").value, &value[..]);
        let call = event(br#"{"event":null,"call":"robot","app":"crm-sync","member_id":"a223"}"#).expect("a call");
        assert_eq!(call.kind, "robot");
        for other in [
            &b""[..],
            b"{}",
            br#"{"event":"ONAPPINSTALL","app":"CRM SYNC","member_id":"a223"}"#,
            br#"{"event":"ONAPPINSTALL","app":"crm-sync","member_id":"a223"},{"#,
            b"{\"event\":\"ONAPPINSTALL\",\"app\":\"crm-sync\",\"member_id\":\"a223\",\"data\":\"\xff\"}",
        ] {
            assert!(event(other).is_none(), "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let lines =
            event(b"{\"event\":\"ONAPPINSTALL\",\r\n\n\"app\":\"crm-sync\",\"member_id\":\"a223\"}").expect("an event");
        assert!(!lines.value.contains(&b'\n') && !lines.value.contains(&b'\r'), "{lines:?}");
        assert!(serde_json::from_slice::<serde_json::Value>(&lines.value).is_ok(), "{lines:?}");
    }

    #[test]
    fn a_type_is_named_in_any_case_with_and_without_what_stands_before_it() {
        for text in ["ONCRMDEALADD", "OnCrmDealAdd", "com.bitrix24.oncrmdealadd"] {
            assert_eq!(kind_of(text).as_deref(), Some("oncrmdealadd"));
        }
        for text in ["", "com.bitrix24.", "a b", "é", &"x".repeat(TYPE_BYTES_MAX + 1)] {
            assert_eq!(kind_of(text), None, "{text}");
        }
    }
}
