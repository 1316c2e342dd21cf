//! The fields that ingress reads, found in one pass over the body.

use super::name::{Key, Name};
use super::{Form, Head, decode, fields, head, text};
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
    for (name, value) in fields(body).filter(|(name, _)| may_be_looked_at(name)) {
        let name = decode(name);
        let Some(name) = Name::parse(&name) else { continue };
        let mut keys = name.keys();
        let (first, is_last) = (keys.next(), keys.next().is_none());
        if let Some(variable) = scan.variable(&name.base) {
            // A variable that is a list has no text.
            *variable = first.is_none().then(|| text(decode(value)));
        } else if &*name.base == AUTH.as_bytes() {
            if name.may_be_too_deep() && name.keys().any(|key| key == Key::TooDeep) {
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
            match first {
                None => scan.forget_auth(),
                Some(Key::Named(key)) if key == MEMBER_ID.as_bytes() => {
                    scan.auth_member_id = is_last.then(|| text(decode(value)));
                }
                Some(Key::Named(key)) if key == TOKEN.as_bytes() => {
                    scan.auth_token = is_last.then(|| Secret::new(text(decode(value))));
                }
                Some(Key::Named(_) | Key::Next | Key::TooDeep) => {}
            }
        }
    }
    scan
}

fn may_be_looked_at(name: &[u8]) -> bool {
    name.first().is_some_and(|first| !first.is_ascii_alphanumeric() || b"etma".contains(first))
}

fn names_a_last_index(body: &[u8]) -> bool {
    let in_name =
        |(name, _): (&[u8], &[u8])| decode(name).windows(LAST_INDEXES.len()).any(|digits| digits == LAST_INDEXES);
    fields(body).filter(|(name, _)| may_be_looked_at(name)).any(in_name)
}
