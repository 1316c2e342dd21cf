//! All that is known about one installation: its tellers, each with what it told.

use std::collections::BTreeMap;

use common::event::EventId;
use common::secret::Fingerprint;
use common::settings::Trust;

use super::belief::{Believed, believed};
use super::claims::{Claims, Status};
use super::fact::{Change, Fact, Method, Told, Waiting};
use super::permission::Decision;
use super::record::RecordStatus;
use super::stamp::Latest;

/// The places of so many events are remembered for each teller that is not believed yet.
pub const WAITING_MAX: usize = 100;

/// What one teller told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Teller {
    /// The join of its facts.
    pub claims: Claims,
    /// Decisions about methods, by method and token.
    pub decisions: BTreeMap<(Method, Fingerprint), Latest<Decision>>,
    /// Events that wait for the teller to be believed, by their place in `raw`.
    pub waiting: BTreeMap<u64, EventId>,
}

/// One installation, as all of its tellers describe it.
///
/// The only way to change it is [`Portal::apply`]: the join that owner, follower and rebuild share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portal {
    /// Everyone who ever told a fact, by the fingerprint of its proof.
    pub tellers: BTreeMap<Fingerprint, Teller>,
}

impl Portal {
    /// Applies a change. Total, idempotent, and for facts indifferent to order.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Told(fact) => self.tell(fact),
            Change::Waits(Waiting { id, teller, offset, .. }) => {
                self.tellers.entry(*teller).or_default().waiting.insert(*offset, *id);
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
        let status = self.believed_teller(trust).and_then(|teller| teller.claims.status.as_ref());
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

    fn tell(&mut self, fact: &Fact) {
        let known = self.tellers.entry(fact.teller).or_default();
        known.claims.join(fact);
        if let Told::MethodDecided { method, token, decision, .. } = &fact.told {
            let newer = Latest { since: fact.stamp, value: *decision };
            match known.decisions.get_mut(&(method.clone(), *token)) {
                Some(latest) if latest.since < newer.since => *latest = newer,
                Some(_) => {}
                None => {
                    known.decisions.insert((method.clone(), *token), newer);
                }
            }
        }
        let claims = &known.claims;
        known.decisions.retain(|_, latest| claims.keeps_decision(latest.since));
    }
}
