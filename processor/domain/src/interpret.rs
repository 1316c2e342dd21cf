//! Interprets a raw event. Secrets end here: everything behind it has fingerprints only. The vault alone takes tokens, by
//! [`tokens`], and seals them.
//!
//! An event names itself. A call does not: a robot or an activity has an `auth`, a page of the app has `AUTH_ID` and
//! other fields in place of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitrix24::form::{Request, gives_away};
use bitrix24::{Installation, MemberId};
use event_log::RawEvent;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;

use self::redact::Redacted;
use self::secrets::Secrets;
use super::endpoint;
use crate::event::Call;
use crate::{Decision, Event, FactKind, Method, Position, Profile, ProfileField, Public, Stamp};

mod preview;
mod redact;
mod secrets;
mod tokens;

pub use preview::{Preview, preview};
pub use tokens::{EventTokens, Pair, tokens};

/// Why an event was rejected: it stays in `raw` and is not folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The record in `raw` was not written by ingress.
    NotARawEvent,
    /// The sender's address is in no source list.
    UnknownSource,
    /// The body is compressed and was not read.
    Compressed,
    /// The body has more fields than any event; none was read.
    TooManyFields,
    /// The body has no `event`, and is no call either.
    NoEvent,
    /// The body has no valid `auth[member_id]`.
    NoMember,
    /// The body has no `auth[application_token]`, so the principal is unknown.
    MissingToken,
    MissingField,
    BadValue,
    /// The installation has as many attested principals as it may have.
    TooManyPrincipals,
    /// `event` or `member_id` is or holds a secret of the same body, and would become a key.
    SecretInName,
    /// It was held, and gave way to others before its principal was trusted.
    GaveWay,
}

impl Reason {
    pub const ALL: [Self; 12] = [
        Self::NotARawEvent,
        Self::UnknownSource,
        Self::Compressed,
        Self::TooManyFields,
        Self::NoEvent,
        Self::NoMember,
        Self::MissingToken,
        Self::MissingField,
        Self::BadValue,
        Self::TooManyPrincipals,
        Self::SecretInName,
        Self::GaveWay,
    ];

    pub fn parse(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::NotARawEvent => "not_a_raw_event",
            Self::UnknownSource => "unknown_source",
            Self::Compressed => "compressed",
            Self::TooManyFields => "too_many_fields",
            Self::NoEvent => "no_event",
            Self::NoMember => "no_member",
            Self::MissingToken => "missing_token",
            Self::MissingField => "missing_field",
            Self::BadValue => "bad_value",
            Self::TooManyPrincipals => "too_many_principals",
            Self::SecretInName => "secret_in_name",
            Self::GaveWay => "gave_way",
        }
    }
}

/// Longer values are omitted: they are not what the field is for. All of Bitrix24's scopes take less than 1 KiB.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// So many need more than the bytes above, unless they are not names.
const SCOPES_MAX: usize = 1_024;
const APPLICATION_TOKEN_BYTES_MAX: usize = 128;
const TOKEN_BYTES_MAX: usize = 512;

/// Interprets a raw event. Total: every request is an event or a call, or is rejected for a reason.
///
/// A call without a token is [`Reason::MissingToken`], too, and can be read with [`unsigned_call`].
pub fn interpret(raw: &RawEvent, place: Position) -> Result<Event, Reason> {
    let Read { request, secrets, subject, member_id, token } = read(raw)?;
    let principal = Fingerprint::of(token.as_deref().ok_or(Reason::MissingToken)?);
    let installation = Installation { app: raw.app.clone(), member_id };
    let reader = Reader { request: &request, secrets: &secrets };
    let kind = match &subject {
        Subject::Event(name) => fact_kind(name, &reader)?,
        Subject::Call(_) => None,
    };
    let profile = if kind.is_none() { profile("", &reader) } else { Profile::default() };
    let stamp = stamp(raw, &request);
    let has_tokens = tokens::pair_of(&request, &subject).is_some();
    let redacted = redact::redact(&request, &secrets);
    let public = public(place, stamp, &installation, Some(principal), &subject, redacted);
    let body_bytes = u32::try_from(raw.body.len()).unwrap_or(u32::MAX);
    let public = Arc::new(public);
    Ok(Event { installation, stamp, principal, raw: place, body_bytes, kind, profile, has_tokens, public })
}

/// A call of a robot or a page without a token. No principal can be trusted with it: it is shown, and no more.
pub fn unsigned_call(raw: &RawEvent, place: Position) -> Option<Public> {
    let Read { request, secrets, subject, member_id, token: None } = read(raw).ok()? else { return None };
    let Subject::Call(_) = subject else { return None };
    let installation = Installation { app: raw.app.clone(), member_id };
    let redacted = redact::redact(&request, &secrets);
    Some(public(place, stamp(raw, &request), &installation, None, &subject, redacted))
}

struct Read {
    request: Request,
    secrets: Secrets,
    subject: Subject,
    member_id: MemberId,
    token: Option<String>,
}

enum Subject {
    /// In lower case.
    Event(String),
    Call(Call),
}

fn read(raw: &RawEvent) -> Result<Read, Reason> {
    if raw.unknown_source {
        return Err(Reason::UnknownSource);
    }
    if raw.compression.is_some() {
        return Err(Reason::Compressed);
    }
    let request = Request::parse(&raw.body, raw.query.as_deref());
    if request.has_too_many_fields() {
        return Err(Reason::TooManyFields);
    }
    let secrets = Secrets::of(&request);
    if names_a_secret(&request, &secrets) {
        return Err(Reason::SecretInName);
    }
    let subject = subject(&request).ok_or(Reason::NoEvent)?;
    let (member_id, token) = match subject {
        Subject::Event(_) => (request.text("auth[member_id]"), request.text("auth[application_token]")),
        Subject::Call(_) => (
            request.text("auth[member_id]").or_else(|| request.text("member_id")),
            request.text("auth[application_token]").or_else(|| request.text("APPLICATION_TOKEN")),
        ),
    };
    let member_id = member_id.and_then(MemberId::parse).ok_or(Reason::NoMember)?;
    let token = token.filter(|text| printable(text, APPLICATION_TOKEN_BYTES_MAX)).map(str::to_owned);
    Ok(Read { request, secrets, subject, member_id, token })
}

fn names_a_secret(request: &Request, secrets: &Secrets) -> bool {
    let token = request.text("auth[application_token]");
    let names = ["event", "auth[member_id]", "member_id"].into_iter().filter_map(|name| request.text(name));
    names
        .filter(|name| !name.is_empty())
        .any(|name| secrets.are_in(name) || token.is_some_and(|token| gives_away(name, token)))
}

/// Whether the names of a rejected event may hold a secret of its body. Where the body is not read, they may.
pub fn names_may_be_secret(raw: &RawEvent, reason: Reason) -> bool {
    if reason != Reason::UnknownSource {
        return matches!(reason, Reason::SecretInName | Reason::Compressed | Reason::TooManyFields);
    }
    if raw.compression.is_some() {
        return true;
    }
    let request = Request::parse(&raw.body, raw.query.as_deref());
    request.has_too_many_fields() || names_a_secret(&request, &Secrets::of(&request))
}

fn subject(request: &Request) -> Option<Subject> {
    if request.text("event").is_some_and(|event| !event.is_empty()) {
        return request.head().kind.map(Subject::Event);
    }
    let has = |name: &str| request.text(name).is_some_and(|text| !text.is_empty());
    if has("auth[member_id]") {
        return Some(Subject::Call(Call::Robot));
    }
    let is_page = has("member_id") && ["AUTH_ID", "APPLICATION_TOKEN", "PLACEMENT"].into_iter().any(has);
    is_page.then_some(Subject::Call(Call::Placement))
}

fn stamp(raw: &RawEvent, request: &Request) -> Stamp {
    let ts = request.text("ts").and_then(|ts| ts.parse().ok()).map(Timestamp::from_s);
    Stamp::new(ts, raw.received_at, raw.id)
}

fn public(
    place: Position,
    stamp: Stamp,
    installation: &Installation,
    principal: Option<Fingerprint>,
    subject: &Subject,
    redacted: Redacted,
) -> Public {
    let Redacted { event_handler_id, data, auth, fields, query, omitted } = redacted;
    let (event, call) = match subject {
        Subject::Event(name) => (Some(name.to_ascii_uppercase()), None),
        Subject::Call(call) => (None, Some(*call)),
    };
    Public {
        id: stamp.id,
        event,
        call,
        event_handler_id,
        installation: installation.clone(),
        occurred_at: stamp.occurred_at,
        received_at: stamp.received_at,
        principal,
        data,
        auth,
        fields,
        query,
        omitted,
        raw: Some(place),
    }
}

/// Reads fields of facts. Values that contain a secret of the body are left out.
struct Reader<'a> {
    request: &'a Request,
    secrets: &'a Secrets,
}

impl Reader<'_> {
    /// The value of a field, unless it is empty.
    fn text(&self, name: &str) -> Option<&str> {
        self.request.text(name).filter(|text| !text.is_empty())
    }

    /// `None` where the field is missing, or says neither.
    fn flag(&self, name: &str) -> Option<bool> {
        match self.text(name)? {
            "1" | "Y" | "y" | "true" => Some(true),
            "0" | "N" | "n" | "false" => Some(false),
            _ => None,
        }
    }

    fn need(&self, name: &str) -> Result<&str, Reason> {
        self.text(name).ok_or(Reason::MissingField)
    }

    /// The value of a field, if it is short, printable and free of secrets.
    fn short(&self, name: &str) -> Option<String> {
        self.sensible(self.text(name)?, TEXT_BYTES_MAX)
    }

    fn sensible(&self, text: &str, bytes_max: usize) -> Option<String> {
        let is_plain = || text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let is_printable = || is_plain() || !text.chars().any(char::is_control);
        let is_sensible = text.len() <= bytes_max && is_printable() && !self.secrets.are_in(text);
        is_sensible.then(|| text.to_owned())
    }

    /// A sensible text in lower case, which may be a secret that the text as received is not.
    fn lowercase(&self, text: &str) -> Option<String> {
        Some(text.to_lowercase()).filter(|text| !self.secrets.are_in(text))
    }
}

fn is_no(flag: Option<bool>) -> bool {
    flag == Some(false)
}

/// The fact of a lifecycle event; `None` for an event that is only passed on.
fn fact_kind(event: &str, reader: &Reader<'_>) -> Result<Option<FactKind>, Reason> {
    let mut profile = profile(event, reader);
    let mut short = |field, name| {
        let value = reader.short(name);
        if value.is_none() && reader.text(name).is_some() {
            profile.omitted.insert(field);
        }
        value
    };
    let kind = match event {
        "onappinstall" => FactKind::Installed {
            complete: !is_no(reader.flag("data[INSTALLED]")) && !is_no(reader.flag("data[ACTIVE]")),
            profile,
        },
        "onappupdate" => FactKind::Updated {
            previous_version: short(ProfileField::PreviousVersion, "data[PREVIOUS_VERSION]"),
            profile,
        },
        "onappuninstall" => FactKind::Uninstalled { clean: reader.flag("data[CLEAN]"), profile },
        "onapppayment" => FactKind::Paid {
            code: short(ProfileField::Code, "data[CODE]"),
            days: short(ProfileField::Days, "data[DAYS]").and_then(|days| days.parse().ok()),
            expired: reader.flag("data[PAYMENT_EXPIRED]"),
            profile,
        },
        "onappmethodconfirm" => {
            let text = reader.need("data[METHOD]")?;
            let method = Method::parse(text).ok_or(Reason::BadValue)?;
            // As received, and as shown.
            if reader.secrets.are_in(text) || reader.secrets.are_in(method.as_str()) {
                return Err(Reason::BadValue);
            }
            FactKind::MethodDecided {
                method,
                token: Fingerprint::of(token(reader.need("data[TOKEN]")?).ok_or(Reason::BadValue)?),
                decision: match reader.need("data[CONFIRMED]")? {
                    "1" => Decision::Granted,
                    "0" => Decision::Denied,
                    _ => return Err(Reason::BadValue),
                },
                profile,
            }
        }
        "onappuserready" => FactKind::UserReady {
            user_id: short(ProfileField::UserId, "data[user_id]"),
            client_id: short(ProfileField::ClientId, "data[client_id]"),
            profile,
        },
        _ => return Ok(None),
    };
    Ok(Some(kind))
}

/// The portal metadata of this event. Values that cannot be kept are listed in `omitted`.
///
/// `kind` is empty for an event that is only passed on, whose `data` mean something else.
fn profile(kind: &str, reader: &Reader<'_>) -> Profile {
    let mut omitted = BTreeSet::new();
    let mut read = |field, name: &str, value: &dyn Fn(&str) -> Option<String>| {
        let text = reader.text(name).filter(|_| !kind.is_empty() || !name.starts_with("data["))?;
        let value = value(text);
        if value.is_none() {
            omitted.insert(field);
        }
        value
    };
    let short = |text: &str| reader.sensible(text, TEXT_BYTES_MAX);
    let address = |text: &str| short(text).filter(|text| endpoint::is_address(text));
    let url = |text: &str| endpoint::cut(text).and_then(|url| short(&url));
    let scope = |text: &str| reader.sensible(text, TEXT_BYTES_MAX).filter(|text| scopes(text).count() <= SCOPES_MAX);

    // The body may leave it to the query.
    let domain = if reader.text("auth[domain]").is_some() { "auth[domain]" } else { "DOMAIN" };
    let licence = if kind == "onapppayment" { "data[STATUS]" } else { "auth[status]" };
    let mut profile = Profile {
        domain: read(ProfileField::Domain, domain, &address),
        client_endpoint: read(ProfileField::ClientEndpoint, "auth[client_endpoint]", &url),
        server_endpoint: read(ProfileField::ServerEndpoint, "auth[server_endpoint]", &url),
        version: read(ProfileField::Version, "data[VERSION]", &short),
        licence: read(ProfileField::Licence, licence, &short),
        language: read(ProfileField::Language, "data[LANGUAGE_ID]", &short),
        scope: read(ProfileField::Scope, "auth[scope]", &scope).map(|text| scopes(&text).map(str::to_owned).collect()),
        omitted: BTreeSet::new(),
    };
    // ONAPPUSERREADY has the authorisation server's domain in place of the portal's.
    let server = profile.server_endpoint.as_deref().and_then(endpoint::host);
    let is_server = |domain: &String| {
        endpoint::is_authorisation_server(domain) || server.is_some_and(|server| server.eq_ignore_ascii_case(domain))
    };
    let domain = profile.domain.take().filter(|domain| !is_server(domain));
    if !omitted.contains(&ProfileField::Domain) {
        // A portal may be named by two of Bitrix24's domains: the one that is called counts.
        let called = profile.client_endpoint.as_deref().and_then(endpoint::host);
        let is_of_portal =
            |called: &&str| domain.as_deref().is_none_or(|domain| endpoint::is_of_portal(called, domain));
        let called = called.filter(is_of_portal).map(str::to_owned);
        if let Some(domain) = called.or(domain) {
            profile.domain = reader.lowercase(&domain);
            if profile.domain.is_none() {
                omitted.insert(ProfileField::Domain);
            }
        }
    }
    profile.omitted = omitted;
    profile
}

fn scopes(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|scope| !scope.is_empty())
}

fn token(text: &str) -> Option<&str> {
    printable(text, TOKEN_BYTES_MAX).then_some(text)
}

fn printable(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests;
