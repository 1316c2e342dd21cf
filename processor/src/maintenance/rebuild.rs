//! Makes the state anew from `facts` beside the old one, then puts it in the old one's place.
//!
//! For an operator who does not trust a state: processors do the same by themselves when they find theirs damaged.

use std::fs;
use std::path::{Path, PathBuf};

use event_log::contract::Topic;
use event_log::{EventLog, EventLogError, Position};
use runtime::lifecycle::Stop;

use crate::run::assignment::{begin, read_facts};
use crate::run::failure::Failure;
use crate::run::recent_events::RecentEvents;
use crate::state::{Store, StoreError, Trusts, opening};
use crate::state_dir::BESIDE;

/// Between two looks whether to stop, and two words about progress.
const STRETCH_RECORDS: u64 = 100_000;

/// How far a rebuild is, in places of `facts`, not all of which need hold a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Behind us.
    pub read: u64,
    /// All.
    pub all: u64,
}

/// Reads all of `facts` into a new state beside `dir`, and puts it there. What was there is quarantined.
///
/// Nobody may have the state in `dir` open. A rebuild that ends early leaves it as it was.
pub fn rebuild(
    event_log: &mut dyn EventLog,
    dir: &Path,
    trusts: Trusts,
    stop: &Stop,
    told: &mut dyn FnMut(Progress),
) -> Result<(), Failure> {
    let beside = beside(dir);
    opening::throw_away(&beside).map_err(|error| in_vain("remove what an earlier rebuild left", &error))?;
    let store = opening::open(&beside, event_log.identity(), event_log.partitions(), trusts.clone())?;
    store.begin_bulk_load();
    let read = read_all(event_log, &store, stop, told).and_then(|()| Ok(store.finish_bulk_load()?));
    drop(store);
    // What lies there now is what will be opened: so it is read once more before it takes the old one's place.
    let verified =
        read.and_then(|()| Ok(opening::open(&beside, event_log.identity(), event_log.partitions(), trusts).map(drop)?));
    if let Err(failure) = verified {
        opening::throw_away(&beside).map_err(|error| in_vain("remove what was begun", &error))?;
        return Err(failure);
    }
    opening::quarantine(dir).map_err(|error| in_vain("quarantine the old state", &error))?;
    fs::rename(&beside, dir).map_err(|error| in_vain("put the new state in its place", &error))?;
    Ok(())
}

/// Applies all of `facts` that the state does not know yet.
pub fn read_all(
    event_log: &mut dyn EventLog,
    store: &Store,
    stop: &Stop,
    told: &mut dyn FnMut(Progress),
) -> Result<(), Failure> {
    let mut stretches = Vec::new();
    let mut progress = Progress::default();
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
            told(progress);
            from.offset = until;
        }
    }
    Ok(())
}

fn beside(dir: &Path) -> PathBuf {
    opening::beside(dir, BESIDE)
}

fn in_vain(what: &str, error: &std::io::Error) -> Failure {
    StoreError::Rows(format!("{what}: {error}")).into()
}
