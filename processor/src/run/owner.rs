//! Folds raw events of owned partitions in steps: interpret → fold → publish → apply.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use bitrix24::Installation;
use event_log::contract::{Topic, header};
use event_log::{Entry, EventId, EventLog, Output, Position, RawEvent};
use primitives::time::Timestamp;
use runtime::lifecycle::Stop;
use tracing::warn;

use crate::metrics::{Metrics, Step};
use crate::run::dedup::Dedup;
use crate::run::failure::Failure;
use crate::run::held::HeldEvents;
use crate::run::inconsistency::Inconsistency;
use crate::run::publish::{Progress, Publisher, progress};
use crate::run::recent_events::{Recent, RecentEvents};
use crate::state::{Progressed, Store, StoreError};
use crate::vouch::Vouching;
use domain::fold::{Effect, Outcome, fold, fold_attestation, forget};
use domain::{
    Change, Event, Fact, HeldDetails, HeldEvent, InstallationState, Principal, Public, Reason, Stamp, interpret,
    interpret_command, unsigned_call,
};

/// Limits of an owner. A step is one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A step ends after the event whose outputs reach this size.
    pub step_bytes: usize,
    pub step_records: usize,
    /// A transaction must not stay open for long.
    pub step_time: Duration,
    /// After this, the rest of a batch is returned and fetched again, so that the group is polled.
    pub batch_time: Duration,
    /// Larger events are published without their data.
    pub event_bytes: usize,
    /// Limit of installations without facts, per app.
    pub untrusted: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            step_bytes: 8 * 1024 * 1024,
            step_records: 1_000,
            step_time: Duration::from_secs(1),
            batch_time: Duration::from_secs(10),
            event_bytes: 1024 * 1024,
            untrusted: 10_000,
        }
    }
}

/// Folds and publishes owned partitions. Its caches may be dropped at any time.
pub(crate) struct Owner<'a> {
    store: &'a Store,
    recent_events: &'a RecentEvents,
    metrics: &'a Metrics,
    limits: Limits,
    stop: &'a Stop,
    vouching: Option<&'a Vouching>,
    dedup: Dedup,
    held: HeldEvents,
}

#[derive(Default)]
struct Batch {
    /// The state of the installations in this step, including its changes.
    installations: HashMap<Installation, InstallationState>,
    /// Facts of this step, which the store does not have yet.
    facts: HashSet<EventId>,
    held_facts: BTreeMap<HeldEvent, Fact>,
    outputs: Vec<Output>,
    bytes: usize,
    partitions: BTreeMap<u32, Done>,
    recent: Vec<Recent>,
}

#[derive(Default)]
struct Done {
    /// `K` behind the step.
    raw: u64,
    /// The time of the record before `K`.
    at: Timestamp,
    /// The event before `K`, if it has an id.
    last: Option<EventId>,
    changes: Vec<Change>,
    ids: Vec<EventId>,
}

impl Batch {
    fn put(&mut self, output: Output) {
        self.bytes += output.record.size();
        self.outputs.push(output);
    }

    fn is_full(&self, limits: &Limits) -> bool {
        self.bytes >= limits.step_bytes || self.outputs.len() >= limits.step_records
    }
}

impl<'a> Owner<'a> {
    pub fn new(
        store: &'a Store,
        recent_events: &'a RecentEvents,
        metrics: &'a Metrics,
        limits: Limits,
        stop: &'a Stop,
    ) -> Self {
        let (dedup, held) = (Dedup::default(), HeldEvents::default());
        Self { store, recent_events, metrics, limits, stop, vouching: None, dedup, held }
    }

    /// Offers events of principals without an attestation.
    #[must_use]
    pub fn vouching(self, vouching: Option<&'a Vouching>) -> Self {
        Self { vouching, ..self }
    }

    /// Drops the caches after a change of assignment.
    pub fn forget(&mut self) {
        self.dedup.forget();
        self.held.forget();
    }

    /// Folds a batch step by step: publishes each, then applies it to the state. After [`Limits::batch_time`] the rest
    /// is returned and fetched again.
    pub fn take(&mut self, event_log: &mut dyn EventLog, entries: &[Entry]) -> Result<(), Failure> {
        let began = Instant::now();
        let is_new = |entry: &&Entry| {
            let Position { partition, offset } = entry.position;
            self.store.checkpoint(partition).raw.is_none_or(|read| read <= offset)
        };
        let entries: Vec<&Entry> = entries.iter().filter(is_new).collect();
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let taken = self.step(event_log, rest)?;
            rest = &rest[taken..];
            if self.stop.requested() {
                break;
            }
            if !rest.is_empty() && began.elapsed() >= self.limits.batch_time {
                let mut starts: BTreeMap<u32, Position> = BTreeMap::new();
                for entry in rest {
                    starts.entry(entry.position.partition).or_insert(entry.position);
                }
                event_log.start(&starts.into_values().collect::<Vec<_>>())?;
                break;
            }
        }
        Ok(())
    }

    /// Folds entries up to the limits of a step, at least one. Returns their number.
    fn step(&mut self, event_log: &mut dyn EventLog, entries: &[&Entry]) -> Result<usize, Failure> {
        let began = Instant::now();
        let (mut batch, mut taken) = (Batch::default(), 0);
        for entry in entries {
            taken += 1;
            self.fold(event_log, entry, &entries[taken..], &mut batch)?;
            if batch.is_full(&self.limits) || began.elapsed() >= self.limits.step_time || self.stop.requested() {
                break;
            }
        }
        self.metrics.took(Step::Fold, began.elapsed());
        self.publish(event_log, batch)?;
        Ok(taken)
    }

    fn publish(&self, event_log: &mut dyn EventLog, mut batch: Batch) -> Result<(), Failure> {
        let began = Instant::now();
        let mut logs = BTreeMap::new();
        for (partition, done) in &batch.partitions {
            let log = self.store.checkpoint(*partition).log.unwrap_or_else(EventId::now_v7);
            logs.insert(*partition, log);
            let followed = event_log.tells_progress();
            if !followed && done.changes.is_empty() {
                continue;
            }
            let folded = if followed { done.ids.clone() } else { Vec::new() };
            let partitions = Some(self.store.partitions());
            let folded = Progress { raw: done.raw, log, folded, last: done.last, partitions, accepted: None };
            batch.outputs.push(progress(&folded, *partition, done.at));
        }
        let read: Vec<Position> = batch
            .partitions
            .iter()
            .map(|(partition, done)| Position { partition: *partition, offset: done.raw })
            .collect();
        let ends = event_log.publish(batch.outputs, &read)?;
        self.metrics.took(Step::Publish, began.elapsed());

        let began = Instant::now();
        for (partition, done) in &batch.partitions {
            let end = ends.iter().find(|end| end.partition == *partition).map(|end| end.offset);
            let known = self.store.checkpoint(*partition).facts;
            if let Some(end) = end.filter(|end| *end <= known) {
                return Err(Inconsistency::facts_went_back(*partition, known, end).into());
            }
            let facts = end.unwrap_or(known);
            let progressed = Progressed { raw: done.raw, log: logs[partition], last: done.last };
            self.store.apply(*partition, &done.changes, Some(progressed), facts)?;
        }
        self.metrics.took(Step::Apply, began.elapsed());
        self.recent_events.change(batch.installations.keys());
        self.recent_events.add(batch.partitions.into_values().flat_map(|done| done.ids), batch.recent);
        Ok(())
    }

    /// Folds one event into the step; `next` are the events behind it.
    fn fold(
        &mut self,
        event_log: &mut dyn EventLog,
        entry: &Entry,
        next: &[&Entry],
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let place = entry.position;
        let raw = RawEvent::from_record(&entry.record);
        let meaning = raw.as_ref().map_err(|_| Reason::NotARawEvent).and_then(|raw| meaning(raw, place));
        let publisher = Publisher::new(&entry.record, place).showing(self.limits.event_bytes);
        if !batch.partitions.contains_key(&place.partition) {
            self.make_room(place.partition, &publisher, batch)?;
        }

        let unsigned = |reason| {
            let call = raw.as_ref().ok().filter(|_| reason == Reason::MissingToken);
            call.and_then(|raw| unsigned_call(raw, place)).ok_or(reason)
        };
        let (outcome, effects) = match meaning {
            Err(reason) => match unsigned(reason) {
                Ok(call) => (Outcome::Unverified, vec![Effect::Unverified(call)]),
                Err(reason) => (Outcome::Rejected(reason), Vec::new()),
            },
            Ok(meaning) if self.is_repeated(event_log, entry, &meaning, batch)? => (Outcome::Repeated, Vec::new()),
            Ok(meaning) => {
                let installation = meaning.installation().clone();
                let rules = self.store.rules(&installation.app);
                let Batch { installations, facts, held_facts, .. } = batch;
                let read = |held: &HeldEvent| -> Result<Option<Fact>, StoreError> {
                    if facts.contains(&held.id) || self.store.has_fact(&held.installation, held.id)? {
                        return Ok(None);
                    }
                    match held_facts.get(held) {
                        Some(fact) => Ok(Some(fact.clone())),
                        None => self.store.held_fact(held),
                    }
                };
                let state = known(self.store, installations, &installation)?;
                match meaning {
                    Meaning::Event(event) => {
                        let folded = fold(state, &event, rules, read)?;
                        if let (Some(vouching), Ok(raw)) = (self.vouching, &raw) {
                            vouch(vouching, state, raw, &event);
                        }
                        folded
                    }
                    Meaning::Attestation(fact) => fold_attestation(state, *fact, rules, read)?,
                }
            }
        };
        let done = batch.partitions.entry(place.partition).or_default();
        (done.raw, done.at) = (place.offset + 1, entry.record.at);
        done.last = raw.as_ref().ok().map(|raw| raw.id);
        if let Ok(raw) = &raw {
            done.ids.push(raw.id);
        }
        let released = effects
            .iter()
            .filter_map(|effect| if let Effect::Release(held) = effect { Some(held.offset) } else { None });
        self.held.fetch(event_log, self.store, place.partition, &released.collect::<Vec<_>>(), next)?;
        let is_held = effects.iter().any(|effect| matches!(effect, Effect::Changed(Change::Held(..))));
        for effect in effects {
            self.put(effect, &publisher, batch);
        }
        // Only now: it may evict fetched events.
        if is_held {
            self.held.keep(entry);
        }
        if let Outcome::Rejected(reason) = outcome {
            batch.put(publisher.rejected(reason));
        }
        self.metrics.count(outcome, raw.as_ref().ok().map(|raw| &raw.app));
        if let Ok(raw) = &raw {
            self.dedup.pass(entry.position, raw.id);
            batch.recent.push(Recent {
                received_at: raw.received_at,
                app: raw.app.clone(),
                installation: raw.member_id.clone().map(|member_id| Installation { app: raw.app.clone(), member_id }),
                event: raw.kind.as_ref().map(|kind| kind.to_ascii_uppercase()),
                id: raw.id,
                outcome,
            });
        }
        Ok(())
    }

    /// Adds an effect to the step, with its records.
    fn put(&self, effect: Effect, publisher: &Publisher<'_>, batch: &mut Batch) {
        if let Effect::Verified(public) | Effect::Unverified(public) = &effect {
            self.count_omitted(public);
        }
        if let Effect::Release(held) = &effect {
            match event_of(&self.held, publisher.partition(), held) {
                Some(event) => batch.put(publisher.event(Topic::Events, &event.public, event.raw)),
                None => self.lost(held),
            }
        }
        if let Some(output) = publisher.output(&effect) {
            batch.put(output);
        }
        let Effect::Changed(change) = effect else { return };
        match &change {
            Change::Fact(fact) => {
                for field in fact.kind.profile().into_iter().flat_map(|profile| &profile.omitted) {
                    self.metrics.omitted.with_label_values(&[field.label()]).inc();
                }
                batch.facts.insert(fact.stamp.id);
            }
            Change::Held(held, HeldDetails { fact: Some(fact), .. }) => {
                batch.held_facts.insert(held.clone(), Fact::clone(fact));
            }
            Change::Held(_, HeldDetails { fact: None, .. }) | Change::NoLongerHeld(_) | Change::Heard(..) => {}
        }
        batch.partitions.entry(publisher.partition()).or_default().changes.push(change);
    }

    fn count_omitted(&self, public: &Public) {
        for part in &public.omitted {
            self.metrics.omitted.with_label_values(&[part.label()]).inc();
        }
    }

    /// Forgets the oldest installations without facts, above the limit.
    fn make_room(&self, partition: u32, publisher: &Publisher<'_>, batch: &mut Batch) -> Result<(), Failure> {
        let share = self.limits.untrusted.div_ceil(self.store.partitions() as usize);
        for installation in self.store.surplus(partition, share, self.limits.step_records) {
            if batch.is_full(&self.limits) {
                break;
            }
            for effect in forget(known(self.store, &mut batch.installations, &installation)?, &installation) {
                self.put(effect, publisher, batch);
            }
            self.metrics.gave_way.inc();
        }
        Ok(())
    }

    /// Whether the event is a duplicate: a fact by its id, others only if ingress marked them as resent.
    fn is_repeated(
        &mut self,
        event_log: &mut dyn EventLog,
        entry: &Entry,
        meaning: &Meaning,
        batch: &Batch,
    ) -> Result<bool, Failure> {
        let (id, received_at) = (meaning.stamp().id, meaning.stamp().received_at);
        if batch.facts.contains(&id) || self.store.has_fact(meaning.installation(), id)? {
            return Ok(true);
        }
        if entry.record.header(header::RESENT) != Some(b"1") {
            return Ok(false);
        }
        Ok(self.dedup.has_first_copy(event_log, entry.position, received_at, id)?)
    }

    fn lost(&self, held: &HeldEvent) {
        let HeldEvent { installation, id, offset, .. } = held;
        warn!(%installation, %id, offset, "a held event could not be released: raw no longer has it");
        self.metrics.released_lost.inc();
    }
}

/// What a raw event means.
enum Meaning {
    Event(Box<Event>),
    Attestation(Box<Fact>),
}

impl Meaning {
    fn installation(&self) -> &Installation {
        match self {
            Self::Event(event) => &event.installation,
            Self::Attestation(fact) => &fact.installation,
        }
    }

    fn stamp(&self) -> &Stamp {
        match self {
            Self::Event(event) => &event.stamp,
            Self::Attestation(fact) => &fact.stamp,
        }
    }
}

fn meaning(raw: &RawEvent, place: Position) -> Result<Meaning, Reason> {
    if raw.is_command {
        return interpret_command(raw, place).map(|fact| Meaning::Attestation(Box::new(fact)));
    }
    interpret(raw, place).map(|event| Meaning::Event(Box::new(event)))
}

fn vouch(vouching: &Vouching, state: &InstallationState, raw: &RawEvent, event: &Event) {
    let is_attested = || state.principals.get(&event.principal).is_some_and(Principal::is_attested);
    if vouching.asks_about(&event.installation.app) && !is_attested() {
        vouching.offer(raw, event);
    }
}

/// The state of an installation, from the batch or else from the store.
fn known<'b>(
    store: &Store,
    installations: &'b mut HashMap<Installation, InstallationState>,
    installation: &Installation,
) -> Result<&'b mut InstallationState, StoreError> {
    if !installations.contains_key(installation) {
        installations.insert(installation.clone(), InstallationState::clone(&*store.installation(installation)?));
    }
    Ok(installations.get_mut(installation).expect("inserted above"))
}

/// The held event, as it is in `raw`.
fn event_of(events: &HeldEvents, partition: u32, held: &HeldEvent) -> Option<Event> {
    let entry = events.get(Position { partition, offset: held.offset })?;
    let raw = RawEvent::from_record(&entry.record).ok().filter(|raw| raw.id == held.id)?;
    interpret(&raw, entry.position).ok()
}
