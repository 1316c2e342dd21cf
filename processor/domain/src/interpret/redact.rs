//! Redaction: the fields of a body as JSON, without secrets and within a size limit.

use std::collections::BTreeSet;

use bitrix24::form::{Field, Form, Key};
use memchr::memmem::Finder;

use crate::endpoint;
use crate::event::{Json, Part};

const SECRET: &str = "[secret]";
/// The harmless fields of `auth`. Only these are published.
const AUTH_SHOWN: [&str; 9] = [
    "domain",
    "client_endpoint",
    "server_endpoint",
    "scope",
    "status",
    "user_id",
    "member_id",
    "expires",
    "expires_in",
];
/// Only the part without secrets is published.
const ENDPOINTS: [&str; 2] = ["client_endpoint", "server_endpoint"];
/// A name that holds one of these, in lower case and without separators, names a secret.
const SECRET_NAMES: [&str; 6] = ["token", "secret", "password", "authid", "refreshid", "signature"];
/// The longest name above.
const SECRET_NAME_BYTES_MAX: usize = 9;
/// Shorter values are not searched for elsewhere: they would match everywhere.
const SECRET_BYTES_MIN: usize = 8;
/// Each secret is searched for in all values and keys; an event has a handful.
const SECRETS_MAX: usize = 64;
/// Limit of `data` and `auth` together, as written. With headers and surrounding fields, this stays below Kafka's
/// default record limit (1,048,588 bytes). JSON escapes some bytes as six, so a body within `body-limit` may exceed it.
pub const PUBLIC_BYTES_MAX: usize = 1_000_000;
/// `auth` alone; Bitrix24's has less than 4 KiB.
const AUTH_BYTES_MAX: usize = 32 * 1024;

pub struct Redacted {
    pub data: Json,
    pub auth: Json,
    pub omitted: Vec<Part>,
}

/// The secrets of a body: values of secret names. They are redacted wherever they occur.
pub struct Secrets<'a> {
    hidden: Vec<Finder<'a>>,
    /// Above the limit, nothing is published.
    are_too_many: bool,
}

impl<'a> Secrets<'a> {
    pub fn of(form: &'a Form) -> Self {
        let mut found = BTreeSet::new();
        for (name, field) in form.variables() {
            let mut letters = String::new();
            let is_secret = enter(&mut letters, name, false);
            collect(field, &mut letters, is_secret, &mut found);
        }
        let are_too_many = found.len() > SECRETS_MAX;
        let hidden = found.into_iter().take(SECRETS_MAX).map(Finder::new).collect();
        Self { hidden, are_too_many }
    }

    pub fn are_in(&self, text: &str) -> bool {
        self.are_too_many || self.hold(text)
    }

    /// Whether a text holds one that is known.
    pub fn hold(&self, text: &str) -> bool {
        self.hidden.iter().any(|secret| secret.find(text.as_bytes()).is_some())
    }
}

fn collect<'a>(field: Field<'a>, letters: &mut String, is_secret: bool, found: &mut BTreeSet<&'a str>) {
    if let Some(text) = field.text().filter(|text| is_secret && text.len() >= SECRET_BYTES_MIN) {
        found.insert(text);
    }
    for (name, field) in field.below() {
        // One more than the limit is enough to know.
        if found.len() > SECRETS_MAX {
            return;
        }
        let above = letters.len();
        let is_secret = enter(letters, name, is_secret);
        collect(field, letters, is_secret, found);
        letters.truncate(above);
    }
}

/// Appends a name's letters to those of its parents. Returns whether the whole path names a secret.
fn enter(letters: &mut String, name: &Key, is_secret_above: bool) -> bool {
    if let Key::Index(_) = name {
        // No secret name has a digit.
        letters.push('0');
        return is_secret_above;
    }
    let from = letters.len().saturating_sub(SECRET_NAME_BYTES_MAX - 1);
    let bytes = name.bytes();
    letters.extend(
        bytes.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(|byte| char::from(byte.to_ascii_lowercase())),
    );
    is_secret_above || SECRET_NAMES.iter().any(|secret| letters[from..].contains(secret))
}

/// Writes `data` and the harmless part of `auth`. A value is redacted if its name is secret, or if it contains a secret
/// value of the same body. A body with more than [`SECRETS_MAX`] secrets is not shown at all.
pub fn redact(form: &Form, secrets: &Secrets<'_>) -> Redacted {
    let json = |text| Json::new(text).expect("what was written as JSON is JSON");
    if secrets.are_too_many {
        return Redacted { data: json(format!("\"{SECRET}\"")), auth: json("{}".to_owned()), omitted: Vec::new() };
    }
    let mut omitted = Vec::new();
    let auth = Writer::new(secrets, AUTH_BYTES_MAX).auth(form.variable("auth"));
    let auth_bytes = auth.as_ref().map_or(0, String::len);
    let data = Writer::new(secrets, PUBLIC_BYTES_MAX - auth_bytes).data(form.variable("data"));
    let mut shown = |written: Result<String, TooLarge>, part| {
        if written.is_err() {
            omitted.push(part);
        }
        written.map_or_else(|_| Json::null(), json)
    };
    let (data, auth) = (shown(data, Part::Data), shown(auth, Part::Auth));
    Redacted { data, auth, omitted }
}

struct TooLarge;

/// Writes fields as JSON, up to a size limit.
struct Writer<'s> {
    secrets: &'s Secrets<'s>,
    text: String,
    bytes_max: usize,
    letters: String,
}

impl<'s> Writer<'s> {
    fn new(secrets: &'s Secrets<'s>, bytes_max: usize) -> Self {
        Self { secrets, text: String::new(), bytes_max, letters: String::new() }
    }

    fn data(mut self, data: Option<Field<'_>>) -> Result<String, TooLarge> {
        match data {
            Some(data) => {
                "data".clone_into(&mut self.letters);
                self.field(data, false)?;
            }
            None => self.write("{}")?,
        }
        Ok(self.text)
    }

    fn auth(mut self, auth: Option<Field<'_>>) -> Result<String, TooLarge> {
        let fields = auth.into_iter().flat_map(Field::below).filter_map(|(name, field)| {
            let name = name.to_string();
            let text = field.text().filter(|_| AUTH_SHOWN.contains(&name.as_str()))?;
            let is_endpoint = ENDPOINTS.contains(&name.as_str());
            let text = if is_endpoint { endpoint::cut(text) } else { Some(text.to_owned()) };
            // A value that is not an address may hold anything.
            let text = text.filter(|text| name != "domain" || endpoint::is_address(text));
            Some((name, text))
        });
        let mut sign = "{";
        for (name, text) in fields {
            self.write(sign)?;
            sign = ",";
            self.string(&name)?;
            self.write(":")?;
            self.shown(text.as_deref().unwrap_or(SECRET))?;
        }
        self.write(if sign == "{" { "{}" } else { "}" })?;
        Ok(self.text)
    }

    fn field(&mut self, field: Field<'_>, is_secret: bool) -> Result<(), TooLarge> {
        if let Some(text) = field.text() {
            return if is_secret { self.string(SECRET) } else { self.shown(text) };
        }
        // Keys `0..n` were a list before the form was encoded.
        let is_list = (0..).zip(field.below()).all(|(index, (name, _))| *name == Key::Index(index));
        let names = if is_list { Vec::new() } else { self.names(field) };
        for (nth, (key, field)) in field.below().enumerate() {
            let begin = match (nth, is_list) {
                (0, true) => "[",
                (0, false) => "{",
                _ => ",",
            };
            self.write(begin)?;
            if let Some(name) = names.get(nth) {
                self.string(name)?;
                self.write(":")?;
            }
            let above = self.letters.len();
            let is_secret = enter(&mut self.letters, key, is_secret);
            self.field(field, is_secret)?;
            self.letters.truncate(above);
        }
        self.write(if is_list { "]" } else { "}" })
    }

    /// Unique display names of an array's keys.
    fn names(&self, field: Field<'_>) -> Vec<String> {
        let mut names: Vec<String> = field.below().map(|(name, _)| name.to_string()).collect();
        let mut is_plain = field.below().zip(&names).all(|((key, _), name)| key.bytes() == name.as_bytes());
        for name in &mut names {
            if self.secrets.are_in(name) {
                SECRET.clone_into(name);
                is_plain = false;
            }
        }
        if !is_plain {
            let (mut taken, mut nth) = (BTreeSet::new(), 1);
            for name in &mut names {
                let shown = name.clone();
                while !taken.insert(name.clone()) {
                    nth += 1;
                    *name = format!("{shown} {nth}");
                }
            }
        }
        names
    }

    /// Writes a text, redacted if it contains a secret.
    fn shown(&mut self, text: &str) -> Result<(), TooLarge> {
        let text = if self.secrets.are_in(text) { SECRET } else { text };
        self.string(text)
    }

    fn string(&mut self, text: &str) -> Result<(), TooLarge> {
        // The length only grows by escaping.
        if text.len() > self.bytes_max {
            return Err(TooLarge);
        }
        self.write(&serde_json::to_string(text).expect("a text has a JSON form"))
    }

    fn write(&mut self, json: &str) -> Result<(), TooLarge> {
        if self.text.len() + json.len() > self.bytes_max {
            return Err(TooLarge);
        }
        self.text.push_str(json);
        Ok(())
    }
}
