//! The upkeep of an event log on a disk: its retention, its size, and waiting while the disk is full.

use std::time::Duration;

use prometheus::{IntCounter, IntGauge, Registry};
use tracing::{error, info};

use event_log::contract::Retention;
use runtime::lifecycle::{Readiness, Stop};
use runtime::telemetry::registered;

const PAUSE_MIN: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 200 });
const PAUSE_MAX: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });

/// Clones share state.
#[derive(Clone, Debug)]
pub struct Upkeep {
    pub(super) retention: Retention,
    pub(super) unverified_bytes_max: u64,
    stop: Stop,
    waits: IntGauge,
    gave_way: IntCounter,
}

impl Upkeep {
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

    /// Limits `unverified` to about this many bytes.
    #[must_use]
    pub fn with_unverified_limit(self, bytes: u64) -> Self {
        Self { unverified_bytes_max: bytes, ..self }
    }

    #[must_use]
    pub fn until(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    pub fn register(&self, registry: &Registry, readiness: &Readiness) {
        registered(registry, Ok(self.waits.clone()));
        registered(registry, Ok(self.gave_way.clone()));
        let waits = self.waits.clone();
        readiness.unless(move || (waits.get() > 0).then_some("derived records wait for room on the disk"));
    }

    pub(super) fn gave_way(&self, records: u64) {
        self.gave_way.inc_by(records);
    }

    pub(super) fn wait_for_room(&self, log: &str) -> RoomWait<'_> {
        error!(
            "the disk has no room for the log {log}: records derived from accepted events wait for it. Nothing is \
             lost, and folding resumes by itself. Make room"
        );
        self.waits.set(1);
        RoomWait { upkeep: self, log: log.to_owned(), pause: PAUSE_MIN }
    }
}

pub(super) struct RoomWait<'a> {
    upkeep: &'a Upkeep,
    log: String,
    pause: Duration,
}

impl RoomWait<'_> {
    /// Sleeps, longer each time. Returns whether to try again.
    pub fn sleep(&mut self) -> bool {
        let stopped = self.upkeep.stop.sleep(self.pause);
        self.pause = PAUSE_MAX.min(2 * self.pause);
        !stopped
    }
}

impl Drop for RoomWait<'_> {
    fn drop(&mut self) {
        self.upkeep.waits.set(0);
        if !self.upkeep.stop.requested() {
            info!("the log {} has room again", self.log);
        }
    }
}
