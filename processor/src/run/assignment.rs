//! Reading `facts` to the end: at the start, when following, and when a partition becomes ours.

use std::ops::ControlFlow;
use std::panic;
use std::thread::{self, ScopedJoinHandle};

use event_log::EventId;
use event_log::contract::Topic;
use event_log::{Entry, EventLog, EventLogError, Position};
use tracing::warn;

use crate::run::failure::Failure;
use crate::run::inconsistency::Inconsistency;
use crate::run::publish::{Accepted, Progress};
use crate::run::recent_events::RecentEvents;
use crate::run::resume_offsets::ResumeOffsets;
use crate::state::{Checkpoint, Progressed, Store, StoreError};
use domain::{Change, Fact, FactKey, HeldDetails};

/// So many changes are applied at once, or what takes about so many bytes: twice that is in memory, since the next
/// ones are read meanwhile. Many at once touch a portal once where few touch it each time.
const CHANGES_MAX: usize = 5_000;
const CHANGES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Brings a partition's state up to everything that is committed in `facts`. Waits for open transactions.
pub fn catch_up(
    event_log: &mut dyn EventLog,
    store: &Store,
    recent_events: &RecentEvents,
    partition: u32,
) -> Result<(), Failure> {
    let (first, end) = event_log.bounds(Topic::Facts, partition)?;
    let known = store.checkpoint(partition).facts;
    if known > end {
        // An operator has let facts go on after they were lost: then they are another log, and the state is void.
        if newest_log(event_log, partition, first, end)?.is_some_and(|log| Some(log) != store.checkpoint(partition).log)
        {
            return Err(of_another_log(partition));
        }
        return Err(Inconsistency::facts_end_before(partition, known, end).into());
    }
    begin(store, event_log, partition, (first, end))?;
    let offset = store.checkpoint(partition).facts;
    read_facts(event_log, store, recent_events, Position { partition, offset }, end)
}

/// Where facts begin behind what a state knows, they are only read if an operator has accepted that, and only into a
/// state that knows nothing.
pub fn begin(
    store: &Store,
    event_log: &mut dyn EventLog,
    partition: u32,
    (first, end): (u64, u64),
) -> Result<(), Failure> {
    let known = store.checkpoint(partition).facts;
    if known >= first {
        return Ok(());
    }
    if accepted_begin(event_log, partition, first, end)?.is_none_or(|begin| begin < first) {
        return Err(Inconsistency::facts_trimmed(partition, known, first).into());
    }
    if known > 0 { Err(of_another_log(partition)) } else { Ok(store.begin(partition, first)?) }
}

/// From where on facts are all that there is to know, by the newest decision of an operator.
fn accepted_begin(
    event_log: &mut dyn EventLog,
    partition: u32,
    first: u64,
    end: u64,
) -> Result<Option<u64>, EventLogError> {
    let mut newest = None;
    event_log.read(Topic::Facts, Position { partition, offset: first }, end, &mut |entry| {
        newest = newest.max(begin_of(&entry));
        ControlFlow::Continue(())
    })?;
    Ok(newest)
}

/// From where on facts are all that there is to know, if this record is an operator's decision.
pub fn begin_of(entry: &Entry) -> Option<u64> {
    let Some(FactKey::Accepted(_)) = entry.record.key.as_deref().and_then(FactKey::parse) else { return None };
    serde_json::from_slice::<Accepted>(entry.record.value.as_deref()?).ok()?.begin
}

/// Whether the last record that was folded is still there, as far as that can be told: where it was a progress record,
/// it says what the state knows from it. It is gone where compaction took it, and that only takes what a newer progress
/// record has replaced, which goes further; or where its transaction was aborted, though its commit was acknowledged.
pub fn look_back(event_log: &mut dyn EventLog, store: &Store, partition: u32) -> Result<(), Failure> {
    let (first, end) = event_log.bounds(Topic::Facts, partition)?;
    let checkpoint = store.checkpoint(partition);
    let Some(offset) = checkpoint.facts.checked_sub(1).filter(|offset| (first..end).contains(offset)) else {
        return Ok(());
    };
    let at = Position { partition, offset };
    let (mut is_there, mut progress) = (false, None);
    event_log.read(Topic::Facts, at, end, &mut |entry| {
        is_there |= entry.position == at;
        progress = progress_of(&entry).map(|progress| (entry.position, progress));
        if is_there || progress.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match progress {
        Some((place, found))
            if place == at && (Some(found.log) != checkpoint.log || checkpoint.raw < Some(found.raw)) =>
        {
            Err(of_another_log(partition))
        }
        Some((place, found)) if place != at && checkpoint.raw >= Some(found.raw) => Err(of_another_log(partition)),
        // Where facts do not tell of every step they are never compacted, and damage may have taken it.
        None if !is_there && event_log.tells_progress() => Err(of_another_log(partition)),
        Some(_) | None => Ok(()),
    }
}

/// The log that the newest progress record names.
fn newest_log(
    event_log: &mut dyn EventLog,
    partition: u32,
    first: u64,
    end: u64,
) -> Result<Option<EventId>, EventLogError> {
    let mut newest = None;
    event_log.read(Topic::Facts, Position { partition, offset: first }, end, &mut |entry| {
        newest = progress_of(&entry).map(|progress| progress.log).or(newest);
        ControlFlow::Continue(())
    })?;
    Ok(newest)
}

/// What a progress record says; none if it is another record, or cannot be read.
pub fn progress_of(entry: &Entry) -> Option<Progress> {
    match entry.record.key.as_deref().and_then(FactKey::parse)? {
        FactKey::Progress => serde_json::from_slice(entry.record.value.as_deref()?).ok(),
        FactKey::Fact(..) | FactKey::Held(_) | FactKey::Accepted(_) | FactKey::Noop => None,
    }
}

fn of_another_log(partition: u32) -> Failure {
    let why = format!("facts of partition {partition} are another log than those it was folded from");
    StoreError::Foreign(why).into()
}

/// Applies what is committed in `facts` of a partition from there to before `until`.
pub fn read_facts(
    event_log: &mut dyn EventLog,
    store: &Store,
    recent_events: &RecentEvents,
    from: Position,
    until: u64,
) -> Result<(), Failure> {
    let (first, _) = event_log.bounds(Topic::Facts, from.partition)?;
    thread::scope(|scope| {
        let (mut step, mut applying) = (Step { first, ..Step::new(store, from.partition) }, None);
        let mut take = |entry: &Entry| -> Result<(), Failure> {
            step.take(entry)?;
            if step.is_full() {
                ended(applying.take())?;
                let changes = step.cut();
                applying = Some(scope.spawn(move || changes.apply(store, recent_events)));
            }
            Ok(())
        };
        let mut taken: Result<(), Failure> = Ok(());
        event_log.read(Topic::Facts, from, until, &mut |entry| {
            taken = take(&entry);
            if taken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        taken?;
        ended(applying)?;
        step.cut().apply(store, recent_events)
    })
}

/// Waits for the changes that are being applied while the next ones are read.
fn ended(applying: Option<ScopedJoinHandle<'_, Result<(), Failure>>>) -> Result<(), Failure> {
    applying.map_or(Ok(()), |applying| applying.join().unwrap_or_else(|why| panic::resume_unwind(why)))
}

/// Applies records of `facts` of followed partitions.
pub fn follow(store: &Store, recent_events: &RecentEvents, entries: &[Entry]) -> Result<(), Failure> {
    for stretch in entries.chunk_by(|one, next| one.position.partition == next.position.partition) {
        let partition = stretch[0].position.partition;
        let known = store.checkpoint(partition).facts;
        let mut step = Step::new(store, partition);
        for entry in stretch.iter().filter(|entry| entry.position.offset >= known) {
            step.take(entry)?;
        }
        step.cut().apply(store, recent_events)?;
    }
    Ok(())
}

/// Makes a partition ours: the state at `K`, and `K` itself. From there on the owner reads `raw`.
pub fn restore_partition(
    event_log: &mut dyn EventLog,
    store: &Store,
    recent_events: &RecentEvents,
    partition: u32,
) -> Result<Position, Failure> {
    // In this order: once this has answered, no transaction of a former owner is open.
    let committed = event_log.committed(partition)?;
    catch_up(event_log, store, recent_events, partition)?;
    let offsets = ResumeOffsets::look(event_log, partition, store.checkpoint(partition), committed)?;
    let offset = match offsets.place() {
        Ok(offset) => offset,
        Err(inconsistency) => {
            // Where we were halted, a successor may have gone on meanwhile, and retention behind it: facts tell.
            catch_up(event_log, store, recent_events, partition)?;
            if store.checkpoint(partition) != offsets.checkpoint {
                return restore_partition(event_log, store, recent_events, partition);
            }
            return Err(inconsistency.into());
        }
    };
    match offsets {
        ResumeOffsets { checkpoint: Checkpoint { raw: None, .. }, committed: None, .. } if offset > 0 => warn!(
            partition,
            offset, "raw of partition {partition} begins at {offset}: what lay before was not folded by this group"
        ),
        ResumeOffsets {
            checkpoint: Checkpoint { raw: Some(_), .. }, committed: None, tells_progress: true, ..
        } => {
            warn!(partition, "the group's offsets of partition {partition} are gone: nothing is lost, facts tell them");
        }
        ResumeOffsets { .. } => {}
    }
    Ok(Position { partition, offset })
}

/// Reads records of one partition as changes.
struct Step<'a> {
    store: &'a Store,
    partition: u32,
    /// The log that the newest progress record names.
    log: Option<EventId>,
    /// Where facts begin by now, if that was asked.
    first: u64,
    bytes: usize,
    changes: Changes,
}

/// Changes of one partition that are yet to be applied.
#[derive(Default)]
struct Changes {
    partition: u32,
    list: Vec<Change>,
    ids: Vec<EventId>,
    progressed: Option<Progressed>,
    end: Option<u64>,
}

impl Changes {
    fn apply(self, store: &Store, recent_events: &RecentEvents) -> Result<(), Failure> {
        if let Some(end) = self.end {
            store.apply(self.partition, &self.list, self.progressed, end)?;
            recent_events.change(self.list.iter().map(Change::installation));
            recent_events.add(self.ids, []);
        }
        Ok(())
    }
}

impl<'a> Step<'a> {
    fn new(store: &'a Store, partition: u32) -> Self {
        Self { store, partition, log: None, first: 0, bytes: 0, changes: Changes { partition, ..Changes::default() } }
    }

    fn is_full(&self) -> bool {
        self.changes.list.len() >= CHANGES_MAX || self.bytes >= CHANGES_BYTES_MAX
    }

    /// What came so far; the next changes begin anew.
    fn cut(&mut self) -> Changes {
        self.bytes = 0;
        std::mem::replace(&mut self.changes, Changes { partition: self.partition, ..Changes::default() })
    }

    fn take(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.changes.end = Some(entry.position.offset + 1);
        self.bytes += entry.record.size();
        let key = entry.record.key.as_deref().and_then(FactKey::parse);
        match (key, &entry.record.value) {
            (Some(FactKey::Progress), Some(value)) => self.progress(value, entry.position)?,
            (Some(FactKey::Fact(_, _)), Some(value)) => match serde_json::from_slice::<Fact>(value) {
                Ok(fact) => self.changes.list.push(Change::Fact(Box::new(fact))),
                Err(error) => return Err(unreadable(entry.position, &error.to_string())),
            },
            (Some(FactKey::Held(held)), Some(value)) => match serde_json::from_slice::<HeldDetails>(value) {
                Ok(details) => self.changes.list.push(Change::Held(held, details)),
                Err(error) => return Err(unreadable(entry.position, &error.to_string())),
            },
            (Some(FactKey::Held(held)), None) => self.changes.list.push(Change::NoLongerHeld(held)),
            (Some(FactKey::Noop), _) => {}
            (Some(FactKey::Accepted(_)), _) => {
                let begins = self.store.checkpoint(self.partition).begin;
                // Where facts were put back meanwhile, a state that was folded from all of them holds.
                if begin_of(entry).is_some_and(|accepted| accepted > begins) && self.first > begins {
                    return Err(of_another_log(self.partition));
                }
            }
            (Some(FactKey::Fact(_, _) | FactKey::Progress), None) => {
                warn!(
                    partition = self.partition,
                    offset = entry.position.offset,
                    "a tombstone in facts has no meaning yet"
                );
            }
            (None, _) => return Err(unreadable(entry.position, "the key is not ours")),
        }
        Ok(())
    }

    fn progress(&mut self, value: &[u8], position: Position) -> Result<(), Failure> {
        let progress: Progress =
            serde_json::from_slice(value).map_err(|error| unreadable(position, &error.to_string()))?;
        let known = self.log.or(self.store.checkpoint(self.partition).log);
        let before = progress.accepted.as_ref().and_then(|accepted| accepted.before);
        if known.is_some_and(|known| known != progress.log && before != Some(known)) {
            return Err(of_another_log(self.partition));
        }
        let (then, now) = (progress.partitions, self.store.partitions());
        if let Some(then) = then.filter(|then| *then != now) {
            return Err(Inconsistency::partitions(self.partition, then, now).into());
        }
        self.log = Some(progress.log);
        self.changes.progressed = Some(Progressed { raw: progress.raw, log: progress.log, last: progress.last });
        self.changes.ids.extend(progress.folded);
        Ok(())
    }
}

fn unreadable(position: Position, why: &str) -> Failure {
    let Position { partition, offset } = position;
    EventLogError::Fatal(format!("facts {partition}/{offset} cannot be read: {why}")).into()
}

#[cfg(test)]
mod tests;
