//! The state of one installation: its principals with their claims, decisions and held events.

use std::collections::BTreeMap;

use bitrix24::{Installation, Trust};
use event_log::EventId;
use primitives::secret::Fingerprint;

use crate::claims::Status;
use crate::trust::{Trusted, holder, trusted};
use crate::{Change, Claims, Decision, Fact, FactKind, HeldDetails, HeldEvent, Latest, Method, RecordStatus, Stamp};

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
/// Limit of principals with claims per installation, while the place is taken.
pub(crate) const CLAIMANTS_MAX: usize = 32;
/// The same while the place is open, so that the next holder has room.
pub(crate) const CLAIMANTS_OPEN_MAX: usize = 64;
/// Limit of turns per installation; above it, turns without influence on trust are forgotten.
pub(crate) const TURNS_MAX: usize = 128;
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
    pub(crate) fn has_claims(&self) -> bool {
        self.claims.first_word.is_some()
    }

    pub(crate) fn held_bytes(&self) -> u64 {
        self.held.values().map(|held| u64::from(held.bytes)).sum()
    }

    fn has_left(&self) -> bool {
        matches!(self.claims.status, Some(Latest { value: Status::Uninstalled { .. }, .. }))
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
}

impl InstallationState {
    /// Applies a change. Total, idempotent, and independent of order for facts of up to [`CLAIMANTS_MAX`] principals.
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
        }
        Vec::new()
    }

    /// Whether no principal has claims, only held events.
    pub fn is_unclaimed(&self) -> bool {
        !self.principals.values().any(Principal::has_claims)
    }

    /// The trusted principal, and the offset at which it took the place.
    pub fn trusted_since(&self, trust: Trust) -> Option<(Fingerprint, u64)> {
        holder(&self.principals, trust)
    }

    /// Whether another principal may have claims, given whether the place is open.
    pub(crate) fn has_room(&self, is_open: bool) -> bool {
        let claimants = self.claimants();
        claimants < CLAIMANTS_MAX
            || (is_open && claimants < CLAIMANTS_OPEN_MAX)
            || (claimants < CLAIMANTS_OPEN_MAX
                && self.undisputed().is_some_and(|holder| self.irrelevant(holder).next().is_some()))
    }

    /// Whether the place is open: it has no holder, or the holder has uninstalled.
    pub(crate) fn is_open(&self, trusted: Option<Fingerprint>) -> bool {
        trusted.and_then(|principal| self.principals.get(&principal)).is_none_or(Principal::has_left)
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

    /// Only the held events: facts are to be folded again.
    #[must_use]
    pub fn only_held(&self) -> Self {
        let has_held = |(_, known): &(&Fingerprint, &Principal)| !known.held.is_empty();
        let only = |known: &Principal| Principal { held: known.held.clone(), ..Principal::default() };
        Self {
            principals: self
                .principals
                .iter()
                .filter(has_held)
                .map(|(principal, known)| (*principal, only(known)))
                .collect(),
        }
    }

    pub(crate) fn trusted(&self, trust: Trust) -> Option<Trusted> {
        trusted(&self.principals, trust)
    }

    pub fn status(&self, trust: Trust) -> RecordStatus {
        self.status_by(self.trusted(trust).map(|trusted| trusted.principal))
    }

    pub(crate) fn status_by(&self, principal: Option<Fingerprint>) -> RecordStatus {
        let known = principal.and_then(|principal| self.principals.get(&principal));
        let status = known.and_then(|known| known.claims.status.as_ref());
        match status.map(|status| status.value) {
            Some(Status::Installed) => RecordStatus::Installed,
            Some(Status::Uninstalled { .. }) => RecordStatus::Uninstalled,
            None => RecordStatus::Untrusted,
        }
    }

    /// The decision about a method and a token, by the trusted principal.
    pub(crate) fn decision(&self, trust: Trust, method: &Method, token: Fingerprint) -> Option<&Latest<Decision>> {
        self.trusted_principal(trust)?.decisions.get(&(method.clone(), token))
    }

    pub fn trusted_principal(&self, trust: Trust) -> Option<&Principal> {
        self.principals.get(&self.trusted(trust)?.principal)
    }

    fn add(&mut self, fact: &Fact) -> Vec<Decided> {
        let known = self.principals.entry(fact.principal).or_default();
        known.claims.join(fact);
        if let FactKind::MethodDecided { method, token, decision, .. } = &fact.kind {
            let latest = Latest { since: fact.stamp, value: *decision };
            known.decisions.join((method.clone(), *token), latest);
        }
        let gone = known.decisions.trim(&known.claims);
        if fact.kind.is_turn() && (self.claimants() > CLAIMANTS_MAX || self.turns() > TURNS_MAX) {
            self.forget_irrelevant();
        }
        gone
    }

    fn turns(&self) -> usize {
        self.principals.values().map(|known| known.claims.turns.number()).sum()
    }

    fn claimants(&self) -> usize {
        self.principals.values().filter(|known| known.has_claims()).count()
    }

    /// The principal that holds the place under every trust setting, and the offset of the install that took it.
    fn undisputed(&self) -> Option<(Fingerprint, u64)> {
        let [by_install, by_word] =
            [Trust::FirstInstall, Trust::FirstEvent].map(|trust| holder(&self.principals, trust));
        by_install.filter(|(principal, _)| by_word.is_some_and(|(other, _)| other == *principal))
    }

    /// Principals whose claims no longer matter: those that do not hold the place and have uninstalled, or whose last
    /// turn was before the holder took the place.
    fn irrelevant(&self, (holder, since): (Fingerprint, u64)) -> impl Iterator<Item = Fingerprint> {
        self.principals.iter().filter_map(move |(principal, known)| {
            let is_past = || known.claims.turns.iter().all(|(at, _)| at < since);
            (*principal != holder && known.has_claims() && (known.has_left() || is_past())).then_some(*principal)
        })
    }

    /// Forgets claims that no longer matter, so that repeated turns do not fill the table. The holder stays the same.
    fn forget_irrelevant(&mut self) {
        let Some((holder, since)) = self.undisputed() else { return };
        for principal in self.irrelevant((holder, since)).collect::<Vec<_>>() {
            let held = self.principals.remove(&principal).map(|known| known.held).unwrap_or_default();
            if !held.is_empty() {
                self.principals.insert(principal, Principal { held, ..Principal::default() });
            }
        }
        for (principal, known) in self.principals.iter_mut().filter(|(_, known)| known.has_claims()) {
            known.claims.forget_before(if *principal == holder { since } else { since + 1 });
        }
    }
}
