//! A flat view of a body: PHP's bracketed form fields, or JSON of the same shape.
//!
//! Fields are names such as `auth[member_id]`; nothing is nested, so nothing can be mistaken for
//! something nested. Forms are read as PHP reads them into `$_POST`, because PHP is what Bitrix24 speaks
//! (`tests/php.rs` compares the two): the last of two equal names wins, and a plain field and a bracketed one of
//! the same name replace each other. Two things differ. PHP stops after `max_input_vars` fields, by default 1,000;
//! here the body's length is the limit. And what is not UTF-8 is shown with U+FFFD in its place.

use std::borrow::Cow;
use std::collections::BTreeMap;

use self::name::{Key, Name};
use self::tree::Node;
use crate::event::MemberId;
use crate::time::Timestamp;

mod json;
mod name;
mod tree;

/// An event's name is no longer than this; what is longer is no event that we could pass on.
const KIND_BYTES_MAX: usize = 128;

/// The variables that ingress looks at; of `auth`, only the `member_id`.
const HEAD: [&str; 4] = ["event", "ts", "member_id", AUTH];
const AUTH: &str = "auth";

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
    /// A body that is a JSON object is read as such, whatever its content type says: no form of Bitrix24 begins
    /// with `{`, and people with curl forget the header.
    pub fn parse(body: &[u8]) -> Self {
        if let Some(json) = json::read(body, |_| true) {
            return Self::of(json);
        }
        let mut root = Node::default();
        for (name, value) in fields(body) {
            if let Some(name) = Name::parse(&decode(name)) {
                root.set(&name, text(decode(value)));
            }
        }
        Self::of(root)
    }

    /// Reads of a body what [`Form::head`] and [`Form::says_something`] look at, for whoever needs no more.
    pub fn scan(body: &[u8]) -> Self {
        if let Some(json) = json::read(body, |variable| HEAD.contains(&variable)) {
            return Self::of(json);
        }
        let mut root = Node::default();
        for (name, value) in fields(body).filter(|(name, _)| may_be_of_head(name)) {
            let name = decode(name);
            let Some(name) = Name::parse(&name).filter(|name| HEAD.iter().any(|base| base.as_bytes() == &*name.base))
            else {
                continue;
            };
            if &*name.base == AUTH.as_bytes() {
                if name.may_be_too_deep() {
                    // It may take away all of `auth`, and whether it does depends on all of it.
                    return Self::parse(body);
                }
                if !matches!(name.keys().next(), None | Some(Key::Named(b"member_id"))) {
                    continue;
                }
            }
            root.set(&name, text(decode(value)));
        }
        Self::of(root)
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

    fn of(root: Node) -> Self {
        let mut fields = BTreeMap::new();
        root.visit(&mut |name, value| _ = fields.insert(name, value));
        Self(fields)
    }
}

/// A form's fields, names and values as they came.
fn fields(body: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    body.split(|byte| *byte == b'&').filter(|field| !field.is_empty()).map(|field| {
        let at = field.iter().position(|byte| *byte == b'=');
        at.map_or((field, &b""[..]), |at| (&field[..at], &field[at + 1..]))
    })
}

/// Whether a name may be one of [`HEAD`], by its first letter, before anything is decoded.
fn may_be_of_head(name: &[u8]) -> bool {
    name.first().is_some_and(|first| !first.is_ascii_alphanumeric() || b"etma".contains(first))
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

/// What is not UTF-8 becomes U+FFFD.
fn text<'a>(bytes: impl Into<Cow<'a, [u8]>>) -> String {
    let bytes = bytes.into().into_owned();
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::json::NAME_BYTES_MAX;
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
        check("a[]=1&a=2&a[]=3&a[07]=4&a[]=5", &[("a[07]", "4"), ("a[0]", "3"), ("a[1]", "5")]);
        check(
            "auth[ member_id]=1&auth[member_id]x=2&auth[x][member_id=3",
            &[("auth[ member_id]", "1"), ("auth[member_id]", "2"), ("auth[x]", "3")],
        );
        check(&format!("a[x]=1&b=2&a{}=3", "[]".repeat(65)), &[("b", "2")]);
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
    fn json_numbers_are_what_was_written_or_nothing() {
        check(r#"{"member_id":123,"ts":1696527000}"#, &[("member_id", "123"), ("ts", "1696527000")]);
        check(
            r#"{"a":18446744073709551615,"b":-5,"c":1.50,"d":1e3}"#,
            &[("a", "18446744073709551615"), ("b", "-5"), ("c", "1.5"), ("d", "1000")],
        );
        // As a number of 64 bits it would be another portal.
        check(r#"{"member_id":123456789012345678901234567890,"event":"x"}"#, &[("event", "x")]);
        assert_eq!(Form::scan(br#"{"auth":{"member_id":7}}"#).head().member_id, MemberId::parse("7"));
    }

    #[test]
    fn of_a_json_key_that_stands_twice_the_last_one_wins_with_all_below_it() {
        check(r#"{"auth":{"member_id":"a"},"auth":{"x":1}}"#, &[("auth[x]", "1")]);
        check(r#"{"auth":{"member_id":"a"},"auth":5}"#, &[("auth", "5")]);
        check(r#"{"auth":{"member[id":{"x":"a"},"member_id":"b"}}"#, &[("auth[member_id]", "b")]);
    }

    #[test]
    fn json_names_that_are_too_long_or_too_deep_are_left_out() {
        let (long, deep) = ("k".repeat(NAME_BYTES_MAX - 1), format!("{}1{}", "[".repeat(70), "]".repeat(70)));
        check(&format!(r#"{{"{long}":1,"k":{{"{long}":1}},"a":{deep},"event":"x"}}"#), &[("event", "x")]);
    }

    #[test]
    fn what_is_no_json_object_is_a_form() {
        check("[1]", &[]);
        check(r#"{"event":"x""#, &[(r#"{"event":"x""#, "")]);
        check("{event=x", &[("{event", "x")]);
    }

    #[test]
    fn what_is_not_utf_8_is_shown_as_such() {
        let form = Form::parse(b"event=\xff%fe&a\xff=\xc3\xa9");
        assert_eq!(form.iter().collect::<Vec<_>>(), [("a\u{fffd}", "é"), ("event", "\u{fffd}\u{fffd}")]);
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
