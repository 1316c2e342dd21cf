//! A flat view of a body: PHP's bracketed form fields, or JSON of the same shape.
//!
//! Fields are names such as `auth[member_id]`; nothing is nested, so nothing can be mistaken for
//! something nested. Names are read as PHP reads them, because PHP is what Bitrix24 speaks: the last
//! of two equal names wins, a plain field and a bracketed one of the same name replace each other.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::event::MemberId;
use crate::time::Timestamp;

/// PHP takes no deeper brackets, and neither do we.
const DEPTH_MAX: usize = 64;
/// An event's name is no longer than this; what is longer is no event that we could pass on.
const KIND_BYTES_MAX: usize = 128;

/// The fields that ingress looks at.
const HEAD_FIELDS: [&str; 4] = ["event", "ts", "auth[member_id]", "member_id"];

/// What ingress reads of a body, and all that it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `auth[member_id]`, or a bare `member_id`, as install pages send it.
    pub member_id: Option<MemberId>,
    /// `event`, in lower case.
    pub kind: Option<String>,
    /// `ts`.
    pub told_at: Option<Timestamp>,
}

/// The fields of a body, by their full names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a body. Total: what makes no sense is merely not there.
    ///
    /// A body that starts with `{` is JSON, whatever its content type says: no form of Bitrix24 does,
    /// and people with curl forget the header.
    pub fn parse(body: &[u8]) -> Self {
        Self::read(body, |_| true, |_| true)
    }

    /// Reads of a body what [`Form::head`] and [`Form::says_something`] look at, for whoever needs no more.
    pub fn scan(body: &[u8]) -> Self {
        let concerns = |name: &str, other: &str| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('['));
        let wanted = |path: &str| {
            HEAD_FIELDS.iter().any(|field| path == *field || concerns(path, field) || concerns(field, path))
        };
        // A letter that begins none of these names decides before anything is decoded.
        let may_be = |name: &[u8]| {
            name.first().is_none_or(|first| {
                !first.is_ascii_alphanumeric() || HEAD_FIELDS.iter().any(|field| field.as_bytes()[0] == *first)
            })
        };
        Self::read(body, may_be, wanted)
    }

    fn read(body: &[u8], may_be: impl Fn(&[u8]) -> bool, wanted: impl Fn(&str) -> bool) -> Self {
        let mut form = Self::default();
        if body.trim_ascii_start().first() == Some(&b'{')
            && let Ok(json) = serde_json::from_slice::<Value>(body)
        {
            form.flatten(String::new(), json, 0);
            return form;
        }
        let mut names = Names::default();
        for field in body.split(|byte| *byte == b'&').filter(|field| !field.is_empty() && may_be(field)) {
            let at = field.iter().position(|byte| *byte == b'=');
            let (name, value) = at.map_or((field, &b""[..]), |at| (&field[..at], &field[at + 1..]));
            if let Some(path) = names.path(&decode(name)).filter(|path| wanted(path)) {
                form.set(path, text(&decode(value)));
            }
        }
        form
    }

    /// The value of a field, by its full name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All fields, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What ingress reads.
    pub fn head(&self) -> Head {
        let member_id = self.text("auth[member_id]").and_then(MemberId::parse);
        Head {
            member_id: member_id.or_else(|| self.text("member_id").and_then(MemberId::parse)),
            kind: self.text("event").and_then(kind),
            told_at: self.text("ts").and_then(|ts| ts.parse().ok()).map(Timestamp::from_s),
        }
    }

    /// Whether the body says anything about where it belongs, valid or not.
    pub fn says_something(&self) -> bool {
        let present = |name| self.text(name).is_some_and(|value| !value.is_empty());
        present("event") || present("auth[member_id]") || present("member_id")
    }

    /// Scalars become the texts that PHP's form encoder makes of them; `null` and empty lists vanish.
    fn flatten(&mut self, name: String, value: Value, depth: usize) {
        let below = |key: &str| {
            let key = key.replace(['[', ']'], "_");
            if name.is_empty() { key } else { format!("{name}[{key}]") }
        };
        match value {
            Value::Null => {}
            Value::Bool(yes) => self.set(name, if yes { "1" } else { "0" }.to_owned()),
            Value::Number(number) => self.set(name, number.to_string()),
            Value::String(text) => self.set(name, text),
            Value::Array(_) | Value::Object(_) if depth == DEPTH_MAX => {}
            Value::Array(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    self.flatten(below(&index.to_string()), item, depth + 1);
                }
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.flatten(below(&key), value, depth + 1);
                }
            }
        }
    }

    /// The last one wins, also between a plain field and a bracketed one of the same name.
    fn set(&mut self, name: String, value: String) {
        if name.is_empty() {
            return;
        }
        for (at, _) in name.match_indices('[') {
            self.0.remove(&name[..at]);
        }
        let inside = format!("{name}[");
        while let Some((below, _)) =
            self.0.range(inside.clone()..).next().filter(|(below, _)| below.starts_with(&inside))
        {
            let below = below.clone();
            self.0.remove(&below);
        }
        self.0.insert(name, value);
    }
}

/// An event's name in lower case, if it can be one.
fn kind(text: &str) -> Option<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b':');
    ((1..=KIND_BYTES_MAX).contains(&text.len()) && text.bytes().all(good)).then(|| text.to_ascii_lowercase())
}

/// Undoes `+` and `%41`; what is no valid escape stands for itself, as in PHP.
fn decode(encoded: &[u8]) -> Cow<'_, [u8]> {
    if !encoded.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(encoded);
    }
    let digit = |at: usize| encoded.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut at = 0;
    while at < encoded.len() {
        match (encoded[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).expect("two hex digits"));
                at += 2;
            }
            (b'+', _, _) => decoded.push(b' '),
            (byte, _, _) => decoded.push(byte),
        }
        at += 1;
    }
    Cow::Owned(decoded)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names as PHP understands them.
#[derive(Default)]
struct Names {
    /// For each name that holds a list: one more than its highest index so far.
    next_index: HashMap<String, u64>,
}

impl Names {
    /// A field's full name, none where PHP drops the field.
    fn path(&mut self, name: &[u8]) -> Option<String> {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        let name = name.trim_start_matches(' ');
        let (base, mut rest) = name.find('[').map_or((name, ""), |at| name.split_at(at));
        if base.is_empty() {
            return None;
        }
        let mut path = base.replace([' ', '.'], "_");
        let mut depth = 0;
        while let Some(inside) = rest.strip_prefix('[') {
            let Some((key, behind)) = inside.split_once(']') else {
                // A bracket that never closes is part of a plain name.
                if depth == 0 {
                    path.push('_');
                    path.push_str(&inside.replace([' ', '.', '['], "_"));
                }
                break;
            };
            depth += 1;
            if depth > DEPTH_MAX {
                return None;
            }
            let key = key.trim_start_matches([' ', '\t', '\r', '\n', '\x0b', '\x0c']);
            let key = self.index(&path, key);
            path.push('[');
            path.push_str(&key);
            path.push(']');
            rest = behind;
        }
        Some(path)
    }

    /// The key within a list: an empty one means the next index.
    fn index<'a>(&mut self, list: &str, key: &'a str) -> Cow<'a, str> {
        let index = match key {
            "" => self.next_index.get(list).copied().unwrap_or(0),
            _ => match key.parse::<u64>() {
                Ok(index) => index,
                Err(_) => return Cow::Borrowed(key),
            },
        };
        let next = self.next_index.entry(list.to_owned()).or_default();
        *next = (*next).max(index.saturating_add(1));
        if key.is_empty() { Cow::Owned(index.to_string()) } else { Cow::Borrowed(key) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn check(body: &str, fields: &[(&str, &str)]) {
        let form = Form::parse(body.as_bytes());
        assert_eq!(form.iter().collect::<Vec<_>>(), fields, "{body}");
    }

    #[test]
    fn brackets_are_part_of_a_name_encoded_or_not() {
        check("auth%5Bmember_id%5D=a223", &[("auth[member_id]", "a223")]);
        check("auth[member_id]=a223", &[("auth[member_id]", "a223")]);
        check("auth[member_id][x]=evil", &[("auth[member_id][x]", "evil")]);
    }

    #[test]
    fn values_are_decoded_and_what_is_no_escape_stands_for_itself() {
        check("a=1+2%2B3&b=%zz%4&c=%", &[("a", "1 2+3"), ("b", "%zz%4"), ("c", "%")]);
    }

    #[test]
    fn the_last_of_two_equal_names_wins() {
        check("a=1&a=2", &[("a", "2")]);
        check("auth=x&auth[member_id]=y", &[("auth[member_id]", "y")]);
        check("auth[member_id]=y&auth=x", &[("auth", "x")]);
    }

    #[test]
    fn names_are_mended_as_php_mends_them() {
        check(" a.b c=1", &[("a_b_c", "1")]);
        check("a[b=1", &[("a_b", "1")]);
        check("a[b]c=1&a[d]x[e]=2", &[("a[b]", "1"), ("a[d]", "2")]);
        check("[a]=1&=2&&", &[]);
        check("a[]=1&a[]=2&a[7]=3&a[]=4", &[("a[0]", "1"), ("a[1]", "2"), ("a[7]", "3"), ("a[8]", "4")]);
    }

    #[test]
    fn json_of_the_same_shape_means_the_same() {
        let json =
            r#" {"event":"ONX","ts":5,"data":{"L":[1,true],"N":null,"E":[]},"auth":{"member_id":"m","a[b]":"c"}}"#;
        let fields = [
            ("auth[a_b_]", "c"),
            ("auth[member_id]", "m"),
            ("data[L][0]", "1"),
            ("data[L][1]", "1"),
            ("event", "ONX"),
            ("ts", "5"),
        ];
        check(json, &fields);
    }

    #[test]
    fn the_head_is_what_ingress_reads() {
        let head = Form::parse(b"event=ONAPPINSTALL&ts=1696527000&auth[member_id]=a223").head();
        assert_eq!(head.member_id, MemberId::parse("a223"));
        assert_eq!(head.kind.as_deref(), Some("onappinstall"));
        assert_eq!(head.told_at, Some(Timestamp::from_s(1_696_527_000)));
        assert_eq!(Form::parse(b"member_id=a223&AUTH_ID=x").head().member_id, MemberId::parse("a223"));
    }

    proptest! {
        #[test]
        fn a_scan_finds_the_same_head_as_a_whole_reading(fields in vec((
            "[ .+]?(event|ts|auth|member_id|data|%61uth|eventful|t)", "(%5B|\\[)?(member_id|x|)(%5D|\\])?(\\[x\\])?", "[a-z0-9]{0,3}",
        ), 0..12)) {
            let field = |(base, key, value): &(String, String, String)| format!("{base}{key}={value}");
            let body = fields.iter().map(field).collect::<Vec<_>>().join("&");
            let (scanned, whole) = (Form::scan(body.as_bytes()), Form::parse(body.as_bytes()));
            prop_assert_eq!(scanned.head(), whole.head(), "{}", body);
            prop_assert_eq!(scanned.says_something(), whole.says_something(), "{}", body);
        }
    }

    #[test]
    fn a_body_says_nothing_when_it_has_neither_event_nor_member() {
        assert!(!Form::parse(b"hello=world").says_something());
        assert!(!Form::parse(b"event=").says_something());
        assert!(Form::parse(b"event=x").says_something());
    }
}
