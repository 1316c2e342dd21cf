//! All that is known about one installation: its tellers, each with what it told.

use std::collections::BTreeMap;

use common::event::{EventId, Installation};
use common::secret::Fingerprint;
use common::settings::Trust;

use super::belief::{Believed, believed, holder};
use super::claims::{Claims, Status};
use super::fact::{Change, Fact, Method, Told, Waiting, Waits};
use super::permission::Decision;
use super::record::RecordStatus;
use super::stamp::{Latest, Stamp};

/// The most events that wait for one teller to be believed.
pub const WAITING_MAX: usize = 100;
/// The most bytes that the events of one teller that wait may show.
pub const WAITING_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The most events that wait at one installation.
pub const INSTALLATION_WAITING_MAX: usize = 1_000;
/// The most bytes that all events that wait at one installation may show.
pub const INSTALLATION_WAITING_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most tellers of one installation without claims for which events wait.
pub const STRANGERS_MAX: usize = 32;
/// The most tellers of one installation whose claims are known, while its place is taken.
pub const CLAIMANTS_MAX: usize = 32;
/// The same while the place is open: whoever takes it needs room.
pub const CLAIMANTS_OPEN_MAX: usize = 64;
/// Comings and goings of all tellers of one installation; beyond it those are forgotten that decide nothing any more.
pub const TURNS_MAX: usize = 128;
/// The most decisions that are known of one teller: the newest. An access token lives for an hour.
pub const DECISIONS_MAX: usize = 1_000;

/// An event that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub id: EventId,
    /// How much it takes to show it.
    pub bytes: u32,
    /// Whether it tells something that is a fact once its teller is believed. That is not kept here: there may be much.
    pub tells: bool,
}

/// What one teller told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Teller {
    /// The join of its facts. Only of a teller that told of an install, or is believed for another reason: what others
    /// say waits, and is no fact. In a box, because a map has room for several tellers at once and most installations have
    /// one.
    pub claims: Box<Claims>,
    /// Decisions about methods.
    pub decisions: Decisions,
    /// Events that wait for the teller to be believed, by their place in `raw`.
    pub waiting: BTreeMap<u64, Held>,
}

impl Teller {
    /// Whether anything that it told is a fact.
    pub fn has_claims(&self) -> bool {
        self.claims.first_word.is_some()
    }

    /// How many bytes its waiting events show.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting.values().map(|held| u64::from(held.bytes)).sum()
    }

    fn has_left(&self) -> bool {
        matches!(self.claims.status, Some(Latest { value: Status::Uninstalled { .. }, .. }))
    }
}

/// A decision about a method and a token.
pub type Decided = ((Method, Fingerprint), Latest<Decision>);

/// The newest decisions of a teller, by method and token. A join: the same ones in whatever order they were made known.
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

/// One installation, as all of its tellers describe it.
///
/// The only way to change it is [`Portal::apply`]: the join that owner, follower and rebuild share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portal {
    /// Everyone who ever told a fact, or for whom events wait, by the fingerprint of its proof.
    pub tellers: BTreeMap<Fingerprint, Teller>,
}

impl Portal {
    /// Applies a change. Total, idempotent, and for facts of up to [`CLAIMANTS_MAX`] tellers indifferent to order.
    /// Returns decisions that are forgotten by it.
    pub fn apply(&mut self, change: &Change) -> Vec<Decided> {
        match change {
            Change::Told(fact) => return self.tell(fact),
            Change::Waits(Waiting { id, teller, offset, .. }, Waits { bytes, fact, .. }) => {
                let held = Held { id: *id, bytes: *bytes, tells: fact.is_some() };
                self.tellers.entry(*teller).or_default().waiting.insert(*offset, held);
            }
            Change::WaitsNoMore(Waiting { teller, offset, .. }) => {
                if let Some(known) = self.tellers.get_mut(teller) {
                    known.waiting.remove(offset);
                    // Compaction may leave us the end of a wait without its beginning: both must be no trace.
                    if *known == Teller::default() {
                        self.tellers.remove(teller);
                    }
                }
            }
        }
        Vec::new()
    }

    /// Whether no teller has claims: all that is known is what waits.
    pub fn is_untrusted(&self) -> bool {
        !self.tellers.values().any(Teller::has_claims)
    }

    /// Since which offset the teller that is believed holds the place.
    pub fn held_since(&self, trust: Trust) -> Option<(Fingerprint, u64)> {
        holder(&self.tellers, trust)
    }

    /// Whether one more teller may have claims, given whether the place is open.
    pub fn has_room(&self, is_open: bool) -> bool {
        let claimants = self.claimants();
        claimants < CLAIMANTS_MAX
            || (is_open && claimants < CLAIMANTS_OPEN_MAX)
            || (claimants < CLAIMANTS_OPEN_MAX
                && self.undisputed().is_some_and(|holder| self.irrelevant(holder).next().is_some()))
    }

    /// Whether the place is open: nobody holds it, or the holder has left.
    pub fn is_open(&self, believed: Option<Fingerprint>) -> bool {
        believed.and_then(|teller| self.tellers.get(&teller)).is_none_or(Teller::has_left)
    }

    /// The events of a teller that wait, in the order in which they came.
    pub fn waiting_of(&self, installation: &Installation, teller: Fingerprint) -> Vec<Waiting> {
        let known = self.tellers.get(&teller).into_iter();
        let place = |(offset, held): (&u64, &Held)| Waiting {
            installation: installation.clone(),
            id: held.id,
            teller,
            offset: *offset,
        };
        known.flat_map(|known| known.waiting.iter().map(place)).collect()
    }

    /// What waits, and nothing else: where its facts are to be folded again.
    #[must_use]
    pub fn waiting(&self) -> Self {
        let waits = |(_, known): &(&Fingerprint, &Teller)| !known.waiting.is_empty();
        let only = |known: &Teller| Teller { waiting: known.waiting.clone(), ..Teller::default() };
        Self { tellers: self.tellers.iter().filter(waits).map(|(teller, known)| (*teller, only(known))).collect() }
    }

    /// Whom to believe.
    pub fn believed(&self, trust: Trust) -> Option<Believed> {
        believed(&self.tellers, trust)
    }

    /// Whether the app is installed, by the word of whom we believe.
    pub fn status(&self, trust: Trust) -> RecordStatus {
        self.status_by(self.believed(trust).map(|believed| believed.teller))
    }

    /// Whether the app is installed, by the word of this teller.
    pub fn status_by(&self, teller: Option<Fingerprint>) -> RecordStatus {
        let known = teller.and_then(|teller| self.tellers.get(&teller));
        let status = known.and_then(|known| known.claims.status.as_ref());
        match status.map(|status| status.value) {
            Some(Status::Installed) => RecordStatus::Installed,
            Some(Status::Uninstalled { .. }) => RecordStatus::Uninstalled,
            None => RecordStatus::Unbelieved,
        }
    }

    /// What was decided about a method and a token, by the word of whom we believe.
    pub fn decision(&self, trust: Trust, method: &Method, token: Fingerprint) -> Option<&Latest<Decision>> {
        self.believed_teller(trust)?.decisions.get(&(method.clone(), token))
    }

    /// What the teller told whom we believe.
    pub fn believed_teller(&self, trust: Trust) -> Option<&Teller> {
        self.tellers.get(&self.believed(trust)?.teller)
    }

    fn tell(&mut self, fact: &Fact) -> Vec<Decided> {
        let known = self.tellers.entry(fact.teller).or_default();
        known.claims.join(fact);
        if let Told::MethodDecided { method, token, decision, .. } = &fact.told {
            let latest = Latest { since: fact.stamp, value: *decision };
            known.decisions.join((method.clone(), *token), latest);
        }
        let gone = known.decisions.trim(&known.claims);
        if fact.told.is_turn() && (self.claimants() > CLAIMANTS_MAX || self.turns() > TURNS_MAX) {
            self.forget_irrelevant();
        }
        gone
    }

    fn turns(&self) -> usize {
        self.tellers.values().map(|known| known.claims.turns.number()).sum()
    }

    fn claimants(&self) -> usize {
        self.tellers.values().filter(|known| known.has_claims()).count()
    }

    /// The teller that holds the place whichever kind of trust is set, and where it took it by an install.
    fn undisputed(&self) -> Option<(Fingerprint, u64)> {
        let [by_install, by_word] = [Trust::FirstInstall, Trust::FirstEvent].map(|trust| holder(&self.tellers, trust));
        by_install.filter(|(teller, _)| by_word.is_some_and(|(other, _)| other == *teller))
    }

    /// The tellers whose claims decide nothing any more: those that have left, or were last heard of coming before the
    /// holder took the place, and do not hold it.
    fn irrelevant(&self, (holder, since): (Fingerprint, u64)) -> impl Iterator<Item = Fingerprint> {
        self.tellers.iter().filter_map(move |(teller, known)| {
            let is_past = || known.claims.turns.iter().all(|(at, _)| at < since);
            (*teller != holder && known.has_claims() && (known.has_left() || is_past())).then_some(*teller)
        })
    }

    /// Forgets the claims of tellers that decide nothing any more, so that coming and going does not fill the table.
    /// Who holds the place stays the same.
    fn forget_irrelevant(&mut self) {
        let Some((holder, since)) = self.undisputed() else { return };
        for teller in self.irrelevant((holder, since)).collect::<Vec<_>>() {
            let waiting = self.tellers.remove(&teller).map(|known| known.waiting).unwrap_or_default();
            if !waiting.is_empty() {
                self.tellers.insert(teller, Teller { waiting, ..Teller::default() });
            }
        }
        for (teller, known) in self.tellers.iter_mut().filter(|(_, known)| known.has_claims()) {
            known.claims.forget_before(if *teller == holder { since } else { since + 1 });
        }
    }
}
