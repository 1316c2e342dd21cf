//! Redaction: the fields of a request as JSON, without secrets and within a size limit.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bitrix24::form::{Field, Key, Request, Shape};

use super::secrets::{AUTH_SHOWN, SECRET, Secrets, is_secret, is_secret_variable, is_shown_of_auth};
use crate::endpoint;
use crate::event::{Json, Part};

/// Only the part without secrets is published.
const ENDPOINTS: [&str; 2] = ["client_endpoint", "server_endpoint"];
/// Fields of `auth` that calls without an `auth` have beside it.
const BARE: [(&str, &str); 6] = [
    ("domain", "DOMAIN"),
    ("server_endpoint", "SERVER_ENDPOINT"),
    ("scope", "APPLICATION_SCOPE"),
    ("status", "status"),
    ("member_id", "member_id"),
    ("expires_in", "AUTH_EXPIRES"),
];
/// Longer ids of a handler are shown among the other fields.
const HANDLER_ID_BYTES_MAX: usize = 64;
/// Limit of all parts together, as written. With headers and surrounding fields, this stays below Kafka's default record
/// limit (1,048,588 bytes). JSON escapes some bytes as six, so a body within `body-limit` may exceed it.
pub const PUBLIC_BYTES_MAX: usize = 1_000_000;
/// `auth` alone; Bitrix24's has less than 4 KiB.
const AUTH_BYTES_MAX: usize = 32 * 1024;
/// The query alone; a request's head has at most some 32 KiB.
const QUERY_BYTES_MAX: usize = 128 * 1024;

/// Most parts take less, so that their texts never grow.
const PART_BYTES: usize = 512;

pub struct Redacted {
    pub event_handler_id: Option<String>,
    pub data: Json,
    pub auth: Json,
    /// None if the body has no other fields.
    pub fields: Option<Json>,
    /// None if there is no query.
    pub query: Option<Json>,
    pub omitted: Vec<Part>,
}

pub fn redact(request: &Request, secrets: &Secrets) -> Redacted {
    redact_within(request, secrets, PUBLIC_BYTES_MAX)
}

/// Writes `data`, the harmless part of `auth`, the query, and the other fields of the body. A value is hidden if its name
/// is secret; a secret within a value is replaced there. A part that does not fit any more is omitted.
pub fn redact_within(request: &Request, secrets: &Secrets, bytes_max: usize) -> Redacted {
    let json = |text| Json::new(text).expect("what was written as JSON is JSON");
    let (mut omitted, mut left) = (Vec::new(), bytes_max);
    let mut shown = |part, bytes_max: usize, write: &dyn Fn(&mut Writer<'_>) -> Result<(), TooLarge>| {
        let text = String::with_capacity(PART_BYTES);
        let mut writer = Writer { secrets, text, bytes_max: bytes_max.min(left) };
        if write(&mut writer).is_err() {
            omitted.push(part);
            return Json::null();
        }
        left -= writer.text.len();
        json(writer.text)
    };
    let auth = shown(Part::Auth, AUTH_BYTES_MAX, &|writer| writer.auth(request));
    let mut queried = request.query.variables().peekable();
    let query = queried.peek().is_some().then(|| {
        shown(Part::Query, QUERY_BYTES_MAX, &|writer| {
            writer.object(request.query.variables(), |name, field| {
                (is_secret_variable(name, field), *name.bytes() == *b"auth")
            })
        })
    });
    let data = shown(Part::Data, PUBLIC_BYTES_MAX, &|writer| match request.variable("data") {
        Some(data) => writer.field(data, false, false),
        None => writer.write("null"),
    });
    let others = || request.body.variables().filter(|(name, field)| !is_shown_apart(name, *field));
    let fields = others().next().is_some().then(|| {
        shown(Part::Fields, PUBLIC_BYTES_MAX, &|writer| {
            writer.object(others(), |name, field| (is_secret_variable(name, field), false))
        })
    });
    let handler_id = request.variable("event_handler_id").and_then(handler_id);
    let event_handler_id = handler_id.map(|id| secrets.hidden(id).into_owned());
    omitted.sort_unstable();
    Redacted { event_handler_id, data, auth, fields, query, omitted }
}

/// Whether a field of the body is shown under a name of its own, and not among the others.
fn is_shown_apart(name: &Key, field: Field<'_>) -> bool {
    match &*name.bytes() {
        b"data" => true,
        b"auth" => field.text().is_none(),
        b"event" => field.text().is_some(),
        b"event_handler_id" => handler_id(field).is_some(),
        b"ts" => field.text().is_some_and(|ts| ts.parse::<u64>().is_ok()),
        _ => false,
    }
}

fn handler_id(field: Field<'_>) -> Option<&str> {
    field.text().filter(|id| id.len() <= HANDLER_ID_BYTES_MAX)
}

struct TooLarge;

/// Writes fields as JSON, up to a size limit.
struct Writer<'s> {
    secrets: &'s Secrets,
    text: String,
    bytes_max: usize,
}

impl Writer<'_> {
    fn auth(&mut self, request: &Request) -> Result<(), TooLarge> {
        let auths = [&request.body, &request.query].map(|form| form.variable("auth"));
        let of_auth = |name: &str| auths.iter().flatten().find_map(|auth| auth.get(name)?.text());
        let bare =
            |name| BARE.into_iter().find(|(of_auth, _)| *of_auth == name).and_then(|(_, bare)| request.text(bare));
        let mut names = AUTH_SHOWN;
        names.sort_unstable();
        let mut sign = "{";
        for name in names {
            let Some(text) = of_auth(name).or_else(|| bare(name)) else { continue };
            let text = if ENDPOINTS.contains(&name) { endpoint::cut(text).map(Cow::Owned) } else { Some(text.into()) };
            // A value that is not an address may hold anything.
            let text = text.filter(|text| name != "domain" || endpoint::is_address(text));
            self.write(sign)?;
            sign = ",";
            self.string(name)?;
            self.write(":")?;
            self.shown(text.as_deref().unwrap_or(SECRET))?;
        }
        self.write(if sign == "{" { "{}" } else { "}" })
    }

    fn field(&mut self, field: Field<'_>, is_hidden: bool, is_auth: bool) -> Result<(), TooLarge> {
        let is_list = match field.shape() {
            Shape::Text => {
                let text = field.text().unwrap_or_default();
                return if is_hidden { self.string(SECRET) } else { self.shown(text) };
            }
            Shape::Null => return self.write("null"),
            Shape::List => true,
            Shape::Map => false,
            // Keys `0..n` were a list before the form was encoded.
            Shape::Fields => (0..).zip(field.below()).all(|(index, (name, _))| *name == Key::Index(index)),
        };
        let judge =
            |name: &Key, _: Field<'_>| (is_secret(name, is_hidden) || is_auth && !is_shown_of_auth(name), false);
        if !is_list {
            return self.object(field.below(), judge);
        }
        self.write("[")?;
        for (nth, (key, below)) in field.below().enumerate() {
            if nth > 0 {
                self.write(",")?;
            }
            let (is_hidden, is_auth) = judge(key, below);
            self.field(below, is_hidden, is_auth)?;
        }
        self.write("]")
    }

    /// `judge` says whether a field is hidden, and whether it is an `auth`.
    fn object<'f>(
        &mut self,
        fields: impl Iterator<Item = (&'f Key, Field<'f>)>,
        judge: impl Fn(&Key, Field<'f>) -> (bool, bool),
    ) -> Result<(), TooLarge> {
        let fields: Vec<_> = fields.collect();
        let names = self.names(&fields);
        self.write("{")?;
        for (nth, ((key, field), name)) in fields.into_iter().zip(&names).enumerate() {
            if nth > 0 {
                self.write(",")?;
            }
            self.string(name)?;
            self.write(":")?;
            let (is_hidden, is_auth) = judge(key, field);
            self.field(field, is_hidden, is_auth)?;
        }
        self.write("}")
    }

    /// Unique display names of an array's keys.
    fn names<'f>(&self, fields: &[(&'f Key, Field<'_>)]) -> Vec<Cow<'f, str>> {
        let mut names: Vec<Cow<'f, str>> = fields.iter().map(|(name, _)| name.text()).collect();
        let mut is_plain = fields.iter().zip(&names).all(|((key, _), name)| key.bytes() == name.as_bytes());
        for name in &mut names {
            if self.secrets.are_in(name) {
                *name = self.secrets.hidden(name).into_owned().into();
                is_plain = false;
            }
        }
        if !is_plain {
            let (mut taken, mut nth) = (BTreeSet::new(), 1);
            for name in &mut names {
                let shown = name.clone();
                while !taken.insert(name.clone()) {
                    nth += 1;
                    *name = format!("{shown} {nth}").into();
                }
            }
        }
        names
    }

    /// Writes a text without the secrets in it.
    fn shown(&mut self, text: &str) -> Result<(), TooLarge> {
        self.string(&self.secrets.hidden(text))
    }

    fn string(&mut self, text: &str) -> Result<(), TooLarge> {
        // The length only grows by escaping.
        if text.len() > self.bytes_max {
            return Err(TooLarge);
        }
        if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
            return self.write(&serde_json::to_string(text).expect("a text has a JSON form"));
        }
        self.write("\"")?;
        self.write(text)?;
        self.write("\"")
    }

    fn write(&mut self, json: &str) -> Result<(), TooLarge> {
        if self.text.len() + json.len() > self.bytes_max {
            return Err(TooLarge);
        }
        self.text.push_str(json);
        Ok(())
    }
}
