//! One event and the known state → changes and records to publish. Pure.

use bitrix24::{Installation, Trust};
use primitives::secret::Fingerprint;

use crate::installation::{HELD_MAX, INSTALLATION_HELD_BYTES_MAX, INSTALLATION_HELD_MAX, STRANGERS_MAX};
use crate::trust::Trusted;
use crate::{
    Change, EndpointHosts, Event, Fact, FactKind, HELD_BYTES_MAX, HeldDetails, HeldEvent, InstallationRecord,
    InstallationState, Method, PermissionRecord, Principal, Public, Reason, Rules,
};

/// A consequence of one event; effects are published in their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Changed(Change),
    /// For `events`: the principal is trusted.
    Verified(Public),
    /// For `unverified`: the principal is not trusted.
    Unverified(Public),
    /// For `events`, once the principal is trusted: the event at this offset of `raw`.
    Release(HeldEvent),
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
/// Events of untrusted principals are held and are not facts. Facts are the events of trusted principals, and the
/// installs and uninstalls that decide which principal is trusted. `read` returns the fact of a held event, unless it
/// is already folded.
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
    // No event of the trusted principal stays held, even if a corrected fact made it trusted, not this event.
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

/// Removes an installation without facts, to make room for others.
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

/// The fact that follows from an event immediately.
fn fact_of(state: &InstallationState, event: &Event, trust: Trust, trusted: Option<Trusted>) -> Option<Fact> {
    if trusted.is_some_and(|trusted| trusted.principal == event.principal) {
        return event.fact();
    }
    if trust == Trust::FirstEvent && trusted.is_none() {
        // The first principal has to be recorded, whatever its event is.
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

struct Changes<'a, R> {
    state: &'a mut InstallationState,
    event: &'a Event,
    read: R,
    effects: Vec<Effect>,
    /// Decisions that were replaced by newer ones, or became void.
    forgotten: Vec<PermissionRecord>,
}

impl<E, R: FnMut(&HeldEvent) -> Result<Option<Fact>, E>> Changes<'_, R> {
    fn make(&mut self, change: Change) {
        let gone = self.state.apply(&change);
        self.forgotten.extend(gone.iter().map(|(key, latest)| PermissionRecord::of(key, latest)));
        self.effects.push(Effect::Changed(change));
    }

    /// Adds a fact. With the first fact of a principal, its held uninstalls become facts, too, since its last turn may
    /// be one of them. Held installs do not: they had no room on arrival, and must not take the place retroactively.
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

    fn held_fact(&mut self, held: &HeldEvent) -> Result<Option<Fact>, E> {
        let known = self.state.principals.get(&held.principal);
        let has_fact = known.and_then(|known| known.held.get(&held.offset)).is_some_and(|held| held.has_fact);
        if has_fact { (self.read)(held) } else { Ok(None) }
    }

    /// Releases the held events of a principal, in the order of arrival.
    fn release(&mut self, principal: Fingerprint) -> Result<(), E> {
        for held in self.state.held_of(&self.event.installation, principal) {
            // Turns were added before.
            if let Some(fact) = self.held_fact(&held)?.filter(|fact| !fact.kind.is_turn()) {
                self.make(Change::Fact(Box::new(fact)));
            }
            self.effects.push(Effect::Release(held.clone()));
            self.make(Change::NoLongerHeld(held));
        }
        Ok(())
    }

    /// Holds the event, in case its principal becomes trusted. At a limit, others give way: the principal's own oldest
    /// event; for a new principal, another one with a single held event; then the oldest event of the principal with
    /// the most held bytes.
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

    /// At the limit of principals, drops the one with the fewest held events; fails if that has more than one.
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

    /// Stops holding an event. Returns its size.
    fn let_go(&mut self, held: HeldEvent) -> u64 {
        let known = self.state.principals.get(&held.principal);
        let bytes = known.and_then(|known| known.held.get(&held.offset)).map_or(0, |held| held.bytes);
        self.make(Change::NoLongerHeld(held));
        u64::from(bytes)
    }
}

/// The published state of an installation, as far as an event can change it.
struct Shown<'a> {
    endpoint_hosts: &'a EndpointHosts,
    trusted: Option<Fingerprint>,
    record: Option<InstallationRecord>,
    permissions: Permissions,
}

/// The permissions that an event can change.
enum Permissions {
    /// Any: the trusted principal may change, or held events are released. Holds all permissions from before.
    Any(Vec<PermissionRecord>),
    /// The one of this method and token, as it was, and the forgotten ones.
    One((Method, Fingerprint), Option<PermissionRecord>),
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

    /// Adds an effect for each published record that differs.
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
