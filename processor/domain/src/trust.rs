//! Which principal is trusted. Computed on request, never stored.

use std::collections::BTreeMap;

use bitrix24::Trust;
use primitives::secret::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::Principal;
use crate::claims::Turn;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The first principal in the log that reported an install.
    FirstInstall,
    /// The first principal in the log with any event.
    FirstEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// The fingerprint of its token.
    pub principal: Fingerprint,
    pub basis: Basis,
}

/// The trusted principal: the holder of the place after all turns, in the order of the log.
///
/// The first principal that reports an install (or, with the other setting, has any event) takes the place. The place
/// opens again only when its holder uninstalls, for the next principal that reports an install. Earlier installs of
/// others do not count, or a forger could lie in wait; a principal that has uninstalled does not take the place back
/// from its holder.
pub(crate) fn trusted(principals: &BTreeMap<Fingerprint, Principal>, trust: Trust) -> Option<Trusted> {
    let basis = match trust {
        Trust::FirstInstall => Basis::FirstInstall,
        Trust::FirstEvent => Basis::FirstEvent,
    };
    holder(principals, trust).map(|(principal, _)| Trusted { principal, basis })
}

/// The principal that holds the place, and the offset in `raw` at which it took it.
pub(crate) fn holder(principals: &BTreeMap<Fingerprint, Principal>, trust: Trust) -> Option<(Fingerprint, u64)> {
    let claimants = || principals.iter().filter(|(_, known)| known.has_claims());
    let mut holder = match trust {
        Trust::FirstInstall => None,
        Trust::FirstEvent => {
            let first = claimants().filter_map(|(principal, known)| Some((known.claims.first_word?, *principal))).min();
            first.map(|(at, principal)| (principal, at))
        }
    };
    let mut last_words: BTreeMap<Fingerprint, Option<Turn>> =
        claimants().map(|(principal, _)| (*principal, None)).collect();
    let mut turns: Vec<(u64, Fingerprint, Turn)> = claimants()
        .flat_map(|(principal, known)| known.claims.turns.iter().map(move |(at, turn)| (at, *principal, turn)))
        .collect();
    turns.sort_unstable();
    for (at, principal, turn) in turns {
        let last_word = last_words.get_mut(&principal).expect("of a claimant");
        *last_word = (*last_word).max(Some(turn));
        let is_there = last_word.is_some_and(|last| last.installed);
        let has_left =
            |holder: &Fingerprint| last_words.get(holder).copied().flatten().is_some_and(|last: Turn| !last.installed);
        let takes = match holder {
            None => turn.installed,
            Some((holder, _)) => turn.installed && is_there && has_left(&holder),
        };
        if takes {
            holder = Some((principal, at));
        }
    }
    holder
}
