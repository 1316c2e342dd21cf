//! A frame carries one record in a segment: `len u32 | crc32c u32 | body`, the body being its kind and the record.
//!
//! The checksum covers the segment's random id, the record's offset, the length and the body: stale bytes
//! of this or another file never pass for a record of this place. A length of zero ends a segment.
//!
//! Each write begins with a *mark*: a frame without a record, which carries the offset that follows. It is
//! written only after all before it was synced, and can be recognised at any place: a bad place before a
//! good mark is damage, not a write that was cut short.

use bytes::Bytes;
use uuid::Uuid;

use super::record;
use super::segment::NUMBER_MAX;
use event_log::Record;

/// Length and checksum.
pub(super) const HEAD_BYTES: usize = 8;
pub(super) const BODY_BYTES_MAX: u32 = 256 * 1024 * 1024;

/// A record that ends its group.
const LAST: u8 = 0;
/// A record whose group goes on: alone, it means nothing.
const MORE: u8 = 1;
/// A mark: its body is this and the offset of the record that follows.
const MARK: u8 = 2;
const MARK_LENGTH: u32 = 9;
pub(super) const MARK_BYTES: usize = HEAD_BYTES + MARK_LENGTH as usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of more than {BODY_BYTES_MAX} bytes")]
pub(super) struct TooLong;

/// Appends a frame whose checksum [`seal`] fills in once its place is known.
pub(super) fn lay(record: &Record, more: bool, frames: &mut Vec<u8>) -> Result<(), TooLong> {
    let start = frames.len();
    frames.extend_from_slice(&[0; HEAD_BYTES]);
    frames.push(if more { MORE } else { LAST });
    record::encode(record, frames);
    let length = u32::try_from(frames.len() - start - HEAD_BYTES).ok().filter(|length| *length <= BODY_BYTES_MAX);
    frames[start..start + 4].copy_from_slice(&length.ok_or(TooLong)?.to_le_bytes());
    Ok(())
}

/// Appends a record that was read elsewhere, as a group of its own.
pub(super) fn lay_body(record: &[u8], frames: &mut Vec<u8>) {
    let length = u32::try_from(record.len() + 1).expect("as long as the body that it was");
    frames.extend_from_slice(&length.to_le_bytes());
    frames.extend_from_slice(&[0; 4]);
    frames.push(LAST);
    frames.extend_from_slice(record);
}

pub(super) fn lay_mark(frames: &mut Vec<u8>) {
    frames.extend_from_slice(&MARK_LENGTH.to_le_bytes());
    frames.extend_from_slice(&[0; 4]);
    frames.push(MARK);
    frames.extend_from_slice(&[0; 8]);
}

/// Completes the frames of one write for a place in a segment. May be repeated for another place.
pub(super) fn seal(frames: &mut [u8], salt: Salt, first: u64) {
    let mut rest = frames;
    let mut offset = first;
    while !rest.is_empty() {
        let length = Head::read(rest).length as usize;
        let (frame, behind) = rest.split_at_mut(HEAD_BYTES + length);
        let is_mark = frame[HEAD_BYTES] == MARK;
        if is_mark {
            frame[HEAD_BYTES + 1..].copy_from_slice(&offset.to_le_bytes());
        }
        let crc = salt.crc(offset, &frame[HEAD_BYTES..]);
        frame[4..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        (rest, offset) = (behind, if is_mark { offset } else { offset + 1 });
    }
}

/// The first good mark of a segment in these bytes: its place and its offset, which is `at_least` this.
pub(super) fn find_mark(bytes: &[u8], salt: Salt, at_least: u64) -> Option<(usize, u64)> {
    let head = MARK_LENGTH.to_le_bytes();
    bytes.windows(MARK_BYTES).enumerate().find_map(|(at, frame)| {
        if frame[..4] != head || frame[HEAD_BYTES] != MARK {
            return None;
        }
        let body = &frame[HEAD_BYTES..];
        let offset = u64::from_le_bytes(body[1..].try_into().expect("8 bytes"));
        let is_good = (at_least..=NUMBER_MAX).contains(&offset) && salt.crc(offset, body) == Head::read(frame).crc;
        is_good.then_some((at, offset))
    })
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub length: u32,
    pub crc: u32,
}

impl Head {
    /// `bytes` must hold a whole head.
    pub fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Self { length: word(0), crc: word(4) }
    }
}

/// A body whose checksum was right.
#[derive(Clone, Debug)]
pub(super) struct Body(pub Bytes);

impl Body {
    pub fn record(&self) -> Bytes {
        self.0.slice(1..)
    }

    /// Whether the record is the last of its group.
    pub fn ends_group(&self) -> bool {
        self.0[0] == LAST
    }

    pub fn is_mark(&self) -> bool {
        self.0[0] == MARK
    }
}

/// A segment's id as the start of the checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Salt(u32);

impl Salt {
    pub fn of(segment: Uuid) -> Self {
        Self(crc32c::crc32c(segment.as_bytes()))
    }

    pub fn crc(self, offset: u64, body: &[u8]) -> u32 {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let crc = crc32c::crc32c_append(self.0, &offset.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &length.to_le_bytes());
        crc32c::crc32c_append(crc, body)
    }
}
