//! One event and what is known → what changes and what is to be published. Pure.

use bitrix24::Installation;
use bitrix24::Trust;
use primitives::secret::Fingerprint;

use crate::{
    Change, EndpointHosts, Event, Fact, FactKind, HELD_BYTES_MAX, HELD_MAX, HeldDetails, HeldEvent,
    INSTALLATION_HELD_BYTES_MAX, INSTALLATION_HELD_MAX, InstallationRecord, InstallationState, Method,
    PermissionRecord, Principal, Public, Reason, Rules, STRANGERS_MAX, Trusted,
};

/// What is to be published because of one event, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A change to what we understood, for `facts`.
    Changed(Change),
    /// For `events`: its principal is trusted.
    Verified(Public),
    /// For `unverified`: its principal is not.
    Unverified(Public),
    /// For `events`, now that its principal is trusted: the event that lies there in `raw`.
    Release(HeldEvent),
    /// The installation record has changed.
    Installation(Box<InstallationRecord>),
    /// Nothing is known of the installation any more.
    InstallationGone(Installation),
    /// A method-permission record is new or has changed.
    Permission(PermissionRecord),
    /// A method-permission record is gone.
    PermissionGone(PermissionRecord),
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is a fact.
    Fact,
    /// It was verified and passed on.
    PassedOn,
    /// Its principal is not trusted.
    Unverified,
    /// It was there before.
    Repeated,
    /// It was rejected.
    Rejected(Reason),
}

impl Outcome {
    /// As metrics and the page say it.
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

/// Folds an event into what is known of its installation.
///
/// An event of an untrusted principal is held, and is no fact: a fact is what a trusted principal said, and the comings
/// and goings that decide which principal is trusted. `read` gives the fact of a held event, unless that is a
/// fact already.
pub fn fold<'a, E>(
    state: &mut InstallationState,
    event: &Event,
    rules: impl Into<Rules<'a>>,
    read: impl FnMut(&HeldEvent) -> Result<Option<Fact>, E>,
) -> Result<(Outcome, Vec<Effect>), E> {
    let Rules { trust, endpoint_hosts } = rules.into();
    let trusted = state.trusted(trust);
    let is_trusted = trusted.is_some_and(|trusted| trusted.principal == event.principal);
    let known = state.principals.get(&event.principal);
    if event.kind.is_none() && is_trusted && known.is_some_and(|known| known.held.is_empty()) {
        return Ok((Outcome::PassedOn, vec![Effect::Verified(event.public.clone())]));
    }
    let held = known.and_then(|known| known.held.get(&event.raw.offset));
    if held.is_some_and(|held| held.id == event.stamp.id) {
        return Ok((Outcome::Repeated, Vec::new()));
    }
    let fact = fact_of(state, event, trust, trusted);
    let before = Shown::of(state, event, trusted, fact.as_ref(), endpoint_hosts);
    let mut changes = Changes { state, event, read, effects: Vec::new(), forgotten: Vec::new() };

    let is_fact = fact.is_some();
    if let Some(fact) = fact {
        changes.add(fact)?;
    }
    let now_trusted = if is_fact { changes.state.trusted(trust) } else { trusted };
    // Nothing of the trusted principal is held, also where a fact that was put right made it so, not this event.
    if let Some(trusted) = now_trusted {
        changes.release(trusted.principal)?;
    }
    let verified = is_trusted || now_trusted.is_some_and(|trusted| trusted.principal == event.principal);
    if verified {
        changes.effects.push(Effect::Verified(event.public.clone()));
    } else {
        changes.effects.push(Effect::Unverified(event.public.clone()));
        changes.hold();
    }
    let Changes { mut effects, forgotten, .. } = changes;
    before.compare(state, event, now_trusted, forgotten, &mut effects);

    let outcome = match (verified, is_fact) {
        (false, _) => Outcome::Unverified,
        (true, true) => Outcome::Fact,
        (true, false) => Outcome::PassedOn,
    };
    Ok((outcome, effects))
}

/// Forgets an installation of which nothing is known but held events, to make room for others.
pub fn forget(state: &mut InstallationState, installation: &Installation) -> Vec<Effect> {
    let principals: Vec<Fingerprint> = state.principals.keys().copied().collect();
    let held = principals.into_iter().flat_map(|principal| state.held_of(installation, principal));
    let changes: Vec<Change> = held.map(Change::NoLongerHeld).collect();
    for change in &changes {
        state.apply(change);
    }
    let gone = state.principals.is_empty().then(|| Effect::InstallationGone(installation.clone()));
    changes.into_iter().map(Effect::Changed).chain(gone).collect()
}

/// The fact that follows from an event at once, if any does.
fn fact_of(state: &InstallationState, event: &Event, trust: Trust, trusted: Option<Trusted>) -> Option<Fact> {
    if trusted.is_some_and(|trusted| trusted.principal == event.principal) {
        return event.fact();
    }
    if trust == Trust::FirstEvent && trusted.is_none() {
        // Somebody has to remember who the first was, whatever it says.
        return event.fact().or_else(|| Some(event.fact_of(FactKind::Spoke)));
    }
    let has_claims = state.principals.get(&event.principal).is_some_and(Principal::has_claims);
    let has_room = || state.has_room(state.is_open(trusted.map(|trusted| trusted.principal)));
    let counts = match &event.kind {
        Some(FactKind::Installed { complete: true, .. }) => has_claims || has_room(),
        Some(FactKind::Uninstalled { .. }) => has_claims,
        Some(
            FactKind::Installed { complete: false, .. }
            | FactKind::Updated { .. }
            | FactKind::Paid { .. }
            | FactKind::MethodDecided { .. }
            | FactKind::UserReady { .. }
            | FactKind::Spoke,
        )
        | None => false,
    };
    if counts { event.fact() } else { None }
}

/// Changes to an installation, each also an effect.
struct Changes<'a, R> {
    state: &'a mut InstallationState,
    event: &'a Event,
    read: R,
    effects: Vec<Effect>,
    /// Decisions that gave way to newer ones, or became void.
    forgotten: Vec<PermissionRecord>,
}

impl<E, R: FnMut(&HeldEvent) -> Result<Option<Fact>, E>> Changes<'_, R> {
    fn make(&mut self, change: Change) {
        let gone = self.state.apply(&change);
        self.forgotten.extend(gone.iter().map(|(key, latest)| PermissionRecord::of(key, latest)));
        self.effects.push(Effect::Changed(change));
    }

    /// Adds a fact. Where it is the principal's first, uninstalls that were held are facts, too: its last word may be
    /// among them. Not so installs: they had no room when they came, and must not take the place from before.
    fn add(&mut self, fact: Fact) -> Result<(), E> {
        let principal = fact.principal;
        let is_first = !self.state.principals.get(&principal).is_some_and(Principal::has_claims);
        self.make(Change::Fact(Box::new(fact)));
        if is_first {
            for held in self.state.held_of(&self.event.installation, principal) {
                let fact = self.held_fact(&held)?;
                if let Some(fact) = fact.filter(|fact| matches!(fact.kind, FactKind::Uninstalled { .. })) {
                    self.make(Change::Fact(Box::new(fact)));
                }
            }
        }
        Ok(())
    }

    /// The fact of a held event.
    fn held_fact(&mut self, held: &HeldEvent) -> Result<Option<Fact>, E> {
        let known = self.state.principals.get(&held.principal);
        let has_fact = known.and_then(|known| known.held.get(&held.offset)).is_some_and(|held| held.has_fact);
        if has_fact { (self.read)(held) } else { Ok(None) }
    }

    /// Releases the held events of this principal, in the order in which they came.
    fn release(&mut self, principal: Fingerprint) -> Result<(), E> {
        for held in self.state.held_of(&self.event.installation, principal) {
            // Comings and goings were added before.
            if let Some(fact) = self.held_fact(&held)?.filter(|fact| !fact.kind.is_turn()) {
                self.make(Change::Fact(Box::new(fact)));
            }
            self.effects.push(Effect::Release(held.clone()));
            self.make(Change::NoLongerHeld(held));
        }
        Ok(())
    }

    /// Remembers where the event lies, in case its principal becomes trusted. Others give way: the principal's own
    /// oldest; for a new principal the one of which the least is held; and the oldest of the one of which the most is
    /// held.
    fn hold(&mut self) {
        let event = self.event;
        let bytes = event.public.size().max(event.body_bytes);
        let own = self.state.held_of(&event.installation, event.principal);
        let known = self.state.principals.get(&event.principal);
        let is_new = own.is_empty() && !known.is_some_and(Principal::has_claims);
        if is_new && !self.make_room_for_a_principal() {
            return;
        }
        let known = self.state.principals.get(&event.principal);
        let (mut number, mut taken) = (own.len(), known.map_or(0, Principal::held_bytes));
        for oldest in own {
            if number < HELD_MAX && taken + u64::from(bytes) <= HELD_BYTES_MAX {
                break;
            }
            number -= 1;
            taken -= self.let_go(oldest);
        }
        let mut all: u64 = self.state.principals.values().map(Principal::held_bytes).sum();
        let mut number: usize = self.state.principals.values().map(|known| known.held.len()).sum();
        while number >= INSTALLATION_HELD_MAX || all + u64::from(bytes) > INSTALLATION_HELD_BYTES_MAX {
            let fullest = self.state.principals.iter().max_by_key(|(_, known)| (known.held_bytes(), known.held.len()));
            let Some((principal, _)) = fullest else { break };
            let Some(oldest) = self.state.held_of(&event.installation, *principal).into_iter().next() else {
                break;
            };
            all -= self.let_go(oldest);
            number -= 1;
        }
        let (installation, id, offset) = (event.installation.clone(), event.stamp.id, event.raw.offset);
        let details = HeldDetails { raw: event.raw, bytes, fact: event.fact().map(Box::new) };
        self.make(Change::Held(HeldEvent { installation, id, principal: event.principal, offset }, details));
    }

    /// Lets the principal give way of which the least is held, if there are too many; not if the newcomer has still
    /// less.
    fn make_room_for_a_principal(&mut self) -> bool {
        let strangers = self.state.principals.iter().filter(|(_, known)| !known.has_claims());
        let held_of = |(principal, known): (&Fingerprint, &Principal)| {
            (known.held.len(), known.held.keys().next_back().copied(), *principal)
        };
        let held: Vec<_> = strangers.map(held_of).collect();
        if held.len() < STRANGERS_MAX {
            return true;
        }
        let Some((1, _, emptiest)) = held.into_iter().min() else { return false };
        for held in self.state.held_of(&self.event.installation, emptiest) {
            self.let_go(held);
        }
        true
    }

    /// Forgets where an event lies. Returns how many bytes it shows.
    fn let_go(&mut self, held: HeldEvent) -> u64 {
        let known = self.state.principals.get(&held.principal);
        let bytes = known.and_then(|known| known.held.get(&held.offset)).map_or(0, |held| held.bytes);
        self.make(Change::NoLongerHeld(held));
        u64::from(bytes)
    }
}

/// What the world is shown of an installation, as far as an event can change it.
struct Shown<'a> {
    endpoint_hosts: &'a EndpointHosts,
    trusted: Option<Fingerprint>,
    record: Option<InstallationRecord>,
    permissions: Permissions,
}

/// Which of the permissions an event can change.
enum Permissions {
    /// Any: the trusted principal may be another one, or held events are released. Here are all there were.
    Any(Vec<PermissionRecord>),
    /// The one of this method and token, as it was, and those that are forgotten for it.
    One((Method, Fingerprint), Option<PermissionRecord>),
    /// Those that are forgotten.
    Forgotten,
}

impl<'a> Shown<'a> {
    fn of(
        state: &InstallationState,
        event: &Event,
        trusted: Option<Trusted>,
        fact: Option<&Fact>,
        endpoint_hosts: &'a EndpointHosts,
    ) -> Self {
        let principal = trusted.map(|trusted| trusted.principal);
        let known = principal.and_then(|principal| state.principals.get(&principal));
        let may_move = fact.is_some_and(|fact| fact.kind.is_turn() || principal.is_none());
        let permissions = match fact.map(|fact| &fact.kind) {
            _ if may_move || known.is_some_and(|known| !known.held.is_empty()) => {
                Permissions::Any(state.permissions_by(principal))
            }
            Some(FactKind::MethodDecided { method, token, .. }) => {
                let key = (method.clone(), *token);
                let latest = known.and_then(|known| known.decisions.get(&key));
                let record = latest.map(|latest| PermissionRecord::of(&key, latest));
                Permissions::One(key, record)
            }
            Some(_) | None => Permissions::Forgotten,
        };
        let record = || state.record_by(trusted, &event.installation, event.raw.partition, endpoint_hosts);
        let record = (!state.principals.is_empty()).then(record);
        Self { endpoint_hosts, trusted: principal, record, permissions }
    }

    /// Adds what has to be shown anew.
    fn compare(
        self,
        state: &InstallationState,
        event: &Event,
        trusted: Option<Trusted>,
        forgotten: Vec<PermissionRecord>,
        effects: &mut Vec<Effect>,
    ) {
        let record = state.record_by(trusted, &event.installation, event.raw.partition, self.endpoint_hosts);
        if !state.principals.is_empty() && self.record.as_ref() != Some(&record) {
            effects.push(Effect::Installation(Box::new(record)));
        }
        let principal = trusted.map(|trusted| trusted.principal);
        debug_assert!(
            self.trusted == principal || matches!(self.permissions, Permissions::Any(_)),
            "the trusted principal has changed"
        );
        match self.permissions {
            Permissions::Any(before) => differences(before, state.permissions_by(principal), effects),
            Permissions::One(key, before) => {
                let known = principal.and_then(|principal| state.principals.get(&principal));
                let after = known.and_then(|known| known.decisions.get(&key));
                let after = after.map(|latest| PermissionRecord::of(&key, latest));
                let others = forgotten.into_iter().filter(|gone| (&gone.method, gone.token) != (&key.0, key.1));
                differences(before.into_iter().chain(others).collect(), after.into_iter().collect(), effects);
            }
            Permissions::Forgotten => differences(forgotten, Vec::new(), effects),
        }
    }
}

/// Adds what is gone and what is new, both in order of method and token.
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
