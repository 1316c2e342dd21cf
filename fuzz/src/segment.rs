//! Segments that were made up: every checksum is right, whatever is in them.

use std::collections::BTreeMap;

use bytes::Bytes;
use disk_log::record::decode;
use disk_log::{DiskLog, salvage};
use uuid::Uuid;

use crate::disk_log::{lay, log_in, open};
use crate::input::Input;

/// As `disk_log` documents them.
const MAGIC: [u8; 8] = *b"hlsegm\0\x02";
const HEADER_BYTES: usize = 128;
const SEGMENTS_MAX: usize = 3;
/// A frame of this kind is a mark, and no record.
const MARK: u8 = 2;

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
            let (kind, length) = (input.byte(), input.below(700).unwrap_or_default());
            // A mark carries the offset that follows; a longer one carries what the input says.
            let rest = if (kind, length) == (MARK, 0) { &offset.to_le_bytes()[..] } else { input.take(length) };
            let body = [&[kind], rest].concat();
            file.extend(frame(id, offset, &body));
            if kind != MARK {
                bodies.entry(offset).or_default().push(Bytes::from(body).slice(1..));
                offset = offset.wrapping_add(1);
            }
        }
        // Sometimes what follows is garbage, or the zeros of a file that was made ahead.
        let length = usize::from(input.byte());
        file.extend_from_slice(input.take(length));
        files.insert(format!("{number:020}.segment"), file);
    }
    let dir = lay(&files);
    if let Some((log, _, end)) = open(dir.path()) {
        read(&log, end, &bodies);
    } else if salvage(&log_in(dir.path())).is_ok_and(|salvaged| salvaged.set_aside.is_some()) {
        let (log, _, end) = open(dir.path()).expect("what was salvaged opens");
        read(&log, end, &bodies);
    }
}

/// Reads until the end or something bad.
fn read(log: &DiskLog, end: u64, bodies: &BTreeMap<u64, Vec<Bytes>>) {
    let mut reader = log.reader(0).expect("a reader");
    let mut next = 0;
    while let Ok(Some((offset, record))) = reader.next() {
        assert!(offset >= next && offset < end, "{offset} behind {next}, before {end}");
        let written = bodies.get(&offset).map_or(&[][..], Vec::as_slice);
        assert!(written.iter().any(|body| decode(body).as_ref() == Ok(&record)), "what was never written");
        next = offset + 1;
    }
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
    let (end, bytes) = (number(input), input.below(4096).unwrap_or_default() as u64);
    let latest = number(input);
    for number in [number_of_segment, base, u64::from(has_previous), previous, end, bytes, latest] {
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
