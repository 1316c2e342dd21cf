//! Resumes after an inconsistency: shows what blocks each partition, and records in `facts` that an operator has
//! accepted it.
//!
//! The acceptance stays in the log: which range of `raw` was skipped or is repeated, when, and why. Where it is
//! uncertain which events were folded, they are folded again: a duplicate does less harm than a lost event.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::ControlFlow;

use event_log::contract::Topic;
use event_log::{EventId, EventLog, EventLogError, LogReader, Position, RawEvent};
use primitives::time::Timestamp;

use crate::run::assignment::{begin_of, progress_of};
use crate::run::inconsistency::{Inconsistency, What};
use crate::run::publish::{Accepted, Progress, accepted, progress};
use crate::run::resume_offsets::{ResumeOffsets, event_at};
use crate::state::Checkpoint;
use domain::{Fact, FactKey};

/// The newest folded events are remembered, up to this number: older ones are before a known position.
const FOLDED_MAX: usize = 200_000;

/// A partition that cannot continue.
#[derive(Clone, Debug)]
pub struct Obstacle {
    pub offsets: ResumeOffsets,
    pub inconsistency: Inconsistency,
    /// The effect of accepting; `None` where it cannot be accepted.
    pub remedy: Option<Remedy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// `K` after accepting.
    pub raw: u64,
    /// The event before `K`, if `raw` holds one there.
    last: Option<EventId>,
    /// The new beginning of facts, if older ones are gone.
    begin: Option<u64>,
    /// The consequences for events.
    pub meaning: String,
}

/// All obstacles, by partition. With `again`, a partition whose facts were lost or deleted restarts at the first record
/// of `raw`, not at the end of the known facts.
pub fn obstacles(event_log: &mut dyn LogReader, again: bool) -> Result<Vec<Obstacle>, EventLogError> {
    let mut obstacles = Vec::new();
    for partition in 0..event_log.partitions() {
        // In the same order as when a partition is restored.
        let committed = event_log.committed(partition)?;
        let known = KnownEvents::of(event_log, partition)?;
        let offsets = ResumeOffsets::probe(event_log, partition, known.checkpoint.clone(), committed)?;
        let other = known.partitions.filter(|then| *then != event_log.partitions());
        let inconsistency = match (other, known.is_trimmed(), offsets.place()) {
            (Some(then), _, _) => Inconsistency::partitions(partition, then, event_log.partitions()),
            (None, true, _) => Inconsistency::facts_trimmed(partition, 0, known.first),
            (None, false, Err(inconsistency)) => inconsistency,
            (None, false, Ok(_)) => continue,
        };
        let remedy = remedy(event_log, &offsets, &known, inconsistency.what, again)?;
        obstacles.push(Obstacle { offsets, inconsistency, remedy });
    }
    Ok(obstacles)
}

/// Accepts an obstacle: publishes the remedy and the group's offset in one transaction.
pub fn accept(event_log: &mut dyn EventLog, obstacle: &Obstacle, now: Timestamp) -> Result<(), EventLogError> {
    let Obstacle { offsets, inconsistency, remedy } = obstacle;
    let Some(Remedy { raw, last, begin, .. }) = *remedy else {
        return Err(EventLogError::Fatal(inconsistency.to_string()));
    };
    let (partition, checkpoint) = (offsets.partition, &offsets.checkpoint);
    // The log's new id voids every state that was folded from the lost facts.
    let (log, before) = match (inconsistency.what, checkpoint.log) {
        (What::FactsLost, before) => (EventId::now_v7(), before),
        (_, Some(log)) => (log, None),
        (_, None) => (EventId::now_v7(), None),
    };
    let from = offsets.read();
    let accepting = Accepted { what: inconsistency.what, from, to: raw, at: now, before, begin };
    let partitions = Some(event_log.partitions());
    let going_on = Progress { raw, log, folded: Vec::new(), last, partitions, accepted: Some(accepting.clone()) };
    let outputs = vec![accepted(&accepting, EventId::now_v7(), partition), progress(&going_on, partition, now)];
    event_log.publish(outputs, &[Position { partition, offset: raw }]).map(drop)
}

fn remedy(
    event_log: &mut dyn LogReader,
    offsets: &ResumeOffsets,
    known: &KnownEvents,
    what: What,
    again: bool,
) -> Result<Option<Remedy>, EventLogError> {
    let (partition, (first, end)) = (offsets.partition, offsets.raw);
    let read = offsets.read().unwrap_or(first);
    let (raw, meaning) = match what {
        What::RawTrimmed => {
            (first, format!("goes on at {first}, without the {} events from {read} to before {first}", first - read))
        }
        // Without a broker, derived logs are deduplicated by offset in raw, so going back is impossible; and facts are
        // never deleted.
        What::RawLostTail | What::RawOtherEvents | What::FactsTrimmed if !offsets.tells_progress => return Ok(None),
        What::RawLostTail | What::RawOtherEvents => {
            let raw = known.agreed_until(event_log, partition, (first, end.min(read)))?;
            (raw, format!("goes back to {raw}, up to where raw holds what was folded; {}", twice(end - raw)))
        }
        What::FactsLost => {
            let known = if again { None } else { offsets.checkpoint.raw };
            let raw = known.unwrap_or(first).clamp(first, end);
            let gone = match known {
                Some(known) if known < raw => format!("facts of the events from {known} to before {raw} stay lost; "),
                None if first > 0 => format!("facts of events before {first} stay lost; "),
                Some(_) | None => String::new(),
            };
            (raw, format!("goes back to {raw}; {gone}{}", twice(end - raw)))
        }
        What::FactsTrimmed => {
            let raw = if again { first } else { read.clamp(first, end) };
            let more =
                if raw < read { format!("; goes back to {raw} in raw, {}", twice(end - raw)) } else { String::new() };
            let meaning = format!(
                "goes on with the facts from {} on; what only earlier facts say is forgotten by every state{more}",
                known.first
            );
            (raw, meaning)
        }
        What::Partitions => return Ok(None),
    };
    let begin = (what == What::FactsTrimmed).then_some(known.first);
    let before = raw.checked_sub(1).filter(|before| (first..end).contains(before));
    let last = match before {
        Some(offset) => event_at(event_log, Position { partition, offset })?,
        None => None,
    };
    Ok(Some(Remedy { raw, last, begin, meaning }))
}

fn twice(events: u64) -> String {
    format!(
        "up to {events} events of raw are interpreted from there, and those among them that were published before are \
         published a second time, with the same ids"
    )
}

#[derive(Debug, Default)]
struct KnownEvents {
    /// The first offset, and the first one that an operator has accepted.
    first: u64,
    begin: u64,
    checkpoint: Checkpoint,
    partitions: Option<u32>,
    /// Known events by offset in `raw`.
    places: BTreeMap<u64, EventId>,
    /// The newest folded events, at any offset.
    folded: VecDeque<EventId>,
}

impl KnownEvents {
    fn of(event_log: &mut dyn LogReader, partition: u32) -> Result<Self, EventLogError> {
        let (first, end) = event_log.bounds(Topic::Facts, partition)?;
        let mut known = Self { first, ..Self::default() };
        event_log.read(Topic::Facts, Position { partition, offset: first }, end, &mut |entry| {
            if let Some(progress) = progress_of(&entry) {
                let last = progress.raw.checked_sub(1).zip(progress.last);
                known.places.extend(last);
                known.folded.extend(progress.folded);
                let surplus = known.folded.len().saturating_sub(FOLDED_MAX);
                known.folded.drain(..surplus);
                if let Some(accepted) = &progress.accepted {
                    // Later records described the previous `raw`.
                    drop(known.places.split_off(&accepted.to));
                }
                known.partitions = progress.partitions.or(known.partitions);
                let (raw, log) = (Some(progress.raw), Some(progress.log));
                known.checkpoint = Checkpoint { raw, log, last: progress.last, ..known.checkpoint };
            } else if let (Some(FactKey::Fact(..)), Some(value)) =
                (entry.record.key.as_deref().and_then(FactKey::parse), &entry.record.value)
                && let Ok(fact) = serde_json::from_slice::<Fact>(value)
            {
                known.places.insert(fact.raw.offset, fact.stamp.id);
            }
            known.begin = known.begin.max(begin_of(&entry).unwrap_or(0));
            known.checkpoint.facts = entry.position.offset + 1;
            ControlFlow::Continue(())
        })?;
        Ok(known)
    }

    /// Whether records are gone without an operator's acceptance.
    fn is_trimmed(&self) -> bool {
        self.begin < self.first
    }

    /// The offset up to which `raw` within these bounds holds the folded events. A tail is lost as a whole, so a match
    /// proves everything before it.
    fn agreed_until(
        &self,
        event_log: &mut dyn LogReader,
        partition: u32,
        (first, end): (u64, u64),
    ) -> Result<u64, EventLogError> {
        let places: Vec<(u64, EventId)> = self.places.range(first..end).map(|(offset, id)| (*offset, *id)).collect();
        let (mut agree, mut differ) = (0, places.len());
        while agree < differ {
            let middle = usize::midpoint(agree, differ);
            let (offset, id) = places[middle];
            if event_at(event_log, Position { partition, offset })? == Some(id) {
                agree = middle + 1;
            } else {
                differ = middle;
            }
        }
        let known = agree.checked_sub(1).map_or(first, |last| places[last].0 + 1);
        // Behind the last remembered offset there may be more folded events, up to the first new one.
        let folded: HashSet<EventId> = self.folded.iter().copied().collect();
        let mut until = known;
        event_log.read(Topic::Raw, Position { partition, offset: known }, end, &mut |entry| {
            let is_folded = RawEvent::from_record(&entry.record).is_ok_and(|raw| folded.contains(&raw.id));
            if !is_folded {
                return ControlFlow::Break(());
            }
            until = entry.position.offset + 1;
            ControlFlow::Continue(())
        })?;
        Ok(until)
    }
}
