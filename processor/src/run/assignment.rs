//! Reads `facts` to the end: at the start, when following, and when a partition is assigned.

use std::ops::ControlFlow;
use std::panic;
use std::thread::{self, ScopedJoinHandle};

use event_log::contract::{NOOP, Topic};
use event_log::{Entry, EventId, EventLogError, LogReader, Position};
use tracing::warn;

use crate::run::facts::{BusyLog, SessionLog, Unapplied, unreadable};
use crate::run::failure::Failure;
use crate::run::inconsistency::Inconsistency;
use crate::run::publish::{Accepted, HeardRecord, Progress};
use crate::run::recent_events::RecentEvents;
use crate::run::resume_offsets::ResumeOffsets;
use crate::state::{Checkpoint, FactLog, Progressed, Store, StoreError};
use domain::{Change, FactKey, HeldDetails};

/// Changes per batch, and their approximate size. Memory holds two batches, since one is read while the other is
/// applied. Large batches touch each installation once, not many times.
const CHANGES_MAX: usize = 5_000;
const CHANGES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Applies everything that is committed in `facts` of a partition. Waits for open transactions.
pub fn catch_up(
    event_log: &mut dyn LogReader,
    store: &Store,
    recent_events: &RecentEvents,
    partition: u32,
) -> Result<(), Failure> {
    let (first, end) = event_log.bounds(Topic::Facts, partition)?;
    let known = store.checkpoint(partition).facts;
    if known > end {
        // An operator has accepted the loss of facts: they are another log, and the state is void.
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

/// If facts begin behind the state, they are only read if an operator has accepted that, and only into an empty state.
pub fn begin(
    store: &Store,
    event_log: &mut dyn LogReader,
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

/// The accepted beginning of facts, by the newest decision of an operator.
fn accepted_begin(
    event_log: &mut dyn LogReader,
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

/// The accepted beginning of facts, if this record is an operator's decision.
pub fn begin_of(entry: &Entry) -> Option<u64> {
    let Some(FactKey::Accepted(_)) = entry.record.key.as_deref().and_then(FactKey::parse) else { return None };
    serde_json::from_slice::<Accepted>(entry.record.value.as_deref()?).ok()?.begin
}

/// Whether the last folded record still exists, if it was a progress record: then the state knows its content.
/// Compaction removes it only for a newer progress record with a higher `K`. It is also missing if its transaction was
/// aborted despite an acknowledged commit.
pub fn check_checkpoint(event_log: &mut dyn LogReader, store: &Store, partition: u32) -> Result<(), Failure> {
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
        // Where facts do not record every step they are never compacted, and damage may have removed it.
        None if !is_there && event_log.tells_progress() => Err(of_another_log(partition)),
        Some(_) | None => Ok(()),
    }
}

fn newest_log(
    event_log: &mut dyn LogReader,
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

/// `None` for other records, and for unreadable ones.
pub fn progress_of(entry: &Entry) -> Option<Progress> {
    match entry.record.key.as_deref().and_then(FactKey::parse)? {
        FactKey::Progress => serde_json::from_slice(entry.record.value.as_deref()?).ok(),
        FactKey::Fact(..) | FactKey::Held(_) | FactKey::Heard(_) | FactKey::Vault(_) | FactKey::Accepted(_) => None,
    }
}

fn of_another_log(partition: u32) -> Failure {
    let why = format!("another log than facts of partition {partition}");
    StoreError::Foreign(why).into()
}

/// Applies what is committed in `facts` of a partition from `from` to before `until`.
pub fn read_facts(
    event_log: &mut dyn LogReader,
    store: &Store,
    recent_events: &RecentEvents,
    from: Position,
    until: u64,
) -> Result<(), Failure> {
    let mut from = from;
    while let Some(correcting) = read_to_correction(event_log, store, recent_events, from, until)? {
        correcting.apply(store, recent_events, &mut SessionLog(event_log))?;
        from.offset = correcting.end.unwrap_or(until);
    }
    Ok(())
}

/// The same, up to the first step that corrects facts, which is returned: others have to be read for it.
fn read_to_correction(
    event_log: &mut dyn LogReader,
    store: &Store,
    recent_events: &RecentEvents,
    from: Position,
    until: u64,
) -> Result<Option<Changes>, Failure> {
    let (first, _) = event_log.bounds(Topic::Facts, from.partition)?;
    let apply = |changes: Changes| match changes.apply(store, recent_events, &mut BusyLog) {
        Ok(()) => Ok(None),
        Err(Unapplied::Corrects) => Ok(Some(changes)),
        Err(Unapplied::Failed(error)) => Err(Failure::from(error)),
    };
    thread::scope(|scope| {
        let (mut step, mut applying) = (CatchUpStep { first, ..CatchUpStep::new(store, from.partition) }, None);
        let mut take = |entry: &Entry| -> Result<Option<Changes>, Failure> {
            step.take(entry)?;
            if step.is_full() {
                if let Some(correcting) = ended(applying.take())? {
                    return Ok(Some(correcting));
                }
                let changes = step.cut();
                applying = Some(scope.spawn(move || apply(changes)));
            }
            Ok(None)
        };
        let mut taken = Ok(None);
        event_log.read(Topic::Facts, from, until, &mut |entry| {
            taken = take(&entry);
            if matches!(taken, Ok(None)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        match taken? {
            Some(correcting) => Ok(Some(correcting)),
            None => match ended(applying)? {
                Some(correcting) => Ok(Some(correcting)),
                None => apply(step.cut()),
            },
        }
    })
}

type Applying<'scope> = ScopedJoinHandle<'scope, Result<Option<Changes>, Failure>>;

fn ended(applying: Option<Applying<'_>>) -> Result<Option<Changes>, Failure> {
    applying.map_or(Ok(None), |applying| applying.join().unwrap_or_else(|why| panic::resume_unwind(why)))
}

pub fn follow(
    event_log: &mut dyn LogReader,
    store: &Store,
    recent_events: &RecentEvents,
    entries: &[Entry],
) -> Result<(), Failure> {
    for stretch in entries.chunk_by(|one, next| one.position.partition == next.position.partition) {
        let partition = stretch[0].position.partition;
        let known = store.checkpoint(partition).facts;
        let mut step = CatchUpStep::new(store, partition);
        for entry in stretch.iter().filter(|entry| entry.position.offset >= known) {
            step.take(entry)?;
        }
        step.cut().apply(store, recent_events, &mut SessionLog(event_log))?;
    }
    Ok(())
}

/// Restores an assigned partition. Returns `K`, from which the owner reads `raw`.
pub fn restore_partition(
    event_log: &mut dyn LogReader,
    store: &Store,
    recent_events: &RecentEvents,
    partition: u32,
) -> Result<Position, Failure> {
    // In this order: the answer means that no transaction of a former owner is open.
    let committed = event_log.committed(partition)?;
    catch_up(event_log, store, recent_events, partition)?;
    let offsets = ResumeOffsets::probe(event_log, partition, store.checkpoint(partition), committed)?;
    let offset = match offsets.place() {
        Ok(offset) => offset,
        Err(inconsistency) => {
            // While this processor was halted, another one may have continued, with retention behind it.
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
            offset, "raw of partition {partition} begins at {offset}: earlier events were not folded by this group"
        ),
        ResumeOffsets {
            checkpoint: Checkpoint { raw: Some(_), .. }, committed: None, tells_progress: true, ..
        } => {
            warn!(
                partition,
                "the group's offsets of partition {partition} are gone: facts replace them, and nothing is lost"
            );
        }
        ResumeOffsets { .. } => {}
    }
    Ok(Position { partition, offset })
}

struct CatchUpStep<'a> {
    store: &'a Store,
    partition: u32,
    log: Option<EventId>,
    /// The current first offset of facts; 0 if it was not requested.
    first: u64,
    bytes: usize,
    changes: Changes,
}

#[derive(Default)]
struct Changes {
    partition: u32,
    /// With their offsets.
    list: Vec<(Change, u64)>,
    ids: Vec<EventId>,
    progressed: Option<Progressed>,
    end: Option<u64>,
}

impl Changes {
    fn apply<L: FactLog>(&self, store: &Store, recent_events: &RecentEvents, log: &mut L) -> Result<(), L::Error> {
        if let Some(end) = self.end {
            let changes = self.list.iter().map(|(change, offset)| (change, *offset));
            store.apply(self.partition, changes, self.progressed, end, log)?;
            recent_events.change(self.list.iter().map(|(change, _)| change.installation()));
            recent_events.add(self.ids.iter().copied(), []);
        }
        Ok(())
    }
}

impl<'a> CatchUpStep<'a> {
    fn new(store: &'a Store, partition: u32) -> Self {
        Self { store, partition, log: None, first: 0, bytes: 0, changes: Changes { partition, ..Changes::default() } }
    }

    fn is_full(&self) -> bool {
        self.changes.list.len() >= CHANGES_MAX || self.bytes >= CHANGES_BYTES_MAX
    }

    fn cut(&mut self) -> Changes {
        self.bytes = 0;
        std::mem::replace(&mut self.changes, Changes { partition: self.partition, ..Changes::default() })
    }

    fn take(&mut self, entry: &Entry) -> Result<(), Failure> {
        self.changes.end = Some(entry.position.offset + 1);
        self.bytes += entry.record.size();
        if entry.record.key.as_deref() == Some(NOOP) {
            return Ok(());
        }
        let key = entry.record.key.as_deref().and_then(FactKey::parse);
        let malformed = |error: serde_json::Error| unreadable(entry.position, &error.to_string());
        let change = match (key, &entry.record.value) {
            (Some(FactKey::Progress), Some(value)) => return self.progress(value, entry.position),
            (Some(FactKey::Fact(_, _)), Some(value)) => Change::Fact(serde_json::from_slice(value).map_err(malformed)?),
            (Some(FactKey::Held(held)), Some(value)) => {
                let details: HeldDetails = serde_json::from_slice(value).map_err(malformed)?;
                Change::Held(held, details)
            }
            (Some(FactKey::Held(held)), None) => Change::NoLongerHeld(held),
            (Some(FactKey::Heard(installation)), Some(value)) => {
                let heard: HeardRecord = serde_json::from_slice(value).map_err(malformed)?;
                Change::Heard(installation, heard.heard_at)
            }
            (Some(FactKey::Vault(key)), value) => {
                let entry = value.as_ref().map(|value| serde_json::from_slice(value)).transpose().map_err(malformed)?;
                Change::Vault(key, entry)
            }
            (Some(FactKey::Accepted(_)), _) => {
                let begins = self.store.checkpoint(self.partition).begin;
                // After facts were restored, a state that was folded from all of them is valid.
                if begin_of(entry).is_some_and(|accepted| accepted > begins) && self.first > begins {
                    return Err(of_another_log(self.partition));
                }
                return Ok(());
            }
            (Some(FactKey::Fact(_, _) | FactKey::Heard(_) | FactKey::Progress), None) => {
                warn!(partition = self.partition, offset = entry.position.offset, "ignored a tombstone in facts");
                return Ok(());
            }
            (None, _) => return Err(unreadable(entry.position, "the key is unknown").into()),
        };
        self.changes.list.push((change, entry.position.offset));
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

#[cfg(test)]
mod tests;
