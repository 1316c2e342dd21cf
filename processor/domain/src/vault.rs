//! What the vault has of an installation: whose tokens, and since when. The tokens themselves are sealed elsewhere.

use std::fmt;
use std::time::Duration;

use bitrix24::Installation;
use primitives::secret::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::trust::Verdict;
use crate::{Event, InstallationState, Stamp};

/// Robots and pages bring a pair with each call. One of each period is enough: sealing costs, and the log remembers it.
const PERIOD: Duration = Duration::from_secs(30 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VaultKind {
    /// The `application_token`, which is the same in every event of a principal.
    ApplicationToken,
    /// An access token and its refresh token, both of one event.
    Tokens,
}

impl VaultKind {
    pub const ALL: [Self; 2] = [Self::ApplicationToken, Self::Tokens];

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether every event of a principal has the same one.
    pub fn is_fixed(self) -> bool {
        self == Self::ApplicationToken
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::ApplicationToken => "application_token",
            Self::Tokens => "tokens",
        }
    }
}

/// Shown as the key of a record of `vault`: `{app}/{member_id}/{kind}/{principal}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultKey {
    pub installation: Installation,
    pub kind: VaultKind,
    pub principal: Fingerprint,
}

impl VaultKey {
    pub fn parse(key: &str) -> Option<Self> {
        let parts: Vec<&str> = key.split('/').collect();
        let [app, member_id, kind, principal] = parts[..] else { return None };
        let installation = Installation::parse(app, member_id)?;
        Some(Self { installation, kind: VaultKind::parse(kind)?, principal: Fingerprint::parse(principal)? })
    }
}

impl fmt::Display for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.installation, self.kind.name(), self.principal)
    }
}

/// What is known of an entry of the vault without opening it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultEntry {
    /// Of the event that has the secret.
    pub stamp: Stamp,
    /// The event was an install, an update or another one with a fact of its own, not a call or an event that is only
    /// passed on.
    pub is_lifecycle: bool,
    /// The id of the public key that it is sealed to.
    pub key: String,
}

impl VaultEntry {
    /// Whether this pair is newer. A total order, so that any order and number of events gives the same pair: the later
    /// period; within a period lifecycle events before others; of lifecycle events the last, of others the first.
    pub fn is_newer(&self, known: &Self) -> bool {
        let period = |entry: &Self| entry.stamp.occurred_at.s() / PERIOD.as_secs();
        let same_kind = || if self.is_lifecycle { self.stamp.cmp(&known.stamp) } else { known.stamp.cmp(&self.stamp) };
        let rank = |entry: &Self| (period(entry), entry.is_lifecycle);
        rank(self).cmp(&rank(known)).then_with(same_kind).is_gt()
    }
}

impl InstallationState {
    /// What the vault takes from an event of a trusted principal. `keys` are the ids of the keys that are at hand; the
    /// first one seals.
    pub fn vault_takes(&self, event: &Event, keys: &[String]) -> Vec<(VaultKey, VaultEntry)> {
        let Some(key) = keys.first() else { return Vec::new() };
        let known = |kind| self.vault.get(&(event.principal, kind));
        // What was sealed to a key that is gone is sealed again with the next event that has it.
        let can_open = |known: &VaultEntry| keys.contains(&known.key);
        let new = || VaultEntry { stamp: event.stamp, is_lifecycle: event.kind.is_some(), key: key.clone() };
        let takes_token = !known(VaultKind::ApplicationToken).is_some_and(can_open);
        let takes_pair =
            event.has_tokens && known(VaultKind::Tokens).is_none_or(|known| !can_open(known) || new().is_newer(known));
        let taken = [(takes_token, VaultKind::ApplicationToken), (takes_pair, VaultKind::Tokens)];
        let taken = taken.into_iter().filter(|(takes, _)| *takes);
        taken.map(|(_, kind)| (self::key(&event.installation, event.principal, kind), new())).collect()
    }

    /// What the vault has of principals that are not trusted.
    pub fn vault_surplus(&self, installation: &Installation, verdict: &Verdict) -> Vec<VaultKey> {
        let surplus = self.vault.keys().filter(|(principal, _)| !verdict.trusts(*principal));
        surplus.map(|(principal, kind)| key(installation, *principal, *kind)).collect()
    }

    pub fn has_uninstalled_since(&self, principal: Fingerprint, stamp: Stamp) -> bool {
        let known = self.principals.get(&principal);
        known.and_then(|known| known.claims.last_uninstall).is_some_and(|uninstall| uninstall > stamp)
    }

    /// The newest pair of the trusted principals, or else the newest `application_token`, and whose it is.
    pub fn vault_newest(&self, verdict: &Verdict) -> Option<Fingerprint> {
        let of = |wanted| {
            let kept = self.vault.iter().filter(|((principal, kind), _)| *kind == wanted && verdict.trusts(*principal));
            kept.reduce(|newest, other| if other.1.is_newer(newest.1) { other } else { newest })
        };
        let newest = of(VaultKind::Tokens).or_else(|| of(VaultKind::ApplicationToken));
        newest.map(|((principal, _), _)| *principal)
    }
}

fn key(installation: &Installation, principal: Fingerprint, kind: VaultKind) -> VaultKey {
    VaultKey { installation: installation.clone(), kind, principal }
}

#[cfg(test)]
mod tests;
