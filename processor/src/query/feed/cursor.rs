//! Where a reader is: for each partition the next offset, and the record that was seen last.
//!
//! As a text it is opaque. It names the log and the records that were seen last, so that a topic that was made again is
//! noticed, and it has a checksum. Nothing else is needed to go on: any processor takes it, also after a rebuild.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use event_log::contract::header;
use event_log::{EventId, Record};
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
const SUM_BYTES: usize = 4;

/// A record: its offset, and a part of its event's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub offset: u64,
    pub tag: u32,
}

impl Mark {
    pub fn of(offset: u64, record: &Record) -> Self {
        let id = record.header(header::ID).and_then(|id| EventId::try_parse_ascii(id).ok());
        // The last bytes of an id are random.
        let tag = id.map_or(0, |id| u32::from_be_bytes(*id.as_bytes().last_chunk().expect("an id has 16 bytes")));
        Self { offset, tag }
    }
}

/// The position in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    pub next: u64,
    /// The last record that was seen; between it and `next` there is none.
    pub last: Option<Mark>,
    /// Whether the log was found to agree. Not part of the text.
    pub is_checked: bool,
}

impl Lane {
    pub fn at(next: u64) -> Self {
        Self { next, last: None, is_checked: false }
    }

    pub fn saw(&mut self, mark: Mark) {
        (self.next, self.last) = (mark.offset.saturating_add(1), Some(mark));
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The name of the log: see [`name_of`].
    pub log: u64,
    /// One for each partition.
    pub lanes: Vec<Lane>,
    /// How much of the ring lies before it: see [`Ring`](super::ring::Ring). Not part of the text.
    pub seen: u64,
}

/// A short name for a log, by its identity and the number of its partitions.
pub fn name_of(identity: &str, partitions: usize) -> u64 {
    let digest = Sha256::digest(format!("{identity}/{partitions}"));
    u64::from_be_bytes(*digest.first_chunk().expect("32 bytes"))
}

impl Cursor {
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (bytes, sum) = bytes.split_last_chunk::<SUM_BYTES>()?;
        let bytes = bytes.strip_prefix(&[VERSION]).filter(|_| *sum == sum_of(bytes))?;
        let (log, mut rest) = bytes.split_first_chunk()?;
        let mut lanes = Vec::new();
        while !rest.is_empty() {
            lanes.push(read_lane(&mut rest)?);
        }
        Some(Self { log: u64::from_be_bytes(*log), lanes, seen: 0 })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend(self.log.to_be_bytes());
        for lane in &self.lanes {
            write_number(&mut bytes, lane.next);
            // How far back the last record lies; 0 is none.
            let back = lane.last.map_or(0, |last| lane.next.saturating_sub(last.offset));
            write_number(&mut bytes, back);
            bytes.extend(lane.last.filter(|_| back > 0).map(|last| last.tag.to_be_bytes()).into_iter().flatten());
        }
        bytes.extend(sum_of(&bytes));
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

fn read_lane(bytes: &mut &[u8]) -> Option<Lane> {
    let (next, back) = (read_number(bytes)?, read_number(bytes)?);
    let last = if back == 0 {
        None
    } else {
        let (tag, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Mark { offset: next.checked_sub(back)?, tag: u32::from_be_bytes(*tag) })
    };
    Some(Lane { next, last, is_checked: false })
}

/// Seven bits a byte, the lowest first; all bytes but the last have the highest bit.
fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(0x80 | number.to_le_bytes()[0]);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        number |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn sum_of(bytes: &[u8]) -> [u8; SUM_BYTES] {
    *Sha256::digest(bytes).first_chunk().expect("32 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lane() -> impl Strategy<Value = Lane> {
        let last = prop::option::of((1_u64..1_000, any::<u32>()));
        (any::<u64>(), last).prop_map(|(next, last)| {
            let last = last.filter(|(back, _)| *back <= next).map(|(back, tag)| Mark { offset: next - back, tag });
            Lane { next, last, is_checked: false }
        })
    }

    proptest! {
        #[test]
        fn a_cursor_is_what_was_written(log: u64, lanes in prop::collection::vec(lane(), 0..20)) {
            let cursor = Cursor { log, lanes, seen: 0 };
            prop_assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        }

        #[test]
        fn a_text_that_nobody_wrote_is_no_cursor(text in "[A-Za-z0-9_-]{0,80}", at: prop::sample::Index) {
            prop_assert_eq!(Cursor::parse(&text), None);
            let lanes = vec![Lane { next: 7, last: Some(Mark { offset: 6, tag: 9 }), is_checked: false }; 3];
            let mut written = Cursor { log: 5, lanes, seen: 0 }.to_string().into_bytes();
            let at = at.index(written.len());
            written[at] = if written[at] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(Cursor::parse(std::str::from_utf8(&written).expect("text")), None);
            prop_assert_eq!(Cursor::parse(std::str::from_utf8(&written[..at]).expect("text")), None);
        }

        #[test]
        fn any_bytes_with_a_right_sum_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = [&[VERSION], &bytes[..]].concat();
            bytes.extend(sum_of(&bytes));
            if let Some(cursor) = Cursor::parse(&BASE64_URL_SAFE_NO_PAD.encode(&bytes)) {
                let again = Cursor::parse(&cursor.to_string());
                prop_assert_eq!(again, Some(cursor));
            }
        }
    }

    #[test]
    fn a_cursor_of_six_partitions_is_short() {
        let lanes =
            vec![
                Lane { next: 40_000_000, last: Some(Mark { offset: 39_999_999, tag: u32::MAX }), is_checked: true };
                6
            ];
        let text = Cursor { log: u64::MAX, lanes, seen: 9 }.to_string();
        assert!(text.len() < 100, "{text}");
    }

    #[test]
    fn a_log_is_named_by_its_identity_and_its_partitions() {
        let name = name_of("disk:1", 1);
        assert_eq!(name, name_of("disk:1", 1));
        assert!(name != name_of("disk:2", 1) && name != name_of("disk:1", 2));
    }
}
