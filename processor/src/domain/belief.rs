//! Whom to believe. Derived when asked, never stored.

use std::collections::BTreeMap;

use common::secret::Fingerprint;
use common::settings::Trust;
use serde::{Deserialize, Serialize};

use super::claims::Turn;
use super::portal::Principal;

/// Why a principal is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It was the first, in the log, who told of an install.
    FirstInstall,
    /// It was the first, in the log, who spoke.
    FirstEvent,
}

/// The principal that is believed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Believed {
    /// Who.
    pub principal: Fingerprint,
    /// Why.
    pub how: How,
}

/// Whom to believe: whoever holds the place, when all comings and goings are gone through in the log's order.
///
/// The first who told of an install (or, where that is set, who spoke) takes it. Only when its holder has left is it
/// open again, for the next who tells of an install: what others claimed before does not count, or a forger could lie
/// in wait, and who has left does not take it back from who holds it now.
pub fn believed(principals: &BTreeMap<Fingerprint, Principal>, trust: Trust) -> Option<Believed> {
    let how = match trust {
        Trust::FirstInstall => How::FirstInstall,
        Trust::FirstEvent => How::FirstEvent,
    };
    holder(principals, trust).map(|(principal, _)| Believed { principal, how })
}

/// The principal that holds the place, and the offset in `raw` at which it took it.
pub fn holder(principals: &BTreeMap<Fingerprint, Principal>, trust: Trust) -> Option<(Fingerprint, u64)> {
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
