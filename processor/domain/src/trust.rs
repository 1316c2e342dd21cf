//! Which principals are trusted. Computed on request, never stored.

use std::collections::{BTreeMap, BTreeSet};

use bitrix24::Trust;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Principal;

/// A decision about a principal that does not depend on what it reports. Of several about one principal the newest
/// holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attestation {
    /// By Bitrix24's authorisation server: the principal's access token belongs to this portal and this app.
    Vouched,
    /// The principal is in an imported list of installations.
    Imported,
    /// By an operator.
    Operator,
    /// By an operator: the principal is not to be trusted.
    Revoked,
}

impl Attestation {
    pub fn label(self) -> &'static str {
        match self {
            Self::Vouched => "vouched",
            Self::Imported => "imported",
            Self::Operator => "operator",
            Self::Revoked => "revoked",
        }
    }

    fn basis(self) -> Option<Basis> {
        match self {
            Self::Vouched => Some(Basis::Vouched),
            Self::Imported => Some(Basis::Imported),
            Self::Operator => Some(Basis::Operator),
            Self::Revoked => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// It holds the place, and reported an install.
    FirstInstall,
    /// It holds the place; the app trusts the first principal with any event.
    FirstEvent,
    Vouched,
    Imported,
    Operator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// The fingerprint of its token.
    pub principal: Fingerprint,
    pub basis: Basis,
    /// When the event occurred that made it trusted.
    pub since: Timestamp,
}

/// The answer to the question whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// By principal.
    pub trusted: Vec<Trusted>,
    /// More than one principal claims the place, and there is no attestation.
    pub contested: bool,
}

impl Verdict {
    pub fn of(&self, principal: Fingerprint) -> Option<&Trusted> {
        self.trusted.iter().find(|trusted| trusted.principal == principal)
    }

    pub fn trusts(&self, principal: Fingerprint) -> bool {
        self.of(principal).is_some()
    }
}

/// Decides whom to trust: record, topics and every answer about trust follow from this function.
///
/// Attested principals are trusted, all of them, and nobody beside them. Without any, the holder of the place is
/// trusted on first use: once it reported an install, or at once if the app trusts first events.
pub(crate) fn verdict(principals: &BTreeMap<Fingerprint, Principal>, trust: Trust) -> Verdict {
    let attested: Vec<Trusted> = principals
        .iter()
        .filter_map(|(principal, known)| {
            let attestation = known.claims.attestation.as_ref()?;
            let basis = attestation.value.0.basis()?;
            Some(Trusted { principal: *principal, basis, since: attestation.since.occurred_at })
        })
        .collect();
    if !attested.is_empty() || trust == Trust::Known {
        return Verdict { trusted: attested, contested: false };
    }
    let Some(holder) = holder(principals) else { return Verdict::default() };
    let claims = &principals[&holder.principal].claims;
    let on_first_use = match trust {
        Trust::FirstEvent => claims.first_word.map(|(_, at)| (Basis::FirstEvent, at)),
        Trust::FirstInstall => claims.first_install().map(|(_, turn)| (Basis::FirstInstall, turn.when.0)),
        Trust::Known => None,
    };
    let trusted = on_first_use.map(|(basis, first)| Trusted {
        principal: holder.principal,
        basis,
        since: holder.took.map_or(first, |(_, at)| at),
    });
    let is_rival = |(principal, known): (&Fingerprint, &Principal)| {
        *principal != holder.principal && known.is_candidate() && known.claims.says_installed()
    };
    Verdict { trusted: trusted.into_iter().collect(), contested: principals.iter().any(is_rival) }
}

/// The holder of the place that trust on first use gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) principal: Fingerprint,
    /// The install that took the place, by its offset in `raw` and its time; the first holder needs none.
    pub(crate) took: Option<(u64, Timestamp)>,
}

/// The first principal heard of takes the place. If its last word is an uninstall, the place goes to the first, in the
/// log's order, with an install that occurred after it, whichever of the two arrived first; and so on. So a former
/// holder has the place again with its next install.
pub(crate) fn holder(principals: &BTreeMap<Fingerprint, Principal>) -> Option<Holder> {
    let candidates = || principals.iter().filter(|(_, known)| known.is_candidate());
    let first = candidates().filter_map(|(principal, known)| Some((known.first_heard()?, *principal))).min()?;
    let mut holder = Holder { principal: first.1, took: None };
    let mut former = BTreeSet::new();
    while let Some(left) = principals[&holder.principal].claims.left_at() {
        former.insert(holder.principal);
        let install_after = |(principal, known): (&Fingerprint, &Principal)| {
            let (at, turn) = known.claims.turns.iter().find(|(_, turn)| turn.installed && turn.when > left)?;
            (!former.contains(principal)).then_some((at, *principal, turn.when.0))
        };
        let Some((at, principal, when)) = candidates().filter_map(install_after).min() else { break };
        holder = Holder { principal, took: Some((at, when)) };
    }
    Some(holder)
}
