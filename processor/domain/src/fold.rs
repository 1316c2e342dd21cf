//! One event and the known state → changes and records to publish. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitrix24::{Installation, Trust};
use event_log::is_redriven;
use primitives::secret::Fingerprint;

use crate::installation::{
    ATTESTED_MAX, Decided, HELD_MAX, INSTALLATION_HELD_BYTES_MAX, INSTALLATION_HELD_MAX, STRANGERS_MAX,
};
use crate::trust::Verdict;
use crate::{
    Change, EndpointHosts, Event, Fact, FactKind, HELD_BYTES_MAX, HeldDetails, HeldEvent, InstallationRecord,
    InstallationState, Method, PermissionRecord, Principal, Public, Reason, Rules,
};

/// A consequence of one event; effects are published in their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Changed(Change),
    /// For `events`: the principal is trusted.
    Verified(Arc<Public>),
    /// For `unverified`: the principal is not trusted.
    Unverified(Arc<Public>),
    /// For `events`, once the principal is trusted: the event at this offset of `raw`.
    Release(HeldEvent),
    /// For `rejected`: the event is held no longer, although its principal is not trusted. With its size.
    GaveWay(HeldEvent, u32),
    Installation(Box<InstallationRecord>),
    /// The state of the installation is empty again.
    InstallationGone(Installation),
    Permission(PermissionRecord),
    PermissionGone(PermissionRecord),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Fact,
    /// Verified and passed on, without a fact.
    PassedOn,
    Unverified,
    Repeated,
    Rejected(Reason),
}

impl Outcome {
    /// The outcome for a trusted principal's event with this fact.
    fn of_kind(kind: &FactKind) -> Self {
        if matches!(kind, FactKind::Described { .. }) { Self::PassedOn } else { Self::Fact }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Fact => "fact",
            Self::PassedOn => "passed_on",
            Self::Unverified => "unverified",
            Self::Repeated => "repeated",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// Folds an event into the state of its installation.
///
/// Events of untrusted principals are held and are not facts. Facts are the events of trusted principals that mean
/// something for the installation, and the installs and uninstalls that decide which principal is trusted. `read` returns the fact of a held event, unless it
/// is already folded.
pub fn fold<'a, E>(
    state: &mut Arc<InstallationState>,
    event: &Event,
    rules: impl Into<Rules<'a>>,
    read: impl FnMut(&HeldEvent) -> Result<Option<Fact>, E>,
) -> Result<(Outcome, Vec<Effect>), E> {
    let rules = rules.into();
    let verdict = state.verdict(rules.trust);
    let is_trusted = verdict.trusts(event.principal);
    let known = state.principals.get(&event.principal);
    if known.is_some_and(|known| is_held(known, event)) {
        return Ok((Outcome::Repeated, Vec::new()));
    }
    let fact = fact_of(state, event, rules.trust, &verdict);
    if fact.is_none() && is_trusted && known.is_some_and(|known| known.held.is_empty()) && !state.is_silent(event) {
        return Ok((Outcome::PassedOn, vec![Effect::Verified(event.public.clone())]));
    }
    let before = Shown::of(state, &event.installation, event.raw.partition, verdict, fact.as_ref(), rules);
    let state = Arc::make_mut(state);
    let mut changes = Changes { state, installation: &event.installation, read, effects: vec![], forgotten: vec![] };

    let is_fact = fact.is_some();
    let outcome = fact.as_ref().map(|fact| &fact.kind).map(Outcome::of_kind);
    let verdict = changes.take(fact, &before.verdict, rules.trust)?;
    let verified = is_trusted || verdict.trusts(event.principal);
    if verified {
        if changes.state.is_silent(event) && !is_fact {
            changes.make(Change::Heard(event.installation.clone(), event.stamp.received_at));
        }
        changes.effects.push(Effect::Verified(event.public.clone()));
    } else {
        changes.effects.push(Effect::Unverified(event.public.clone()));
        changes.hold(event);
    }
    let Changes { mut effects, forgotten, .. } = changes;
    before.compare(state, verdict, &forgotten, &mut effects);
    Ok((if verified { outcome.unwrap_or(Outcome::PassedOn) } else { Outcome::Unverified }, effects))
}

/// Folds an attestation, which is a command, not an event of a portal. One that changes nothing has no effect.
pub fn fold_attestation<'a, E>(
    state: &mut Arc<InstallationState>,
    fact: Fact,
    rules: impl Into<Rules<'a>>,
    read: impl FnMut(&HeldEvent) -> Result<Option<Fact>, E>,
) -> Result<(Outcome, Vec<Effect>), E> {
    let rules = rules.into();
    let known = state.principals.get(&fact.principal);
    if known.is_some_and(|known| known.claims.has(&fact)) {
        return Ok((Outcome::Repeated, Vec::new()));
    }
    let attested = state.principals.values().filter(|known| known.is_attested()).count();
    if attested >= ATTESTED_MAX && !known.is_some_and(Principal::is_attested) {
        return Ok((Outcome::Rejected(Reason::TooManyPrincipals), Vec::new()));
    }
    let installation = fact.installation.clone();
    let before = Shown::of(state, &installation, fact.raw.partition, state.verdict(rules.trust), Some(&fact), rules);
    let state = Arc::make_mut(state);
    let mut changes = Changes { state, installation: &installation, read, effects: vec![], forgotten: vec![] };
    let verdict = changes.take(Some(fact), &before.verdict, rules.trust)?;
    let Changes { mut effects, forgotten, .. } = changes;
    before.compare(state, verdict, &forgotten, &mut effects);
    Ok((Outcome::Fact, effects))
}

/// Removes an installation without facts, to make room for others.
pub fn forget(state: &mut Arc<InstallationState>, installation: &Installation) -> Vec<Effect> {
    let principals: Vec<Fingerprint> = state.principals.keys().copied().collect();
    let held: Vec<_> = principals.into_iter().flat_map(|principal| state.held_of(installation, principal)).collect();
    let (state, mut effects) = (Arc::make_mut(state), Vec::new());
    for held in held {
        effects.push(Effect::GaveWay(held.clone(), held_bytes(state, &held)));
        let change = Change::NoLongerHeld(held);
        state.apply(&change);
        effects.push(Effect::Changed(change));
    }
    if state.principals.is_empty() {
        effects.push(Effect::InstallationGone(installation.clone()));
    }
    effects
}

/// Whether this event is held already; a redriven one may be in `raw` several times.
fn is_held(known: &Principal, event: &Event) -> bool {
    let id = event.stamp.id;
    known.held.get(&event.raw.offset).is_some_and(|held| held.id == id)
        || is_redriven(id) && known.held.values().any(|held| held.id == id)
}

/// The fact that follows from an event immediately. A redriven event always has one: by it the next copy is recognised.
fn fact_of(state: &InstallationState, event: &Event, trust: Trust, verdict: &Verdict) -> Option<Fact> {
    if verdict.trusts(event.principal) {
        let is_news =
            || is_redriven(event.stamp.id) || state.description_by(verdict).learns(&event.profile, event.stamp);
        return event.fact().or_else(|| is_news().then(|| event.described()));
    }
    let is_first = || state.holder().is_none_or(|holder| holder == event.principal);
    if trust == Trust::FirstEvent && verdict.trusted.is_empty() && is_first() {
        // The first principal has to be recorded, whatever its event is.
        return event.fact().or_else(|| Some(event.described()));
    }
    // Where principals are attested, or have to be, installs of others decide nothing.
    let is_open = trust != Trust::Known && !state.principals.values().any(Principal::is_attested);
    event.fact().filter(|fact| is_open && fact.kind.is_turn())
}

fn held_bytes(state: &InstallationState, held: &HeldEvent) -> u32 {
    let known = state.principals.get(&held.principal).and_then(|known| known.held.get(&held.offset));
    known.map_or(0, |held| held.bytes)
}

struct Changes<'a, R> {
    state: &'a mut InstallationState,
    installation: &'a Installation,
    read: R,
    effects: Vec<Effect>,
    /// Decisions that were replaced by newer ones, or became void.
    forgotten: Vec<Decided>,
}

impl<E, R: FnMut(&HeldEvent) -> Result<Option<Fact>, E>> Changes<'_, R> {
    fn make(&mut self, change: Change) {
        let gone = self.state.apply(&change);
        self.forgotten.extend(gone);
        self.effects.push(Effect::Changed(change));
    }

    /// Adds a fact, and releases what is held of principals that are trusted now. No event of a trusted principal stays
    /// held, even if a corrected fact made it trusted, not this one. Returns the verdict.
    fn take(&mut self, fact: Option<Fact>, before: &Verdict, trust: Trust) -> Result<Verdict, E> {
        let mut verdict = before.clone();
        if let Some(fact) = fact {
            self.make(Change::Fact(Box::new(fact)));
            verdict = self.state.verdict(trust);
        }
        // Released facts may change the verdict again: an uninstall that was held opens the place.
        loop {
            let trusted = verdict.trusted.iter().map(|trusted| trusted.principal);
            let has_held = |principal: &Fingerprint| {
                self.state.principals.get(principal).is_some_and(|known| !known.held.is_empty())
            };
            let holding: Vec<Fingerprint> = trusted.filter(has_held).collect();
            if holding.is_empty() {
                return Ok(verdict);
            }
            for principal in holding {
                self.release(principal, &verdict)?;
            }
            verdict = self.state.verdict(trust);
        }
    }

    fn held_fact(&mut self, held: &HeldEvent) -> Result<Option<Fact>, E> {
        let known = self.state.principals.get(&held.principal);
        let has_fact = known.and_then(|known| known.held.get(&held.offset)).is_some_and(|held| held.has_fact);
        if has_fact { (self.read)(held) } else { Ok(None) }
    }

    /// Whether the fact of a held event says something that is not known.
    fn is_news(&self, fact: &Fact, verdict: &Verdict) -> bool {
        let FactKind::Described { profile } = &fact.kind else { return true };
        let first_word = self.state.principals.get(&fact.principal).and_then(|known| known.claims.first_word);
        is_redriven(fact.stamp.id)
            || first_word.is_none_or(|(first, _)| fact.raw.offset < first)
            || self.state.description_by(verdict).learns(profile, fact.stamp)
    }

    /// Releases the held events of a principal, in the order of arrival.
    fn release(&mut self, principal: Fingerprint, verdict: &Verdict) -> Result<(), E> {
        for held in self.state.held_of(self.installation, principal) {
            if let Some(fact) = self.held_fact(&held)?.filter(|fact| self.is_news(fact, verdict)) {
                self.make(Change::Fact(Box::new(fact)));
            }
            self.effects.push(Effect::Release(held.clone()));
            self.make(Change::NoLongerHeld(held));
        }
        Ok(())
    }

    /// Holds the event, in case its principal becomes trusted. At a limit, others give way: the principal's own oldest
    /// event; for a new principal, the one with the fewest held events; then the oldest event of the principal with
    /// the most held bytes. The very first event stays: its principal holds the place.
    fn hold(&mut self, event: &Event) {
        let bytes = event.public.size().max(event.body_bytes);
        let first = self.state.first_heard().unwrap_or((event.raw.offset, event.principal));
        let own = self.state.held_of(self.installation, event.principal);
        self.limit_strangers([first.1, event.principal]);
        let known = self.state.principals.get(&event.principal);
        let (mut number, mut taken) = (own.len(), known.map_or(0, Principal::held_bytes));
        for oldest in own.into_iter().filter(|held| held.offset != first.0) {
            if number < HELD_MAX && taken + u64::from(bytes) <= HELD_BYTES_MAX {
                break;
            }
            number -= 1;
            taken -= self.let_go(oldest);
        }
        let mut all: u64 = self.state.principals.values().map(Principal::held_bytes).sum();
        let mut number: usize = self.state.principals.values().map(|known| known.held.len()).sum();
        while number >= INSTALLATION_HELD_MAX || all + u64::from(bytes) > INSTALLATION_HELD_BYTES_MAX {
            let others = self.state.principals.iter().filter_map(|(principal, known)| {
                let oldest = known.held.keys().find(|offset| **offset != first.0)?;
                Some((known.held_bytes(), known.held.len(), *principal, *oldest))
            });
            let Some((.., principal, oldest)) = others.max() else { break };
            let held = self.state.held_of(self.installation, principal).into_iter().find(|held| held.offset == oldest);
            all -= self.let_go(held.expect("found above"));
            number -= 1;
        }
        let (installation, id, offset) = (event.installation.clone(), event.stamp.id, event.raw.offset);
        // Every event describes the portal; that of the first one also tells when the principal was first heard of.
        let fact = Some(Box::new(event.fact().unwrap_or_else(|| event.described())));
        let details = HeldDetails { raw: event.raw, bytes, fact };
        self.make(Change::Held(HeldEvent { installation, id, principal: event.principal, offset }, details));
    }

    /// Of more than [`STRANGERS_MAX`] principals without facts, the ones with the fewest held events give way, of several
    /// the oldest; but not these.
    fn limit_strangers(&mut self, stay: [Fingerprint; 2]) {
        let is_other =
            |(principal, known): &(&Fingerprint, &Principal)| !known.has_claims() && !stay.contains(principal);
        let others = self.state.principals.iter().filter(is_other);
        let mut others: Vec<_> = others
            .map(|(principal, known)| (known.held.len(), known.held.keys().next_back().copied(), *principal))
            .collect();
        others.sort_unstable();
        let surplus = (others.len() + stay.len()).saturating_sub(STRANGERS_MAX);
        for (_, _, principal) in others.into_iter().take(surplus) {
            for held in self.state.held_of(self.installation, principal) {
                self.let_go(held);
            }
        }
    }

    /// Stops holding an event. Returns its size.
    fn let_go(&mut self, held: HeldEvent) -> u64 {
        let bytes = held_bytes(self.state, &held);
        self.effects.push(Effect::GaveWay(held.clone(), bytes));
        self.make(Change::NoLongerHeld(held));
        u64::from(bytes)
    }
}

/// The published state of an installation, as far as a fact can change it.
struct Shown<'a> {
    installation: &'a Installation,
    partition: u32,
    endpoint_hosts: &'a EndpointHosts,
    verdict: Verdict,
    record: Option<InstallationRecord>,
    permissions: Permissions,
}

/// The permissions that a fact can change.
enum Permissions {
    /// Any: other principals may be trusted, or held events are released. Holds all permissions from before.
    Any(Vec<PermissionRecord>),
    /// The one of this method and token, as it was, and the forgotten ones.
    One((Method, Fingerprint), Option<PermissionRecord>),
    Forgotten,
}

impl<'a> Shown<'a> {
    fn of(
        state: &InstallationState,
        installation: &'a Installation,
        partition: u32,
        verdict: Verdict,
        fact: Option<&Fact>,
        rules: Rules<'a>,
    ) -> Self {
        let endpoint_hosts = rules.endpoint_hosts;
        let decides = |kind: &FactKind| kind.is_turn() || matches!(kind, FactKind::Attested { .. });
        let may_move = fact.is_some_and(|fact| decides(&fact.kind) || verdict.trusted.is_empty());
        let is_holding = || state.trusted(&verdict).any(|known| !known.held.is_empty());
        let permissions = match fact.map(|fact| &fact.kind) {
            _ if may_move || is_holding() => Permissions::Any(state.permissions_by(&verdict)),
            Some(FactKind::MethodDecided { method, token, .. }) => {
                let key = (method.clone(), *token);
                let record = state.decision(&verdict, method, *token).map(|latest| PermissionRecord::of(&key, latest));
                Permissions::One(key, record)
            }
            Some(_) | None => Permissions::Forgotten,
        };
        let record = || state.record_by(verdict.clone(), installation, partition, endpoint_hosts);
        let record = (!state.principals.is_empty()).then(record);
        Self { installation, partition, endpoint_hosts, verdict, record, permissions }
    }

    /// Adds an effect for each published record that differs.
    fn compare(self, state: &InstallationState, verdict: Verdict, forgotten: &[Decided], effects: &mut Vec<Effect>) {
        debug_assert!(
            self.verdict == verdict || matches!(self.permissions, Permissions::Any(_)),
            "other principals are trusted"
        );
        let (mut before, decided) = match self.permissions {
            Permissions::Any(before) => (before, None),
            Permissions::One(key, before) => (before.into_iter().collect(), Some(Some(key))),
            Permissions::Forgotten => (Vec::new(), Some(None)),
        };
        let after = match decided {
            None => state.permissions_by(&verdict),
            Some(decided) => {
                let mut after = BTreeMap::new();
                let decision = |(method, token): &(Method, Fingerprint)| state.decision(&verdict, method, *token);
                for (key, was) in forgotten.iter().filter(|(key, _)| Some(key) != decided.as_ref()) {
                    // Another trusted principal may have decided about the same, also later.
                    let shown = decision(key).filter(|other| other.since > was.since).unwrap_or(was);
                    before.push(PermissionRecord::of(key, shown));
                    after.insert(key, decision(key));
                }
                after.extend(decided.as_ref().map(|key| (key, decision(key))));
                after.into_iter().filter_map(|(key, latest)| Some(PermissionRecord::of(key, latest?))).collect()
            }
        };
        let record = state.record_by(verdict, self.installation, self.partition, self.endpoint_hosts);
        if !state.principals.is_empty() && self.record.as_ref() != Some(&record) {
            effects.push(Effect::Installation(Box::new(record)));
        }
        differences(before, after, effects);
    }
}

/// Adds an effect for each removed and each added record, in order of method and token.
fn differences(mut before: Vec<PermissionRecord>, after: Vec<PermissionRecord>, effects: &mut Vec<Effect>) {
    let place = |record: &PermissionRecord| (record.method.clone(), record.token);
    before.sort_by_key(place);
    for gone in &before {
        if after.binary_search_by_key(&place(gone), place).is_err() {
            effects.push(Effect::PermissionGone(gone.clone()));
        }
    }
    for record in after {
        let known = before.binary_search_by_key(&place(&record), place);
        if known.is_err() || known.is_ok_and(|index| before[index] != record) {
            effects.push(Effect::Permission(record));
        }
    }
}

#[cfg(test)]
mod tests;
