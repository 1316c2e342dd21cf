//! Folds raw events of owned partitions in steps: interpret → fold → publish → apply.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bitrix24::Installation;
use event_log::contract::{Topic, header};
use event_log::{Entry, EventId, EventLog, EventLogError, Position, RawEvent};
use runtime::lifecycle::Stop;
use tracing::warn;

use crate::metrics::{Metrics, Step};
use crate::run::batch::{Batch, Known};
use crate::run::dedup::Dedup;
use crate::run::facts::SessionLog;
use crate::run::failure::Failure;
use crate::run::held::HeldEvents;
use crate::run::inconsistency::Inconsistency;
use crate::run::limits::Limits;
use crate::run::meaning::{Interpreted, Meaning, Subject, interpret_all};
use crate::run::publish::{Progress, Publisher, progress};
use crate::run::recent_events::{RecentEvents, RejectedEvent};
use crate::state::{Progressed, Store, StoreError};
use crate::vault::Vault;
use crate::vouch::Vouching;
use domain::fold::{Effect, Outcome, fold, fold_attestation, forget};
use domain::{Change, Event, Fact, HeldDetails, HeldEvent, InstallationState, Principal, Public, interpret};

/// Folds and publishes owned partitions. Its caches may be dropped at any time.
///
/// While a step is published, the next one is folded: from the state, and from the step before, which is applied only once
/// it is published.
pub(crate) struct Owner<'a> {
    store: &'a Store,
    recent_events: &'a RecentEvents,
    metrics: &'a Metrics,
    limits: Limits,
    stop: &'a Stop,
    vouching: Option<&'a Vouching>,
    vault: Option<&'a Vault>,
    dedup: Dedup,
    held: HeldEvents,
    /// The step that is being published.
    published: Option<Publishing>,
}

struct Publishing {
    batch: Batch,
    logs: BTreeMap<u32, EventId>,
    began: Instant,
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
        Self { store, recent_events, metrics, limits, stop, vouching: None, vault: None, dedup, held, published: None }
    }

    /// Offers events of principals without an attestation.
    #[must_use]
    pub fn vouching(self, vouching: Option<&'a Vouching>) -> Self {
        Self { vouching, ..self }
    }

    /// Seals tokens of trusted principals.
    #[must_use]
    pub fn sealing(self, vault: Option<&'a Vault>) -> Self {
        Self { vault, ..self }
    }

    /// Drops the caches after a change of assignment.
    pub fn forget(&mut self) {
        self.dedup.forget();
        self.held.forget();
    }

    /// Whether a step is being published.
    pub fn is_publishing(&self) -> bool {
        self.published.is_some()
    }

    /// Folds a batch step by step: publishes each, then applies it to the state. The last step is left to [`Self::finish`]
    /// or the next batch. After [`Limits::batch_time`] the rest is returned and fetched again.
    pub fn take(&mut self, event_log: &mut dyn EventLog, entries: &[Entry]) -> Result<(), Failure> {
        let began = Instant::now();
        let is_new = |entry: &&Entry| {
            let Position { partition, offset } = entry.position;
            self.store.checkpoint(partition).raw.is_none_or(|read| read <= offset)
        };
        let entries: Vec<&Entry> = entries.iter().filter(is_new).collect();
        let mut rest = &entries[..];
        let mut interpreted = interpret_all(rest).into_iter();
        while !rest.is_empty() {
            let taken = self.step(event_log, rest, &mut interpreted)?;
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
    fn step(
        &mut self,
        event_log: &mut dyn EventLog,
        entries: &[&Entry],
        interpreted: &mut impl Iterator<Item = Interpreted>,
    ) -> Result<usize, Failure> {
        let began = Instant::now();
        let (mut batch, mut taken) = (Batch::default(), 0);
        for (entry, interpreted) in entries.iter().zip(interpreted) {
            taken += 1;
            self.fold(event_log, entry, interpreted, &entries[taken..], &mut batch)?;
            if batch.is_full(&self.limits) || began.elapsed() >= self.limits.step_time || self.stop.requested() {
                break;
            }
        }
        self.metrics.took(Step::Fold, began.elapsed());
        self.finish(event_log)?;
        self.publish(event_log, batch)?;
        Ok(taken)
    }

    fn publish(&mut self, event_log: &mut dyn EventLog, mut batch: Batch) -> Result<(), Failure> {
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
        event_log.begin_publication(std::mem::take(&mut batch.outputs), &read)?;
        self.published = Some(Publishing { batch, logs, began });
        Ok(())
    }

    /// Waits until the step is published, and applies it.
    pub fn finish(&mut self, event_log: &mut dyn EventLog) -> Result<(), Failure> {
        let Some(Publishing { batch, logs, began }) = self.published.take() else { return Ok(()) };
        let mut offsets = event_log.end_publication()?;
        self.metrics.took(Step::Publish, began.elapsed());

        let began = Instant::now();
        for (partition, done) in &batch.partitions {
            let offsets = offsets.remove(partition).unwrap_or_default();
            // A fact record for each change, and a progress record behind them.
            if offsets.len() != done.changes.len() + 1 && !(offsets.is_empty() && done.changes.is_empty()) {
                let why = format!("{} facts were published for {} changes", offsets.len(), done.changes.len());
                return Err(EventLogError::Reopen(why).into());
            }
            let end = offsets.iter().max().map(|last| last + 1);
            let known = self.store.checkpoint(*partition).facts;
            if let Some(end) = end.filter(|end| *end <= known) {
                return Err(Inconsistency::facts_went_back(*partition, known, end).into());
            }
            let facts = end.unwrap_or(known);
            let progressed = Progressed { raw: done.raw, log: logs[partition], last: done.last };
            let changes = done.changes.iter().zip(offsets);
            self.store.apply(*partition, changes, Some(progressed), facts, &mut SessionLog(event_log))?;
        }
        self.metrics.took(Step::Apply, began.elapsed());
        self.recent_events.change(batch.installations.keys());
        self.recent_events.add(batch.partitions.into_values().flat_map(|done| done.ids), batch.rejected);
        Ok(())
    }

    /// Folds one event into the step; `next` are the events behind it.
    fn fold(
        &mut self,
        event_log: &mut dyn EventLog,
        entry: &Entry,
        interpreted: Interpreted,
        next: &[&Entry],
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let place = entry.position;
        let Interpreted { raw, meaning } = interpreted;
        let publisher = Publisher::new(&entry.record, place).showing(self.limits.event_bytes);
        if !batch.partitions.contains_key(&place.partition) {
            self.make_room(place.partition, &publisher, batch)?;
        }

        let (mut about, mut told) = (None, None);
        let (outcome, effects) = match meaning {
            Meaning::Rejected(reason) => (Outcome::Rejected(reason), Vec::new()),
            Meaning::Subject(subject) if self.is_repeated(event_log, entry, &subject, batch)? => {
                (Outcome::Repeated, Vec::new())
            }
            Meaning::Subject(subject) => {
                let installation = subject.installation().clone();
                about = Some(installation.clone());
                let rules = self.store.rules(&installation.app);
                let known = self.known();
                let Batch { installations, facts, held_facts, .. } = batch;
                let read = |held: &HeldEvent| -> Result<Option<Fact>, StoreError> {
                    if facts.contains(&held.id) || known.has_fact(&held.installation, held.id)? {
                        return Ok(None);
                    }
                    match held_facts.get(held) {
                        Some(fact) => Ok(Some(fact.clone())),
                        None => known.held_fact(held),
                    }
                };
                let state = known.get(installations, &installation)?;
                match subject {
                    Subject::Event(event) => {
                        let folded = fold(state, &event, rules, read)?;
                        if let (Some(vouching), Some(raw)) = (self.vouching, &raw) {
                            vouch(vouching, state, raw, &event);
                        }
                        told = Some(event);
                        folded
                    }
                    Subject::Attestation(fact) => fold_attestation(state, *fact, rules, read)?,
                    Subject::UnsignedCall(call) => (Outcome::Unverified, vec![Effect::Unverified(call)]),
                }
            }
        };
        let done = batch.partitions.entry(place.partition).or_default();
        (done.raw, done.at) = (place.offset + 1, entry.record.at);
        done.last = raw.as_ref().map(|raw| raw.id);
        if let Some(raw) = &raw {
            done.ids.push(raw.id);
        }
        let released = effects
            .iter()
            .filter_map(|effect| if let Effect::Release(held) = effect { Some(held.clone()) } else { None });
        let released: Vec<HeldEvent> = released.collect();
        let offsets: Vec<u64> = released.iter().map(|held| held.offset).collect();
        self.held.fetch(event_log, self.store, place.partition, &offsets, next)?;
        let is_verified = effects.iter().any(|effect| matches!(effect, Effect::Verified(_)));
        let may_revoke = effects.iter().any(|effect| matches!(effect, Effect::Changed(Change::Fact(_))));
        let is_held = effects.iter().any(|effect| matches!(effect, Effect::Changed(Change::Held(..))));
        for effect in effects {
            self.put(effect, &publisher, batch);
        }
        if let Some(about) = about {
            let told = told.as_deref().zip(raw.as_ref()).filter(|_| is_verified);
            self.keep_tokens(&about, told, &released, may_revoke, &publisher, batch)?;
        }
        // Only now: it may evict fetched events.
        if is_held {
            self.held.keep(entry);
        }
        if let Outcome::Rejected(reason) = outcome {
            batch.put(publisher.rejected(reason));
        }
        self.metrics.count(outcome, raw.as_ref().map(|raw| &raw.app));
        if let Some(raw) = raw {
            self.dedup.pass(entry.position, raw.id);
            if let Outcome::Rejected(reason) = outcome {
                batch.rejected.push(RejectedEvent { received_at: raw.received_at, app: raw.app, reason });
            }
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
                Some((event, _)) => batch.put(publisher.event(Topic::Events, &event.public, event.raw)),
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
            Change::Held(_, HeldDetails { fact: None, .. })
            | Change::NoLongerHeld(_)
            | Change::Heard(..)
            | Change::Vault(..) => {}
        }
        batch.partitions.entry(publisher.partition()).or_default().changes.push(change);
    }

    /// Seals what the vault takes from an event of a trusted principal and from the events that it released, and removes
    /// the tokens of principals that are no longer trusted.
    fn keep_tokens(
        &self,
        about: &Installation,
        told: Option<(&Event, &RawEvent)>,
        released: &[HeldEvent],
        may_revoke: bool,
        publisher: &Publisher<'_>,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let state = self.known().get(&mut batch.installations, about)?;
        let mut changes = Vec::new();
        if let Some(vault) = self.vault {
            let mut keep = |event: &Event, raw: &RawEvent| {
                for (key, entry) in state.vault_takes(event, vault.keys().ids()) {
                    if let Some(sealed) = vault.seal(&key, &entry, raw) {
                        let change = Change::Vault(key.clone(), Some(entry));
                        Arc::make_mut(state).apply(&change);
                        changes.push((change, publisher.vault(&key, Some(sealed))));
                    }
                }
            };
            if let Some((event, raw)) = told {
                keep(event, raw);
            }
            for held in released {
                if let Some((event, raw)) = event_of(&self.held, publisher.partition(), held) {
                    keep(&event, &raw);
                }
            }
        }
        if may_revoke && !state.vault.is_empty() {
            let verdict = state.verdict(self.store.trust(&about.app));
            for key in state.vault_surplus(about, &verdict) {
                let output = publisher.vault(&key, None);
                let change = Change::Vault(key, None);
                Arc::make_mut(state).apply(&change);
                changes.push((change, output));
            }
        }
        for (change, output) in changes {
            self.put(Effect::Changed(change), publisher, batch);
            batch.put(output);
        }
        Ok(())
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
            let state = self.known().get(&mut batch.installations, &installation)?;
            if state.principals.is_empty() || !state.is_unclaimed() {
                // The step that is being published has changed it.
                continue;
            }
            for effect in forget(state, &installation) {
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
        subject: &Subject,
        batch: &Batch,
    ) -> Result<bool, Failure> {
        let (id, received_at) = subject.id();
        if batch.facts.contains(&id) || self.known().has_fact(subject.installation(), id)? {
            return Ok(true);
        }
        if entry.record.header(header::RESENT) != Some(b"1") {
            return Ok(false);
        }
        Ok(self.dedup.has_first_copy(event_log, entry.position, received_at, id)?)
    }

    fn known(&self) -> Known<'_> {
        Known { store: self.store, published: self.published.as_ref().map(|publishing| &publishing.batch) }
    }

    fn lost(&self, held: &HeldEvent) {
        let HeldEvent { installation, id, offset, .. } = held;
        warn!(%installation, %id, offset, "a held event could not be released: raw no longer has it");
        self.metrics.released_lost.inc();
    }
}

fn vouch(vouching: &Vouching, state: &InstallationState, raw: &RawEvent, event: &Event) {
    let is_attested = || state.principals.get(&event.principal).is_some_and(Principal::is_attested);
    if vouching.asks_about(&event.installation.app) && !is_attested() {
        vouching.offer(raw, event);
    }
}

/// The held event, as it is in `raw`.
fn event_of(events: &HeldEvents, partition: u32, held: &HeldEvent) -> Option<(Event, RawEvent)> {
    let entry = events.get(Position { partition, offset: held.offset })?;
    let raw = RawEvent::from_record(&entry.record).ok().filter(|raw| raw.id == held.id)?;
    Some((interpret(&raw, entry.position).ok()?, raw))
}
