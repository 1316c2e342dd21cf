//! The fields of a body: PHP's bracketed form fields, or JSON of the same shape.
//!
//! A field has a name such as `auth[member_id]`. Forms are read as PHP reads them into `$_POST`, because PHP is what
//! Bitrix24 speaks (`tests/php.rs` compares the two): the last of two equal names wins, and a plain field and a bracketed
//! one of the same name replace each other. Four things differ. A byte order mark before a body, and line breaks behind
//! a form, are left out. PHP stops after `max_input_vars` fields, by default
//! 1,000; here no field is read of a body that has more than 10,000, lists among them. Bytes that are not UTF-8 become
//! U+FFFD. Ingress reads a few fields only, and finds them with any number of others.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use memchr::{memchr, memchr_iter, memchr2};

use self::name::Name;
use self::tree::{Builder, Id, ROOT, Tree};
use crate::MemberId;
use primitives::time::Timestamp;

mod json;
mod name;
mod request;
mod scan;
mod tree;

pub use request::Request;
pub use scan::Scan;
pub use tree::{Key, Shape};

/// Longer names are not names of events.
const KIND_BYTES_MAX: usize = 128;
/// A shorter token may be part of a name by chance.
const TOKEN_BYTES_MIN: usize = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `auth[member_id]`, or a bare `member_id`, as install pages send it.
    pub member_id: Option<MemberId>,
    /// In lower case.
    pub kind: Option<String>,
    pub occurred_at: Option<Timestamp>,
}

#[derive(Clone, Default)]
pub struct Form {
    tree: Tree,
}

#[derive(Clone, Copy)]
pub struct Field<'a> {
    tree: &'a Tree,
    node: Id,
}

impl<'a> Field<'a> {
    pub fn text(self) -> Option<&'a str> {
        self.tree.text(self.node)
    }

    pub fn shape(self) -> Shape {
        self.tree.shape(self.node)
    }

    /// The field of this key in the list.
    pub fn get(self, key: &str) -> Option<Self> {
        let node = self.tree.get(self.node, key.as_bytes())?;
        Some(Self { node, ..self })
    }

    /// The list's fields: indexes first, in their order.
    pub fn below(self) -> impl Iterator<Item = (&'a Key, Self)> {
        self.tree.below(self.node).map(move |(key, node)| (key, Self { node, ..self }))
    }

    fn flatten(self, name: &[u8], fields: &mut BTreeMap<String, String>) {
        for (key, field) in self.below() {
            field.flatten(&[name, b"[", &key.bytes(), b"]"].concat(), fields);
        }
        if let Some(value) = self.text() {
            fields.insert(text(name), value.to_owned());
        }
    }
}

impl Form {
    /// Total: what cannot be read is left out.
    ///
    /// A JSON object is read as such with any content type: no form begins with `{`, and curl users forget the header.
    pub fn parse(body: &[u8]) -> Self {
        let body = without_mark(body);
        if let Some(tree) = json::read(body) {
            return Self { tree: tree.finish() };
        }
        Self::parse_query(without_line_end(body))
    }

    /// Reads the query of a URL, which is a form.
    pub fn parse_query(query: &[u8]) -> Self {
        let mut tree = Builder::for_texts(query.len());
        let (mut name_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        for (name, value) in fields(query) {
            if let Some(name) = Name::parse(decode_into(name, &mut name_bytes)) {
                tree.set(&name, decode_into(value, &mut value_bytes));
            }
            if tree.is_full() {
                break;
            }
        }
        Self { tree: tree.finish() }
    }

    /// Reads only the fields that ingress needs.
    pub fn scan(body: &[u8]) -> Scan {
        let body = without_mark(body);
        json::scan(body).unwrap_or_else(|| scan::form(without_line_end(body)))
    }

    pub fn scan_query(query: &[u8]) -> Scan {
        scan::form(query)
    }

    /// Whether it has the fields of an event's envelope: `event`, a portal, or `auth` with anything in it.
    pub fn is_like_an_event(&self) -> bool {
        let has_auth = self.variable("auth").is_some_and(|auth| auth.below().next().is_some());
        has_auth || Scan::of(self).says_something()
    }

    pub fn has_too_many_fields(&self) -> bool {
        self.tree.is_full()
    }

    /// By the field's full name.
    pub fn text(&self, name: &str) -> Option<&str> {
        if self.tree.is_empty() {
            return None;
        }
        if let Some((variable, key)) = plain(name) {
            let variable = self.variable(variable)?;
            return key.map_or(Some(variable), |key| variable.get(key))?.text();
        }
        let name = Name::parse(name.as_bytes())?;
        let mut node = self.tree.get(ROOT, &name.base)?;
        for key in name.keys() {
            let name::Key::Named(key) = key else { return None };
            node = self.tree.get(node, key)?;
        }
        self.tree.text(node)
    }

    /// The fields that are in no list.
    pub fn variables(&self) -> impl Iterator<Item = (&Key, Field<'_>)> {
        Field { tree: &self.tree, node: ROOT }.below()
    }

    pub fn variable(&self, name: &str) -> Option<Field<'_>> {
        Field { tree: &self.tree, node: ROOT }.get(name)
    }

    /// All fields by their full names; takes far more memory than the fields themselves.
    pub fn flat(&self) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        for (key, field) in self.variables() {
            field.flatten(&key.bytes(), &mut fields);
        }
        fields
    }

    pub fn head(&self) -> Head {
        head(|name| self.text(name))
    }
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        self.has_too_many_fields() == other.has_too_many_fields() && self.flat() == other.flat()
    }
}

impl Eq for Form {}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.flat().fmt(f)
    }
}

/// A name as most are, `event` or `auth[member_id]`, which means the same however it is read: its variable and its key.
fn plain(name: &str) -> Option<(&str, Option<&str>)> {
    let is_plain =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let Some(inside) = name.strip_suffix(']') else { return is_plain(name).then_some((name, None)) };
    let (variable, key) = inside.split_once('[')?;
    (is_plain(variable) && is_plain(key)).then_some((variable, Some(key)))
}

/// A name that gives away the token counts as none: names become keys and headers.
fn head<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Head {
    let token = text("auth[application_token]");
    let name = |name| text(name).filter(|name| !token.is_some_and(|token| gives_away(name, token)));
    let member_id = name("auth[member_id]").and_then(MemberId::parse);
    Head {
        member_id: member_id.or_else(|| name("member_id").and_then(MemberId::parse)),
        kind: name("event").and_then(kind),
        occurred_at: text("ts").and_then(|ts| ts.parse().ok()).map(Timestamp::from_s),
    }
}

/// Whether a name is or holds the token, in any case: events are shown in another one than they are sent in.
pub fn gives_away(name: &str, token: &str) -> bool {
    let is_inside = || {
        let mut parts = name.as_bytes().windows(token.len());
        parts.any(|part| part.eq_ignore_ascii_case(token.as_bytes()))
    };
    name.eq_ignore_ascii_case(token) || (token.len() >= TOKEN_BYTES_MIN && is_inside())
}

/// Some clients begin UTF-8 with a byte order mark.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// Some clients end a form with a line break, which no form has unescaped.
fn without_line_end(form: &[u8]) -> &[u8] {
    let end = form.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &form[..end]
}

/// Names and values, not decoded.
fn fields(body: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    split(body).map(pair)
}

/// The fields of a form; none is empty.
fn split(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    let ends = memchr_iter(b'&', body).chain([body.len()]);
    ends.map(move |end| &body[std::mem::replace(&mut start, end + 1)..end]).filter(|field| !field.is_empty())
}

/// The name and the value of a field.
fn pair(field: &[u8]) -> (&[u8], &[u8]) {
    memchr(b'=', field).map_or((field, &b""[..]), |at| (&field[..at], &field[at + 1..]))
}

/// In lower case; none if no event can have this name.
fn kind(text: &str) -> Option<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b':');
    ((1..=KIND_BYTES_MAX).contains(&text.len()) && text.bytes().all(good)).then(|| text.to_ascii_lowercase())
}

/// Undoes `+` and `%41`; an invalid escape stands for itself, as in PHP.
fn decode(encoded: &[u8]) -> Cow<'_, [u8]> {
    if memchr2(b'%', b'+', encoded).is_none() {
        return Cow::Borrowed(encoded);
    }
    let mut decoded = Vec::new();
    decode_into(encoded, &mut decoded);
    Cow::Owned(decoded)
}

/// The same; `decoded` is used if there is something to undo.
fn decode_into<'a>(encoded: &'a [u8], decoded: &'a mut Vec<u8>) -> &'a [u8] {
    let Some(mut next) = memchr2(b'%', b'+', encoded) else { return encoded };
    decoded.clear();
    decoded.reserve(encoded.len());
    let mut rest = encoded;
    loop {
        decoded.extend_from_slice(&rest[..next]);
        rest = &rest[next..];
        match *rest {
            [] => return decoded,
            [b'+', ..] => {
                decoded.push(b' ');
                rest = &rest[1..];
            }
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex_digit(high) << 4 | hex_digit(low));
                rest = &rest[3..];
            }
            [byte, ..] => {
                decoded.push(byte);
                rest = &rest[1..];
            }
        }
        // Escapes often follow each other.
        next = rest.iter().position(|byte| matches!(byte, b'%' | b'+')).unwrap_or(rest.len());
    }
}

fn hex_digit(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { (digit | 0x20) - b'a' + 10 }
}

/// Bytes that are not UTF-8 become U+FFFD.
fn text<'a>(bytes: impl Into<Cow<'a, [u8]>>) -> String {
    let bytes = bytes.into().into_owned();
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests;
