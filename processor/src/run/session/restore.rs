//! The first part of a session: open the state, recover transactions, replace an outdated state, read `facts` to their end.

use std::sync::Arc;
use std::time::Instant;

use event_log::{Applied, EventLog, EventLogError};
use tracing::info;

use super::{Processor, RunState};
use crate::run::assignment::{catch_up, check_checkpoint, restore_partition};
use crate::run::failure::Failure;
use crate::run::recent_events::RecentEvents;
use crate::state::{Store, StoreError};

impl Processor {
    /// Brings the state to the end of `facts`. After a halt every partition is checked before the group is joined, so that
    /// a processor that would halt again takes no assignment.
    pub(super) fn restore(
        &self,
        event_log: &mut dyn EventLog,
        run_state: &mut RunState,
    ) -> Result<Arc<Store>, Failure> {
        let store = self.store(event_log)?;
        event_log.recover(&applied(&store, event_log.partitions()))?;
        let store = if store.is_outdated() { self.renew(event_log)? } else { store };
        if run_state.halted_by.is_none() {
            event_log.join()?;
        }
        let partitions = 0..event_log.partitions();
        if partitions.clone().all(|partition| store.checkpoint(partition).facts == 0) {
            store.begin_bulk_load();
        }
        for partition in partitions.clone() {
            check_checkpoint(event_log, &store, partition)?;
            catch_up(event_log, &store, &self.recent_events, partition)?;
        }
        store.finish_bulk_load()?;
        if run_state.halted_by.is_some() {
            for partition in partitions {
                restore_partition(event_log, &store, &self.recent_events, partition)?;
            }
            info!("logs and state are consistent again: going on");
            run_state.halted_by = None;
            self.metrics.agree();
            event_log.join()?;
        }
        run_state.caught_up.take();
        self.metrics.records(&store);
        self.metrics.state(&store);
        Ok(store)
    }

    /// The state for these logs: the one that is open, the one on the disk, or a new one in the place of either.
    fn store(&self, event_log: &mut dyn EventLog) -> Result<Arc<Store>, Failure> {
        if let Some(store) = self.shared.get() {
            if store.log() != event_log.identity() {
                let why = format!("the log {}, not to {}", store.log(), event_log.identity());
                return Err(StoreError::Foreign(why).into());
            }
            return Ok(store);
        }
        let began = Instant::now();
        let store = self.open(event_log)?;
        info!(milliseconds = began.elapsed().as_millis(), "opened the state and verified its digest");
        self.shared.set(Some(store.clone()));
        Ok(store)
    }

    fn open(&self, event_log: &dyn EventLog) -> Result<Arc<Store>, Failure> {
        let (log, partitions) = (event_log.identity(), event_log.partitions());
        Ok(Arc::new(self.state_dir.open(log, partitions, self.trusts.clone(), &self.patience())?))
    }

    /// Reads `facts` again beside a state that an older version folded, and puts the new one in its place. Until then
    /// the old one answers, and nothing is owned or followed.
    fn renew(&self, event_log: &mut dyn EventLog) -> Result<Arc<Store>, Failure> {
        info!("an older version folded the state: it answers on, marked as stale, until facts were read again");
        let began = Instant::now();
        match self.read_beside(event_log) {
            Err(Failure::Store(StoreError::Foreign(why) | StoreError::Damaged(why))) => {
                // What lies beside is no good: it is begun again, and the old state goes on answering.
                self.state_dir.throw_away_beside().map_err(|error| in_vain(&error))?;
                return Err(EventLogError::Reopen(format!("the state that was begun is thrown away: {why}")).into());
            }
            read => read?,
        }
        self.state_dir.swap().map_err(|error| in_vain(&error))?;
        let store = self.open(event_log)?;
        info!(milliseconds = began.elapsed().as_millis(), "read facts again, and put the new state in its place");
        self.shared.set(Some(store.clone()));
        Ok(store)
    }

    fn read_beside(&self, event_log: &mut dyn EventLog) -> Result<(), Failure> {
        let beside = self.state_dir.open_beside(
            event_log.identity(),
            event_log.partitions(),
            self.trusts.clone(),
            &self.patience(),
        )?;
        if beside.is_outdated() {
            return Err(StoreError::Foreign("an older version, too".to_owned()).into());
        }
        beside.begin_bulk_load();
        for partition in 0..event_log.partitions() {
            catch_up(event_log, &beside, &RecentEvents::default(), partition)?;
        }
        Ok(beside.finish_bulk_load()?)
    }
}

fn in_vain(error: &anyhow::Error) -> Failure {
    StoreError::Rows(format!("{error:#}")).into()
}

/// How far the state has come, where it knows how far `raw` was read.
fn applied(store: &Store, partitions: u32) -> Vec<Applied> {
    let applied = |partition| {
        let checkpoint = store.checkpoint(partition);
        checkpoint.raw.map(|raw| Applied { partition, facts: checkpoint.facts, raw })
    };
    (0..partitions).filter_map(applied).collect()
}
