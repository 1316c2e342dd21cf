//! How an event log on a disk is kept: for how long, how large, and what it does while the disk is full.

use std::time::Duration;

use prometheus::{IntCounter, IntGauge, Registry};
use tracing::{error, info};

use event_log::contract::Retention;
use runtime::lifecycle::{Readiness, Stop};
use runtime::telemetry::registered;

/// Before the first second try.
const PAUSE_MIN: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 200 });
/// Between two tries at most.
const PAUSE_MAX: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });

/// Keeps the logs of a standalone process. Clones tell the same.
#[derive(Clone, Debug)]
pub struct Upkeep {
    pub(super) retention: Retention,
    pub(super) unverified_bytes_max: u64,
    stop: Stop,
    waits: IntGauge,
    gave_way: IntCounter,
}

impl Upkeep {
    /// For this long, and as large as they become.
    pub fn new(retention: Retention) -> Self {
        let waits =
            IntGauge::new("derived_logs_wait_for_room", "1 while what follows from events finds no room on the disk.");
        let gave_way = IntCounter::new(
            "unverified_events_gave_way_total",
            "Records of the log unverified that were deleted because it was larger than unverified-limit.",
        );
        Self {
            retention,
            unverified_bytes_max: u64::MAX,
            stop: Stop::default(),
            waits: waits.expect("names in the code are valid"),
            gave_way: gave_way.expect("names in the code are valid"),
        }
    }

    /// With a log `unverified` of at most about so many bytes.
    #[must_use]
    pub fn with_unverified_limit(self, bytes: u64) -> Self {
        Self { unverified_bytes_max: bytes, ..self }
    }

    /// Waiting ends with this.
    #[must_use]
    pub fn until(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    /// Tells metrics and readiness.
    pub fn tell(&self, registry: &Registry, readiness: &Readiness) {
        registered(registry, Ok(self.waits.clone()));
        registered(registry, Ok(self.gave_way.clone()));
        let waits = self.waits.clone();
        readiness.unless(move || (waits.get() > 0).then_some("what follows from events waits for room on the disk"));
    }

    pub(super) fn gave_way(&self, records: u64) {
        self.gave_way.inc_by(records);
    }

    /// Begins to wait, and says so once.
    pub(super) fn wait_for_room(&self, log: &str) -> Waiting<'_> {
        error!(
            "the disk has no room for the log {log}: what follows from events that were taken waits for it. Nothing is \
             lost, and all goes on by itself. Make room"
        );
        self.waits.set(1);
        Waiting { upkeep: self, log: log.to_owned(), pause: PAUSE_MIN }
    }
}

/// Something that waits for room, until this is dropped.
pub(super) struct Waiting<'a> {
    upkeep: &'a Upkeep,
    log: String,
    pause: Duration,
}

impl Waiting<'_> {
    /// Lets some time pass, more each time; whether to try again.
    pub fn sleep(&mut self) -> bool {
        let stopped = self.upkeep.stop.sleep(self.pause);
        self.pause = PAUSE_MAX.min(2 * self.pause);
        !stopped
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.upkeep.waits.set(0);
        if !self.upkeep.stop.requested() {
            info!("the log {} goes on: there was room for it", self.log);
        }
    }
}
