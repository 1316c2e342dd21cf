//! One event and what is known → what changes and what is to be published. Pure.

use common::event::EventId;
use common::secret::Fingerprint;
use common::settings::Trust;

use crate::domain::{
    Change, Event, InstallationRecord, PermissionRecord, Portal, Public, Reason, Rules, Teller, Told, WAITING_MAX,
    Waiting,
};

/// So many different tellers may speak for one installation; forgers can make more proofs than we have memory.
pub const TELLERS_MAX: usize = 32;

/// What is to be published because of one event, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A change to what we understood, for `facts`.
    Changed(Change),
    /// For `events`: its teller is believed.
    Proven(Public),
    /// For `unproven`: its teller is not.
    Unproven(Public),
    /// For `events`, now that its teller is believed: the event that lies there in `raw`.
    Release(Waiting),
    /// The installation record has changed.
    Installation(Box<InstallationRecord>),
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
    Foreign,
    /// Its teller is not believed.
    Unproven,
    /// It was there before.
    Repeated,
    /// It was set aside.
    Rejected(Reason),
}

impl Outcome {
    /// As metrics and the page say it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fact => "fact",
            Self::Foreign => "foreign",
            Self::Unproven => "unproven",
            Self::Repeated => "repeated",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// Folds an event into what is known of its installation. A rejection changes nothing.
pub fn fold<'a>(
    portal: &mut Portal,
    event: &Event,
    rules: impl Into<Rules<'a>>,
) -> Result<(Outcome, Vec<Effect>), Reason> {
    let rules = rules.into();
    let trust = rules.trust;
    if !portal.tellers.contains_key(&event.teller) && portal.tellers.len() >= TELLERS_MAX {
        return Err(Reason::TooManyTellers);
    }
    let is_believed = || portal.believed(trust).is_some_and(|believed| believed.teller == event.teller);
    let nothing_waits = |known: &Teller| known.waiting.is_empty();
    if event.told.is_none() && portal.tellers.get(&event.teller).is_some_and(nothing_waits) && is_believed() {
        return Ok((Outcome::Foreign, vec![Effect::Proven(event.public.clone())]));
    }
    let before = Shown::of(portal, event, rules);
    let mut changes = Changes { portal, effects: Vec::new() };

    let fact = event.fact().or_else(|| first_word(changes.portal, event, trust));
    let is_fact = fact.is_some();
    if let Some(fact) = fact {
        changes.make(Change::Told(Box::new(fact)));
    }
    let believed = changes.portal.believed(trust).map(|believed| believed.teller);
    // Whoever is believed waits for nothing, also where a fact that was put right made it so, not this event.
    if let Some(teller) = believed {
        changes.release(event, teller);
    }
    let proven = believed == Some(event.teller) || before.believed == Some(event.teller);
    if proven {
        changes.effects.push(Effect::Proven(event.public.clone()));
    } else {
        changes.effects.push(Effect::Unproven(event.public.clone()));
        changes.wait(event);
    }
    let mut effects = changes.effects;
    before.compare(&Shown::of(portal, event, rules), &mut effects);

    let outcome = match (proven, is_fact) {
        (false, _) => Outcome::Unproven,
        (true, true) => Outcome::Fact,
        (true, false) => Outcome::Foreign,
    };
    Ok((outcome, effects))
}

/// Where an app believes the first who speaks, somebody has to remember who that was.
fn first_word(portal: &Portal, event: &Event, trust: Trust) -> Option<crate::domain::Fact> {
    let nobody = trust == Trust::FirstEvent && portal.believed(trust).is_none();
    nobody.then(|| event.fact_of(Told::Spoke))
}

/// Changes to a portal, each also an effect.
struct Changes<'a> {
    portal: &'a mut Portal,
    effects: Vec<Effect>,
}

impl Changes<'_> {
    fn make(&mut self, change: Change) {
        self.portal.apply(&change);
        self.effects.push(Effect::Changed(change));
    }

    /// Remembers where the event lies, for the case that its teller becomes believed; the oldest place gives way.
    fn wait(&mut self, event: &Event) {
        let waiting = self.waiting(event, event.teller);
        if waiting.len() >= WAITING_MAX {
            self.make(Change::WaitsNoMore(waiting[0].clone()));
        }
        self.make(Change::Waits(Waiting {
            installation: event.installation.clone(),
            id: event.stamp.id,
            teller: event.teller,
            offset: event.raw.offset,
        }));
    }

    /// Lets everything go that waited for this teller to be believed, in the order in which it came.
    fn release(&mut self, event: &Event, teller: Fingerprint) {
        for waiting in self.waiting(event, teller) {
            self.effects.push(Effect::Release(waiting.clone()));
            self.make(Change::WaitsNoMore(waiting));
        }
    }

    fn waiting(&self, event: &Event, teller: Fingerprint) -> Vec<Waiting> {
        let Some(known) = self.portal.tellers.get(&teller) else {
            return Vec::new();
        };
        let place = |(offset, id): (&u64, &EventId)| Waiting {
            installation: event.installation.clone(),
            id: *id,
            teller,
            offset: *offset,
        };
        known.waiting.iter().map(place).collect()
    }
}

/// What the world is shown of an installation.
struct Shown {
    believed: Option<Fingerprint>,
    record: Option<InstallationRecord>,
    permissions: Vec<PermissionRecord>,
}

impl Shown {
    fn of(portal: &Portal, event: &Event, rules: Rules<'_>) -> Self {
        let trust = rules.trust;
        let record = || portal.record(&event.installation, event.raw.partition, rules);
        Self {
            believed: portal.believed(trust).map(|believed| believed.teller),
            record: (!portal.tellers.is_empty()).then(record),
            permissions: portal.permissions(trust),
        }
    }

    /// Adds what has to be shown anew.
    fn compare(&self, after: &Self, effects: &mut Vec<Effect>) {
        if let Some(record) = after.record.as_ref().filter(|record| self.record.as_ref() != Some(record)) {
            effects.push(Effect::Installation(Box::new(record.clone())));
        }
        let same_place =
            |one: &PermissionRecord, other: &PermissionRecord| (&one.method, one.token) == (&other.method, other.token);
        for gone in &self.permissions {
            if !after.permissions.iter().any(|record| same_place(record, gone)) {
                effects.push(Effect::PermissionGone(gone.clone()));
            }
        }
        for record in &after.permissions {
            if !self.permissions.contains(record) {
                effects.push(Effect::Permission(record.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
