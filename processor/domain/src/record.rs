//! Records: what subscribers and callers see of an installation.

use bitrix24::Installation;
use bitrix24::Trust;
use event_log::EventId;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::claims::{Profile, Status};
use super::endpoint::EndpointHosts;
use super::fact::Method;
use super::installation::InstallationState;
use super::permission::{CONSENT, Decision};
use super::stamp::{Latest, Place};
use super::trust::Trusted;

/// Whether the app is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordStatus {
    /// It is.
    Installed,
    /// It is not any more.
    Uninstalled,
    /// Events came, but from no trusted principal.
    Untrusted,
}

impl RecordStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Installed, Self::Uninstalled, Self::Untrusted];

    /// As records and filters say it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Uninstalled => "uninstalled",
            Self::Untrusted => "untrusted",
        }
    }
}

/// The installation record. What is not known is `null`, never guessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallationRecord {
    /// Which installation.
    #[serde(flatten)]
    pub installation: Installation,
    /// Installed or not.
    pub status: RecordStatus,
    /// Only where uninstalled: whether the portal asked that its data be removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cleaned: Option<bool>,
    /// Since when the status is what it is.
    pub since: Option<Timestamp>,
    /// How the portal describes itself.
    #[serde(flatten)]
    pub profile: Profile,
    /// The trusted principal and the basis of the trust.
    pub trusted: Option<Trusted>,
    /// The newest fact of that principal.
    pub last_fact: Option<LastFactRecord>,
    /// The place of that fact in `raw`.
    pub position: Option<Place>,
}

/// The newest fact, as the record names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFactRecord {
    /// Its type.
    #[serde(rename = "type")]
    pub name: String,
    /// The event's id.
    pub id: EventId,
    /// When it became true.
    pub at: Timestamp,
}

/// The method-permission record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionRecord {
    /// The method, in lower case.
    pub method: Method,
    /// The token, by its fingerprint.
    pub token: Fingerprint,
    /// Yes or no.
    pub decision: Decision,
    /// When an administrator decided.
    pub decided_at: Timestamp,
    /// When the token is certainly dead, and with it the decision.
    pub expires_at: Timestamp,
}

impl PermissionRecord {
    /// The record of a decision.
    pub fn of((method, token): &(Method, Fingerprint), latest: &Latest<Decision>) -> Self {
        Self {
            method: method.clone(),
            token: *token,
            decision: latest.value,
            decided_at: latest.since.occurred_at,
            expires_at: latest.since.occurred_at.plus(CONSENT),
        }
    }
}

/// By what rules a record is made: settings.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// On what basis a principal is trusted.
    pub trust: Trust,
    /// Hosts that endpoints may have besides the portal's own and Bitrix24's.
    pub endpoint_hosts: &'a EndpointHosts,
}

impl From<Trust> for Rules<'static> {
    fn from(trust: Trust) -> Self {
        Self { trust, endpoint_hosts: EndpointHosts::NONE }
    }
}

impl InstallationState {
    /// The installation record.
    pub fn record<'a>(
        &self,
        installation: &Installation,
        partition: u32,
        rules: impl Into<Rules<'a>>,
    ) -> InstallationRecord {
        let Rules { trust, endpoint_hosts } = rules.into();
        self.record_by(self.trusted(trust), installation, partition, endpoint_hosts)
    }

    /// The installation record by the word of this principal.
    pub fn record_by(
        &self,
        trusted: Option<Trusted>,
        installation: &Installation,
        partition: u32,
        endpoint_hosts: &EndpointHosts,
    ) -> InstallationRecord {
        let claims =
            trusted.and_then(|trusted| self.principals.get(&trusted.principal)).map(|principal| &principal.claims);
        let status = claims.and_then(|claims| claims.status.as_ref());
        let last_fact = claims.and_then(|claims| claims.last_fact.as_ref());
        let mut profile = claims.map_or_else(Profile::default, |claims| claims.profile());
        endpoint_hosts.judge(&mut profile);
        InstallationRecord {
            installation: installation.clone(),
            status: self.status_by(trusted.map(|trusted| trusted.principal)),
            cleaned: match status.map(|status| status.value) {
                Some(Status::Uninstalled { clean }) => Some(clean),
                Some(Status::Installed) | None => None,
            },
            since: status.map(|status| status.since.occurred_at),
            profile,
            trusted,
            last_fact: last_fact.map(|last| LastFactRecord {
                name: last.name.clone(),
                id: last.stamp.id,
                at: last.stamp.occurred_at,
            }),
            position: last_fact.map(|last| Place { partition, offset: last.offset }),
        }
    }

    /// The method-permission records, by method and token.
    pub fn permissions(&self, trust: Trust) -> Vec<PermissionRecord> {
        self.permissions_by(self.trusted(trust).map(|trusted| trusted.principal))
    }

    /// The method-permission records by the word of this principal, by method and token.
    pub fn permissions_by(&self, principal: Option<Fingerprint>) -> Vec<PermissionRecord> {
        let Some(known) = principal.and_then(|principal| self.principals.get(&principal)) else {
            return Vec::new();
        };
        known.decisions.by_key().iter().map(|(key, latest)| PermissionRecord::of(key, latest)).collect()
    }
}
