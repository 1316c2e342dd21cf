//! Commands: what an operator says about a principal, as an event of `raw` that no webhook can be.

use bitrix24::Installation;
use bitrix24::form::Head;
use bytes::Bytes;
use event_log::RawEvent;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Attestation, Fact, FactKind, Place, Profile, Reason, Revision, Stamp, endpoint};

/// The type of the event in `raw`, behind `com.hookledger.`.
const ATTEST: &str = "attest";

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
    /// What is wrong with the values of a command.
    pub fn check(&self) -> Result<(), &'static str> {
        let is_text = |text: &String| (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
        if self.domain.as_ref().is_some_and(|domain| !is_text(domain) || !endpoint::is_address(domain)) {
            return Err("`domain` is no host name");
        }
        if self.version.as_ref().is_some_and(|version| !is_text(version)) {
            return Err("`version` is no short text");
        }
        Ok(())
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
pub fn interpret_command(raw: &RawEvent, place: Place) -> Result<Fact, Reason> {
    let member_id = raw.member_id.clone().ok_or(Reason::NoMember)?;
    if raw.kind.as_deref() != Some(ATTEST) {
        return Err(Reason::BadValue);
    }
    let attest: Attest = serde_json::from_slice(&raw.body).map_err(|_| Reason::BadValue)?;
    attest.check().map_err(|_| Reason::BadValue)?;
    let Attest { principal, attestation, domain, version, installed_at } = attest;
    let profile = Profile { domain: domain.map(|domain| domain.to_lowercase()), version, ..Profile::default() };
    let stamp = Stamp::new(None, raw.received_at, raw.id);
    // Nobody claims the future.
    let installed_at = installed_at.map(|at| at.min(raw.received_at));
    Ok(Fact {
        installation: Installation { app: raw.app.clone(), member_id },
        stamp,
        principal,
        raw: place,
        revision: Revision::default(),
        kind: FactKind::Attested { attestation, installed_at, profile },
    })
}
