//! Reading `facts` to the end: at the start, when following, and when a partition becomes ours.

use std::ops::ControlFlow;

use common::contract::Topic;
use common::event::EventId;
use common::log::{Entry, Ledger, LedgerError, Position};
use tracing::{info, warn};

use crate::domain::{Change, Fact, FactKey};
use crate::folded::Folded;
use crate::processor::Failure;
use crate::publish::Progress;
use crate::store::{Progressed, Store, StoreError};

/// So many records of `facts` are applied at once.
const CHANGES_MAX: usize = 1_000;

/// Brings a partition's state up to everything that is committed in `facts`. Waits for open transactions.
pub fn catch_up(ledger: &mut dyn Ledger, store: &Store, folded: &Folded, partition: u32) -> Result<(), Failure> {
    let (first, end) = ledger.bounds(Topic::Facts, partition)?;
    let known = store.marks(partition).facts;
    if known > end {
        let why = format!("facts of partition {partition} end at {end}, but the state goes on to {known}");
        return Err(StoreError::Foreign(why).into());
    }
    read_facts(ledger, store, folded, Position { partition, offset: known.max(first) }, end)
}

/// Applies what is committed in `facts` of a partition from there to before `until`.
pub fn read_facts(
    ledger: &mut dyn Ledger,
    store: &Store,
    folded: &Folded,
    from: Position,
    until: u64,
) -> Result<(), Failure> {
    let mut step = Step::new(store, folded, from.partition);
    let mut failed = None;
    ledger.read(Topic::Facts, from, until, &mut |entry| match step.take(&entry) {
        Ok(()) => ControlFlow::Continue(()),
        Err(failure) => {
            failed = Some(failure);
            ControlFlow::Break(())
        }
    })?;
    match failed {
        Some(failure) => Err(failure),
        None => step.apply(),
    }
}

/// Applies records of `facts` of followed partitions.
pub fn follow(store: &Store, folded: &Folded, entries: &[Entry]) -> Result<(), Failure> {
    for stretch in entries.chunk_by(|one, next| one.position.partition == next.position.partition) {
        let partition = stretch[0].position.partition;
        let known = store.marks(partition).facts;
        let mut step = Step::new(store, folded, partition);
        for entry in stretch.iter().filter(|entry| entry.position.offset >= known) {
            step.take(entry)?;
        }
        step.apply()?;
    }
    Ok(())
}

/// Makes a partition ours: the state at `K`, and `K` itself. From there on the owner reads `raw`.
pub fn take_over(ledger: &mut dyn Ledger, store: &Store, folded: &Folded, partition: u32) -> Result<Position, Failure> {
    // In this order: once this has answered, no transaction of a former owner is open.
    let committed = ledger.committed(partition)?;
    catch_up(ledger, store, folded, partition)?;
    let progressed = store.marks(partition).raw;
    let (first, end) = ledger.bounds(Topic::Raw, partition)?;

    let broken = |why: String| Err(LedgerError::Broken(why).into());
    let offset = match (progressed, committed) {
        (progressed, committed) if !ledger.tells_progress() => progressed.max(committed).unwrap_or(first),
        (Some(progressed), Some(committed)) if committed > progressed => {
            return broken(format!(
                "facts of partition {partition} tell of raw up to {progressed}, but the group has gone on to {committed}: \
                 facts were lost or made anew; restore them, or reset the group's offsets to go on knowingly"
            ));
        }
        (Some(progressed), _) => progressed,
        (None, Some(committed)) if committed > first => {
            return broken(format!(
                "facts of partition {partition} are empty, but the group has read raw up to {committed}: facts were lost \
                 or made anew; restore them, or reset the group's offsets to go on knowingly"
            ));
        }
        (None, _) => first,
    };
    if offset < first {
        // Where we stood still, a successor may have gone on meanwhile, and retention behind it: facts tell.
        catch_up(ledger, store, folded, partition)?;
        if store.marks(partition).raw > progressed {
            return take_over(ledger, store, folded, partition);
        }
        return broken(format!(
            "raw of partition {partition} begins at {first}, but was read only up to {offset}: {} events are gone that \
             were never folded",
            first - offset
        ));
    }
    if offset > end {
        return broken(format!(
            "raw of partition {partition} ends at {end}, but was read up to {offset}: it was made anew or has lost its tail"
        ));
    }
    info!(partition, offset, "took over partition {partition}, raw from {offset}");
    Ok(Position { partition, offset })
}

/// Changes of one partition that are yet to be applied.
struct Step<'a> {
    store: &'a Store,
    folded: &'a Folded,
    partition: u32,
    changes: Vec<Change>,
    ids: Vec<EventId>,
    progressed: Option<Progressed>,
    end: Option<u64>,
}

impl<'a> Step<'a> {
    fn new(store: &'a Store, folded: &'a Folded, partition: u32) -> Self {
        Self { store, folded, partition, changes: Vec::new(), ids: Vec::new(), progressed: None, end: None }
    }

    fn take(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.end = Some(entry.position.offset + 1);
        let key = entry.record.key.as_deref().and_then(FactKey::parse);
        match (key, &entry.record.value) {
            (Some(FactKey::Progress), Some(value)) => self.progress(value, entry.position)?,
            (Some(FactKey::Fact(_, _)), Some(value)) => match serde_json::from_slice::<Fact>(value) {
                Ok(fact) => self.changes.push(Change::Told(Box::new(fact))),
                Err(error) => return Err(unreadable(entry.position, &error.to_string())),
            },
            (Some(FactKey::Waiting(waiting)), Some(_)) => self.changes.push(Change::Waits(waiting)),
            (Some(FactKey::Waiting(waiting)), None) => self.changes.push(Change::WaitsNoMore(waiting)),
            (Some(FactKey::Fact(_, _) | FactKey::Progress), None) => {
                warn!(
                    partition = self.partition,
                    offset = entry.position.offset,
                    "a tombstone in facts has no meaning yet"
                );
            }
            (None, _) => return Err(unreadable(entry.position, "the key is not ours")),
        }
        if self.changes.len() >= CHANGES_MAX { self.apply() } else { Ok(()) }
    }

    fn progress(&mut self, value: &[u8], position: Position) -> Result<(), Failure> {
        let progress: Progress =
            serde_json::from_slice(value).map_err(|error| unreadable(position, &error.to_string()))?;
        let known = self.progressed.map(|known| known.log).or(self.store.marks(self.partition).log);
        if known.is_some_and(|known| known != progress.log) {
            let why = format!("facts of partition {} are another log than those it was folded from", self.partition);
            return Err(StoreError::Foreign(why).into());
        }
        self.progressed = Some(Progressed { raw: progress.raw, log: progress.log });
        self.ids.extend(progress.folded);
        Ok(())
    }

    fn apply(&mut self) -> Result<(), Failure> {
        if let Some(end) = self.end.take() {
            self.store.apply(self.partition, &self.changes, self.progressed.take(), end)?;
            self.changes.clear();
            self.folded.add(self.ids.drain(..), []);
        }
        Ok(())
    }
}

fn unreadable(position: Position, why: &str) -> Failure {
    let Position { partition, offset } = position;
    LedgerError::Broken(format!("facts {partition}/{offset} cannot be read: {why}")).into()
}
