//! The resume offset of a partition, from `facts`, `raw` and the group's offsets, or the inconsistency among them.

use std::ops::ControlFlow;

use event_log::contract::Topic;
use event_log::{EventId, EventLogError, LogReader, Position, RawEvent};

use crate::run::inconsistency::Inconsistency;
use crate::state::Checkpoint;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeOffsets {
    pub partition: u32,
    pub checkpoint: Checkpoint,
    pub committed: Option<u64>,
    /// The first and the next offset of `raw`.
    pub raw: (u64, u64),
    /// The event in `raw` before `K`, if there is one.
    pub there: Option<EventId>,
    /// Whether `facts` record every step.
    pub tells_progress: bool,
}

impl ResumeOffsets {
    /// Reads `raw`; the rest is given.
    pub fn probe(
        event_log: &mut dyn LogReader,
        partition: u32,
        checkpoint: Checkpoint,
        committed: Option<u64>,
    ) -> Result<Self, EventLogError> {
        let raw = event_log.bounds(Topic::Raw, partition)?;
        let tells_progress = event_log.tells_progress();
        let mut offsets = Self { partition, checkpoint, committed, raw, there: None, tells_progress };
        // A record without an id cannot be compared.
        if let (Some(read), Some(_)) = (offsets.checkpoint.raw, offsets.checkpoint.last)
            && let Some(offset) = read.checked_sub(1)
            && (raw.0..raw.1).contains(&offset)
        {
            offsets.there = event_at(event_log, Position { partition, offset })?;
            if offsets.there != offsets.checkpoint.last {
                // If retention removed it meanwhile, it is no mismatch.
                offsets.raw = event_log.bounds(Topic::Raw, partition)?;
            }
        }
        Ok(offsets)
    }

    /// `K` by any source.
    pub fn read(&self) -> Option<u64> {
        self.checkpoint.raw.max(self.committed)
    }

    pub fn place(&self) -> Result<u64, Inconsistency> {
        let (first, end) = self.raw;
        if let Some(committed) = self.committed
            && self.tells_progress
            && self.checkpoint.raw.is_none_or(|known| committed > known)
        {
            return Err(Inconsistency::facts_lost(self.partition, self.checkpoint.raw, committed));
        }
        let Some(read) = self.read() else { return Ok(first) };
        if read < first {
            return Err(Inconsistency::raw_trimmed(self.partition, read, first));
        }
        if read > end {
            return Err(Inconsistency::raw_lost_tail(self.partition, read, end));
        }
        // Records removed by retention cannot be compared.
        if read > first && self.checkpoint.raw == Some(read) && self.checkpoint.last != self.there {
            return Err(Inconsistency::raw_other_events(self.partition, read));
        }
        Ok(read)
    }
}

/// The id of the event at an offset of `raw`; `None` without a record, or without an id.
pub fn event_at(event_log: &mut dyn LogReader, at: Position) -> Result<Option<EventId>, EventLogError> {
    let mut found = None;
    let read = event_log.read(Topic::Raw, at, at.offset + 1, &mut |entry| {
        if entry.position == at {
            found = RawEvent::from_record(&entry.record).ok().map(|raw| raw.id);
        }
        ControlFlow::Break(())
    });
    match read {
        // Retention removed it between the two calls.
        Err(EventLogError::Fatal(_)) if event_log.bounds(Topic::Raw, at.partition)?.0 > at.offset => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::inconsistency::What;

    /// `agrees`: whether `raw` holds the last folded event.
    fn stands(recorded: Option<u64>, committed: Option<u64>, raw: (u64, u64), agrees: bool) -> Result<u64, What> {
        let last = recorded.map(|_| EventId::from_u128(1));
        let checkpoint = Checkpoint { facts: 9, raw: recorded, last, ..Checkpoint::default() };
        let there = if agrees { last } else { Some(EventId::from_u128(2)) };
        let offsets = ResumeOffsets { partition: 0, checkpoint, committed, raw, there, tells_progress: true };
        offsets.place().map_err(|inconsistency| inconsistency.what)
    }

    #[test]
    fn raw_goes_on_where_facts_tell_whatever_became_of_the_groups_offsets() {
        assert_eq!(stands(Some(7), Some(7), (0, 9), true), Ok(7));
        assert_eq!(stands(Some(7), None, (0, 9), true), Ok(7), "expired");
        assert_eq!(stands(Some(7), Some(2), (0, 9), true), Ok(7), "set back by an operator");
        assert_eq!(stands(Some(7), Some(7), (7, 7), false), Ok(7), "retention took what lay before");
        assert_eq!(stands(None, None, (5, 9), true), Ok(5), "the first start");
    }

    #[test]
    fn each_inconsistency_is_named() {
        assert_eq!(stands(Some(7), Some(7), (8, 9), true), Err(What::RawTrimmed));
        assert_eq!(stands(Some(7), None, (0, 6), true), Err(What::RawLostTail));
        assert_eq!(stands(Some(7), Some(7), (0, 7), false), Err(What::RawOtherEvents));
        assert_eq!(stands(Some(7), Some(8), (0, 9), true), Err(What::FactsLost));
        assert_eq!(stands(None, Some(3), (5, 9), true), Err(What::FactsLost), "also where raw was trimmed since");
    }
}
