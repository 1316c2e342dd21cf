//! The loop: restore and own the assigned partitions, follow the others, until asked to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use event_log::contract::Topic;
use event_log::{Applied, EventLog, EventLogError, LogEvent, OPEN_MAX, Position};
use primitives::time::Timestamp;
use runtime::lifecycle::{Pending, Stop};
use tracing::{error, info, warn};

use crate::metrics::Metrics;
use crate::run::assignment::{catch_up, follow, look_back, restore};
use crate::run::hanging::Hanging;
use crate::run::inconsistency::Inconsistency;
use crate::run::owner::{Limits, Owner};
use crate::run::recent_events::RecentEvents;
use crate::state::room::{Patience, Waiting};
use crate::state::{Store, StoreError, Trusts};
use crate::state_dir::StateDir;

/// How long the loop waits for something to do.
const POLL: Duration = Duration::from_millis(50);

/// A group at rest hands out its partitions sooner.
const OWNED_WITHIN: Duration = Duration::from_secs(60);

/// The times that the loop keeps by a clock. Nothing that it folds or publishes depends on them.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// How long it waits before it opens the logs anew.
    pub backoff: Duration,
    /// How often lag and sizes are measured.
    pub measure_every: Duration,
    /// How often it looks whether logs and state are consistent again, where an operator has to decide; none ends the
    /// loop with the inconsistency.
    pub look_again: Option<Duration>,
    /// How long partitions may be without an owner, though the group is at rest, before we leave it.
    pub unowned_wait: Duration,
    /// How long we stay away then: the group has to forget us, or it would give us back what we had.
    pub away: Duration,
    /// How long a transaction may be open in what is published.
    pub open_max: Duration,
    /// How often logs on our own disk are asked to delete old things while there is no room for the state.
    pub make_room: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            backoff: Duration::from_millis(300),
            measure_every: Duration::from_secs(5),
            look_again: Some(Duration::from_secs(10)),
            unowned_wait: Duration::from_secs(30),
            away: Duration::from_secs(12),
            open_max: OPEN_MAX,
            make_room: Duration::from_secs(10),
        }
    }
}

/// Why the loop left an event log.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The logs.
    #[error(transparent)]
    EventLog(#[from] EventLogError),
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Both, together: an operator has to decide.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistency),
    /// The group leaves partitions to nobody.
    #[error("{0} partitions have had no owner for too long")]
    Unowned(usize),
    /// A transaction may be ours that Kafka forgot to end.
    #[error("transactions have been open in {0} partitions for too long")]
    Hangs(usize),
    /// The state has no room on its disk.
    #[error("there is no room for the state")]
    NoRoom {
        /// After so long the logs are opened all the same: what they delete may make room.
        at_most: Duration,
    },
}

/// The store as askers see it: not there before the logs were reached, another one after it was quarantined.
#[derive(Clone, Default)]
pub struct Shared(Arc<RwLock<Option<Arc<Store>>>>);

impl Shared {
    /// A store that is open already.
    pub fn of(store: Store) -> Self {
        Self(Arc::new(RwLock::new(Some(Arc::new(store)))))
    }

    /// The store, if it is open.
    pub fn get(&self) -> Option<Arc<Store>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn set(&self, store: Option<Arc<Store>>) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = store;
    }
}

/// What the loop knows from one opening of the logs to the next.
struct RunState {
    /// Let go once everything that was in `facts` at the start is known.
    caught_up: Option<Pending>,
    halted_by: Option<Inconsistency>,
    hanging: Hanging,
    /// Events that take more are shown without their data: less than at first where a topic does not take as much.
    event_bytes: usize,
    /// The state has no room, and what has to be folded waits.
    waiting: Option<Waiting>,
}

/// With less, nothing would be shown of most events.
const EVENT_BYTES_MIN: usize = 4 * 1024;

/// Everything that the loop needs besides the logs.
pub struct Processor {
    /// Where the state lies.
    pub state_dir: Box<dyn StateDir>,
    /// How often it looks at the clock.
    pub timings: Timings,
    /// How much it does at once, and how much it remembers of what nobody vouches for.
    pub limits: Limits,
    /// The trust setting of each app.
    pub trusts: Trusts,
    /// For askers.
    pub shared: Shared,
    /// For askers who wait.
    pub recent_events: RecentEvents,
    /// What is counted.
    pub metrics: Metrics,
    /// When to end.
    pub stop: Stop,
}

impl Processor {
    /// Folds until asked to stop. Opens the logs anew as often as they ask for it; `caught_up` is let go once the
    /// state holds everything that was in `facts` at the start.
    pub fn run<L: EventLog>(
        &self,
        mut open: impl FnMut() -> Result<L, EventLogError>,
        caught_up: Pending,
    ) -> anyhow::Result<()> {
        let event_bytes = self.limits.event_bytes;
        let mut run_state = RunState {
            caught_up: Some(caught_up),
            halted_by: None,
            hanging: Hanging::default(),
            event_bytes,
            waiting: None,
        };
        while !self.stop.requested() {
            let failure = match open() {
                Ok(mut event_log) => match self.run_session(&mut event_log, &mut run_state) {
                    Ok(()) => break,
                    Err(Failure::Store(StoreError::NoRoom)) => self.no_room(&event_log),
                    Err(failure) => failure,
                },
                Err(EventLogError::Partitions(why)) => Inconsistency::of_partitions(why).into(),
                Err(error) => error.into(),
            };
            match failure {
                _ if self.stop.requested() => break,
                Failure::Inconsistent(inconsistency) => self.halt(inconsistency, &mut run_state.halted_by)?,
                Failure::Unowned(partitions) => {
                    warn!(
                        partitions,
                        "{partitions} partitions have had no owner for {} s, though the group is at rest: leaving it, \
                         so that it shares them out anew",
                        self.timings.unowned_wait.as_secs()
                    );
                    self.metrics.reopened();
                    self.stop.sleep(self.timings.away);
                }
                Failure::Hangs(partitions) => {
                    warn!(
                        partitions,
                        "transactions have been open in {partitions} partitions of what is published for {} s: opening \
                         the logs anew, which ends them if they are ours",
                        self.timings.open_max.as_secs()
                    );
                    self.metrics.reopened();
                    self.stop.sleep(self.timings.backoff);
                }
                Failure::EventLog(EventLogError::TooLarge(why)) => {
                    let Some(less) = Some(run_state.event_bytes / 2).filter(|less| *less >= EVENT_BYTES_MIN) else {
                        return Err(EventLogError::TooLarge(why)).context("publish what follows from an event");
                    };
                    warn!(
                        "showing events of more than {less} bytes without their data, until the next start: {why}. Set \
                         max.message.bytes of the derived topics as docs/topics.md says"
                    );
                    run_state.event_bytes = less;
                    self.metrics.reopened();
                    self.stop.sleep(self.timings.backoff);
                }
                Failure::NoRoom { at_most } => {
                    let waiting = run_state.waiting.get_or_insert_with(|| self.patience().waiting());
                    waiting.wait_until(at_most, || self.state_dir.has_room());
                }
                Failure::EventLog(EventLogError::Reopen(why)) => {
                    warn!("opening the logs anew: {why}");
                    self.metrics.reopened();
                    self.stop.sleep(self.timings.backoff);
                }
                Failure::EventLog(
                    error @ (EventLogError::Fenced(_) | EventLogError::Fatal(_) | EventLogError::Partitions(_)),
                ) => return Err(error).context("go on with the logs"),
                Failure::Store(StoreError::Foreign(why) | StoreError::Damaged(why)) => self.quarantine(&why)?,
                Failure::Store(error @ (StoreError::Rows(_) | StoreError::NoRoom)) => {
                    return Err(error).context("go on with the state");
                }
            }
        }
        self.shared.set(None);
        Ok(())
    }

    /// One session: everything, with one event log. After a halt it first looks at every partition, and is in nobody's
    /// way.
    fn run_session(&self, event_log: &mut dyn EventLog, run_state: &mut RunState) -> Result<(), Failure> {
        let store = self.store(event_log)?;
        event_log.recover(&applied(&store, event_log.partitions()))?;
        let store = if store.is_outdated() { self.renew(event_log)? } else { store };
        if run_state.halted_by.is_none() {
            event_log.join()?;
        }
        let partitions: BTreeSet<u32> = (0..event_log.partitions()).collect();
        if partitions.iter().all(|partition| store.checkpoint(*partition).facts == 0) {
            store.begin_bulk_load();
        }
        for partition in &partitions {
            look_back(event_log, &store, *partition)?;
            catch_up(event_log, &store, &self.recent_events, *partition)?;
        }
        store.finish_bulk_load()?;
        if run_state.halted_by.is_some() {
            for partition in &partitions {
                restore(event_log, &store, &self.recent_events, *partition)?;
            }
            info!("logs and state are consistent again: going on");
            run_state.halted_by = None;
            self.metrics.agree();
            event_log.join()?;
        }
        run_state.caught_up.take();
        self.metrics.records(&store);
        self.metrics.state(&store);

        let limits = Limits { event_bytes: run_state.event_bytes, ..self.limits };
        let mut owner = Owner::new(&store, &self.recent_events, &self.metrics, limits, &self.stop);
        let mut owned = BTreeSet::new();
        let mut newest = BTreeMap::new();
        event_log.follow(&followed(&store, &partitions, &owned))?;
        let began = Instant::now();
        let (mut measured, mut unowned_since) = (began, None);
        while !self.stop.requested() {
            match event_log.next(POLL)? {
                LogEvent::Raw(_) | LogEvent::Facts(_) if !self.state_dir.has_room() => {
                    return Err(self.no_room(event_log));
                }
                LogEvent::Raw(entries) => {
                    run_state.waiting = None;
                    owner.take(event_log, &entries)?;
                    self.metrics.records(&store);
                    newest.extend(entries.iter().map(|entry| (entry.position.partition, entry.record.at)));
                }
                LogEvent::Facts(entries) => {
                    run_state.waiting = None;
                    follow(&store, &self.recent_events, &entries)?;
                    self.metrics.records(&store);
                }
                LogEvent::Assigned(assigned) => {
                    if let Some(surplus) = assigned.iter().find(|partition| !partitions.contains(partition)) {
                        return Err(Inconsistency::surplus(*surplus, event_log.partitions()).into());
                    }
                    owned.extend(&assigned);
                    self.metrics.lag.own(&owned, Timestamp::now());
                    owner.forget();
                    event_log.follow(&followed(&store, &partitions, &owned))?;
                    let mut starts = Vec::new();
                    for partition in assigned {
                        let start = restore(event_log, &store, &self.recent_events, partition)?;
                        let offset = start.offset;
                        info!(partition, offset, "took over partition {partition}, raw from {offset}");
                        starts.push(start);
                    }
                    event_log.start(&starts)?;
                }
                LogEvent::Revoked(revoked) => {
                    info!("partitions {revoked:?} are no longer ours");
                    for partition in revoked {
                        owned.remove(&partition);
                    }
                    self.metrics.lag.own(&owned, Timestamp::now());
                    owner.forget();
                    event_log.follow(&followed(&store, &partitions, &owned))?;
                }
                LogEvent::Quiet => {}
            }
            if measured.elapsed() >= self.timings.measure_every {
                if began.elapsed() >= OWNED_WITHIN {
                    // What we had in the session before, and not in this one, is another's.
                    self.metrics.lag.own(&owned, Timestamp::now());
                }
                self.measure(event_log, &store, &owned, &newest)?;
                self.watch(event_log, &mut unowned_since)?;
                self.look_for_hanging(event_log, &mut run_state.hanging)?;
                measured = Instant::now();
            }
        }
        Ok(())
    }

    /// The logs are left: others may take over what is ours. Logs on a disk of our own delete old things when they are
    /// asked.
    fn no_room(&self, event_log: &dyn EventLog) -> Failure {
        let at_most = if event_log.tells_progress() { Duration::MAX } else { self.timings.make_room };
        Failure::NoRoom { at_most }
    }

    fn patience(&self) -> Patience {
        Patience::until(self.stop.clone(), self.metrics.state_waits())
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
        let store = Arc::new(self.state_dir.open(
            event_log.identity(),
            event_log.partitions(),
            self.trusts.clone(),
            &self.patience(),
        )?);
        info!(milliseconds = began.elapsed().as_millis(), "opened the state and verified its digest");
        self.shared.set(Some(store.clone()));
        Ok(store)
    }

    /// Reads `facts` again beside a state that an older version folded, and puts the new one in its place. Until then
    /// the old one answers, and nothing is owned or followed.
    fn renew(&self, event_log: &mut dyn EventLog) -> Result<Arc<Store>, Failure> {
        info!("an older version folded the state: it answers on, marked as stale, until facts were read again");
        let began = Instant::now();
        match self.read_beside(event_log) {
            Err(Failure::Store(StoreError::Foreign(why) | StoreError::Damaged(why))) => {
                // What lies beside is no good: it is begun anew, and the old state goes on answering.
                self.state_dir.throw_away_beside().map_err(|error| in_vain(&error))?;
                return Err(EventLogError::Reopen(format!("the state that was begun is thrown away: {why}")).into());
            }
            read => read?,
        }
        self.state_dir.swap().map_err(|error| in_vain(&error))?;
        let store = Arc::new(self.state_dir.open(
            event_log.identity(),
            event_log.partitions(),
            self.trusts.clone(),
            &self.patience(),
        )?);
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

    /// Moves the state out of the way; the next round begins with none and reads `facts` again.
    fn quarantine(&self, why: &str) -> anyhow::Result<()> {
        error!("setting the state aside and reading facts again: {why}");
        self.metrics.quarantine();
        // Askers may hold it for the length of a question; sled lets go of its files with the last handle.
        self.shared.set(None);
        let aside = self.state_dir.quarantine()?;
        info!("the quarantined state is now {aside}");
        if self.stop.requested() {
            bail!("stopped while the state was quarantined");
        }
        Ok(())
    }

    fn measure(
        &self,
        event_log: &mut dyn EventLog,
        store: &Store,
        owned: &BTreeSet<u32>,
        newest: &BTreeMap<u32, Timestamp>,
    ) -> Result<(), Failure> {
        for partition in owned {
            let (_, end) = event_log.bounds(Topic::Raw, *partition)?;
            let next = store.checkpoint(*partition).raw.unwrap_or(0);
            let newest = newest.get(partition).copied();
            self.metrics.lag.measure(*partition, next, end.saturating_sub(next), newest, Timestamp::now());
        }
        self.metrics.state(store);
        Ok(())
    }

    /// Looks for partitions that nobody owns, and does not let that be for ever. While the group is between two
    /// generations it tells nothing.
    fn watch(&self, event_log: &mut dyn EventLog, since: &mut Option<Instant>) -> Result<(), Failure> {
        let Some(unowned) = event_log.unowned() else { return Ok(()) };
        self.metrics.unowned(unowned);
        if unowned == 0 {
            *since = None;
            return Ok(());
        }
        if since.get_or_insert_with(Instant::now).elapsed() >= self.timings.unowned_wait {
            return Err(Failure::Unowned(unowned));
        }
        Ok(())
    }

    /// Looks for transactions that are open for too long, and lets what may be ours of them be ended.
    fn look_for_hanging(&self, event_log: &mut dyn EventLog, hanging: &mut Hanging) -> Result<(), Failure> {
        if event_log.lost_a_broker() {
            hanging.forget_tries();
        }
        let (undecided, now, long) = (event_log.undecided()?, Instant::now(), self.timings.open_max);
        let partitions = hanging.look(undecided, now, long);
        self.metrics.hanging(partitions);
        if hanging.try_once(now, long) { Err(Failure::Hangs(partitions)) } else { Ok(()) }
    }

    /// Folds nothing until logs and state are consistent again. Questions are answered from the state as it is; the
    /// group forgets us meanwhile, so that a command can set things right.
    fn halt(&self, inconsistency: Inconsistency, halted_by: &mut Option<Inconsistency>) -> anyhow::Result<()> {
        let Some(look_again) = self.timings.look_again else { return Err(inconsistency.into()) };
        if halted_by.as_ref() != Some(&inconsistency) {
            let what = inconsistency.what.label();
            error!(what, "halted: {inconsistency}. Checking again every {} s", look_again.as_secs());
            self.metrics.halt(inconsistency.what);
        }
        *halted_by = Some(inconsistency);
        self.stop.sleep(look_again);
        Ok(())
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

/// Where to follow the partitions that are not ours.
fn followed(store: &Store, partitions: &BTreeSet<u32>, owned: &BTreeSet<u32>) -> Vec<Position> {
    let start = |partition: &u32| Position { partition: *partition, offset: store.checkpoint(*partition).facts };
    partitions.difference(owned).map(start).collect()
}

#[cfg(test)]
mod tests;
