//! Segments that somebody made up: every checksum is right, whatever is in them.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::log::disk::record::decode;
use uuid::Uuid;

use crate::disk_log::{lay, open};
use crate::input::Input;

/// As `common::log::disk` documents them.
const MAGIC: [u8; 8] = *b"hlsegm\0\x01";
const HEADER_BYTES: usize = 128;
const SEGMENTS_MAX: usize = 3;

/// Segments with any numbers, flags and bodies open or are refused, and only records that are in them are read, each
/// at its place.
pub fn segment(data: &[u8]) {
    let mut input = Input(data);
    let mut files = BTreeMap::new();
    let mut bodies: BTreeMap<u64, Vec<Bytes>> = BTreeMap::new();
    for _ in 0..=usize::from(input.byte()) % SEGMENTS_MAX {
        let (number, base) = (number(&mut input), number(&mut input));
        let id = Uuid::from_u128(u128::from(number));
        let mut file = header(id, number, base, &mut input);
        let mut offset = base;
        while !input.is_empty() && input.byte() != 0 {
            let (flags, length) = (input.byte(), input.below(700).unwrap_or_default());
            let body = [&[flags], input.take(length)].concat();
            file.extend(frame(id, offset, &body));
            bodies.entry(offset).or_default().push(Bytes::from(body).slice(1..));
            offset = offset.wrapping_add(1);
        }
        // Sometimes what follows is garbage, or the zeros of a file that was made ahead.
        let length = usize::from(input.byte());
        file.extend_from_slice(input.take(length));
        files.insert(format!("{number:020}.segment"), file);
    }
    let dir = lay(&files);
    let Some((log, first, end)) = open(dir.path()) else { return };
    let mut reader = log.reader(0).expect("a reader");
    let mut expected = first;
    while let Ok(Some((offset, record))) = reader.next() {
        assert_eq!(offset, expected, "offsets have no gaps");
        let written = bodies.get(&offset).map_or(&[][..], Vec::as_slice);
        assert!(written.iter().any(|body| decode(body).as_ref() == Ok(&record)), "what was never written");
        expected += 1;
    }
    assert!(expected <= end);
}

/// Small numbers, or any.
fn number(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        255 => input.number(),
        small => u64::from(small % 8),
    }
}

fn header(id: Uuid, number_of_segment: u64, base: u64, input: &mut Input<'_>) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(id.as_bytes());
    header.extend_from_slice(Uuid::nil().as_bytes());
    let (has_previous, previous) = (input.byte() % 2, number(input));
    let bytes = input.below(4096).unwrap_or_default() as u64;
    let latest = number(input);
    for number in [number_of_segment, base, u64::from(has_previous), previous, bytes, latest] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.resize(HEADER_BYTES - 4, 0);
    let crc = crc32c::crc32c(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

fn frame(id: Uuid, offset: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("small").to_le_bytes();
    let covered = [&offset.to_le_bytes()[..], &length, body];
    let crc = covered.iter().fold(crc32c::crc32c(id.as_bytes()), |crc, part| crc32c::crc32c_append(crc, part));
    [&length[..], &crc.to_le_bytes(), body].concat()
}
