//! The second part of a session: fold what is owned and follow the rest, until the process stops or the session fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use event_log::contract::Topic;
use event_log::{EventLog, LogEvent, Position};
use primitives::time::Timestamp;
use tracing::info;

use super::{Processor, RunState};
use crate::run::assignment::{follow, restore_partition};
use crate::run::failure::Failure;
use crate::run::inconsistency::Inconsistency;
use crate::run::limits::Limits;
use crate::run::owner::Owner;
use crate::state::Store;

/// How long one poll of the logs waits.
const POLL: Duration = Duration::from_millis(50);

/// A group at rest has assigned its partitions within this time.
const OWNED_WITHIN: Duration = Duration::from_secs(60);

/// A session that was restored.
struct Serving<'a> {
    processor: &'a Processor,
    event_log: &'a mut dyn EventLog,
    store: &'a Store,
    owner: Owner<'a>,
    partitions: BTreeSet<u32>,
    owned: BTreeSet<u32>,
    /// The record time of the newest raw event of each owned partition.
    newest: BTreeMap<u32, Timestamp>,
    began: Instant,
    unowned_since: Option<Instant>,
}

impl Processor {
    pub(super) fn serve(
        &self,
        event_log: &mut dyn EventLog,
        store: &Store,
        run_state: &mut RunState,
    ) -> Result<(), Failure> {
        let limits = Limits { event_bytes: run_state.event_bytes, ..self.limits };
        let mut serving = Serving {
            processor: self,
            store,
            owner: Owner::new(store, &self.recent_events, &self.metrics, limits, &self.stop)
                .vouching(self.vouching.as_deref())
                .sealing(self.vault.as_deref()),
            partitions: (0..event_log.partitions()).collect(),
            owned: BTreeSet::new(),
            newest: BTreeMap::new(),
            began: Instant::now(),
            unowned_since: None,
            event_log,
        };
        serving.follow_others()?;
        let mut measured = serving.began;
        let mut go_on = || {
            serving.take_next(run_state)?;
            if measured.elapsed() >= self.timings.measure_every {
                serving.finish()?;
                serving.measure()?;
                serving.check_owners()?;
                serving.check_transactions(run_state)?;
                measured = Instant::now();
            }
            Ok(())
        };
        let mut served = Ok(());
        while served.is_ok() && !self.stop.requested() {
            served = go_on();
        }
        // What is being published is published, however the session ends.
        let finished = serving.finish();
        served.and(finished)
    }
}

impl Serving<'_> {
    fn take_next(&mut self, run_state: &mut RunState) -> Result<(), Failure> {
        let wait = if self.owner.is_publishing() { Duration::ZERO } else { POLL };
        let event = self.event_log.next(wait)?;
        if !matches!(event, LogEvent::Raw(_)) {
            self.finish()?;
        }
        match event {
            LogEvent::Raw(_) | LogEvent::Facts(_) if !self.processor.state_dir.has_room() => {
                return Err(self.processor.no_room(self.event_log));
            }
            LogEvent::Raw(entries) => {
                run_state.waiting = None;
                self.owner.take(self.event_log, &entries)?;
                self.newest.extend(entries.iter().map(|entry| (entry.position.partition, entry.record.at)));
            }
            LogEvent::Facts(entries) => {
                run_state.waiting = None;
                follow(self.event_log, self.store, &self.processor.recent_events, &entries)?;
                self.processor.metrics.records(self.store);
            }
            LogEvent::Assigned(assigned) => self.assigned(assigned)?,
            LogEvent::Revoked(revoked) => {
                info!("partitions {revoked:?} are no longer ours");
                for partition in revoked {
                    self.owned.remove(&partition);
                }
                self.ownership_changed()?;
            }
            LogEvent::Quiet => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.owner.is_publishing() {
            self.owner.finish(self.event_log)?;
            self.processor.metrics.records(self.store);
        }
        Ok(())
    }

    fn assigned(&mut self, assigned: Vec<u32>) -> Result<(), Failure> {
        if let Some(surplus) = assigned.iter().find(|partition| !self.partitions.contains(partition)) {
            return Err(Inconsistency::surplus(*surplus, self.event_log.partitions()).into());
        }
        self.owned.extend(&assigned);
        self.ownership_changed()?;
        let mut starts = Vec::new();
        for partition in assigned {
            let start = restore_partition(self.event_log, self.store, &self.processor.recent_events, partition)?;
            let offset = start.offset;
            info!(partition, offset, "took over partition {partition}, raw from {offset}");
            starts.push(start);
        }
        self.event_log.start(&starts)?;
        Ok(())
    }

    fn ownership_changed(&mut self) -> Result<(), Failure> {
        self.processor.metrics.lag.own(&self.owned, Timestamp::now());
        if let Some(vouching) = &self.processor.vouching {
            vouching.own(self.owned.len(), self.partitions.len());
        }
        if let Some(forwarding) = &self.processor.forwarding {
            forwarding.own(&self.owned);
        }
        self.owner.forget();
        self.follow_others()
    }

    fn follow_others(&mut self) -> Result<(), Failure> {
        let checkpoint = |partition: &u32| self.store.checkpoint(*partition).facts;
        let others = self.partitions.difference(&self.owned);
        let starts: Vec<Position> =
            others.map(|partition| Position { partition: *partition, offset: checkpoint(partition) }).collect();
        Ok(self.event_log.follow(&starts)?)
    }

    fn measure(&mut self) -> Result<(), Failure> {
        let metrics = &self.processor.metrics;
        if self.began.elapsed() >= OWNED_WITHIN {
            // What the session before owned, and this one does not, another processor owns.
            metrics.lag.own(&self.owned, Timestamp::now());
        }
        for partition in &self.owned {
            let (_, end) = self.event_log.bounds(Topic::Raw, *partition)?;
            let next = self.store.checkpoint(*partition).raw.unwrap_or(0);
            let newest = self.newest.get(partition).copied();
            metrics.lag.measure(*partition, next, end.saturating_sub(next), newest, Timestamp::now());
        }
        metrics.state(self.store);
        Ok(())
    }

    /// Ends the session if partitions have had no owner for too long. During a rebalance the group says nothing.
    fn check_owners(&mut self) -> Result<(), Failure> {
        let Some(unowned) = self.event_log.unowned() else { return Ok(()) };
        self.processor.metrics.unowned(unowned);
        if unowned == 0 {
            self.unowned_since = None;
            return Ok(());
        }
        if self.unowned_since.get_or_insert_with(Instant::now).elapsed() >= self.processor.timings.unowned_wait {
            return Err(Failure::Unowned(unowned));
        }
        Ok(())
    }

    /// Ends the session if transactions have been open for too long: opening the logs again ends those that are ours.
    fn check_transactions(&mut self, run_state: &mut RunState) -> Result<(), Failure> {
        let hanging = &mut run_state.hanging;
        if self.event_log.lost_a_broker() {
            hanging.forget_tries();
        }
        let (undecided, now, long) = (self.event_log.undecided()?, Instant::now(), self.processor.timings.open_max);
        let partitions = hanging.update(undecided, now, long);
        self.processor.metrics.hanging(partitions);
        if hanging.try_once(now, long) { Err(Failure::Hangs(partitions)) } else { Ok(()) }
    }
}
