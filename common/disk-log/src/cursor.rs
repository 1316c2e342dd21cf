//! Walks through the frames of one segment file, one buffer at a time.

use std::io;

use bytes::Bytes;

use super::frame::{self, BODY_BYTES_MAX, Body, HEAD_BYTES, Head, MARK_BYTES, Salt};
use super::segment::{HEADER_BYTES, Segment};
use super::storage::StorageFile;

/// Read from the file at once, unless a record is longer.
const CHUNK_BYTES: u64 = 64 * 1024;

pub(super) struct Cursor {
    file: StorageFile,
    salt: Salt,
    position: u64,
    offset: u64,
    /// The file's bytes from `buffered_at` on.
    buffer: Vec<u8>,
    buffered_at: u64,
}

pub(super) enum Found {
    /// The cursor has moved behind it.
    Record(Body),
    /// All before it was synced. The cursor has moved behind it.
    Mark,
    /// No valid frame. The cursor has not moved.
    Nothing,
}

impl Cursor {
    pub fn new(file: StorageFile, segment: &Segment) -> Self {
        let salt = Salt::of(segment.id);
        Self { file, salt, position: HEADER_BYTES, offset: segment.base, buffer: vec![], buffered_at: HEADER_BYTES }
    }

    /// In bytes from the start of the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Never reads beyond `limit`: bytes there may change.
    pub fn next(&mut self, limit: u64) -> io::Result<Found> {
        let Some(head) = self.peek(HEAD_BYTES, limit)? else { return Ok(Found::Nothing) };
        let head = Head::read(head);
        if head.length == 0 || head.length > BODY_BYTES_MAX {
            return Ok(Found::Nothing);
        }
        let (salt, offset, length) = (self.salt, self.offset, HEAD_BYTES + head.length as usize);
        let Some(frame) = self.peek(length, limit)? else { return Ok(Found::Nothing) };
        let body = &frame[HEAD_BYTES..];
        if salt.crc(offset, body) != head.crc {
            return Ok(Found::Nothing);
        }
        let body = Body(Bytes::copy_from_slice(body));
        self.position += length as u64;
        if body.is_mark() {
            return Ok(Found::Mark);
        }
        self.offset += 1;
        Ok(Found::Record(body))
    }

    /// Whether the next few bytes are all unwritten.
    pub fn is_over(&mut self, limit: u64) -> io::Result<bool> {
        let head = usize::try_from(limit.saturating_sub(self.position)).unwrap_or(HEAD_BYTES).min(HEAD_BYTES);
        Ok(self.peek(head, limit)?.is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0)))
    }

    /// Bytes from here to the last one that is not zero.
    pub fn written(&mut self, limit: u64) -> io::Result<u64> {
        let (from, mut at, mut written) = (self.position, self.position, 0);
        while at < limit {
            self.position = at;
            let length = CHUNK_BYTES.min(limit - at);
            let Some(bytes) = self.peek(usize::try_from(length).map_err(io::Error::other)?, limit)? else { break };
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                written = at - from + last as u64 + 1;
            }
            at += length;
        }
        self.position = from;
        Ok(written)
    }

    /// Steps over a bad record if a good frame follows it. Returns whether one does.
    pub fn skip_record(&mut self, limit: u64) -> io::Result<bool> {
        let from = (self.position, self.offset);
        let Some(head) = self.peek(HEAD_BYTES, limit)? else { return Ok(false) };
        let length = Head::read(head).length;
        if length == 0 || length > BODY_BYTES_MAX {
            return Ok(false);
        }
        let behind = self.position + HEAD_BYTES as u64 + u64::from(length);
        // The bad frame may have been a mark, which has no offset of its own.
        for offset in [self.offset + 1, self.offset] {
            self.go(behind, offset);
            if !matches!(self.next(limit)?, Found::Nothing) {
                self.go(behind, offset);
                return Ok(true);
            }
        }
        self.go(from.0, from.1);
        Ok(false)
    }

    fn go(&mut self, position: u64, offset: u64) {
        (self.position, self.buffered_at, self.offset) = (position, position, offset);
        self.buffer.clear();
    }

    /// Moves to the next good mark, wherever it lies. Returns whether there is one.
    pub fn skip_to_mark(&mut self, limit: u64) -> io::Result<bool> {
        let (salt, offset, from) = (self.salt, self.offset, self.position);
        let mut at = from;
        while limit.saturating_sub(at) >= MARK_BYTES as u64 {
            self.position = at;
            let length = CHUNK_BYTES.min(limit - at);
            let Some(bytes) = self.peek(usize::try_from(length).map_err(io::Error::other)?, limit)? else { break };
            if let Some((within, offset)) = frame::find_mark(bytes, salt, offset) {
                (self.position, self.offset) = (at + within as u64, offset);
                return Ok(true);
            }
            // A mark may lie across two chunks.
            at += length - (MARK_BYTES as u64 - 1);
        }
        self.go(from, offset);
        Ok(false)
    }

    /// None if the bytes do not all lie before `limit`.
    fn peek(&mut self, length: usize, limit: u64) -> io::Result<Option<&[u8]>> {
        let end = self.position + length as u64;
        if end > limit {
            return Ok(None);
        }
        if end > self.buffered_at + self.buffer.len() as u64 {
            let wanted = (limit - self.position).min(CHUNK_BYTES.max(length as u64));
            self.fill(usize::try_from(wanted).map_err(io::Error::other)?)?;
        }
        let start = usize::try_from(self.position - self.buffered_at).map_err(io::Error::other)?;
        Ok(self.buffer.get(start..start + length))
    }

    /// Fewer bytes than requested only at the end of the file.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        self.buffer.resize(bytes, 0);
        self.buffer.shrink_to(bytes);
        self.buffered_at = self.position;
        let mut filled = 0;
        while filled < bytes {
            match self.file.read_at(&mut self.buffer[filled..], self.position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}
