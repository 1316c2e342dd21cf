//! Records as they lie in disk logs, and the headers of those that are raw events.

use bytes::Bytes;
use disk_log::record::{decode, encode};
use event_log::contract::header;
use event_log::{RawEvent, Record, TRACESTATE_BYTES_MAX};
use primitives::time::Timestamp;

use crate::input::Input;

/// Longer texts are not passed on by a raw event.
const HEADER_BYTES_MAX: usize = 256;
/// The headers of a raw event, and what is none.
const NAMES: [&str; 13] = [
    header::SPEC_VERSION,
    header::ID,
    header::SOURCE,
    header::TYPE,
    header::TIME,
    header::RECEIVED,
    header::CONTENT_TYPE,
    header::SOURCE_ADDRESS,
    header::TRACEPARENT,
    header::TRACESTATE,
    header::RESENT,
    "ce_other",
    "",
];

/// Bytes are a record that is written the same again, or none; a record survives its bytes; and whatever the headers
/// are, they are a raw event that survives its record, or none.
pub fn record(data: &[u8]) {
    if let Ok(record) = decode(&Bytes::copy_from_slice(data)) {
        survives(&record);
        raw_event(&record);
    }
    let made = made(&mut Input(data));
    survives(&made);
    raw_event(&made);
}

fn survives(record: &Record) {
    let mut bytes = Vec::new();
    encode(record, &mut bytes);
    let bytes = Bytes::from(bytes);
    assert_eq!(decode(&bytes).as_ref(), Ok(record));
    if let Some(last) = bytes.len().checked_sub(1) {
        assert!(decode(&bytes.slice(..last)).is_err(), "half a record is none");
    }
}

fn raw_event(record: &Record) {
    let Ok(event) = RawEvent::from_record(record) else { return };
    assert_eq!(event.body, record.value.clone().unwrap_or_default());
    let again = RawEvent::from_record(&event.clone().into_record()).expect("our own record is a raw event");
    let short = |text: Option<String>| text.filter(|text| text.len() <= HEADER_BYTES_MAX);
    let expected = RawEvent {
        occurred_at: event.occurred_at.or(Some(event.received_at)),
        content_type: short(event.content_type.clone()),
        tracestate: event
            .tracestate
            .clone()
            .filter(|state| state.len() <= TRACESTATE_BYTES_MAX && short(event.traceparent.clone()).is_some()),
        traceparent: short(event.traceparent.clone()),
        ..event.clone()
    };
    assert_eq!(again, expected);
    assert!(event.partition(6) < 6);
    assert_eq!(event.key(), again.key());
}

/// A record of which the input decides everything.
fn made(input: &mut Input<'_>) -> Record {
    let at = Timestamp::from_ms(input.number());
    let key = text(input);
    let mut headers = Vec::new();
    while !input.is_empty() {
        let name = NAMES[usize::from(input.byte()) % NAMES.len()];
        let length = usize::from(input.byte());
        headers.push((name.to_owned().into(), input.take(length).to_vec()));
    }
    let value = key.as_ref().map(|key| Bytes::copy_from_slice(key.as_bytes()));
    Record { key, value, headers, at }
}

fn text(input: &mut Input<'_>) -> Option<String> {
    let length = usize::from(input.byte()).checked_sub(1)?;
    Some(String::from_utf8_lossy(input.take(length)).into_owned())
}
