//! The thread that reads what is to be forwarded, and saves how far that has come.

use std::collections::BTreeSet;
use std::mem;
use std::time::{Duration, Instant};

use bitrix24::{AppName, Installation};
use bytes::Bytes;
use event_log::contract::Topic;
use event_log::{EventLogError, Record};
use primitives::time::Timestamp;
use serde::Serialize;
use tracing::{info, warn};

use super::metrics::{LOST, SKIPPED};
use super::progress::{Action, Key, Order, Place, Source, Watermark};
use super::schedule::{LaneKey, Obeyed};
use super::source;
use super::table::Table;
use super::{Forwarder, Forwarding};

/// Between two looks at logs that have nothing new.
const PAUSE: Duration = Duration::from_millis(200);
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// After a crash, what was delivered since is delivered once more.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Of records, so that one call does not take too long.
const SAVED_AT_ONCE: usize = 1_000;
/// A disk log with more records than this, and several times those that matter, is rewritten.
const RECORDS_MAX: u64 = 20_000;

/// The first and the next offset of each partition.
type Bounds = Vec<(u64, u64)>;

impl Forwarding {
    pub(super) fn read_to_end(&self) {
        let (mut saved_at, mut is_told) = (Instant::now(), false);
        while !self.stop.requested() {
            let mut round = || {
                let has_read = self.round()?;
                if saved_at.elapsed() >= SAVE_EVERY {
                    saved_at = Instant::now();
                    self.save()?;
                    self.measure();
                }
                anyhow::Ok(has_read)
            };
            match round() {
                Ok(true) => is_told = false,
                Ok(false) => drop(self.stop.sleep(PAUSE)),
                Err(error) => {
                    if !mem::replace(&mut is_told, true) {
                        warn!("forwarding cannot use the logs, and tries again: {error:#}");
                    }
                    self.measure();
                    self.stop.sleep(RETRY_WAIT);
                }
            }
        }
        if let Err(error) = self.save() {
            warn!("what was forwarded last is forwarded again after the next start: {error:#}");
        }
    }

    /// Returns whether it read anything.
    fn round(&self) -> Result<bool, EventLogError> {
        let owned = self.owned().clone();
        if owned.is_empty() {
            return self.follow().map(|()| false);
        }
        self.follow()?;
        let has_unverified = self.apps.values().any(|forwarder| forwarder.sources.contains(&Source::Unverified));
        let events = self.logs.bounds(Topic::Events)?;
        let unverified = if has_unverified { self.logs.bounds(Topic::Unverified)? } else { Bounds::new() };
        let mut has_read = false;
        for (app, forwarder) in &self.apps {
            for source in &forwarder.sources {
                let bounds = if *source == Source::Events { &events } else { &unverified };
                for partition in &owned {
                    let Some((first, end)) = bounds.get(*partition as usize).copied() else { continue };
                    let lane = LaneKey { source: *source, partition: *partition };
                    self.resume(app, forwarder, lane, first, end)?;
                    has_read |= self.read(app, forwarder, lane, first, end)?;
                    has_read |= self.load(app, forwarder, lane, first)?;
                }
            }
        }
        self.obey(&owned);
        Ok(has_read)
    }

    /// Reads what this and other processors have written, up to the end.
    fn follow(&self) -> Result<(), EventLogError> {
        loop {
            let next = self.table().next();
            let read = Table::unread(&next, &*self.logs)?;
            if read.is_empty() {
                return Ok(());
            }
            let mut table = self.table();
            for read in read {
                table.apply(read);
            }
        }
    }

    /// Begins with a partition where its former owner has left it.
    fn resume(
        &self,
        app: &AppName,
        forwarder: &Forwarder,
        lane: LaneKey,
        first: u64,
        end: u64,
    ) -> Result<(), EventLogError> {
        if forwarder.schedule().lane(lane).is_some() {
            return Ok(());
        }
        let known = self.table().watermark(lane, app);
        // Beyond the end: the log was made again.
        let known = known.filter(|known| known.next <= end);
        let watermark = if let Some(known) = known {
            known
        } else {
            let since = Timestamp::now().minus(self.since);
            let begin = self.logs.offsets_at(lane.source.topic(), since)?;
            let next = begin.get(lane.partition as usize).copied().flatten().unwrap_or(end).clamp(first, end);
            info!(%app, lane.partition, next, "begins to forward events of {app} since {since}");
            Watermark { next, ..Watermark::default() }
        };
        let places: Vec<(Installation, Place)> =
            self.table().places(lane, app).filter(|(_, place)| place.next <= end).collect();
        // Under this lock: the partition may have been revoked meanwhile.
        let owned = self.owned();
        if owned.contains(&lane.partition) {
            forwarder.schedule().resume(lane, &watermark, places);
        }
        Ok(())
    }

    fn read(
        &self,
        app: &AppName,
        forwarder: &Forwarder,
        lane: LaneKey,
        first: u64,
        end: u64,
    ) -> Result<bool, EventLogError> {
        let (from, room, unwanted) = {
            let mut schedule = forwarder.schedule();
            if !schedule.may_read(lane) {
                return Ok(false);
            }
            let Some(state) = schedule.lane(lane) else { return Ok(false) };
            let Some(room) = state.room().filter(|_| state.next < end) else { return Ok(false) };
            let unwanted: BTreeSet<Installation> =
                state.queues.iter().filter(|(_, queue)| queue.cut.is_some()).map(|(name, _)| name.clone()).collect();
            (state.next, room, unwanted)
        };
        let missing = first.saturating_sub(from);
        if missing > 0 {
            self.lost(app, missing, &format!("{} has only events from {first} on", lane.source.topic().name()));
        }
        let wants = |installation: &Installation| !unwanted.contains(installation);
        let found = source::read(&*self.logs, lane, app, (from.max(first), end), room, wants)?;
        let lost = forwarder.schedule().read(lane, found.events, found.until);
        if lost > 0 {
            self.lost(app, lost, "raw has no longer what they were made from");
        }
        forwarder.changed.notify_all();
        Ok(true)
    }

    /// Reads installations again that have a place of their own.
    fn load(&self, app: &AppName, forwarder: &Forwarder, lane: LaneKey, first: u64) -> Result<bool, EventLogError> {
        let (mut places, room, end) = {
            let mut schedule = forwarder.schedule();
            let places = schedule.loading_places(lane);
            let Some(state) = schedule.lane(lane).filter(|_| !places.is_empty()) else { return Ok(false) };
            let Some(room) = state.room() else { return Ok(false) };
            (places, room, state.next)
        };
        let asked = places.clone();
        for place in places.values_mut() {
            *place = first.max(*place);
        }
        let found = source::load(&*self.logs, lane, &places, end, room)?;
        let lost = forwarder.schedule().loaded(lane, &asked, found.until, found.events);
        if lost > 0 {
            self.lost(app, lost, "raw has no longer what they were made from");
        }
        forwarder.changed.notify_all();
        Ok(true)
    }

    fn lost(&self, app: &AppName, events: u64, why: &str) {
        self.metrics.count(app, LOST, events);
        warn!(%app, events, "{events} events of {app} were lost before they were forwarded: {why}");
    }

    /// Does what operators decided about installations of these partitions.
    fn obey(&self, owned: &BTreeSet<u32>) {
        for partition in owned {
            let orders: Vec<(Key, Option<Order>)> = self.table().orders(*partition).collect();
            for (key, order) in orders {
                if self.obey_one(*partition, &key, order) != Obeyed::NotNow {
                    self.obeyed(*partition, key);
                }
            }
        }
    }

    fn obey_one(&self, partition: u32, key: &Key, order: Option<Order>) -> Obeyed {
        let (Key::Order(source, installation, _), Some(order)) = (key, order) else { return Obeyed::Unknown };
        let Some(forwarder) = self.apps.get(&installation.app) else { return Obeyed::Unknown };
        let lane = LaneKey { source: *source, partition };
        let obeyed = forwarder.schedule().obey(lane, installation, order);
        forwarder.changed.notify_all();
        if obeyed == Obeyed::Done {
            let Order { id, action } = order;
            info!(%installation, %id, ?action, "an operator decided about event {id} of {installation}: {action:?}");
            if action == Action::Skip {
                self.metrics.count(&installation.app, SKIPPED, 1);
            }
        }
        obeyed
    }

    /// With the next save the order is gone; obeyed again before that, it changes nothing.
    fn obeyed(&self, partition: u32, key: Key) {
        self.table().put(partition, key.clone(), None);
        self.done_orders().push((partition, key));
    }

    /// Saves what has changed.
    fn save(&self) -> anyhow::Result<()> {
        let now = Timestamp::now();
        // The reader alone adds to them.
        let mut changes: Vec<(u32, Key, Option<Bytes>)> =
            self.done_orders().iter().map(|(partition, key)| (*partition, key.clone(), None)).collect();
        for (app, forwarder) in &self.apps {
            let lanes: Vec<LaneKey> = forwarder.schedule().lanes().map(|(lane, _)| lane).collect();
            for lane in lanes {
                let Some((watermark, places)) = forwarder.schedule().snapshot(lane) else { continue };
                let table = self.table();
                let known = table.places(lane, app).map(|(installation, _)| installation);
                let gone = known.filter(|installation| !places.contains_key(installation));
                changes.extend(gone.map(|gone| (lane.partition, Key::Place(lane.source, gone), None)));
                let mut change = |key: Key, value: Bytes| {
                    if table.get(lane.partition, &key) != Some(&value) {
                        changes.push((lane.partition, key, Some(value)));
                    }
                };
                for (installation, place) in &places {
                    change(Key::Place(lane.source, installation.clone()), bytes_of(place));
                }
                // Last: what lies below it has its place by then.
                change(Key::Watermark(lane.source, app.clone()), bytes_of(&watermark));
            }
        }
        for some in changes.chunks(SAVED_AT_ONCE) {
            let records = some.iter().map(|(partition, key, value)| (*partition, key.with(value.clone(), now)));
            self.writer.append(records.collect())?;
            let mut table = self.table();
            for (partition, key, value) in some {
                table.put(*partition, key.clone(), value.clone());
            }
        }
        self.done_orders().clear();
        self.compact(now)
    }

    /// A broker does that with topics.
    fn compact(&self, now: Timestamp) -> anyhow::Result<()> {
        if self.writer.is_compacted() {
            return Ok(());
        }
        let bounds = self.logs.bounds(Topic::Forward)?;
        let records: u64 = bounds.iter().map(|(first, end)| end - first).sum();
        let all: Vec<(u32, Record)> = {
            let table = self.table();
            if records <= RECORDS_MAX.max(4 * table.len() as u64) {
                return Ok(());
            }
            table.all().map(|(partition, key, value)| (partition, key.with(Some(value.clone()), now))).collect()
        };
        let begin = bounds.first().map_or(0, |(_, end)| *end);
        for some in all.chunks(SAVED_AT_ONCE) {
            self.writer.append(some.to_vec())?;
        }
        self.writer.delete_before(begin)
    }

    fn measure(&self) {
        for (app, forwarder) in &self.apps {
            let (oldest, parked) = {
                let schedule = forwarder.schedule();
                (schedule.oldest(), schedule.parked())
            };
            let lag = oldest.map_or(Duration::ZERO, |oldest| Timestamp::now().since(oldest));
            self.metrics.lag.with_label_values(&[app.as_str()]).set(lag.as_secs_f64());
            self.metrics.parked.with_label_values(&[app.as_str()]).set(i64::try_from(parked).unwrap_or(i64::MAX));
        }
    }
}

fn bytes_of(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("our own types have a JSON form").into()
}
