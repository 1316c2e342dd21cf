//! Facts: the typed meaning of a raw event, without secrets; and their form in the topic `facts`.

use std::fmt;

use bitrix24::Installation;
use event_log::EventId;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Attestation, Decision, Position, Profile, Stamp, VaultEntry, VaultKey, VaultKind};

/// A REST method's name, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Method(String);

impl Method {
    /// Accepts names such as `voximplant.user.get`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        ((1..=128).contains(&text.len()) && text.bytes().all(good)).then(|| Self(text.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    #[serde(flatten)]
    pub installation: Installation,
    #[serde(flatten)]
    pub stamp: Stamp,
    pub principal: Fingerprint,
    pub raw: Position,
    #[serde(flatten)]
    pub revision: Revision,
    #[serde(flatten)]
    pub kind: FactKind,
}

/// Raised when the same raw event would now be interpreted as another fact.
pub const INTERPRETATION: u32 = 3;

/// The interpretation that a fact is based on: of two facts with one key, the higher revision wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision {
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub interpretation: u32,
    /// Number of corrections within one interpretation.
    #[serde(default, skip_serializing_if = "is_never")]
    pub correction: u32,
}

impl Default for Revision {
    fn default() -> Self {
        Self { interpretation: INTERPRETATION, correction: 0 }
    }
}

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_first(interpretation: &u32) -> bool {
    *interpretation == first()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_never(correction: &u32) -> bool {
    *correction == 0
}

impl Fact {
    /// Whether this one wins where both have the same key. A total order, so every reader in any order of arrival
    /// chooses the same one.
    pub fn replaces(&self, known: &Self) -> bool {
        let text = |fact: &Self| serde_json::to_string(fact).expect("our own types have a JSON form");
        self.revision.cmp(&known.revision).then_with(|| text(self).cmp(&text(known))).is_gt()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum FactKind {
    #[serde(rename = "ONAPPINSTALL")]
    Installed {
        /// Whether the installation is finished and the app active; older portals may report that it is not.
        complete: bool,
        profile: Profile,
    },
    #[serde(rename = "ONAPPUPDATE")]
    Updated { previous_version: Option<String>, profile: Profile },
    #[serde(rename = "ONAPPUNINSTALL")]
    Uninstalled {
        /// Whether the portal asked for removal of the app's data, if it said so.
        clean: Option<bool>,
        profile: Profile,
    },
    #[serde(rename = "ONAPPPAYMENT")]
    Paid {
        code: Option<String>,
        /// Days until the period ends.
        days: Option<i64>,
        expired: Option<bool>,
        profile: Profile,
    },
    /// An administrator decided whether the holder of a token may call a method.
    #[serde(rename = "ONAPPMETHODCONFIRM")]
    MethodDecided { method: Method, token: Fingerprint, decision: Decision, profile: Profile },
    #[serde(rename = "ONAPPUSERREADY")]
    UserReady { user_id: Option<String>, client_id: Option<String>, profile: Profile },
    /// What an event without a fact of its own says about the portal: of a trusted principal if it is news, and of any
    /// principal if it is the first.
    #[serde(rename = "com.hookledger.described")]
    Described { profile: Profile },
    #[serde(rename = "com.hookledger.attested")]
    Attested {
        attestation: Attestation,
        /// The app was installed then, by the imported list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        installed_at: Option<Timestamp>,
        profile: Profile,
    },
}

impl FactKind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Installed { .. } => "ONAPPINSTALL",
            Self::Updated { .. } => "ONAPPUPDATE",
            Self::Uninstalled { .. } => "ONAPPUNINSTALL",
            Self::Paid { .. } => "ONAPPPAYMENT",
            Self::MethodDecided { .. } => "ONAPPMETHODCONFIRM",
            Self::UserReady { .. } => "ONAPPUSERREADY",
            Self::Described { .. } => "com.hookledger.described",
            Self::Attested { .. } => "com.hookledger.attested",
        }
    }

    /// Whether the fact is an install or uninstall, which decide the trusted principal. An unfinished install is not.
    pub(crate) fn is_turn(&self) -> bool {
        match self {
            Self::Installed { complete, .. } => *complete,
            Self::Uninstalled { .. } => true,
            Self::Updated { .. }
            | Self::Paid { .. }
            | Self::MethodDecided { .. }
            | Self::UserReady { .. }
            | Self::Described { .. }
            | Self::Attested { .. } => false,
        }
    }

    pub fn profile(&self) -> Option<&Profile> {
        match self {
            Self::Installed { profile, .. }
            | Self::Updated { profile, .. }
            | Self::Uninstalled { profile, .. }
            | Self::Paid { profile, .. }
            | Self::MethodDecided { profile, .. }
            | Self::UserReady { profile, .. }
            | Self::Described { profile }
            | Self::Attested { profile, .. } => Some(profile),
        }
    }
}

/// An event in `unverified`, which is released to `events` if its principal becomes trusted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldEvent {
    pub installation: Installation,
    pub id: EventId,
    pub principal: Fingerprint,
    /// In `raw`.
    pub offset: u64,
}

/// The record value of a held event in `facts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldDetails {
    pub raw: Position,
    /// Size of the published event.
    #[serde(default)]
    pub bytes: u32,
    /// The fact of the event. It takes effect once the principal is trusted, even if `raw` no longer has the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fact: Option<Box<Fact>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Fact(Box<Fact>),
    Held(HeldEvent, HeldDetails),
    NoLongerHeld(HeldEvent),
    /// A trusted principal of the installation was heard of.
    Heard(Installation, Timestamp),
    /// The vault got an entry, or lost it.
    Vault(VaultKey, Option<VaultEntry>),
}

impl Change {
    pub fn installation(&self) -> &Installation {
        match self {
            Self::Fact(fact) => &fact.installation,
            Self::Held(held, _) | Self::NoLongerHeld(held) => &held.installation,
            Self::Heard(installation, _) => installation,
            Self::Vault(key, _) => &key.installation,
        }
    }
}

/// The key of a record of `facts`. Unique, so compaction removes only erased records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactKey {
    /// `{app}/{member_id}/{id}`
    Fact(Installation, EventId),
    /// `{app}/{member_id}/{id}/unverified/{principal}/{offset}`: a tombstone needs no value to be parsed.
    Held(HeldEvent),
    /// `{app}/{member_id}/heard`
    Heard(Installation),
    /// `{app}/{member_id}/vault/{kind}/{principal}`
    Vault(VaultKey),
    /// `progress`: the next offset of `raw` in this partition.
    Progress,
    /// `accepted/{id}`: an operator accepted an inconsistency. State depends on it only where it gives up deleted
    /// facts.
    Accepted(EventId),
}

const PROGRESS: &str = "progress";
const ACCEPTED: &str = "accepted/";
const HEARD: &str = "heard";
const VAULT: &str = "vault";

impl FactKey {
    pub fn parse(key: &str) -> Option<Self> {
        if key == PROGRESS {
            return Some(Self::Progress);
        }
        if let Some(id) = key.strip_prefix(ACCEPTED).and_then(|id| EventId::parse_str(id).ok()) {
            return Some(Self::Accepted(id));
        }
        let parts: Vec<&str> = key.split('/').collect();
        let (app, member_id, id) = (parts.first()?, parts.get(1)?, parts.get(2)?);
        let installation = Installation::parse(app, member_id)?;
        if *id == HEARD && parts.len() == 3 {
            return Some(Self::Heard(installation));
        }
        if let [VAULT, kind, principal] = parts[2..] {
            let (kind, principal) = (VaultKind::parse(kind)?, Fingerprint::parse(principal)?);
            return Some(Self::Vault(VaultKey { installation, kind, principal }));
        }
        let id = EventId::parse_str(id).ok()?;
        match parts[3..] {
            [] => Some(Self::Fact(installation, id)),
            ["unverified", principal, offset] => {
                let principal = Fingerprint::parse(principal)?;
                let offset = offset.parse().ok()?;
                Some(Self::Held(HeldEvent { installation, id, principal, offset }))
            }
            _ => None,
        }
    }
}

impl fmt::Display for FactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fact(installation, id) => write!(f, "{installation}/{id}"),
            Self::Held(HeldEvent { installation, id, principal, offset }) => {
                write!(f, "{installation}/{id}/unverified/{principal}/{offset}")
            }
            Self::Heard(installation) => write!(f, "{installation}/{HEARD}"),
            Self::Vault(VaultKey { installation, kind, principal }) => {
                write!(f, "{installation}/{VAULT}/{}/{principal}", kind.name())
            }
            Self::Progress => f.write_str(PROGRESS),
            Self::Accepted(id) => write!(f, "{ACCEPTED}{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let installation = Installation::parse("crm-sync", "a223").expect("valid");
        let (id, principal) = (EventId::nil(), Fingerprint::of("t"));
        let held = HeldEvent { installation: installation.clone(), id, principal, offset: 7 };
        let keys = [
            FactKey::Fact(installation.clone(), id),
            FactKey::Held(held),
            FactKey::Heard(installation.clone()),
            FactKey::Vault(VaultKey { installation, kind: VaultKind::Tokens, principal }),
            FactKey::Progress,
            FactKey::Accepted(id),
        ];
        for key in keys {
            assert_eq!(FactKey::parse(&key.to_string()), Some(key));
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        for key in ["", "a", "a/b", "a/b/c", "a/b/00000000-0000-0000-0000-000000000000/x", "progress/1"] {
            assert_eq!(FactKey::parse(key), None, "{key}");
        }
    }
}
