//! Interprets a raw event. Secrets end here: everything behind it has fingerprints only.

use std::collections::BTreeSet;

use bitrix24::form::{Form, gives_away};
use bitrix24::{Installation, MemberId};
use event_log::RawEvent;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;

use self::redact::{Redacted, Secrets};
use super::endpoint;
use crate::{Decision, Event, FactKind, Method, Position, Profile, ProfileField, Public, Stamp};

mod redact;

/// Why an event was rejected: it stays in `raw` and is not folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The record in `raw` was not written by ingress.
    NotARawEvent,
    /// The sender's address is in no source list.
    UnknownSource,
    /// The body has more fields than any event; none was read.
    TooManyFields,
    /// The body has no `event`: the form of an install page, or junk.
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
}

impl Reason {
    pub const ALL: [Self; 10] = [
        Self::NotARawEvent,
        Self::UnknownSource,
        Self::TooManyFields,
        Self::NoEvent,
        Self::NoMember,
        Self::MissingToken,
        Self::MissingField,
        Self::BadValue,
        Self::TooManyPrincipals,
        Self::SecretInName,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::NotARawEvent => "not_a_raw_event",
            Self::UnknownSource => "unknown_source",
            Self::TooManyFields => "too_many_fields",
            Self::NoEvent => "no_event",
            Self::NoMember => "no_member",
            Self::MissingToken => "missing_token",
            Self::MissingField => "missing_field",
            Self::BadValue => "bad_value",
            Self::TooManyPrincipals => "too_many_principals",
            Self::SecretInName => "secret_in_name",
        }
    }
}

/// Longer values are not kept: they are not what the field is for.
const TEXT_BYTES_MAX: usize = 256;
/// Bitrix24 has some 70 scopes, of 3 to 30 letters each.
const SCOPE_BYTES_MAX: usize = 4 * 1024;
const SCOPES_MAX: usize = 256;
const APPLICATION_TOKEN_BYTES_MAX: usize = 128;
const TOKEN_BYTES_MAX: usize = 512;

/// Interprets a raw event. Total: every body is an event, or is rejected for a reason.
pub fn interpret(raw: &RawEvent, place: Position) -> Result<Event, Reason> {
    if raw.unknown_source {
        return Err(Reason::UnknownSource);
    }
    let form = Form::parse(&raw.body);
    if form.has_too_many_fields() {
        return Err(Reason::TooManyFields);
    }
    let secrets = Secrets::of(&form);
    if names_a_secret(&form, &secrets) {
        return Err(Reason::SecretInName);
    }
    let name = form.head().kind.ok_or(Reason::NoEvent)?;
    let member_id = form.text("auth[member_id]").and_then(MemberId::parse).ok_or(Reason::NoMember)?;
    let token = form.text("auth[application_token]").filter(|text| printable(text, APPLICATION_TOKEN_BYTES_MAX));
    let principal = Fingerprint::of(token.ok_or(Reason::MissingToken)?);

    let installation = Installation { app: raw.app.clone(), member_id };
    let ts = form.text("ts").and_then(|ts| ts.parse().ok()).map(Timestamp::from_s);
    let stamp = Stamp::new(ts, raw.received_at, raw.id);
    let reader = Reader { form: &form, secrets: &secrets };
    let kind = fact_kind(&name, &reader)?;
    let profile = if kind.is_none() { profile("", &reader) } else { Profile::default() };
    let Redacted { data, auth, omitted } = redact::redact(&form, &secrets);
    let lies_at = (!omitted.is_empty()).then_some(place);
    let public = Public {
        id: raw.id,
        event: name.to_ascii_uppercase(),
        installation: installation.clone(),
        occurred_at: stamp.occurred_at,
        received_at: stamp.received_at,
        principal,
        data,
        auth,
        omitted,
        raw: lies_at,
    };
    let body_bytes = u32::try_from(raw.body.len()).unwrap_or(u32::MAX);
    Ok(Event { installation, stamp, principal, raw: place, body_bytes, kind, profile, public })
}

fn names_a_secret(form: &Form, secrets: &Secrets<'_>) -> bool {
    let token = form.text("auth[application_token]");
    let names = ["event", "auth[member_id]", "member_id"].into_iter().filter_map(|name| form.text(name));
    names
        .filter(|name| !name.is_empty())
        .any(|name| secrets.hold(name) || token.is_some_and(|token| gives_away(name, token)))
}

/// Reads fields of facts. Values that contain a secret of the body are left out.
struct Reader<'a> {
    form: &'a Form,
    secrets: &'a Secrets<'a>,
}

impl Reader<'_> {
    /// The value of a field, unless it is empty.
    fn text(&self, name: &str) -> Option<&str> {
        self.form.text(name).filter(|text| !text.is_empty())
    }

    fn need(&self, name: &str) -> Result<&str, Reason> {
        self.text(name).ok_or(Reason::MissingField)
    }

    /// The value of a field, if it is short, printable and free of secrets.
    fn short(&self, name: &str) -> Option<String> {
        self.sensible(self.text(name)?, TEXT_BYTES_MAX)
    }

    fn sensible(&self, text: &str, bytes_max: usize) -> Option<String> {
        let is_sensible = text.len() <= bytes_max && !text.chars().any(char::is_control) && !self.secrets.are_in(text);
        is_sensible.then(|| text.to_owned())
    }
}

/// The fact of a lifecycle event; `None` for an event that is only passed on.
fn fact_kind(event: &str, reader: &Reader<'_>) -> Result<Option<FactKind>, Reason> {
    let profile = profile(event, reader);
    let kind = match event {
        "onappinstall" => FactKind::Installed {
            complete: reader.text("data[INSTALLED]") != Some("N") && reader.text("data[ACTIVE]") != Some("N"),
            profile,
        },
        "onappupdate" => FactKind::Updated { previous_version: reader.short("data[PREVIOUS_VERSION]"), profile },
        "onappuninstall" => FactKind::Uninstalled { clean: reader.text("data[CLEAN]") == Some("1"), profile },
        "onapppayment" => FactKind::Paid {
            code: reader.short("data[CODE]"),
            days: reader.text("data[DAYS]").and_then(|days| days.parse().ok()),
            expired: reader.form.text("data[PAYMENT_EXPIRED]").map(|expired| expired == "Y"),
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
            user_id: reader.short("data[user_id]"),
            client_id: reader.short("data[client_id]"),
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
        let text = reader.text(name).filter(|_| !kind.is_empty() || name.starts_with("auth["))?;
        let value = value(text);
        if value.is_none() {
            omitted.insert(field);
        }
        value
    };
    let short = |text: &str| reader.sensible(text, TEXT_BYTES_MAX);
    let address = |text: &str| short(text).filter(|text| endpoint::is_address(text));
    let url = |text: &str| endpoint::cut(text).and_then(|url| short(&url));
    let scope = |text: &str| reader.sensible(text, SCOPE_BYTES_MAX).filter(|text| scopes(text).count() <= SCOPES_MAX);

    let licence = if kind == "onapppayment" { "data[STATUS]" } else { "auth[status]" };
    let mut profile = Profile {
        domain: read(ProfileField::Domain, "auth[domain]", &address),
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
    profile.domain = profile.domain.take().filter(|domain| !is_server(domain));
    if profile.domain.is_none() && !omitted.contains(&ProfileField::Domain) {
        profile.domain = profile.client_endpoint.as_deref().and_then(endpoint::host).map(str::to_owned);
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
