//! The fields that ingress reads, found in one pass over the body.

use super::name::{Key, Name};
use super::{Form, Head, decode, decode_into, head, pair, split, text};
use primitives::secret::Secret;

pub(super) const AUTH: &str = "auth";
pub(super) const MEMBER_ID: &str = "member_id";
pub(super) const TOKEN: &str = "application_token";
/// A list can have had every index only where one of the last ones was named: no body has enough fields to count there.
/// These are the digits that they begin with.
const LAST_INDEXES: &[u8] = b"922337203685";

/// `event`, `ts`, `member_id`, `auth[member_id]` and `auth[application_token]`, with the values that a full reading finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    event: Option<String>,
    ts: Option<String>,
    member_id: Option<String>,
    pub(super) auth_member_id: Option<String>,
    /// Only to recognise it where it must not be.
    pub(super) auth_token: Option<Secret>,
}

impl Scan {
    pub(super) fn of(form: &Form) -> Self {
        let text = |name| form.text(name).map(str::to_owned);
        Self {
            event: text("event"),
            ts: text("ts"),
            member_id: text(MEMBER_ID),
            auth_member_id: text("auth[member_id]"),
            auth_token: text("auth[application_token]").map(Secret::new),
        }
    }

    /// The fields of a request: those of its body, and those of its query that the body does not have.
    #[must_use]
    pub fn or(self, query: Self) -> Self {
        Self {
            event: self.event.or(query.event),
            ts: self.ts.or(query.ts),
            member_id: self.member_id.or(query.member_id),
            auth_member_id: self.auth_member_id.or(query.auth_member_id),
            auth_token: self.auth_token.or(query.auth_token),
        }
    }

    /// By the field's full name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match name {
            "event" => self.event.as_deref(),
            "ts" => self.ts.as_deref(),
            "member_id" => self.member_id.as_deref(),
            "auth[member_id]" => self.auth_member_id.as_deref(),
            "auth[application_token]" => self.auth_token.as_ref().map(Secret::reveal),
            _ => None,
        }
    }

    pub fn head(&self) -> Head {
        head(|name| self.text(name))
    }

    /// Whether the body names an event or a portal, valid or not.
    pub fn says_something(&self) -> bool {
        [&self.event, &self.auth_member_id, &self.member_id]
            .iter()
            .any(|text| text.as_ref().is_some_and(|text| !text.is_empty()))
    }

    pub(super) fn forget_auth(&mut self) {
        (self.auth_member_id, self.auth_token) = (None, None);
    }

    /// Takes the field of a variable, with its first key if it has some; the value is encoded.
    fn set(&mut self, variable: &[u8], key: Option<Key<'_>>, is_last: bool, value: &[u8]) {
        if let Some(variable) = self.variable(variable) {
            // A variable that is a list has no text.
            *variable = key.is_none().then(|| text(decode(value)));
        } else if variable == AUTH.as_bytes() {
            match key {
                None => self.forget_auth(),
                Some(Key::Named(key)) if key == MEMBER_ID.as_bytes() => {
                    self.auth_member_id = is_last.then(|| text(decode(value)));
                }
                Some(Key::Named(key)) if key == TOKEN.as_bytes() => {
                    self.auth_token = is_last.then(|| Secret::new(text(decode(value))));
                }
                Some(Key::Named(_) | Key::Next | Key::TooDeep) => {}
            }
        }
    }

    /// All but `auth`.
    pub(super) fn variable(&mut self, name: &[u8]) -> Option<&mut Option<String>> {
        match name {
            b"event" => Some(&mut self.event),
            b"ts" => Some(&mut self.ts),
            b"member_id" => Some(&mut self.member_id),
            _ => None,
        }
    }
}

pub(super) fn form(body: &[u8]) -> Scan {
    let mut scan = Scan::default();
    let mut may_count_to_the_end = None;
    let mut name_bytes = Vec::new();
    for (name, value) in split(body).filter(|field| may_be_looked_at(field)).map(pair) {
        if let Some((variable, key)) = plain(name) {
            scan.set(variable, key, true, value);
            continue;
        }
        let Some(name) = Name::parse(decode_into(name, &mut name_bytes)) else { continue };
        if &*name.base == AUTH.as_bytes() && name.may_be_too_deep() && name.keys().any(|key| key == Key::TooDeep) {
            // It replaces all of `auth`, except where PHP stops before, at a list that has used the last index.
            if *may_count_to_the_end.get_or_insert_with(|| names_a_last_index(body)) {
                let form = Form::parse_query(body);
                if !form.has_too_many_fields() {
                    return Scan::of(&form);
                }
            }
            scan.forget_auth();
            continue;
        }
        let mut keys = name.keys();
        let (first, is_last) = (keys.next(), keys.next().is_none());
        scan.set(&name.base, first, is_last, value);
    }
    scan
}

/// The variable and the key of a name as most are, `event` or `auth%5Bmember_id%5D`: the same however it is read.
fn plain(name: &[u8]) -> Option<(&[u8], Option<Key<'_>>)> {
    let (variable, brackets) = word(name)?;
    if brackets.is_empty() {
        return Some((variable, None));
    }
    let opening: [&[u8]; 3] = [b"%5B", b"[", b"%5b"];
    let (key, closing) = word(opening.into_iter().find_map(|opening| brackets.strip_prefix(opening))?)?;
    matches!(closing, b"%5D" | b"]" | b"%5d").then_some((variable, Some(Key::Named(key))))
}

/// The letters, digits and underscores that a text begins with, and the rest.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end = text.iter().position(|byte| !is_part(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Of a field, encoded.
fn may_be_looked_at(field: &[u8]) -> bool {
    field.first().is_some_and(|first| !first.is_ascii_alphanumeric() || b"etma".contains(first))
}

fn names_a_last_index(body: &[u8]) -> bool {
    let in_name =
        |(name, _): (&[u8], &[u8])| decode(name).windows(LAST_INDEXES.len()).any(|digits| digits == LAST_INDEXES);
    split(body).filter(|field| may_be_looked_at(field)).map(pair).any(in_name)
}
