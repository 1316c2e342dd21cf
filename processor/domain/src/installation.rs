//! The state of one installation: its principals with their claims, decisions and held events.

use std::collections::BTreeMap;
use std::time::Duration;

use bitrix24::{Installation, Trust};
use event_log::EventId;
use primitives::secret::Fingerprint;

use primitives::time::Timestamp;

use crate::trust::{Verdict, holder, verdict};
use crate::{
    Attestation, Change, Claims, Decision, Event, Fact, FactKind, HeldDetails, HeldEvent, Latest, Method, RecordStatus,
    Stamp, VaultEntry, VaultKind,
};

/// How often a trusted principal is noted to have been heard of, while its events have no facts.
const HEARD_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Limit of held events per principal.
pub(crate) const HELD_MAX: usize = 100;
/// Limit of held bytes per principal.
pub const HELD_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Limit of held events per installation.
pub(crate) const INSTALLATION_HELD_MAX: usize = 1_000;
/// Limit of held bytes per installation.
pub(crate) const INSTALLATION_HELD_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Limit of principals per installation that have held events but no claims.
pub(crate) const STRANGERS_MAX: usize = 32;
/// Limit of principals per installation that have claims but no attestation. Beyond it, one between the first and the
/// last ones gives way.
pub(crate) const CLAIMANTS_MAX: usize = 32;
/// Limit of attested principals per installation, revoked ones included.
pub const ATTESTED_MAX: usize = 64;
/// Limit of decisions per principal; the newest are kept. An access token lives for an hour.
pub const DECISIONS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub id: EventId,
    /// Size of the published event.
    pub bytes: u32,
    /// Whether it has a fact that takes effect once its principal is trusted. The fact itself is stored elsewhere, for
    /// its size.
    pub has_fact: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// The join of its facts. Empty unless the principal reported an install or is trusted on another basis: other
    /// events are held and are not facts. Boxed because a map allocates room for several principals, and most
    /// installations have one.
    pub claims: Box<Claims>,
    pub decisions: Decisions,
    /// Events held until the principal is trusted, by offset in `raw`.
    pub held: BTreeMap<u64, Held>,
}

impl Principal {
    /// Whether it has facts.
    pub(crate) fn has_claims(&self) -> bool {
        self.claims.first_word.is_some() || self.is_attested()
    }

    /// Whether there is an attestation about it, a revocation included.
    pub fn is_attested(&self) -> bool {
        self.claims.attestation.is_some()
    }

    /// The offset in `raw` of its first event, as far as it is remembered.
    pub(crate) fn first_heard(&self) -> Option<u64> {
        let word = self.claims.first_word.map(|(offset, _)| offset);
        word.into_iter().chain(self.held.keys().next().copied()).min()
    }

    pub fn is_revoked(&self) -> bool {
        self.claims.attestation.as_ref().is_some_and(|latest| latest.value.0 == Attestation::Revoked)
    }

    /// Whether it may hold the place on first use.
    pub(crate) fn is_candidate(&self) -> bool {
        !self.is_revoked() && self.first_heard().is_some()
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held.values().map(|held| u64::from(held.bytes)).sum()
    }
}

pub(crate) type Decided = ((Method, Fingerprint), Latest<Decision>);

/// The newest decisions of a principal, by method and token. A join, independent of the order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    by_key: BTreeMap<(Method, Fingerprint), Latest<Decision>>,
    by_age: BTreeMap<Stamp, (Method, Fingerprint)>,
}

impl Decisions {
    pub fn by_key(&self) -> &BTreeMap<(Method, Fingerprint), Latest<Decision>> {
        &self.by_key
    }

    pub(crate) fn get(&self, key: &(Method, Fingerprint)) -> Option<&Latest<Decision>> {
        self.by_key.get(key)
    }

    pub fn join(&mut self, key: (Method, Fingerprint), latest: Latest<Decision>) {
        match self.by_key.get(&key) {
            Some(known) if known.since >= latest.since => return,
            Some(known) => {
                self.by_age.remove(&known.since);
            }
            None => {}
        }
        self.by_age.insert(latest.since, key.clone());
        self.by_key.insert(key, latest);
    }

    /// Forgets the oldest beyond [`DECISIONS_MAX`], and those that claims no longer keep. Returns the forgotten ones.
    fn trim(&mut self, claims: &Claims) -> Vec<Decided> {
        let mut gone = Vec::new();
        while let Some((made, _)) = self.by_age.first_key_value()
            && (self.by_age.len() > DECISIONS_MAX || !claims.keeps_decision(*made))
        {
            let Some((_, key)) = self.by_age.pop_first() else { break };
            gone.extend(self.by_key.remove_entry(&key));
        }
        gone
    }
}

/// The state of one installation, as reported by all of its principals.
///
/// The only way to change it is [`InstallationState::apply`]: the join that owner, follower and rebuild share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstallationState {
    /// Every principal with facts or held events, by the fingerprint of its token.
    pub principals: BTreeMap<Fingerprint, Principal>,
    /// When a trusted principal was last heard of: written once a day for events that are only passed on.
    pub heard_at: Option<Timestamp>,
    /// What the vault has, by principal. Decided by the owner alone: of two changes the later one in `facts` holds.
    pub vault: BTreeMap<(Fingerprint, VaultKind), VaultEntry>,
}

impl InstallationState {
    /// Applies a change. Total, idempotent, and independent of order for facts of up to [`CLAIMANTS_MAX`] principals
    /// without an attestation.
    /// Returns the decisions that are forgotten.
    pub fn apply(&mut self, change: &Change) -> Vec<Decided> {
        match change {
            Change::Fact(fact) => return self.add(fact),
            Change::Held(HeldEvent { id, principal, offset, .. }, HeldDetails { bytes, fact, .. }) => {
                let held = Held { id: *id, bytes: *bytes, has_fact: fact.is_some() };
                self.principals.entry(*principal).or_default().held.insert(*offset, held);
            }
            Change::NoLongerHeld(HeldEvent { principal, offset, .. }) => {
                if let Some(known) = self.principals.get_mut(principal) {
                    known.held.remove(offset);
                    // Compaction may keep the tombstone without the record: both must leave no trace.
                    if *known == Principal::default() {
                        self.principals.remove(principal);
                    }
                }
            }
            Change::Heard(_, at) => self.heard_at = self.heard_at.max(Some(*at)),
            Change::Vault(key, Some(entry)) => {
                self.vault.insert((key.principal, key.kind), entry.clone());
            }
            Change::Vault(key, None) => {
                self.vault.remove(&(key.principal, key.kind));
            }
        }
        Vec::new()
    }

    /// Whether no principal has claims, only held events.
    pub fn is_unclaimed(&self) -> bool {
        !self.principals.values().any(Principal::has_claims)
    }

    /// In the order of arrival.
    pub(crate) fn held_of(&self, installation: &Installation, principal: Fingerprint) -> Vec<HeldEvent> {
        let known = self.principals.get(&principal).into_iter();
        let place = |(offset, held): (&u64, &Held)| HeldEvent {
            installation: installation.clone(),
            id: held.id,
            principal,
            offset: *offset,
        };
        known.flat_map(|known| known.held.iter().map(place)).collect()
    }

    /// Only what does not follow from facts: the held events, for example. Facts are to be folded again.
    #[must_use]
    pub fn only_held(&self) -> Self {
        let has_held = |(_, known): &(&Fingerprint, &Principal)| !known.held.is_empty();
        let only = |known: &Principal| Principal { held: known.held.clone(), ..Principal::default() };
        let principals = self.principals.iter().filter(has_held);
        Self {
            principals: principals.map(|(principal, known)| (*principal, only(known))).collect(),
            heard_at: self.heard_at,
            vault: self.vault.clone(),
        }
    }

    pub fn verdict(&self, trust: Trust) -> Verdict {
        verdict(&self.principals, trust)
    }

    /// The offset in `raw` from which on all events of a principal that mean something are facts.
    pub fn trusted_from(&self, principal: Fingerprint, trust: Trust) -> Option<u64> {
        self.verdict(trust).of(principal)?;
        let claims = &self.principals.get(&principal)?.claims;
        let attested = claims.attestation.as_ref().map(|latest| latest.value.1);
        let took = || holder(&self.principals).and_then(|holder| holder.took).map(|(at, _)| at);
        let first = || match trust {
            Trust::FirstEvent => claims.first_word.map(|(at, _)| at),
            Trust::FirstInstall | Trust::Known => claims.first_install().map(|(at, _)| at),
        };
        attested.or_else(took).or_else(first)
    }

    /// The principals that are trusted by this verdict.
    pub fn trusted<'a>(&'a self, verdict: &Verdict) -> impl Iterator<Item = &'a Principal> {
        verdict.trusted.iter().filter_map(|trusted| self.principals.get(&trusted.principal))
    }

    pub fn status(&self, trust: Trust) -> RecordStatus {
        self.status_by(&self.verdict(trust))
    }

    /// Installed if the last word of any trusted principal is an install.
    pub fn status_by(&self, verdict: &Verdict) -> RecordStatus {
        if verdict.trusted.is_empty() {
            return RecordStatus::Untrusted;
        }
        let installed = self.trusted(verdict).any(|known| known.claims.says_installed());
        let left = || self.trusted(verdict).any(|known| known.claims.left_at().is_some());
        match installed {
            true => RecordStatus::Installed,
            false if left() => RecordStatus::Uninstalled,
            false => RecordStatus::Trusted,
        }
    }

    /// The newest decision of a trusted principal about a method and a token.
    pub(crate) fn decision(&self, verdict: &Verdict, method: &Method, token: Fingerprint) -> Option<&Latest<Decision>> {
        let key = (method.clone(), token);
        self.trusted(verdict).filter_map(|known| known.decisions.get(&key)).max_by_key(|latest| latest.since)
    }

    /// Whether nothing tells that this trusted principal was heard of on the day before the event.
    pub(crate) fn is_silent(&self, event: &Event) -> bool {
        let known = self.principals.get(&event.principal);
        let last_fact = known.and_then(|known| known.claims.last_fact.as_ref()).map(|last| last.stamp.received_at);
        self.heard_at.max(last_fact).is_none_or(|heard| heard.plus(HEARD_EVERY) <= event.stamp.received_at)
    }

    /// The principal that holds the place on first use.
    pub(crate) fn holder(&self) -> Option<Fingerprint> {
        holder(&self.principals).map(|holder| holder.principal)
    }

    /// The first principal heard of, and the offset in `raw` of its first event.
    pub(crate) fn first_heard(&self) -> Option<(u64, Fingerprint)> {
        self.principals.iter().filter_map(|(principal, known)| Some((known.first_heard()?, *principal))).min()
    }

    fn add(&mut self, fact: &Fact) -> Vec<Decided> {
        let known = self.principals.entry(fact.principal).or_default();
        known.claims.join(fact);
        if let FactKind::MethodDecided { method, token, decision, .. } = &fact.kind {
            let latest = Latest { since: fact.stamp, value: *decision };
            known.decisions.join((method.clone(), *token), latest);
        }
        let gone = known.decisions.trim(&known.claims);
        if fact.kind.is_turn() {
            self.limit_claimants();
        }
        gone
    }

    /// Forgets claims beyond [`CLAIMANTS_MAX`]. The first claimants and the last ones stay, so that a flood of made-up
    /// principals removes neither the one that was there before nor the one that comes next; the holder stays the same.
    fn limit_claimants(&mut self) {
        let claimants = self.principals.iter().filter(|(_, known)| known.has_claims() && !known.is_attested());
        let mut claimants: Vec<(Option<u64>, Fingerprint)> =
            claimants.map(|(principal, known)| (known.first_heard(), *principal)).collect();
        if claimants.len() <= CLAIMANTS_MAX {
            return;
        }
        claimants.sort_unstable();
        let kept = holder(&self.principals);
        let is_holder = |principal| kept.is_some_and(|holder| holder.principal == principal);
        let (first, last) = claimants.split_at(CLAIMANTS_MAX / 2);
        for (_, principal) in last.iter().chain(first.iter().rev()).filter(|(_, principal)| !is_holder(*principal)) {
            let known = self.principals.remove(principal).expect("a claimant");
            if holder(&self.principals) != kept {
                self.principals.insert(*principal, known);
                continue;
            }
            if !known.held.is_empty() {
                self.principals.insert(*principal, Principal { held: known.held, ..Principal::default() });
            }
            return;
        }
    }
}
