//! What may be shown of a body: its fields as JSON, without secrets and within a size.

use std::collections::BTreeSet;

use bitrix24::form::{Field, Form, Key};
use memchr::memmem::Finder;

use crate::endpoint;
use crate::event::{Json, Part};

/// What stands where a secret stood.
const SECRET: &str = "[secret]";
/// What is harmless of `auth`, and all that is passed on of it.
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
/// Of these a part is shown that holds no secret.
const ENDPOINTS: [&str; 2] = ["client_endpoint", "server_endpoint"];
/// A name that holds one of these, in lower case and without separators, names a secret.
const SECRET_NAMES: [&str; 6] = ["token", "secret", "password", "authid", "refreshid", "signature"];
/// The longest of them.
const SECRET_NAME_BYTES_MAX: usize = 9;
/// Shorter values are not looked for elsewhere: they would be found everywhere.
const SECRET_BYTES_MIN: usize = 8;
/// Each secret is looked for in all values and keys; an event has a handful.
const SECRETS_MAX: usize = 64;
/// `data` and `auth` together are not shown larger than this, as they are written. With headers and what stands beside
/// them, that is less than a topic takes, even one with Kafka's own limit (1,048,588 bytes). JSON writes some bytes as
/// six, so that a body within `body-limit` may become larger.
pub const PUBLIC_BYTES_MAX: usize = 1_000_000;
/// `auth` alone; Bitrix24's has less than 4 KiB.
const AUTH_BYTES_MAX: usize = 32 * 1024;

/// `data` and `auth`, fit to be seen.
pub struct Redacted {
    pub data: Json,
    pub auth: Json,
    /// What is too large.
    pub omitted: Vec<Part>,
}

/// The secrets of a body: values whose names say so. They are hidden wherever they stand.
pub struct Secrets<'a> {
    hidden: Vec<Finder<'a>>,
    /// No event has so many: nothing is shown then.
    are_too_many: bool,
}

impl<'a> Secrets<'a> {
    /// Finds the secrets of a body.
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

    /// Whether a text holds one of them.
    pub fn are_in(&self, text: &str) -> bool {
        self.are_too_many || self.hidden.iter().any(|secret| secret.find(text.as_bytes()).is_some())
    }
}

fn collect<'a>(field: Field<'a>, letters: &mut String, is_secret: bool, found: &mut BTreeSet<&'a str>) {
    if let Some(text) = field.text().filter(|text| is_secret && text.len() >= SECRET_BYTES_MIN) {
        found.insert(text);
    }
    for (name, field) in field.below() {
        // One more than are looked for is enough to know.
        if found.len() > SECRETS_MAX {
            return;
        }
        let above = letters.len();
        let is_secret = enter(letters, name, is_secret);
        collect(field, letters, is_secret, found);
        letters.truncate(above);
    }
}

/// Adds a name's letters to those of the names above it, and says whether all of them together name a secret.
fn enter(letters: &mut String, name: &Key, is_secret_above: bool) -> bool {
    if let Key::Index(_) = name {
        // No digit is in the name of a secret.
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

/// Takes `data` and the harmless part of `auth`. A value is hidden where its name says so, and wherever it holds a
/// value that was hidden elsewhere in the same body. Nothing is shown of a body with more secrets than any event has.
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

/// There are more bytes than may be.
struct TooLarge;

/// Writes fields as JSON, until they are too large.
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
            // What is no address may hold anything.
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
        // Keys `0..n` make a list, as they did before the form was encoded.
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

    /// The names in a list as they are shown, each another one.
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

    /// A text, unless it holds a secret.
    fn shown(&mut self, text: &str) -> Result<(), TooLarge> {
        let text = if self.secrets.are_in(text) { SECRET } else { text };
        self.string(text)
    }

    fn string(&mut self, text: &str) -> Result<(), TooLarge> {
        // It only grows by being written.
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
