//! Reading `facts` to the end: at the start, when following, and when a partition becomes ours.

use std::ops::ControlFlow;

use common::contract::Topic;
use common::event::EventId;
use common::log::{Entry, Ledger, LedgerError, Position};
use tracing::warn;

use crate::disagreement::Disagreement;
use crate::domain::{Change, Fact, FactKey};
use crate::folded::Folded;
use crate::processor::Failure;
use crate::publish::Progress;
use crate::standing::Standing;
use crate::store::{Marks, Progressed, Store, StoreError};

/// So many records of `facts` are applied at once.
const CHANGES_MAX: usize = 1_000;

/// Brings a partition's state up to everything that is committed in `facts`. Waits for open transactions.
pub fn catch_up(ledger: &mut dyn Ledger, store: &Store, folded: &Folded, partition: u32) -> Result<(), Failure> {
    let (first, end) = ledger.bounds(Topic::Facts, partition)?;
    let known = store.marks(partition).facts;
    if known > end {
        // A person has let facts go on after they were lost: then they are another log, and the state is void.
        if newest_log(ledger, partition, first, end)?.is_some_and(|log| Some(log) != store.marks(partition).log) {
            return Err(of_another_log(partition));
        }
        return Err(Disagreement::facts_end_before(partition, known, end).into());
    }
    if known < first {
        return Err(Disagreement::facts_trimmed(partition, known, first).into());
    }
    read_facts(ledger, store, folded, Position { partition, offset: known }, end)
}

/// Whether the last record that was folded is still there, as far as that can be told: where it was a progress
/// record, and nothing newer has made compaction remove it, it says what the state knows from it.
pub fn look_back(ledger: &mut dyn Ledger, store: &Store, partition: u32) -> Result<(), Failure> {
    let (first, end) = ledger.bounds(Topic::Facts, partition)?;
    let marks = store.marks(partition);
    let Some(offset) = marks.facts.checked_sub(1).filter(|offset| (first..end).contains(offset)) else {
        return Ok(());
    };
    let at = Position { partition, offset };
    let mut found = None;
    ledger.read(Topic::Facts, at, offset + 1, &mut |entry| {
        found = (entry.position == at).then(|| progress_of(&entry)).flatten();
        ControlFlow::Break(())
    })?;
    match found {
        Some(found) if Some(found.log) != marks.log || marks.raw.is_none_or(|raw| raw < found.raw) => {
            Err(of_another_log(partition))
        }
        Some(_) | None => Ok(()),
    }
}

/// The log that the newest progress record names.
fn newest_log(ledger: &mut dyn Ledger, partition: u32, first: u64, end: u64) -> Result<Option<EventId>, LedgerError> {
    let mut newest = None;
    ledger.read(Topic::Facts, Position { partition, offset: first }, end, &mut |entry| {
        newest = progress_of(&entry).map(|progress| progress.log).or(newest);
        ControlFlow::Continue(())
    })?;
    Ok(newest)
}

/// What a progress record says; none if it is another record, or cannot be read.
pub fn progress_of(entry: &Entry) -> Option<Progress> {
    match entry.record.key.as_deref().and_then(FactKey::parse)? {
        FactKey::Progress => serde_json::from_slice(entry.record.value.as_deref()?).ok(),
        FactKey::Fact(..) | FactKey::Waiting(_) | FactKey::Accepted(_) => None,
    }
}

fn of_another_log(partition: u32) -> Failure {
    let why = format!("facts of partition {partition} are another log than those it was folded from");
    StoreError::Foreign(why).into()
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
    let standing = Standing::look(ledger, partition, store.marks(partition), committed)?;
    let offset = match standing.place() {
        Ok(offset) => offset,
        Err(disagreement) => {
            // Where we stood still, a successor may have gone on meanwhile, and retention behind it: facts tell.
            catch_up(ledger, store, folded, partition)?;
            if store.marks(partition) != standing.marks {
                return take_over(ledger, store, folded, partition);
            }
            return Err(disagreement.into());
        }
    };
    match standing {
        Standing { marks: Marks { raw: None, .. }, committed: None, .. } if offset > 0 => warn!(
            partition,
            offset, "raw of partition {partition} begins at {offset}: what lay before was not folded by this group"
        ),
        Standing { marks: Marks { raw: Some(_), .. }, committed: None, tells_progress: true, .. } => {
            warn!(partition, "the group's offsets of partition {partition} are gone: nothing is lost, facts tell them");
        }
        Standing { .. } => {}
    }
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
            (Some(FactKey::Accepted(_)), _) => {}
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
        let before = progress.accepted.as_ref().and_then(|accepted| accepted.before);
        if known.is_some_and(|known| known != progress.log && before != Some(known)) {
            return Err(of_another_log(self.partition));
        }
        let (then, now) = (progress.partitions, self.store.partitions());
        if let Some(then) = then.filter(|then| *then != now) {
            return Err(Disagreement::partitions(self.partition, then, now).into());
        }
        self.progressed = Some(Progressed { raw: progress.raw, log: progress.log, last: progress.last });
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
