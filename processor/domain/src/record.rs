//! Records: the published state of an installation.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use bitrix24::{Installation, Trust};
use event_log::EventId;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::claims::{Description, Status};
use crate::permission::consent_ends;
use crate::trust::{Trusted, Verdict};
use crate::{Decision, EndpointHosts, InstallationState, Latest, Method, Position, Profile};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordStatus {
    Installed,
    Uninstalled,
    /// A trusted principal is known, and no install of it.
    Trusted,
    /// Only events of untrusted principals are known.
    Untrusted,
}

impl RecordStatus {
    pub const ALL: [Self; 4] = [Self::Installed, Self::Uninstalled, Self::Trusted, Self::Untrusted];

    pub fn label(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Uninstalled => "uninstalled",
            Self::Trusted => "trusted",
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
    pub trusted: Vec<Trusted>,
    /// More than one principal claims to be the portal's, and no attestation decided.
    #[serde(skip_serializing_if = "is_false", default)]
    pub contested: bool,
    /// When a trusted principal was last heard of, to the day.
    pub last_heard_at: Option<Timestamp>,
    /// The newest fact of the trusted principals.
    pub last_fact: Option<LastFactRecord>,
    /// The position of that fact in `raw`.
    pub position: Option<Position>,
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
        self.record_by(self.verdict(trust), installation, partition, endpoint_hosts)
    }

    pub(crate) fn record_by(
        &self,
        verdict: Verdict,
        installation: &Installation,
        partition: u32,
        endpoint_hosts: &EndpointHosts,
    ) -> InstallationRecord {
        let claims = || self.trusted(&verdict).map(|known| &known.claims);
        let status = self.status_by(&verdict);
        let is_installed = status == RecordStatus::Installed;
        let last_words = claims().filter(|claims| claims.says_installed() == is_installed);
        let last_word = last_words.filter_map(|claims| claims.status.as_ref()).max_by_key(|status| status.since);
        let last_fact = claims().filter_map(|claims| claims.last_fact.as_ref()).max_by_key(|last| last.offset);
        let last_heard_at = claims().filter_map(|claims| claims.last_fact.as_ref()).map(|last| last.stamp.received_at);
        let mut profile = self.description_by(&verdict).profile();
        endpoint_hosts.judge(&mut profile);
        InstallationRecord {
            installation: installation.clone(),
            status,
            cleaned: match last_word.map(|status| status.value) {
                Some(Status::Uninstalled { clean }) => clean,
                Some(Status::Installed) | None => None,
            },
            since: last_word.map(|status| status.since.occurred_at),
            profile,
            contested: verdict.contested,
            last_heard_at: last_heard_at.max().max(self.heard_at.filter(|_| !verdict.trusted.is_empty())),
            last_fact: last_fact.map(|last| LastFactRecord {
                name: last.name.clone(),
                id: last.stamp.id,
                at: last.stamp.occurred_at,
            }),
            position: last_fact.map(|last| Position { partition, offset: last.offset }),
            trusted: verdict.trusted,
        }
    }

    /// What the trusted principals say about the portal.
    pub(crate) fn description_by(&self, verdict: &Verdict) -> Cow<'_, Description> {
        let mut descriptions = verdict
            .trusted
            .iter()
            .filter_map(|trusted| self.principals.get(&trusted.principal))
            .map(|known| &known.claims.description);
        let Some(first) = descriptions.next() else { return Cow::Owned(Description::default()) };
        descriptions.fold(Cow::Borrowed(first), |mut all, description| {
            all.to_mut().merge(description);
            all
        })
    }

    /// By method and token.
    pub fn permissions(&self, trust: Trust) -> Vec<PermissionRecord> {
        self.permissions_by(&self.verdict(trust))
    }

    pub(crate) fn permissions_by(&self, verdict: &Verdict) -> Vec<PermissionRecord> {
        self.decisions_by(verdict, None, usize::MAX)
    }

    /// The decisions of trusted principals behind a method and token, in their order; of each method and token the
    /// newest.
    pub fn decisions_by(
        &self,
        verdict: &Verdict,
        after: Option<&(Method, Fingerprint)>,
        most: usize,
    ) -> Vec<PermissionRecord> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut newest: BTreeMap<&(Method, Fingerprint), &Latest<Decision>> = BTreeMap::new();
        for known in self.trusted(verdict) {
            for (key, latest) in known.decisions.by_key().range((behind, Bound::Unbounded)).take(most) {
                let known = newest.entry(key).or_insert(latest);
                if known.since < latest.since {
                    *known = latest;
                }
            }
        }
        newest.into_iter().take(most).map(|(key, latest)| PermissionRecord::of(key, latest)).collect()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}
