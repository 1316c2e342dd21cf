//! Commands: what an operator says about a principal, as an event of `raw` that no webhook can be.

use bitrix24::Installation;
use bitrix24::form::Head;
use bytes::Bytes;
use event_log::RawEvent;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Attestation, Fact, FactKind, Position, Profile, Reason, Revision, Stamp, endpoint};

/// The type of the event in `raw`, behind `com.hookledger.`.
const ATTEST: &str = "attest";
const TEXT_BYTES_MAX: usize = 256;
const TOKEN_BYTES_MAX: usize = 128;

/// Says whether a principal of an installation is to be trusted. Its form in `raw` is JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attest {
    pub principal: Fingerprint,
    pub attestation: Attestation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_at: Option<Timestamp>,
}

impl Attest {
    fn is_valid(&self) -> bool {
        self.domain.as_deref().is_none_or(is_host) && self.version.as_deref().is_none_or(is_text)
    }

    pub fn into_raw(self, installation: Installation, now: Timestamp) -> RawEvent {
        let Installation { app, member_id } = installation;
        let head = Head { member_id: Some(member_id), kind: Some(ATTEST.to_owned()), occurred_at: None };
        let body = serde_json::to_vec(&self).expect("our own types have a JSON form");
        let mut raw = RawEvent::new(app, head, Bytes::from(body), now);
        raw.is_command = true;
        raw.content_type = Some("application/json".to_owned());
        raw
    }
}

/// Interprets a command. Total, like [`interpret`](crate::interpret).
pub fn interpret_command(raw: &RawEvent, place: Position) -> Result<Fact, Reason> {
    let member_id = raw.member_id.clone().ok_or(Reason::NoMember)?;
    let attest: Option<Attest> = serde_json::from_slice(&raw.body).ok();
    let attest = attest.filter(|attest| attest.is_valid() && raw.kind.as_deref() == Some(ATTEST));
    let Attest { principal, attestation, domain, version, installed_at } = attest.ok_or(Reason::BadValue)?;
    let profile = Profile { domain: domain.map(|domain| domain.to_lowercase()), version, ..Profile::default() };
    // An attestation may not hold from a time in the future.
    let installed_at = installed_at.map(|at| at.min(raw.received_at));
    Ok(Fact {
        installation: Installation { app: raw.app.clone(), member_id },
        stamp: Stamp::new(None, raw.received_at, raw.id),
        principal,
        raw: place,
        revision: Revision::default(),
        kind: FactKind::Attested { attestation, installed_at, profile },
    })
}

/// A command as a client sends it: a line of JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    command: &'a str,
    app: &'a str,
    member_id: &'a str,
    principal: Option<&'a str>,
    application_token: Option<&'a str>,
    application_token_sha256: Option<&'a str>,
    domain: Option<String>,
    version: Option<String>,
    installed_at: Option<&'a str>,
    #[serde(default)]
    revoke: bool,
}

/// Reads a command. Of a token only the fingerprint is kept. An error names the field and repeats no value.
pub fn parse_command(line: &str) -> Result<(Installation, Attest), &'static str> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|_| {
        "it is no JSON object of `command`, `app`, `member_id`, one of `principal`, `application_token` and \
         `application_token_sha256`, and `domain`, `version`, `installed_at` or `revoke`"
    })?;
    let installation = Installation::parse(line.app, line.member_id).ok_or("`app` or `member_id` is malformed")?;
    let fingerprint = |text| Fingerprint::parse(text).ok_or("a fingerprint is the 64 hex digits of a SHA-256");
    let principal = match (line.principal, line.application_token, line.application_token_sha256) {
        (Some(text), None, None) | (None, None, Some(text)) => fingerprint(text)?,
        (None, Some(token), None) => Fingerprint::of(application_token(token)?),
        _ => return Err("one of `principal`, `application_token` and `application_token_sha256` is needed"),
    };
    let attestation = match (line.command, line.revoke) {
        ("import", false) => Attestation::Imported,
        ("trust", false) => Attestation::Operator,
        ("trust", true) => Attestation::Revoked,
        ("import", true) => return Err("`revoke` belongs to the command `trust`"),
        _ => return Err("`command` is `import` or `trust`"),
    };
    if attestation != Attestation::Imported && (line.domain.is_some() || line.installed_at.is_some()) {
        return Err("`domain` and `installed_at` belong to the command `import`");
    }
    if !line.domain.as_deref().is_none_or(is_host) {
        return Err("`domain` is no host name");
    }
    if !line.version.as_deref().is_none_or(is_text) {
        return Err("`version` is not a text of up to 256 bytes");
    }
    let installed_at = match line.installed_at {
        Some(text) => Some(Timestamp::parse(text).ok_or("`installed_at` is no time such as 2023-10-05T17:30:00Z")?),
        None => None,
    };
    Ok((installation, Attest { principal, attestation, domain: line.domain, version: line.version, installed_at }))
}

/// Checks the form of an application token, as events have it.
fn application_token(text: &str) -> Result<&str, &'static str> {
    let is_token = (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token { Ok(text) } else { Err("`application_token` is not 1 to 128 printable ASCII letters") }
}

fn is_text(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_host(text: &str) -> bool {
    is_text(text) && endpoint::is_address(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = r#""app":"crm-sync","member_id":"a223""#;

    #[test]
    fn a_command_survives_raw_and_holds_no_token() {
        let line = format!(
            r#"{{"command":"import",{BEGIN},"application_token":"s3cret","domain":"Firma.Bitrix24.RU",
             "version":"2","installed_at":"2023-10-05T17:30:00Z"}}"#
        );
        let (installation, attest) = parse_command(&line).expect("a command");
        let raw = attest.into_raw(installation.clone(), Timestamp::from_s(2_000_000_000));
        assert!(!String::from_utf8_lossy(&raw.body).contains("s3cret"));
        let raw = RawEvent::from_record(&raw.into_record()).expect("a raw event");
        let fact = interpret_command(&raw, Position { partition: 0, offset: 1 }).expect("understood");
        assert_eq!((fact.installation, fact.principal), (installation, Fingerprint::of("s3cret")));
        let FactKind::Attested { attestation, installed_at, profile } = fact.kind else { panic!("{:?}", fact.kind) };
        assert_eq!((attestation, installed_at), (Attestation::Imported, Timestamp::parse("2023-10-05T17:30:00Z")));
        assert_eq!(profile.domain.as_deref(), Some("firma.bitrix24.ru"));
    }

    #[test]
    fn a_mistake_is_named() {
        let sha = "a".repeat(64);
        for (line, named) in [
            (format!(r#"{{"command":"import",{BEGIN}}}"#), "one of"),
            (format!(r#"{{"command":"forget",{BEGIN},"principal":"{sha}"}}"#), "`command`"),
            (format!(r#"{{"command":"trust",{BEGIN},"principal":"{sha}","domain":"a.b"}}"#), "`domain`"),
            (format!(r#"{{"command":"import",{BEGIN},"principal":"{sha}","revoke":true}}"#), "`revoke`"),
            (format!(r#"{{"command":"import",{BEGIN},"principal":"abc"}}"#), "64 hex"),
            (format!(r#"{{"command":"import",{BEGIN},"application_token":"a b"}}"#), "`application_token`"),
            (format!(r#"{{"command":"import",{BEGIN},"principal":"{sha}","domain":"a/b"}}"#), "`domain`"),
            (format!(r#"{{"command":"import",{BEGIN},"principal":"{sha}","installed_at":"today"}}"#), "`installed_at`"),
            (format!(r#"{{"command":"import",{BEGIN},"principal":"{sha}","colour":"red"}}"#), "JSON object"),
            (r#"{"command":"import","app":"A B","member_id":"x","principal":"x"}"#.to_owned(), "`app`"),
            ("junk".to_owned(), "JSON object"),
        ] {
            let error = parse_command(&line).expect_err(&line);
            assert!(error.contains(named), "{line}: {error}");
        }
        let (_, attest) = parse_command(&format!(r#"{{"command":"trust",{BEGIN},"principal":"{sha}","revoke":true}}"#))
            .expect("a command");
        assert_eq!(attest.attestation, Attestation::Revoked);
    }

    #[test]
    fn what_another_program_wrote_is_rejected() {
        let installation = Installation::parse("crm-sync", "a223").expect("valid");
        let attest = Attest {
            principal: Fingerprint::of("t"),
            attestation: Attestation::Operator,
            domain: None,
            version: None,
            installed_at: None,
        };
        let raw = attest.into_raw(installation, Timestamp::from_s(5));
        let place = Position { partition: 0, offset: 1 };
        let junk = RawEvent { body: Bytes::from_static(b"{}"), ..raw.clone() };
        assert_eq!(interpret_command(&junk, place), Err(Reason::BadValue));
        assert_eq!(interpret_command(&RawEvent { kind: Some("x".into()), ..raw }, place), Err(Reason::BadValue));
    }
}
