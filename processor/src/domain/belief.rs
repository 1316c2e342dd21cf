//! Whom to believe. Derived when asked, never stored.

use std::collections::BTreeMap;

use common::secret::Fingerprint;
use common::settings::Trust;
use serde::{Deserialize, Serialize};

use super::claims::{Claims, Status};
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

/// Whom to believe: whoever was the first, in the log, to take the place.
///
/// An uninstall by the teller in the place opens it again, for the first who tells of an install *behind*
/// that uninstall: what others claimed before it does not count, or a forger could lie in wait.
pub fn believed(tellers: &BTreeMap<Fingerprint, Teller>, trust: Trust) -> Option<Believed> {
    let (how, first): (How, fn(&Claims) -> Option<u64>) = match trust {
        Trust::FirstInstall => (How::FirstInstall, |claims| claims.first_install),
        Trust::FirstEvent => (How::FirstEvent, |claims| claims.first_word),
    };
    let claims = || tellers.iter().map(|(teller, known)| (*teller, &known.claims));

    let mut holder = claims().filter_map(|(teller, claims)| Some((first(claims)?, teller))).min()?;
    // Each round goes on further behind in the log: it ends.
    while let Some(left_at) = left_at(&tellers[&holder.1].claims) {
        let opened_at = left_at.max(holder.0);
        let takes = |(teller, claims): (Fingerprint, &Claims)| Some((took_at(claims, opened_at)?, teller));
        let Some(next) = claims().filter(|(teller, _)| *teller != holder.1).filter_map(takes).min() else {
            break;
        };
        holder = next;
    }
    Some(Believed { teller: holder.1, how })
}

/// Where in the log the teller told of the uninstall that is its last word.
fn left_at(claims: &Claims) -> Option<u64> {
    match claims.status.as_ref()?.value {
        Status::Installed => None,
        Status::Uninstalled { .. } => claims.left.map(|left| left.offset),
    }
}

/// Where in the log, as far as we remember, the teller first told of an install behind that place.
fn took_at(claims: &Claims, opened_at: u64) -> Option<u64> {
    let behind = |offset: &u64| *offset > opened_at;
    claims.first_install.filter(behind).or(claims.last_install.filter(behind))
}
