//! Records: the published state of an installation.

use bitrix24::{Installation, Trust};
use event_log::EventId;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::claims::Status;
use crate::permission::consent_ends;
use crate::trust::Trusted;
use crate::{Decision, EndpointHosts, InstallationState, Latest, Method, Place, Profile};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordStatus {
    Installed,
    Uninstalled,
    /// Only events of untrusted principals are known.
    Untrusted,
}

impl RecordStatus {
    pub const ALL: [Self; 3] = [Self::Installed, Self::Uninstalled, Self::Untrusted];

    pub fn label(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Uninstalled => "uninstalled",
            Self::Untrusted => "untrusted",
        }
    }
}

/// The installation record. Unknown values are `null`, never guessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallationRecord {
    #[serde(flatten)]
    pub installation: Installation,
    pub status: RecordStatus,
    /// Whether the portal asked for removal of the app's data; not known while it is installed, and where it did not say.
    #[serde(default)]
    pub cleaned: Option<bool>,
    /// The start of the current status.
    pub since: Option<Timestamp>,
    #[serde(flatten)]
    pub profile: Profile,
    pub trusted: Option<Trusted>,
    /// The newest fact of the trusted principal.
    pub last_fact: Option<LastFactRecord>,
    /// The position of that fact in `raw`.
    pub position: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFactRecord {
    #[serde(rename = "type")]
    pub name: String,
    pub id: EventId,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionRecord {
    pub method: Method,
    pub token: Fingerprint,
    pub decision: Decision,
    pub decided_at: Timestamp,
    /// The latest possible expiry of the token, and with it of the decision.
    pub expires_at: Timestamp,
}

impl PermissionRecord {
    pub fn of((method, token): &(Method, Fingerprint), latest: &Latest<Decision>) -> Self {
        Self {
            method: method.clone(),
            token: *token,
            decision: latest.value,
            decided_at: latest.since.occurred_at,
            expires_at: consent_ends(latest.since),
        }
    }
}

/// The settings that decide what a record shows.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub trust: Trust,
    pub endpoint_hosts: &'a EndpointHosts,
}

impl From<Trust> for Rules<'static> {
    fn from(trust: Trust) -> Self {
        Self { trust, endpoint_hosts: EndpointHosts::NONE }
    }
}

impl InstallationState {
    pub fn record<'a>(
        &self,
        installation: &Installation,
        partition: u32,
        rules: impl Into<Rules<'a>>,
    ) -> InstallationRecord {
        let Rules { trust, endpoint_hosts } = rules.into();
        self.record_by(self.trusted(trust), installation, partition, endpoint_hosts)
    }

    pub(crate) fn record_by(
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
                Some(Status::Uninstalled { clean }) => clean,
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

    /// By method and token.
    pub fn permissions(&self, trust: Trust) -> Vec<PermissionRecord> {
        self.permissions_by(self.trusted(trust).map(|trusted| trusted.principal))
    }

    pub(crate) fn permissions_by(&self, principal: Option<Fingerprint>) -> Vec<PermissionRecord> {
        let Some(known) = principal.and_then(|principal| self.principals.get(&principal)) else {
            return Vec::new();
        };
        known.decisions.by_key().iter().map(|(key, latest)| PermissionRecord::of(key, latest)).collect()
    }
}
