//! Facts: what one raw event means, typed, without secrets; and their form in the topic `facts`.

use std::fmt;

use bitrix24::Installation;
use event_log::EventId;
use event_log::contract::NOOP;
use primitives::secret::Fingerprint;
use serde::{Deserialize, Serialize};

use super::claims::Profile;
use super::permission::Decision;
use super::stamp::{Place, Stamp};

/// A REST method's name, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Method(String);

impl Method {
    /// Takes what looks like `voximplant.user.get`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        ((1..=128).contains(&text.len()) && text.bytes().all(good)).then(|| Self(text.to_ascii_lowercase()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one raw event means for an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Which installation.
    #[serde(flatten)]
    pub installation: Installation,
    /// When, and by which event.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The principal that reported it.
    pub principal: Fingerprint,
    /// Where the raw event lies.
    pub raw: Place,
    /// Which reading of the raw event this is.
    #[serde(flatten)]
    pub revision: Revision,
    /// What.
    #[serde(flatten)]
    pub kind: FactKind,
}

/// Raised when the same raw event would now be read for another fact.
pub const INTERPRETATION: u32 = 2;

/// Which reading of a raw event a fact is: of two facts with one key, the later reading holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision {
    /// The version of the interpretation.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub interpretation: u32,
    /// How often a fact of this interpretation was put right.
    #[serde(default, skip_serializing_if = "is_never")]
    pub correction: u32,
}

impl Default for Revision {
    /// What is read today.
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
    /// Whether this one holds where both have the same key. A total order, so that it is the same one for everybody,
    /// in whatever order they come.
    pub fn replaces(&self, known: &Self) -> bool {
        let text = |fact: &Self| serde_json::to_string(fact).expect("our own types have a JSON form");
        self.revision.cmp(&known.revision).then_with(|| text(self).cmp(&text(known))).is_gt()
    }
}

/// What can happen, in the past tense, a sentence each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum FactKind {
    /// The app was installed, or installed again.
    #[serde(rename = "ONAPPINSTALL")]
    Installed {
        /// Whether the installation is finished and the app active; older portals could say that it is not.
        complete: bool,
        /// How the portal describes itself.
        profile: Profile,
    },
    /// The app was updated.
    #[serde(rename = "ONAPPUPDATE")]
    Updated {
        /// The version before.
        previous_version: Option<String>,
        /// How the portal describes itself.
        profile: Profile,
    },
    /// The app was removed from the portal.
    #[serde(rename = "ONAPPUNINSTALL")]
    Uninstalled {
        /// Whether the portal asked that the app's data be removed.
        clean: bool,
        /// How the portal describes itself.
        profile: Profile,
    },
    /// The app was paid for.
    #[serde(rename = "ONAPPPAYMENT")]
    Paid {
        /// The app's code in the market.
        code: Option<String>,
        /// Days until the period ends, if it does.
        days: Option<i64>,
        /// Whether the period had ended.
        expired: Option<bool>,
        /// How the portal describes itself.
        profile: Profile,
    },
    /// An administrator decided whether the holder of a token may call a method.
    #[serde(rename = "ONAPPMETHODCONFIRM")]
    MethodDecided {
        /// Which method.
        method: Method,
        /// Which token, by its fingerprint.
        token: Fingerprint,
        /// Yes or no.
        decision: Decision,
        /// How the portal describes itself.
        profile: Profile,
    },
    /// The app's system user was made or reactivated.
    #[serde(rename = "ONAPPUSERREADY")]
    UserReady {
        /// The system user's id.
        user_id: Option<String>,
        /// The app's own id.
        client_id: Option<String>,
        /// How the portal describes itself.
        profile: Profile,
    },
    /// Somebody spoke for the first time, about anything: kept only where an app trusts the first principal that
    /// speaks.
    #[serde(rename = "com.hookledger.spoke")]
    Spoke,
}

impl FactKind {
    /// The name in `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Installed { .. } => "ONAPPINSTALL",
            Self::Updated { .. } => "ONAPPUPDATE",
            Self::Uninstalled { .. } => "ONAPPUNINSTALL",
            Self::Paid { .. } => "ONAPPPAYMENT",
            Self::MethodDecided { .. } => "ONAPPMETHODCONFIRM",
            Self::UserReady { .. } => "ONAPPUSERREADY",
            Self::Spoke => "com.hookledger.spoke",
        }
    }

    /// Whether a principal came or went: what decides which principal is trusted. An install that is not finished is
    /// none.
    pub fn is_turn(&self) -> bool {
        match self {
            Self::Installed { complete, .. } => *complete,
            Self::Uninstalled { .. } => true,
            Self::Updated { .. }
            | Self::Paid { .. }
            | Self::MethodDecided { .. }
            | Self::UserReady { .. }
            | Self::Spoke => false,
        }
    }

    /// How the portal described itself.
    pub fn profile(&self) -> Option<&Profile> {
        match self {
            Self::Installed { profile, .. }
            | Self::Updated { profile, .. }
            | Self::Uninstalled { profile, .. }
            | Self::Paid { profile, .. }
            | Self::MethodDecided { profile, .. }
            | Self::UserReady { profile, .. } => Some(profile),
            Self::Spoke => None,
        }
    }
}

/// An event that went to `unverified`, and goes to `events` should its principal become trusted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldEvent {
    /// Which installation.
    pub installation: Installation,
    /// The event's id.
    pub id: EventId,
    /// The principal that sent it.
    pub principal: Fingerprint,
    /// Where in `raw` it lies.
    pub offset: u64,
}

/// What `facts` hold of a held event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldDetails {
    /// Where it lies.
    pub raw: Place,
    /// How much it takes to show it.
    #[serde(default)]
    pub bytes: u32,
    /// Its fact, if it has one: it counts once its principal is trusted, also when `raw` no longer has the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fact: Option<Box<Fact>>,
}

/// One change to what we understood: what a record of `facts` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A fact was added.
    Fact(Box<Fact>),
    /// An event is held until its principal is trusted.
    Held(HeldEvent, HeldDetails),
    /// An event is no longer held.
    NoLongerHeld(HeldEvent),
}

impl Change {
    /// Which installation it is about.
    pub fn installation(&self) -> &Installation {
        match self {
            Self::Fact(fact) => &fact.installation,
            Self::Held(held, _) | Self::NoLongerHeld(held) => &held.installation,
        }
    }
}

/// The key of a record of `facts`. Unique, so that compaction removes nothing until something is erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactKey {
    /// `{app}/{member_id}/{id}`
    Fact(Installation, EventId),
    /// `{app}/{member_id}/{id}/unverified/{principal}/{offset}`: a tombstone needs no value to be understood.
    Held(HeldEvent),
    /// `progress`: how far `raw` of this partition has been read.
    Progress,
    /// `accepted/{id}`: an operator let the partition go on although logs were inconsistent. State depends on it only
    /// where it gives up facts that were deleted.
    Accepted(EventId),
    /// `noop`: a noop record.
    Noop,
}

const PROGRESS: &str = "progress";
const ACCEPTED: &str = "accepted/";

impl FactKey {
    /// Reads a key.
    pub fn parse(key: &str) -> Option<Self> {
        if key == PROGRESS {
            return Some(Self::Progress);
        }
        if key == NOOP {
            return Some(Self::Noop);
        }
        if let Some(id) = key.strip_prefix(ACCEPTED).and_then(|id| EventId::parse_str(id).ok()) {
            return Some(Self::Accepted(id));
        }
        let parts: Vec<&str> = key.split('/').collect();
        let (app, member_id, id) = (parts.first()?, parts.get(1)?, parts.get(2)?);
        let installation = Installation::parse(app, member_id)?;
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
            Self::Progress => f.write_str(PROGRESS),
            Self::Accepted(id) => write!(f, "{ACCEPTED}{id}"),
            Self::Noop => f.write_str(NOOP),
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
            FactKey::Fact(installation, id),
            FactKey::Held(held),
            FactKey::Progress,
            FactKey::Accepted(id),
            FactKey::Noop,
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
