//! A segment: one file of records in order, and a header that links it to those before it.
//!
//! The header holds the synced end of the segment before it: what that older file holds beyond was never
//! acknowledged, and is ignored. Offsets have no gaps, except after `salvage`.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::files::Files;
use super::storage::read_exact_at;
use primitives::time::Timestamp;

pub(super) const HEADER_BYTES: u64 = HEADER_LEN as u64;
const HEADER_LEN: usize = 128;
/// The last byte is the version of the format.
const MAGIC: [u8; 8] = *b"hlsegm\0\x02";
const EXTENSION: &str = "segment";
/// Above any number of records or segments that a log reaches.
pub(super) const NUMBER_MAX: u64 = u64::MAX / 4;

/// The properties of a segment that are known without reading its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Sequence number within the log; also the file name.
    pub number: u64,
    /// Random: the salt of its checksums.
    pub id: Uuid,
    pub base: u64,
    pub end: u64,
    /// End of the last durable record in the file, in bytes.
    pub bytes: u64,
    pub latest: Timestamp,
}

impl Segment {
    pub fn is_empty(&self) -> bool {
        self.base == self.end
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub number: u64,
    pub id: Uuid,
    /// The identity of the segment's log.
    pub log: Uuid,
    pub base: u64,
    /// The last segment before this one that held a record.
    pub previous: Option<Previous>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Previous {
    pub number: u64,
    /// The offset behind its last synced record.
    pub end: u64,
    /// End of its last synced record in the file, in bytes.
    pub bytes: u64,
    pub latest: Timestamp,
}

impl Header {
    /// Ends with a checksum over the rest.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.log.as_bytes());
        let previous = self.previous.map_or([0; 5], |p| [1, p.number, p.end, p.bytes, p.latest.ms()]);
        for number in [self.number, self.base].into_iter().chain(previous) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.resize(HEADER_LEN - 4, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("as long as it was made")
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let (covered, crc) = bytes.split_last_chunk::<4>()?;
        if !bytes.starts_with(&MAGIC) || crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
            return None;
        }
        let uuid = |at: usize| Uuid::from_slice(&covered[at..at + 16]).ok();
        let number = |index: usize| covered[40..].as_chunks::<8>().0.get(index).map(|chunk| u64::from_le_bytes(*chunk));
        let (end, bytes) = (number(4)?, number(5)?);
        let previous = Previous { number: number(3)?, end, bytes, latest: Timestamp::from_ms(number(6)?) };
        if (0..6).filter_map(number).any(|number| number > NUMBER_MAX) {
            return None;
        }
        Some(Self {
            id: uuid(8)?,
            log: uuid(24)?,
            number: number(0)?,
            base: number(1)?,
            previous: (number(2)? == 1).then_some(previous),
        })
    }

    pub fn read(files: &Files, path: &Path) -> io::Result<Self> {
        let mut bytes = [0; HEADER_LEN];
        let read = read_exact_at(&*files.open(path)?, &mut bytes, 0);
        match read {
            Ok(()) => Self::decode(&bytes)
                .ok_or_else(|| corrupt(path, "its header is damaged, or of another version of the format")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(corrupt(path, "it has no header")),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{EXTENSION}"))
}

/// In order.
pub(super) fn numbers(files: &Files, dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for name in files.names(dir)? {
        let found = PathBuf::from(name);
        let number = found.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        numbers.extend(number.filter(|number| path(Path::new(""), *number) == found));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Names the file, the damage and the remedy.
pub(super) fn corrupt(path: &Path, how: impl std::fmt::Display) -> io::Error {
    let dir = path.parent().unwrap_or(Path::new("."));
    let text = format!(
        "corrupt disk log: {}: {how}. Nothing is deleted; to recover the readable records, run: hookledger salvage \
         --dir {}",
        path.display(),
        dir.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The lost records between a bad place at this byte and the next good mark, which carries the offset `good`.
pub(super) fn damage(at: u64, offset: u64, good: u64) -> String {
    if good <= offset + 1 {
        return format!("the record at offset {offset}, byte {at}, was synced and is damaged now");
    }
    let last = good - 1;
    format!(
        "of the records at offsets {offset} to {last}, from byte {at} on, one or more were synced and are damaged now"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let previous = Previous { number: 6, end: 42, bytes: 4711, latest: Timestamp::from_s(5) };
        Header { number: 7, id: Uuid::now_v7(), log: Uuid::now_v7(), base: 42, previous: Some(previous) }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let first = Header { previous: None, ..header() };
        for header in [header(), first] {
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_none() {
        let good = header().encode();
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert_eq!(Header::decode(&bad), None, "byte {at}");
        }
    }
}
