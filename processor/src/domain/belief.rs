//! Whom to believe. Derived when asked, never stored.

use std::collections::BTreeMap;

use common::secret::Fingerprint;
use common::settings::Trust;
use serde::{Deserialize, Serialize};

use super::claims::Turn;
use super::portal::Teller;

/// Why a teller is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It was the first, in the log, who told of an install.
    FirstInstall,
    /// It was the first, in the log, who spoke.
    FirstEvent,
}

/// The teller who is believed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Believed {
    /// Who.
    pub teller: Fingerprint,
    /// Why.
    pub how: How,
}

/// Whom to believe: whoever holds the place, when all comings and goings are gone through in the log's order.
///
/// The first who told of an install (or, where that is set, who spoke) takes it. Only when its holder has left is it
/// open again, for the next who tells of an install: what others claimed before does not count, or a forger could lie
/// in wait, and who has left does not take it back from who holds it now.
pub fn believed(tellers: &BTreeMap<Fingerprint, Teller>, trust: Trust) -> Option<Believed> {
    let claims = || tellers.iter().map(|(teller, known)| (*teller, &known.claims));
    let (how, mut holder) = match trust {
        Trust::FirstInstall => (How::FirstInstall, None),
        Trust::FirstEvent => {
            let first = claims().filter_map(|(teller, claims)| Some((claims.first_word?, teller))).min();
            (How::FirstEvent, first.map(|(_, teller)| teller))
        }
    };
    let mut turns: Vec<(u64, Fingerprint, Turn)> =
        claims().flat_map(|(teller, claims)| claims.turns.iter().map(move |(at, turn)| (at, teller, turn))).collect();
    turns.sort_unstable();

    let mut last_words: BTreeMap<Fingerprint, Turn> = BTreeMap::new();
    for (_, teller, turn) in turns {
        let last_word = last_words.entry(teller).or_insert(turn);
        *last_word = (*last_word).max(turn);
        let is_there = last_word.installed;
        let takes = match holder {
            None => turn.installed,
            Some(holder) => turn.installed && is_there && last_words.get(&holder).is_some_and(|last| !last.installed),
        };
        if takes {
            holder = Some(teller);
        }
    }
    holder.map(|teller| Believed { teller, how })
}
