//! Forwarding: delivers the requests of verified events to an older handler of the app, as they came.
//!
//! The owner of a partition forwards its events, in order for each installation, at least once. One thread reads
//! `events` and the requests in `raw`; some threads for each app deliver. What is delivered next, and what waits, is
//! decided by the pure [`schedule`]. How far it has come lies in the log `forward`, which every processor follows, so
//! that the next owner goes on there. After a crash some events are delivered once more, none is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bitrix24::AppName;
use event_log::LogQuery;
use primitives::secret::Secret;
use primitives::time::Timestamp;
use prometheus::Registry;
use runtime::lifecycle::Stop;
use tracing::{info, warn};

use crate::log_writer::LogWriter;
use metrics::{DELIVERED, Metrics, PARKED};
pub use networks::Reachable;
use progress::Key;
pub use progress::{Action, Source};
use schedule::{Became, Limits, Outcome, Schedule};
use table::Table;
use target::Target;
pub use target::check_url;

mod backoff;
mod circuit;
mod failure;
mod lane;
mod list;
mod metrics;
mod networks;
mod progress;
mod reader;
mod request;
mod schedule;
mod source;
mod table;
mod target;

pub use list::{Cursor, List, Ordered, Selection, State};

/// How often a thread looks whether to stop.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// The settings; without a target in any app nothing is forwarded.
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    pub targets: BTreeMap<AppName, TargetConfig>,
    pub reachable: Reachable,
    /// Of one delivery.
    pub timeout: Duration,
    /// How long an event is tried before it is parked.
    pub park_after: Duration,
    /// Deliveries to one target at once.
    pub parallel: usize,
    /// How far back forwarding begins the first time.
    pub since: Duration,
}

#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// May hold a key.
    pub url: Secret,
    pub unverified: bool,
}

pub struct Forwarding {
    apps: BTreeMap<AppName, Forwarder>,
    since: Duration,
    logs: Arc<dyn LogQuery>,
    writer: LogWriter,
    table: Mutex<Table>,
    owned: Mutex<BTreeSet<u32>>,
    /// Orders that were obeyed, and are still in the log.
    done_orders: Mutex<Vec<(u32, Key)>>,
    metrics: Metrics,
    stop: Stop,
    reader: Mutex<Option<JoinHandle<()>>>,
}

/// Delivers the events of one app.
struct Forwarder {
    sources: Vec<Source>,
    target: Target,
    schedule: Mutex<Schedule>,
    changed: Condvar,
}

impl Forwarder {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forwarding {
    /// Starts the threads, if an app has a target.
    pub fn start(
        config: ForwardConfig,
        logs: Arc<dyn LogQuery>,
        writer: LogWriter,
        registry: &Registry,
        stop: Stop,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        if config.targets.is_empty() {
            return Ok(None);
        }
        let metrics = Metrics::new(registry, config.targets.keys());
        let limits = Limits { parallel: config.parallel, park_after: config.park_after };
        let reachable = Arc::new(config.reachable);
        let forwarder = |target: TargetConfig| Forwarder {
            sources: [Source::Events].into_iter().chain(target.unverified.then_some(Source::Unverified)).collect(),
            target: Target::new(target.url, Arc::clone(&reachable), config.timeout, config.parallel),
            schedule: Mutex::new(Schedule::new(limits)),
            changed: Condvar::new(),
        };
        let forwarding = Arc::new(Self {
            apps: config.targets.into_iter().map(|(app, target)| (app, forwarder(target))).collect(),
            since: config.since,
            logs,
            writer,
            table: Mutex::default(),
            owned: Mutex::default(),
            done_orders: Mutex::default(),
            metrics,
            stop,
            reader: Mutex::default(),
        });
        for app in forwarding.apps.keys() {
            for number in 0..config.parallel {
                let (forwarding, app) = (Arc::clone(&forwarding), app.clone());
                let thread = thread::Builder::new().name(format!("forward-{number}"));
                thread.spawn(move || forwarding.deliver(&app))?;
            }
        }
        let read = Arc::clone(&forwarding);
        let reader = thread::Builder::new().name("forward".into()).spawn(move || read.read_to_end())?;
        *forwarding.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
        Ok(Some(forwarding))
    }

    /// Forwards events of exactly these partitions. Nothing more is begun of others once this returns.
    pub(crate) fn own(&self, partitions: &BTreeSet<u32>) {
        let mut owned = self.owned();
        owned.clone_from(partitions);
        for forwarder in self.apps.values() {
            let mut schedule = forwarder.schedule();
            let lost: Vec<_> =
                schedule.lanes().map(|(lane, _)| lane).filter(|lane| !owned.contains(&lane.partition)).collect();
            for lane in lost {
                schedule.revoke(lane);
            }
        }
    }

    /// Waits until progress was saved, after a stop.
    pub(crate) fn finish(&self) {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            let _ = reader.join();
        }
    }

    fn owned(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done_orders(&self) -> MutexGuard<'_, Vec<(u32, Key)>> {
        self.done_orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the threads that deliver.
    fn deliver(&self, app: &AppName) {
        let forwarder = &self.apps[app];
        let mut schedule = forwarder.schedule();
        while !self.stop.requested() {
            let now = Instant::now();
            let Some(delivery) = schedule.take(now) else {
                let due = schedule.next_due(now).map_or(CHECK_EVERY, |due| due.saturating_duration_since(now));
                let wait = due.clamp(Duration::from_millis(1), CHECK_EVERY);
                schedule = forwarder.changed.wait_timeout(schedule, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            drop(schedule);
            let outcome = forwarder.target.deliver(&delivery);
            schedule = forwarder.schedule();
            let was_open = schedule.is_open();
            let became = schedule.finished(&delivery, outcome, Instant::now(), Timestamp::now());
            let is_open = schedule.is_open();
            drop(schedule);
            forwarder.changed.notify_one();
            let (installation, id) = (&delivery.installation, delivery.head.id);
            match outcome {
                Outcome::Delivered => self.metrics.count(app, DELIVERED, 1),
                Outcome::Failed(failure, _) => {
                    let (reason, attempt) = (failure.label(), delivery.attempt);
                    self.metrics.count(app, reason, 1);
                    tracing::debug!(%installation, %id, attempt, reason, status = failure.status(), "not delivered");
                    if became == Became::Parked {
                        self.metrics.count(app, PARKED, 1);
                        warn!(
                            %installation, %id, attempt, reason, status = failure.status(),
                            "parked event {id} of {installation}, which the handler does not take: its later events \
                             wait. Say `hookledger forward retry`, or `hookledger forward skip`"
                        );
                    }
                    if is_open && !was_open {
                        warn!(
                            %app, reason, status = failure.status(),
                            "the handler of {app} takes no events: forwarding pauses, and tries now and then"
                        );
                    }
                }
            }
            if was_open && !is_open {
                info!(%app, "the handler of {app} takes events again");
            }
            schedule = forwarder.schedule();
        }
    }
}
