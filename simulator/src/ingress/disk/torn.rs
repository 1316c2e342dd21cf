//! A deliberate bug: checksums are adjusted to the content of a segment, as if they were not verified.

/// The start of a segment, without the version.
const MAGIC: &[u8] = b"hlsegm";
const HEADER_BYTES: usize = 128;
const HEAD_BYTES: usize = 8;
const MARK: u8 = 2;

/// In a segment, the same bytes with correct checksums.
pub fn mend(found: &[u8]) -> Vec<u8> {
    let mut bytes = found.to_vec();
    if !bytes.starts_with(MAGIC) || bytes.len() < HEADER_BYTES {
        return bytes;
    }
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let (salt, mut offset, mut at) = (crc32c::crc32c(&bytes[8..24]), word(&bytes, 48), HEADER_BYTES);
    while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
        let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
        let end = at + HEAD_BYTES + length as usize;
        let Some(body) = bytes.get(at + HEAD_BYTES..end).filter(|body| !body.is_empty()) else { break };
        let is_mark = body[0] == MARK;
        let crc = crc32c::crc32c_append(salt, &offset.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &length.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, body);
        bytes[at + 4..at + HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        (at, offset) = (end, if is_mark { offset } else { offset + 1 });
    }
    bytes
}
