//! A record as bytes. Decoding any bytes ends in a record or in an error.
//!
//! `version u8 | at u64 | key | value | number of headers | (name, value) each`. Numbers of fixed size
//! are little-endian. Lengths are LEB128; those of key and value are one more than they are, so that
//! zero means none.

use bytes::Bytes;

use event_log::Record;
use event_log::contract::header;
use primitives::time::Timestamp;

/// The only version that is written or read.
const VERSION: u8 = 1;
/// Enough for a LEB128 number of 64 bits.
const NUMBER_BYTES_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the record has version {0}, which is not known here")]
    Version(u8),
    #[error("the record ends too early")]
    Short,
    #[error("the record is followed by something else")]
    Long,
    #[error("a number in the record is none")]
    Number,
    #[error("a text in the record is not UTF-8")]
    Text,
}

pub fn encode(record: &Record, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&record.at.ms().to_le_bytes());
    put_optional(out, record.key.as_deref().map(str::as_bytes));
    put_optional(out, record.value.as_deref());
    put_number(out, record.headers.len() as u64);
    for (name, value) in &record.headers {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value);
    }
}

/// The value shares the bytes' memory.
pub fn decode(bytes: &Bytes) -> Result<Record, Malformed> {
    let at = time(bytes)?;
    let mut rest = Rest { bytes, at: 1 + size_of::<u64>() };
    let key = rest.optional()?.map(|key| text(&key)).transpose()?;
    let value = rest.optional()?;
    let mut headers = Vec::new();
    for _ in 0..rest.number()? {
        let name = rest.length().and_then(|length| rest.take(length))?;
        let value = rest.length().and_then(|length| rest.take(length))?;
        let name = std::str::from_utf8(&name).map_err(|_| Malformed::Text)?;
        headers.push((header::name(name), value.to_vec()));
    }
    if rest.at == bytes.len() { Ok(Record { key, value, headers, at }) } else { Err(Malformed::Long) }
}

pub(super) fn time(bytes: &[u8]) -> Result<Timestamp, Malformed> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(Malformed::Version(other)),
        None => return Err(Malformed::Short),
    }
    let (ms, _) = bytes[1..].split_first_chunk().ok_or(Malformed::Short)?;
    Ok(Timestamp::from_ms(u64::from_le_bytes(*ms)))
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return put_number(out, 0) };
    put_number(out, bytes.len() as u64 + 1);
    out.extend_from_slice(bytes);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn text(bytes: &Bytes) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed::Text)
}

struct Rest<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Rest<'_> {
    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for index in 0..NUMBER_BYTES_MAX {
            let byte = *self.bytes.get(self.at).ok_or(Malformed::Short)?;
            self.at += 1;
            let part = u64::from(byte & 0x7f);
            let shifted = part << (7 * index);
            if shifted >> (7 * index) != part {
                return Err(Malformed::Number);
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed::Number)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.number()?).map_err(|_| Malformed::Number)
    }

    fn optional(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.length()? {
            0 => Ok(None),
            more => self.take(more - 1).map(Some),
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(Malformed::Short)?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use event_log::HeaderName;

    use super::*;

    fn records() -> impl Strategy<Value = Record> {
        let value = proptest::option::of(vec(any::<u8>(), 0..300));
        let name = ".{0,20}".prop_map(HeaderName::from);
        let headers = vec((name, vec(any::<u8>(), 0..40)), 0..6);
        (proptest::option::of(".{0,40}"), value, headers, any::<u64>()).prop_map(|(key, value, headers, ms)| Record {
            key,
            value: value.map(Bytes::from),
            headers,
            at: Timestamp::from_ms(ms),
        })
    }

    fn encoded(record: &Record) -> Bytes {
        let mut out = Vec::new();
        encode(record, &mut out);
        out.into()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(record in records()) {
            let bytes = encoded(&record);
            prop_assert_eq!(time(&bytes), Ok(record.at));
            prop_assert_eq!(decode(&bytes), Ok(record));
        }

        #[test]
        fn any_bytes_end_in_a_record_or_an_error(mut bytes in vec(any::<u8>(), 0..200), versioned in any::<bool>()) {
            if let (true, Some(first)) = (versioned, bytes.first_mut()) {
                *first = VERSION;
            }
            let bytes = Bytes::from(bytes);
            if let Ok(record) = decode(&bytes) {
                prop_assert_eq!(decode(&encoded(&record)), Ok(record));
            }
        }

        #[test]
        fn a_record_that_is_cut_or_followed_by_something_is_none(record in records(), cut in any::<prop::sample::Index>()) {
            let bytes = encoded(&record);
            prop_assert!(decode(&bytes.slice(..cut.index(bytes.len()))).is_err());
            prop_assert_eq!(decode(&[&bytes[..], b"x"].concat().into()), Err(Malformed::Long));
        }
    }

    #[test]
    fn no_key_and_an_empty_key_are_two_things() {
        for key in [None, Some(String::new())] {
            for value in [None, Some(Bytes::new())] {
                let record = Record { key: key.clone(), value, headers: vec![], at: Timestamp::default() };
                assert_eq!(decode(&encoded(&record)), Ok(record));
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(decode(&Bytes::from_static(&[9; 30])), Err(Malformed::Version(9)));
    }
}
