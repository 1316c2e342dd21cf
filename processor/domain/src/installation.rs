//! All that is known about one installation: its principals, each with its claims.

use std::collections::BTreeMap;

use bitrix24::Installation;
use bitrix24::Trust;
use event_log::EventId;
use primitives::secret::Fingerprint;

use super::claims::{Claims, Status};
use super::fact::{Change, Fact, FactKind, HeldDetails, HeldEvent, Method};
use super::permission::Decision;
use super::record::RecordStatus;
use super::stamp::{Latest, Stamp};
use super::trust::{Trusted, holder, trusted};

/// The most events that are held of one principal.
pub const HELD_MAX: usize = 100;
/// The most bytes that the held events of one principal may show.
pub const HELD_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The most events that are held of one installation.
pub const INSTALLATION_HELD_MAX: usize = 1_000;
/// The most bytes that all held events of one installation may show.
pub const INSTALLATION_HELD_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most principals of one installation without claims of which events are held.
pub const STRANGERS_MAX: usize = 32;
/// The most principals of one installation whose claims are known, while its place is taken.
pub const CLAIMANTS_MAX: usize = 32;
/// The same while the place is open: whoever takes it needs room.
pub const CLAIMANTS_OPEN_MAX: usize = 64;
/// Comings and goings of all principals of one installation; beyond it those are forgotten that decide nothing any
/// more.
pub const TURNS_MAX: usize = 128;
/// The most decisions that are known of one principal: the newest. An access token lives for an hour.
pub const DECISIONS_MAX: usize = 1_000;

/// A held event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: EventId,
    /// How much it takes to show it.
    pub bytes: u32,
    /// Whether it has a fact that counts once its principal is trusted. That is not kept here: there may be
    /// much.
    pub has_fact: bool,
}

/// What is known of one principal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// The join of its facts. Only of a principal that reported an install, or is trusted for another reason: what
    /// others say is held, and is no fact. In a box, because a map has room for several principals at once and most
    /// installations have one.
    pub claims: Box<Claims>,
    /// Decisions about methods.
    pub decisions: Decisions,
    /// Events that are held until the principal is trusted, by their place in `raw`.
    pub held: BTreeMap<u64, Held>,
}

impl Principal {
    /// Whether any of its events is a fact.
    pub fn has_claims(&self) -> bool {
        self.claims.first_word.is_some()
    }

    /// How many bytes its held events show.
    pub fn held_bytes(&self) -> u64 {
        self.held.values().map(|held| u64::from(held.bytes)).sum()
    }

    fn has_left(&self) -> bool {
        matches!(self.claims.status, Some(Latest { value: Status::Uninstalled { .. }, .. }))
    }
}

/// A decision about a method and a token.
pub type Decided = ((Method, Fingerprint), Latest<Decision>);

/// The newest decisions of a principal, by method and token. A join: the same ones in whatever order they were made
/// known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    by_key: BTreeMap<(Method, Fingerprint), Latest<Decision>>,
    by_age: BTreeMap<Stamp, (Method, Fingerprint)>,
}

impl Decisions {
    /// All, by method and token.
    pub fn by_key(&self) -> &BTreeMap<(Method, Fingerprint), Latest<Decision>> {
        &self.by_key
    }

    /// Those about this method and token.
    pub fn get(&self, key: &(Method, Fingerprint)) -> Option<&Latest<Decision>> {
        self.by_key.get(key)
    }

    /// Joins a decision.
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

    /// Forgets the oldest beyond [`DECISIONS_MAX`], and those that claims no longer keep. Returns what was forgotten.
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

/// One installation, as all of its principals describe it.
///
/// The only way to change it is [`InstallationState::apply`]: the join that owner, follower and rebuild share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstallationState {
    /// Every principal with facts or held events, by the fingerprint of its token.
    pub principals: BTreeMap<Fingerprint, Principal>,
}

impl InstallationState {
    /// Applies a change. Total, idempotent, and for facts of up to [`CLAIMANTS_MAX`] principals indifferent to order.
    /// Returns decisions that are forgotten by it.
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
                    // Compaction may leave us the tombstone without the record: both must be no trace.
                    if *known == Principal::default() {
                        self.principals.remove(principal);
                    }
                }
            }
        }
        Vec::new()
    }

    /// Whether no principal has claims: all that is known is held events.
    pub fn is_unclaimed(&self) -> bool {
        !self.principals.values().any(Principal::has_claims)
    }

    /// Since which offset the principal that is trusted holds the place.
    pub fn trusted_since(&self, trust: Trust) -> Option<(Fingerprint, u64)> {
        holder(&self.principals, trust)
    }

    /// Whether one more principal may have claims, given whether the place is open.
    pub fn has_room(&self, is_open: bool) -> bool {
        let claimants = self.claimants();
        claimants < CLAIMANTS_MAX
            || (is_open && claimants < CLAIMANTS_OPEN_MAX)
            || (claimants < CLAIMANTS_OPEN_MAX
                && self.undisputed().is_some_and(|holder| self.irrelevant(holder).next().is_some()))
    }

    /// Whether the place is open: nobody holds it, or the holder has left.
    pub fn is_open(&self, trusted: Option<Fingerprint>) -> bool {
        trusted.and_then(|principal| self.principals.get(&principal)).is_none_or(Principal::has_left)
    }

    /// The held events of a principal, in the order in which they came.
    pub fn held_of(&self, installation: &Installation, principal: Fingerprint) -> Vec<HeldEvent> {
        let known = self.principals.get(&principal).into_iter();
        let place = |(offset, held): (&u64, &Held)| HeldEvent {
            installation: installation.clone(),
            id: held.id,
            principal,
            offset: *offset,
        };
        known.flat_map(|known| known.held.iter().map(place)).collect()
    }

    /// The held events, and nothing else: where its facts are to be folded again.
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

    /// Which principal is trusted.
    pub fn trusted(&self, trust: Trust) -> Option<Trusted> {
        trusted(&self.principals, trust)
    }

    /// Whether the app is installed, by the word of the trusted principal.
    pub fn status(&self, trust: Trust) -> RecordStatus {
        self.status_by(self.trusted(trust).map(|trusted| trusted.principal))
    }

    /// Whether the app is installed, by the word of this principal.
    pub fn status_by(&self, principal: Option<Fingerprint>) -> RecordStatus {
        let known = principal.and_then(|principal| self.principals.get(&principal));
        let status = known.and_then(|known| known.claims.status.as_ref());
        match status.map(|status| status.value) {
            Some(Status::Installed) => RecordStatus::Installed,
            Some(Status::Uninstalled { .. }) => RecordStatus::Uninstalled,
            None => RecordStatus::Untrusted,
        }
    }

    /// The decision about a method and a token, by the word of the trusted principal.
    pub fn decision(&self, trust: Trust, method: &Method, token: Fingerprint) -> Option<&Latest<Decision>> {
        self.trusted_principal(trust)?.decisions.get(&(method.clone(), token))
    }

    /// The trusted principal.
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

    /// The principal that holds the place whichever kind of trust is set, and where it took it by an install.
    fn undisputed(&self) -> Option<(Fingerprint, u64)> {
        let [by_install, by_word] =
            [Trust::FirstInstall, Trust::FirstEvent].map(|trust| holder(&self.principals, trust));
        by_install.filter(|(principal, _)| by_word.is_some_and(|(other, _)| other == *principal))
    }

    /// The principals thatse claims decide nothing any more: those that have left, or were last heard of coming before
    /// the holder took the place, and do not hold it.
    fn irrelevant(&self, (holder, since): (Fingerprint, u64)) -> impl Iterator<Item = Fingerprint> {
        self.principals.iter().filter_map(move |(principal, known)| {
            let is_past = || known.claims.turns.iter().all(|(at, _)| at < since);
            (*principal != holder && known.has_claims() && (known.has_left() || is_past())).then_some(*principal)
        })
    }

    /// Forgets the claims of principals that decide nothing any more, so that coming and going does not fill the table.
    /// Who holds the place stays the same.
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
