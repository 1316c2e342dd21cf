//! The processor's loop: open the logs, restore the state, serve until the session fails, and begin again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use event_log::{EventLog, EventLogError, OPEN_MAX};
use runtime::lifecycle::{Pending, Stop};
use tracing::{error, info, warn};

use crate::forward::Forwarding;
use crate::metrics::Metrics;
use crate::run::failure::Failure;
use crate::run::hanging::Hanging;
use crate::run::inconsistency::Inconsistency;
use crate::run::limits::Limits;
use crate::run::recent_events::RecentEvents;
use crate::run::shared::Shared;
use crate::state::room::{Patience, Waiting};
use crate::state::{StoreError, Trusts};
use crate::state_dir::StateDir;
use crate::vault::Vault;
use crate::vouch::Vouching;

mod restore;
mod serve;
#[cfg(test)]
mod tests;

/// The times that the loop keeps by a clock. Nothing that it folds or publishes depends on them.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// How long it waits before it opens the logs again.
    pub backoff: Duration,
    /// How often lag and sizes are measured.
    pub measure_every: Duration,
    /// How often it looks whether logs and state are consistent again, where an operator has to decide; none ends the
    /// loop with the inconsistency.
    pub check_again: Option<Duration>,
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
            check_again: Some(Duration::from_secs(10)),
            unowned_wait: Duration::from_secs(30),
            away: Duration::from_secs(12),
            open_max: OPEN_MAX,
            make_room: Duration::from_secs(10),
        }
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
    /// How much it does at once, and how many installations without a trusted principal it remembers.
    pub limits: Limits,
    /// The trust setting of each app.
    pub trusts: Trusts,
    /// For askers.
    pub shared: Shared,
    /// For askers who wait.
    pub recent_events: RecentEvents,
    /// None if no app has a client id.
    pub vouching: Option<Arc<Vouching>>,
    /// None without a key.
    pub vault: Option<Arc<Vault>>,
    /// None if no app has a target.
    pub forwarding: Option<Arc<Forwarding>>,
    /// What is counted.
    pub metrics: Metrics,
    /// When to end.
    pub stop: Stop,
}

impl Processor {
    /// Folds until asked to stop. Opens the logs again as often as they ask for it; `caught_up` is let go once the
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
                Ok(mut event_log) => match self.session(&mut event_log, &mut run_state) {
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
                         so that it shares them out again",
                        self.timings.unowned_wait.as_secs()
                    );
                    self.metrics.reopened();
                    self.stop.sleep(self.timings.away);
                }
                Failure::Hangs(partitions) => {
                    warn!(
                        partitions,
                        "transactions have been open in {partitions} partitions of what is published for {} s: opening \
                         the logs again, which ends them if they are ours",
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
                    warn!("opening the logs again: {why}");
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

    fn session(&self, event_log: &mut dyn EventLog, run_state: &mut RunState) -> Result<(), Failure> {
        let served = self.restore(event_log, run_state).and_then(|store| self.serve(event_log, &store, run_state));
        if let Some(forwarding) = &self.forwarding {
            forwarding.own(&BTreeSet::new());
        }
        served
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

    /// Folds nothing until logs and state are consistent again. Questions are answered from the state as it is; the
    /// group forgets us meanwhile, so that a command can set things right.
    fn halt(&self, inconsistency: Inconsistency, halted_by: &mut Option<Inconsistency>) -> anyhow::Result<()> {
        let Some(check_again) = self.timings.check_again else { return Err(inconsistency.into()) };
        if halted_by.as_ref() != Some(&inconsistency) {
            let what = inconsistency.what.label();
            error!(what, "halted: {inconsistency}. Checking again every {} s", check_again.as_secs());
            self.metrics.halt(inconsistency.what);
        }
        *halted_by = Some(inconsistency);
        self.stop.sleep(check_again);
        Ok(())
    }
}
