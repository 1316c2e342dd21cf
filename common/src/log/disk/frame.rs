//! A frame carries one record in a segment: `len u32 | crc32c u32 | body`, the body being a byte of flags and the record.
//!
//! The checksum covers the segment's random id, the record's offset, the length and the body: nothing
//! that lay in the file before, or in another one, passes for a record of this place.

use bytes::Bytes;
use uuid::Uuid;

use super::record;
use crate::log::Record;

/// Length and checksum.
pub(super) const HEAD_BYTES: usize = 8;
/// No longer body is written, nor believed.
pub(super) const BODY_BYTES_MAX: u32 = 256 * 1024 * 1024;

/// More of the group follows: alone, this record means nothing.
const MORE: u8 = 1;
/// All that lies before this frame had been synced when it was written.
const SYNCED: u8 = 2;

/// A record that is too long for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of more than {BODY_BYTES_MAX} bytes")]
pub(super) struct TooLong;

/// Appends a frame whose checksum [`seal`] fills in once its place is known.
pub(super) fn lay(record: &Record, more: bool, frames: &mut Vec<u8>) -> Result<(), TooLong> {
    let start = frames.len();
    frames.extend_from_slice(&[0; HEAD_BYTES]);
    frames.push(if more { MORE } else { 0 });
    record::encode(record, frames);
    let length = u32::try_from(frames.len() - start - HEAD_BYTES).ok().filter(|length| *length <= BODY_BYTES_MAX);
    frames[start..start + 4].copy_from_slice(&length.ok_or(TooLong)?.to_le_bytes());
    Ok(())
}

/// Completes the frames of one write for a place in a segment. May be done again, for another place.
pub(super) fn seal(frames: &mut [u8], salt: Salt, first: u64) {
    let mut rest = frames;
    let mut offset = first;
    while !rest.is_empty() {
        let length = Head::read(rest).length as usize;
        let (frame, behind) = rest.split_at_mut(HEAD_BYTES + length);
        let flags = &mut frame[HEAD_BYTES];
        *flags = (*flags & MORE) | if offset == first { SYNCED } else { 0 };
        let crc = salt.crc(offset, &frame[HEAD_BYTES..]);
        frame[4..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        (rest, offset) = (behind, offset + 1);
    }
}

/// What stands before a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub length: u32,
    pub crc: u32,
}

impl Head {
    /// Reads the first bytes of a frame, of which there are enough.
    pub fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Self { length: word(0), crc: word(4) }
    }
}

/// A body whose checksum was right.
#[derive(Clone, Debug)]
pub(super) struct Body(pub Bytes);

impl Body {
    /// The record's bytes.
    pub fn record(&self) -> Bytes {
        self.0.slice(1..)
    }

    /// Whether its group ends here.
    pub fn ends_group(&self) -> bool {
        self.0[0] & MORE == 0
    }

    /// Whether all before it had been synced.
    pub fn follows_sync(&self) -> bool {
        self.0[0] & SYNCED != 0
    }
}

/// A segment's id as the checksum's beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Salt(u32);

impl Salt {
    pub fn of(segment: Uuid) -> Self {
        Self(crc32c::crc32c(segment.as_bytes()))
    }

    /// The checksum of a body at an offset of the segment.
    pub fn crc(self, offset: u64, body: &[u8]) -> u32 {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let crc = crc32c::crc32c_append(self.0, &offset.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &length.to_le_bytes());
        crc32c::crc32c_append(crc, body)
    }
}
