//! A batch of raw events of owned partitions: interpret → fold → publish → apply.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::Instant;

use common::contract::{Topic, header};
use common::event::{EventId, Installation, RawEvent};
use common::log::{Entry, Ledger, LedgerError, Output, Position};
use tracing::warn;

use crate::disagreement::Disagreement;
use crate::domain::{Change, Event, Place, Portal, Public, Reason, Waiting, interpret};
use crate::fold::{Effect, Outcome, fold};
use crate::folded::{Folded, Recent};
use crate::metrics::{Metrics, Step};
use crate::processor::Failure;
use crate::publish::{Progress, Publisher, progress};
use crate::repeats::Repeats;
use crate::store::{Progressed, Store, StoreError};

/// Folds and publishes what is ours. What it remembers may be forgotten at any time.
pub struct Owner<'a> {
    store: &'a Store,
    folded: &'a Folded,
    metrics: &'a Metrics,
    repeats: Repeats,
}

/// What a batch comes to, before any of it is published.
#[derive(Default)]
struct Batch<'e> {
    /// The raw records themselves: what is released often waited only for a moment.
    here: HashMap<Position, &'e Entry>,
    /// What is known of the installations that the batch touches, changes included.
    portals: HashMap<Installation, Portal>,
    /// Facts of this batch, which the store does not know yet.
    facts: HashSet<EventId>,
    outputs: Vec<Output>,
    partitions: BTreeMap<u32, Done>,
    recent: Vec<Recent>,
}

/// What a batch comes to in one partition.
#[derive(Default)]
struct Done {
    /// `K` behind the batch.
    raw: u64,
    /// The event before it, if it has an id.
    last: Option<EventId>,
    changes: Vec<Change>,
    ids: Vec<EventId>,
}

impl<'a> Owner<'a> {
    /// An owner that publishes what follows, and applies it to this store.
    pub fn new(store: &'a Store, folded: &'a Folded, metrics: &'a Metrics) -> Self {
        Self { store, folded, metrics, repeats: Repeats::default() }
    }

    /// Other partitions are ours now.
    pub fn forget(&mut self) {
        self.repeats.forget();
    }

    /// Folds a batch, publishes what follows all at once, then applies it to the state.
    pub fn take(&mut self, ledger: &mut dyn Ledger, entries: &[Entry]) -> Result<(), Failure> {
        let began = Instant::now();
        let here = entries.iter().map(|entry| (entry.position, entry)).collect();
        let mut batch = Batch { here, ..Batch::default() };
        let mut last: BTreeMap<u32, &Entry> = BTreeMap::new();
        let is_new = |entry: &&Entry| {
            let Position { partition, offset } = entry.position;
            self.store.marks(partition).raw.is_none_or(|read| read <= offset)
        };
        let entries: Vec<&Entry> = entries.iter().filter(is_new).collect();
        for entry in entries {
            let outcome = self.fold(ledger, entry, &mut batch)?;
            self.metrics.count(outcome);
            last.insert(entry.position.partition, entry);
        }
        let mut logs = BTreeMap::new();
        for (partition, done) in &batch.partitions {
            let log = self.store.marks(*partition).log.unwrap_or_else(EventId::now_v7);
            logs.insert(*partition, log);
            let followed = ledger.tells_progress();
            if !followed && done.changes.is_empty() {
                continue;
            }
            let folded = if followed { done.ids.clone() } else { Vec::new() };
            let partitions = Some(self.store.partitions());
            let folded = Progress { raw: done.raw, log, folded, last: done.last, partitions, accepted: None };
            batch.outputs.push(progress(&folded, *partition, last[partition].record.at));
        }
        self.metrics.took(Step::Fold, began.elapsed());

        let began = Instant::now();
        let read: Vec<Position> = batch
            .partitions
            .iter()
            .map(|(partition, done)| Position { partition: *partition, offset: done.raw })
            .collect();
        let ends = ledger.publish(batch.outputs, &read)?;
        self.metrics.took(Step::Publish, began.elapsed());

        let began = Instant::now();
        for (partition, done) in &batch.partitions {
            let end = ends.iter().find(|end| end.partition == *partition).map(|end| end.offset);
            let known = self.store.marks(*partition).facts;
            if let Some(end) = end.filter(|end| *end <= known) {
                return Err(Disagreement::facts_went_back(*partition, known, end).into());
            }
            let facts = end.unwrap_or(known);
            let progressed = Progressed { raw: done.raw, log: logs[partition], last: done.last };
            self.store.apply(*partition, &done.changes, Some(progressed), facts)?;
        }
        self.metrics.took(Step::Apply, began.elapsed());
        self.folded.add(batch.partitions.into_values().flat_map(|done| done.ids), batch.recent);
        Ok(())
    }

    /// Folds one event into the batch.
    fn fold(&mut self, ledger: &mut dyn Ledger, entry: &Entry, batch: &mut Batch<'_>) -> Result<Outcome, Failure> {
        let place = place(entry);
        let raw = RawEvent::from_record(&entry.record);
        let event = raw.as_ref().map_err(|_| Reason::NotARawEvent).and_then(|raw| interpret(raw, place));
        let publisher = Publisher::new(&entry.record, place);

        let folded = match &event {
            Err(reason) => Err(*reason),
            Ok(event) if self.is_repeated(ledger, entry, event, batch)? => Ok((Outcome::Repeated, Vec::new())),
            Ok(event) => {
                let rules = self.store.rules(&event.installation.app);
                fold(known(self.store, &mut batch.portals, &event.installation)?, event, rules)
            }
        };
        let done = batch.partitions.entry(place.partition).or_default();
        done.raw = place.offset + 1;
        done.last = raw.as_ref().ok().map(|raw| raw.id);
        let outcome = match folded {
            Ok((outcome, effects)) => {
                for effect in effects {
                    if let Effect::Release(waiting) = &effect {
                        match released(ledger, &batch.here, place.partition, waiting)? {
                            Some(public) => batch.outputs.push(publisher.event(Topic::Events, &public)),
                            None => self.lost(waiting),
                        }
                    }
                    batch.outputs.extend(publisher.output(&effect));
                    if let Effect::Changed(change) = effect {
                        if let Change::Told(fact) = &change {
                            batch.facts.insert(fact.stamp.id);
                        }
                        done.changes.push(change);
                    }
                }
                outcome
            }
            Err(reason) => {
                batch.outputs.push(publisher.rejected(reason));
                Outcome::Rejected(reason)
            }
        };
        if let Ok(raw) = &raw {
            done.ids.push(raw.id);
            self.repeats.pass(entry.position, raw.id);
            batch.recent.push(Recent {
                received_at: raw.received_at,
                installation: raw.member_id.clone().map(|member_id| Installation { app: raw.app.clone(), member_id }),
                event: raw.kind.as_ref().map(|kind| kind.to_ascii_uppercase()),
                id: raw.id,
                outcome,
            });
        }
        Ok(outcome)
    }

    /// Whether the event was there before: a fact by its id, anything else only if ingress says that it may be.
    fn is_repeated(
        &mut self,
        ledger: &mut dyn Ledger,
        entry: &Entry,
        event: &Event,
        batch: &Batch<'_>,
    ) -> Result<bool, Failure> {
        let id = event.stamp.id;
        if event.told.is_some() && (batch.facts.contains(&id) || self.store.has_fact(&event.installation, id)?) {
            return Ok(true);
        }
        if entry.record.header(header::RESENT) != Some(b"1") {
            return Ok(false);
        }
        Ok(self.repeats.has_first_copy(ledger, entry.position, event.stamp.received_at, id)?)
    }

    fn lost(&self, waiting: &Waiting) {
        let Waiting { installation, id, offset, .. } = waiting;
        warn!(%installation, %id, offset, "an event waited for its teller to be believed, but raw no longer has it");
        self.metrics.released_lost();
    }
}

/// What is known of an installation, from the batch or else from the store.
fn known<'b>(
    store: &Store,
    portals: &'b mut HashMap<Installation, Portal>,
    installation: &Installation,
) -> Result<&'b mut Portal, StoreError> {
    if !portals.contains_key(installation) {
        portals.insert(installation.clone(), store.portal(installation)?);
    }
    Ok(portals.get_mut(installation).expect("inserted above"))
}

/// The event that waited, read again from `raw`.
fn released(
    ledger: &mut dyn Ledger,
    here: &HashMap<Position, &Entry>,
    partition: u32,
    waiting: &Waiting,
) -> Result<Option<Public>, LedgerError> {
    let from = Position { partition, offset: waiting.offset };
    let public = |entry: &Entry| {
        let raw = RawEvent::from_record(&entry.record).ok().filter(|raw| raw.id == waiting.id)?;
        interpret(&raw, place(entry)).ok().map(|event| event.public)
    };
    if let Some(entry) = here.get(&from) {
        return Ok(public(entry));
    }
    let mut found = None;
    if ledger.bounds(Topic::Raw, partition)?.0 > waiting.offset {
        return Ok(None);
    }
    let read = ledger.read(Topic::Raw, from, waiting.offset + 1, &mut |entry| {
        if entry.position == from {
            found = public(&entry);
        }
        ControlFlow::Break(())
    });
    match read {
        Ok(()) => {}
        // Retention took it between the question and the read.
        Err(LedgerError::Broken(_)) if ledger.bounds(Topic::Raw, partition)?.0 > waiting.offset => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

fn place(entry: &Entry) -> Place {
    Place { partition: entry.position.partition, offset: entry.position.offset }
}
