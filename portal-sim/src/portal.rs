//! A simulated portal: its bodies are shaped exactly as Bitrix24 shapes them.
//!
//! Everything about a portal follows from its `member_id`, so that it can be played again: an uninstall sent tomorrow
//! carries the token of an install sent today. Nothing here is a real secret.

use bytes::Bytes;
use uuid::Uuid;

use bitrix24::MemberId;
use primitives::secret::{Fingerprint, Secret};
use primitives::time::Timestamp;

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

#[derive(Clone, Debug)]
pub struct Portal {
    pub member_id: MemberId,
    pub domain: String,
    pub language: String,
    /// Comma-separated.
    pub scope: String,
    pub status: String,
    /// Carried by every event of the app.
    pub application_token: Secret,
    pub access_token: Secret,
    pub refresh_token: Secret,
    pub user_id: u64,
    /// Whether a user caused the events; without one, Bitrix24 sends no OAuth tokens.
    pub linked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As Bitrix24 does: PHP's form fields, brackets encoded.
    Form,
    Json,
}

impl Portal {
    pub fn of(member_id: MemberId) -> Self {
        let digits = |what: &str| Fingerprint::of(&format!("{what} of {member_id}")).to_string();
        Self {
            domain: format!("portal-{}.bitrix24.com", &digits("domain")[..8]),
            language: "en".to_owned(),
            scope: "crm,user".to_owned(),
            status: "F".to_owned(),
            application_token: Secret::new(&digits("application_token")[..32]),
            access_token: token(&digits("access_token")),
            refresh_token: token(&digits("refresh_token")),
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
        let digits = Fingerprint::of(&format!("{seed}/{number}")).to_string();
        Self::of(MemberId::parse(&digits[..32]).expect("32 hex digits are a member_id"))
    }

    pub fn body(&self, event: &Event, at: Timestamp, encoding: Encoding) -> Bytes {
        let fields = event.fields(self, at);
        match encoding {
            Encoding::Form => fields.to_form().into(),
            Encoding::Json => fields.to_json().into(),
        }
    }

    /// The app's system user is ready, with its own tokens.
    pub fn user_ready(&self) -> Event {
        let digits = |what: &str| Fingerprint::of(&format!("{what} of {}", self.member_id)).to_string();
        Event::UserReady {
            user_id: 512,
            access_token: token(&digits("system access_token")),
            refresh_token: token(&digits("system refresh_token")),
        }
    }

    /// The `auth` object with these fields, in this order; each event has its own.
    fn auth(&self, names: &[&'static str], domain: &str, at: Timestamp) -> Fields {
        let mut auth = Fields::default();
        for &name in names.iter().filter(|name| self.linked || !ONLY_LINKED.contains(name)) {
            auth = match name {
                "domain" => auth.text(name, domain),
                "server_endpoint" => auth.text(name, &server_endpoint()),
                "client_endpoint" => auth.text(name, &self.client_endpoint()),
                "member_id" => auth.text(name, self.member_id.as_str()),
                "application_token" => auth.text(name, self.application_token.reveal()),
                "access_token" => auth.text(name, self.access_token.reveal()),
                "refresh_token" => auth.text(name, self.refresh_token.reveal()),
                "expires" => auth.text(name, &(at.s() + EXPIRES_IN_S).to_string()),
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
            Self::Form => FORM,
            Self::Json => JSON,
        }
    }
}

fn server_endpoint() -> String {
    format!("https://{AUTHORISATION_SERVER}/rest/")
}

/// Real OAuth tokens are 70 hex digits.
fn token(digits: &str) -> Secret {
    Secret::new(format!("{digits}{}", &digits[..6]))
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
