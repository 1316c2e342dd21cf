//! A simulated portal: its bodies are shaped exactly as Bitrix24 shapes them.
//!
//! Everything about a portal follows from its `member_id`, so that it can be played again: an uninstall sent tomorrow
//! carries the token of an install sent today. Nothing here is a real secret.

use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use event::Event;
use fields::Fields;

mod event;
mod fields;

/// The content type that Bitrix24 sends.
pub const FORM: &str = "application/x-www-form-urlencoded";
pub const JSON: &str = "application/json";

/// The authorisation server of portals outside Russia.
const AUTHORISATION_SERVER: &str = "oauth.bitrix.info";
/// The app's id at the authorisation server.
const CLIENT_ID: &str = "app.573ad8a0346747.09223434";
const EXPIRES_IN_S: u64 = 3_600;
pub(crate) const SYSTEM_USER_ID: u64 = 512;
/// Real OAuth tokens have as many.
pub(crate) const OAUTH_DIGITS: usize = 70;

#[derive(Clone, Debug)]
pub struct Portal {
    pub member_id: String,
    pub domain: String,
    pub language: String,
    /// Comma-separated.
    pub scope: String,
    pub status: String,
    /// Carried by every event of the app.
    pub application_token: Token,
    pub access_token: Token,
    pub refresh_token: Token,
    pub user_id: u64,
    /// Whether a user caused the events; without one, Bitrix24 sends no OAuth tokens.
    pub linked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As Bitrix24 does: PHP's form fields, brackets encoded.
    Form,
    /// A form whose brackets are not encoded, as other senders write it.
    PlainForm,
    Json,
}

impl Portal {
    pub fn of(member_id: impl Into<String>) -> Self {
        let member_id = member_id.into();
        let digits = |what: &str, length| digits(&format!("{what} of {member_id}"), length);
        Self {
            domain: format!("portal-{}.bitrix24.com", digits("domain", 8)),
            language: "en".to_owned(),
            scope: "crm,user".to_owned(),
            status: "F".to_owned(),
            application_token: Token::new(digits("application_token", 32)),
            access_token: Token::new(digits("access_token", OAUTH_DIGITS)),
            refresh_token: Token::new(digits("refresh_token", OAUTH_DIGITS)),
            user_id: 1,
            linked: true,
            member_id,
        }
    }

    pub fn random() -> Self {
        Self::nth(&Uuid::now_v7().to_string(), 0)
    }

    /// One of many portals, deterministic for the seed and the number.
    pub fn nth(seed: &str, number: u64) -> Self {
        Self::of(digits(&format!("{seed}/{number}"), 32))
    }

    pub fn body(&self, event: &Event, at_s: u64, encoding: Encoding) -> Bytes {
        let fields = event.fields(self, at_s);
        match encoding {
            Encoding::Form => fields.to_form(["%5B", "%5D"]).into(),
            Encoding::PlainForm => fields.to_form(["[", "]"]).into(),
            Encoding::Json => fields.to_json().into(),
        }
    }

    /// The app's system user is ready, with its own tokens.
    pub fn user_ready(&self) -> Event {
        let token = |what: &str| Token::new(digits(&format!("{what} of {}", self.member_id), OAUTH_DIGITS));
        Event::UserReady {
            user_id: SYSTEM_USER_ID,
            access_token: token("system access_token"),
            refresh_token: token("system refresh_token"),
        }
    }

    /// The `auth` object with these fields, in this order; each event has its own.
    fn auth(&self, names: &[&'static str], domain: &str, at_s: u64) -> Fields {
        let mut auth = Fields::default();
        for &name in names.iter().filter(|name| self.linked || !ONLY_LINKED.contains(name)) {
            auth = match name {
                "domain" => auth.text(name, domain),
                "server_endpoint" => auth.text(name, &server_endpoint()),
                "client_endpoint" => auth.text(name, &self.client_endpoint()),
                "member_id" => auth.text(name, &self.member_id),
                "application_token" => auth.text(name, self.application_token.reveal()),
                "access_token" => auth.text(name, self.access_token.reveal()),
                "refresh_token" => auth.text(name, self.refresh_token.reveal()),
                "expires" => auth.text(name, &(at_s + EXPIRES_IN_S).to_string()),
                "expires_in" => auth.text(name, &EXPIRES_IN_S.to_string()),
                "scope" => auth.text(name, &self.scope),
                "status" => auth.text(name, &self.status),
                "user_id" => auth.text(name, &self.user_id.to_string()),
                _ => unreachable!("the tables of events name only these"),
            };
        }
        auth
    }

    fn client_endpoint(&self) -> String {
        format!("https://{}/rest/", self.domain)
    }
}

/// These come together, and only if a user caused the event.
const ONLY_LINKED: [&str; 7] = ["access_token", "refresh_token", "expires", "expires_in", "scope", "status", "user_id"];

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Form | Self::PlainForm => FORM,
            Self::Json => JSON,
        }
    }
}

fn server_endpoint() -> String {
    format!("https://{AUTHORISATION_SERVER}/rest/")
}

/// A token that a log does not show, even when the simulated portal has a real one.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[token]")
    }
}

/// The time of this machine, in seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Hex digits that cannot be guessed, but are the same in every run.
pub(crate) fn digits(seed: &str, length: usize) -> String {
    let mut text = String::with_capacity(length + 64);
    let mut block = Sha256::digest(seed);
    while text.len() < length {
        for byte in block {
            write!(text, "{byte:02x}").expect("a String takes all");
        }
        block = Sha256::digest(block);
    }
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_can_be_played_again_by_its_member_id() {
        let portal = Portal::random();
        let again = Portal::of(portal.member_id.clone());
        assert!(portal.application_token == again.application_token && portal.access_token == again.access_token);
        assert!(portal.access_token != portal.refresh_token);
        assert_eq!(portal.access_token.reveal().len(), 70);
        assert_ne!(Portal::nth("a", 0).member_id, Portal::nth("a", 1).member_id);
        assert_ne!(Portal::nth("a", 0).member_id, Portal::nth("b", 0).member_id);
    }

    #[test]
    fn a_portal_does_not_show_its_tokens() {
        let portal = Portal::random();
        let shown = format!("{portal:?}");
        assert!(!shown.contains(portal.application_token.reveal()) && !shown.contains(portal.access_token.reveal()));
    }
}
