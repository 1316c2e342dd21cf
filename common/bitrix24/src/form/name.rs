//! Names of fields, read byte for byte as PHP reads them.
//!
//! A name is a base and keys in brackets: `auth[member_id]`. Blanks and dots of the base become `_`, those of a key
//! stay; a bracket that never closes is part of the base, or ends the keys where there was one before.

use std::borrow::Cow;

use memchr::{memchr, memchr3};

/// PHP's `max_input_nesting_level`: a field with more brackets takes all fields of its base away.
pub(super) const DEPTH_MAX: usize = 64;

pub(super) struct Name<'a> {
    /// Never empty.
    pub base: Cow<'a, [u8]>,
    brackets: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// `[key]`.
    Named(&'a [u8]),
    /// `[]`: the next index of the list.
    Next,
    /// More brackets than PHP takes.
    TooDeep,
}

impl<'a> Name<'a> {
    /// None where PHP drops the field.
    pub fn parse(decoded: &'a [u8]) -> Option<Self> {
        // For PHP a name is a C string.
        let name = memchr(0, decoded).map_or(decoded, |end| &decoded[..end]);
        let blanks = name.iter().take_while(|byte| **byte == b' ').count();
        let name = &name[blanks..];
        let opening = memchr(b'[', name).unwrap_or(name.len());
        let (base, brackets) = name.split_at(opening);
        if base.is_empty() {
            return None;
        }
        let closes = brackets.contains(&b']');
        let (base, brackets) = if closes { (base, brackets) } else { (name, &[][..]) };
        Some(Self { base: mended(base), brackets })
    }

    /// Outermost first.
    pub fn keys(&self) -> Keys<'a> {
        Keys { rest: self.brackets, depth: 0 }
    }

    /// Whether there may be more brackets than PHP takes; checks the length only.
    pub fn may_be_too_deep(&self) -> bool {
        self.brackets.len() > 2 * DEPTH_MAX
    }
}

/// Blanks, dots and open brackets cannot be in the name of a PHP variable.
fn mended(base: &[u8]) -> Cow<'_, [u8]> {
    if memchr3(b' ', b'.', b'[', base).is_none() {
        return Cow::Borrowed(base);
    }
    let is_bad = |byte: u8| matches!(byte, b' ' | b'.' | b'[');
    base.iter().map(|byte| if is_bad(*byte) { b'_' } else { *byte }).collect()
}

#[derive(Clone)]
pub(super) struct Keys<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Iterator for Keys<'a> {
    type Item = Key<'a>;

    fn next(&mut self) -> Option<Key<'a>> {
        let inside = self.rest.strip_prefix(b"[")?;
        self.rest = &[];
        if self.depth == DEPTH_MAX {
            return Some(Key::TooDeep);
        }
        self.depth += 1;
        let end = memchr(b']', inside)?;
        self.rest = &inside[end + 1..];
        // A single blank does not make a key.
        let is_next = matches!(&inside[..end], [] | [b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r']);
        Some(if is_next { Key::Next } else { Key::Named(&inside[..end]) })
    }
}
