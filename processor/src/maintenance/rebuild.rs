//! Rebuilds the state from `facts` beside the old one, then swaps the two.
//!
//! For an operator who does not trust a state. Processors rebuild a damaged state by themselves.

use std::path::Path;

use event_log::contract::Topic;
use event_log::{EventLogError, LogReader, Position};
use runtime::lifecycle::Stop;

use crate::run::assignment::{begin, read_facts};
use crate::run::failure::Failure;
use crate::run::recent_events::RecentEvents;
use crate::state::room::Patience;
use crate::state::{Store, StoreError, Trusts};
use crate::state_dir::StateDir;

/// Between two checks whether to stop, and two progress reports.
const STRETCH_RECORDS: u64 = 100_000;

/// Progress in offsets of `facts`, some of which hold no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RebuildProgress {
    pub read: u64,
    pub all: u64,
}

/// Reads all of `facts` into a new state beside `dir`, and swaps it in. The old state is quarantined.
///
/// The state in `dir` must not be open. A rebuild that ends early leaves it unchanged.
pub fn rebuild(
    event_log: &mut dyn LogReader,
    dir: &Path,
    trusts: Trusts,
    stop: &Stop,
    report: &mut dyn FnMut(RebuildProgress),
) -> Result<(), Failure> {
    let dir = dir.to_owned();
    let (log, partitions) = (event_log.identity().to_owned(), event_log.partitions());
    let open = |trusts| dir.open_beside(&log, partitions, trusts, &Patience::default());
    dir.throw_away_beside().map_err(|error| in_vain(&error))?;
    let store = open(trusts.clone())?;
    store.begin_bulk_load();
    let read = read_all(event_log, &store, stop, report).and_then(|()| Ok(store.finish_bulk_load()?));
    drop(store);
    // The new state is opened once more, and verified, before the swap.
    let verified = read.and_then(|()| Ok(open(trusts).map(drop)?));
    if let Err(failure) = verified {
        dir.throw_away_beside().map_err(|error| in_vain(&error))?;
        return Err(failure);
    }
    dir.swap().map_err(|error| in_vain(&error))
}

/// Applies all of `facts` behind the state.
pub(crate) fn read_all(
    event_log: &mut dyn LogReader,
    store: &Store,
    stop: &Stop,
    report: &mut dyn FnMut(RebuildProgress),
) -> Result<(), Failure> {
    let mut stretches = Vec::new();
    let mut progress = RebuildProgress::default();
    for partition in 0..event_log.partitions() {
        let (first, end) = event_log.bounds(Topic::Facts, partition)?;
        begin(store, event_log, partition, (first, end))?;
        let from = store.checkpoint(partition).facts;
        progress.all += end.saturating_sub(from);
        stretches.push((Position { partition, offset: from }, end));
    }
    for (mut from, end) in stretches {
        while from.offset < end {
            if stop.requested() {
                return Err(EventLogError::Reopen("asked to stop".to_owned()).into());
            }
            let until = end.min(from.offset + STRETCH_RECORDS);
            read_facts(event_log, store, &RecentEvents::default(), from, until)?;
            progress.read += until - from.offset;
            report(progress);
            from.offset = until;
        }
    }
    Ok(())
}

fn in_vain(error: &anyhow::Error) -> Failure {
    StoreError::Rows(format!("{error:#}")).into()
}
