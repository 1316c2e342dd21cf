//! Reads a raw event for what it means. Secrets end here: behind it there are fingerprints only.

use common::event::{Installation, MemberId, RawEvent};
use common::form::Form;
use common::secret::Fingerprint;
use common::time::Timestamp;

use self::redact::Redacted;
use super::claims::Profile;
use super::event::{Event, Public};
use super::fact::{Method, Told};
use super::permission::Decision;
use super::stamp::{Place, Stamp};

mod redact;

/// Why an event was set aside: it is in `raw`, and nowhere folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The record in `raw` is not one that ingress wrote.
    NotARawEvent,
    /// Ingress refused the sender, who is in no source list.
    UnknownSource,
    /// The body has no `event`: an install page's form, or junk.
    NoEvent,
    /// The body does not say which portal it is about, or not in a way that can be a key.
    NoMember,
    /// The body has no `application_token`: nobody can say who sent it.
    NoProof,
    /// A field that the event cannot do without is missing.
    MissingField,
    /// A field holds what it cannot hold.
    BadValue,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NotARawEvent,
        Self::UnknownSource,
        Self::NoEvent,
        Self::NoMember,
        Self::NoProof,
        Self::MissingField,
        Self::BadValue,
    ];

    /// As headers, metrics and logs say it.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotARawEvent => "not_a_raw_event",
            Self::UnknownSource => "unknown_source",
            Self::NoEvent => "no_event",
            Self::NoMember => "no_member",
            Self::NoProof => "no_proof",
            Self::MissingField => "missing_field",
            Self::BadValue => "bad_value",
        }
    }
}

/// Longer values of these fields are not kept: they are not what the field is for.
const TEXT_BYTES_MAX: usize = 256;
/// More scopes than this no app has.
const SCOPES_MAX: usize = 100;
/// A proof is printable and not longer than this.
const PROOF_BYTES_MAX: usize = 128;
/// A token is printable and not longer than this.
const TOKEN_BYTES_MAX: usize = 512;

/// Reads a raw event for what it means. Total: every body is an event, or set aside for a reason.
pub fn interpret(raw: &RawEvent, place: Place) -> Result<Event, Reason> {
    if raw.unknown_source {
        return Err(Reason::UnknownSource);
    }
    let form = Form::parse(&raw.body);
    let kind = form.head().kind.ok_or(Reason::NoEvent)?;
    let member_id = form.text("auth[member_id]").and_then(MemberId::parse).ok_or(Reason::NoMember)?;
    let proof = form.text("auth[application_token]").filter(|text| printable(text, PROOF_BYTES_MAX));
    let teller = Fingerprint::of(proof.ok_or(Reason::NoProof)?);

    let installation = Installation { app: raw.app.clone(), member_id };
    let ts = form.text("ts").and_then(|ts| ts.parse().ok()).map(Timestamp::from_s);
    let stamp = Stamp::new(ts, raw.received_at, raw.id);
    let told = told(&kind, &form)?;
    let Redacted { data, auth } = redact::redact(&form);
    let public = Public {
        id: raw.id,
        event: kind.to_ascii_uppercase(),
        installation: installation.clone(),
        told_at: stamp.told_at,
        received_at: stamp.received_at,
        teller,
        data,
        auth,
    };
    let body_bytes = u32::try_from(raw.body.len()).unwrap_or(u32::MAX);
    Ok(Event { installation, stamp, teller, raw: place, body_bytes, told, public })
}

/// What a lifecycle event tells; none for a foreign event.
fn told(kind: &str, form: &Form) -> Result<Option<Told>, Reason> {
    let profile = profile(kind, form);
    let told = match kind {
        "onappinstall" => Told::Installed {
            complete: form.text("data[INSTALLED]") != Some("N") && form.text("data[ACTIVE]") != Some("N"),
            profile,
        },
        "onappupdate" => Told::Updated { previous_version: short(form, "data[PREVIOUS_VERSION]"), profile },
        "onappuninstall" => Told::Uninstalled { clean: form.text("data[CLEAN]") == Some("1"), profile },
        "onapppayment" => Told::Paid {
            code: short(form, "data[CODE]"),
            days: form.text("data[DAYS]").and_then(|days| days.parse().ok()),
            expired: form.text("data[PAYMENT_EXPIRED]").map(|expired| expired == "Y"),
            profile,
        },
        "onappmethodconfirm" => Told::MethodDecided {
            method: Method::parse(need(form, "data[METHOD]")?).ok_or(Reason::BadValue)?,
            token: Fingerprint::of(token(need(form, "data[TOKEN]")?).ok_or(Reason::BadValue)?),
            decision: match need(form, "data[CONFIRMED]")? {
                "1" => Decision::Granted,
                "0" => Decision::Denied,
                _ => return Err(Reason::BadValue),
            },
            profile,
        },
        "onappuserready" => Told::UserReady {
            user_id: short(form, "data[user_id]"),
            client_id: short(form, "data[client_id]"),
            profile,
        },
        _ => return Ok(None),
    };
    Ok(Some(told))
}

/// How the portal describes itself in this event, as far as it does.
fn profile(kind: &str, form: &Form) -> Profile {
    let client_endpoint = short(form, "auth[client_endpoint]");
    let server_endpoint = short(form, "auth[server_endpoint]");
    // ONAPPUSERREADY gives the authorisation server's domain where the portal's should be.
    let domain = short(form, "auth[domain]")
        .filter(|domain| server_endpoint.as_deref().and_then(host) != Some(domain))
        .or_else(|| client_endpoint.as_deref().and_then(host).map(str::to_owned));
    let scopes = short(form, "auth[scope]").map(|scope| {
        let scopes = scope.split([',', ' ']).filter(|scope| !scope.is_empty());
        scopes.take(SCOPES_MAX).map(str::to_owned).collect()
    });
    let licence = if kind == "onapppayment" { "data[STATUS]" } else { "auth[status]" };
    Profile {
        domain,
        client_endpoint,
        server_endpoint,
        version: short(form, "data[VERSION]"),
        licence: short(form, licence),
        language: short(form, "data[LANGUAGE_ID]"),
        scope: scopes,
    }
}

fn need<'a>(form: &'a Form, name: &str) -> Result<&'a str, Reason> {
    form.text(name).filter(|text| !text.is_empty()).ok_or(Reason::MissingField)
}

/// A field's value, if there is a sensible one.
fn short(form: &Form, name: &str) -> Option<String> {
    let sensible = |text: &&str| (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    form.text(name).filter(sensible).map(str::to_owned)
}

fn token(text: &str) -> Option<&str> {
    printable(text, TOKEN_BYTES_MAX).then_some(text)
}

fn printable(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The host of a URL, with its port if there is one.
fn host(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split(['/', '?', '#']).next().filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests;
