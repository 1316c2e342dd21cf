//! Reads facts again from the places that the state knows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use event_log::contract::Topic;
use event_log::{Entry, EventLogError, LogReader, Position};

use crate::run::failure::Failure;
use crate::state::{FactLog, StoreError};
use domain::{Fact, FactKey};

/// Records between two facts that are read along rather than skipped.
pub const READ_ALONG_MAX: u64 = 500;

/// Reads facts by the session's own logs.
pub struct SessionLog<'a>(pub &'a mut dyn LogReader);

impl FactLog for SessionLog<'_> {
    type Error = Failure;

    fn read(&mut self, partition: u32, offsets: &BTreeSet<u64>) -> Result<BTreeMap<u64, Fact>, Failure> {
        let (first, end) = self.0.bounds(Topic::Facts, partition)?;
        let there: Vec<u64> = offsets.iter().copied().filter(|offset| (first..end).contains(offset)).collect();
        let mut facts = BTreeMap::new();
        for stretch in there.chunk_by(|one, next| next - one <= READ_ALONG_MAX) {
            let from = Position { partition, offset: stretch[0] };
            let (mut wanted, mut failed) = (stretch.iter().peekable(), None);
            self.0.read(Topic::Facts, from, stretch[stretch.len() - 1] + 1, &mut |entry| {
                let offset = entry.position.offset;
                while wanted.next_if(|wanted| **wanted < offset).is_some() {}
                if wanted.next_if_eq(&&offset).is_some() {
                    match fact(&entry) {
                        Ok(fact) => facts.extend(fact.map(|fact| (offset, fact))),
                        Err(error) => failed = Some(error),
                    }
                }
                if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            failed.map_or(Ok(()), Err)?;
        }
        Ok(facts)
    }
}

/// The fact of this record; `None` if it is another record.
pub fn fact(entry: &Entry) -> Result<Option<Fact>, EventLogError> {
    let key = entry.record.key.as_deref().and_then(FactKey::parse);
    let (Some(FactKey::Fact(..)), Some(value)) = (key, &entry.record.value) else { return Ok(None) };
    let fact = serde_json::from_slice(value);
    fact.map(Some).map_err(|error| unreadable(entry.position, &error.to_string()))
}

pub fn unreadable(position: Position, why: &str) -> EventLogError {
    let Position { partition, offset } = position;
    EventLogError::Fatal(format!("facts {partition}/{offset} cannot be read: {why}"))
}

/// Logs that are being read: a step that corrects facts is applied afterwards.
pub(super) struct BusyLog;

/// Why a step was not applied.
pub(super) enum Unapplied {
    /// Facts have to be read again first.
    Corrects,
    Failed(StoreError),
}

impl From<StoreError> for Unapplied {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl FactLog for BusyLog {
    type Error = Unapplied;

    fn read(&mut self, _: u32, _: &BTreeSet<u64>) -> Result<BTreeMap<u64, Fact>, Unapplied> {
        Err(Unapplied::Corrects)
    }
}
