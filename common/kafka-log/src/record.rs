//! Our records as Kafka's, and back.

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use event_log::contract::header;
use event_log::{Entry, Position, Record};
use primitives::time::Timestamp;

/// Invalid UTF-8 in a key, which none of ours has, becomes replacement characters.
pub(super) fn entry(message: &BorrowedMessage<'_>) -> Entry {
    let named = |header: Header<'_, &[u8]>| (header::name(header.key), header.value.unwrap_or_default().to_vec());
    let at = message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default();
    Entry {
        position: Position {
            partition: u32::try_from(message.partition()).expect("a fetched message has a partition"),
            offset: u64::try_from(message.offset()).expect("a fetched message has an offset"),
        },
        record: Record {
            key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: message.headers().map(|headers| headers.iter().map(named).collect()).unwrap_or_default(),
            at: Timestamp::from_ms(at),
        },
    }
}

/// `opaque` comes back with the delivery report.
pub fn outgoing<'a>(
    topic: &'a str,
    partition: u32,
    record: &'a Record,
    ticket: usize,
) -> BaseRecord<'a, str, [u8], usize> {
    let headers =
        record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (name, value)| {
            headers.insert(Header { key: name, value: Some(value) })
        });
    let mut message = BaseRecord::with_opaque_to(topic, ticket)
        .partition(kafka_partition(partition))
        // To librdkafka zero means now.
        .timestamp(i64::try_from(record.at.ms()).unwrap_or(i64::MAX).max(1))
        .headers(headers);
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    message
}

pub(super) fn kafka_partition(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

pub(super) fn kafka_offset(offset: u64) -> rdkafka::Offset {
    rdkafka::Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}
