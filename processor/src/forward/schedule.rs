//! What is delivered next to one target: in order for each installation, installations beside each other.
//!
//! Pure: events and outcomes in, deliveries and places out. Time is an argument.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitrix24::Installation;
use primitives::time::Timestamp;

use super::backoff::backoff;
use super::circuit::{Circuit, Gate};
use super::failure::Failure;
use super::lane::{Event, Lane, State};
use super::progress::{Action, Head, Order, Place, Source, Tries, Watermark};
use super::request::Request;

const RETRY_MAX: Duration = Duration::from_secs(300);
/// The longest pause that a handler may ask for with `Retry-After`.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// No event is parked after fewer, however long ago the first was: this process may have been away.
const ATTEMPTS_MIN: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneKey {
    pub source: Source,
    pub partition: u32,
}

type Key = (LaneKey, Installation);

/// One delivery.
#[derive(Debug)]
pub struct Delivery {
    pub lane: LaneKey,
    generation: u64,
    pub installation: Installation,
    pub head: Head,
    pub request: Arc<Request>,
    /// Counted from 1.
    pub attempt: u32,
    is_retry: bool,
}

#[cfg(test)]
impl Delivery {
    pub fn of(lane: LaneKey, installation: Installation, head: Head, request: Request) -> Self {
        Self { lane, generation: 0, installation, head, request: Arc::new(request), attempt: 1, is_retry: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// With the pause that the handler asks for.
    Failed(Failure, Option<Duration>),
}

/// What became of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    Delivered,
    /// It is tried again.
    Waits,
    Parked,
    /// The partition has another owner.
    Revoked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obeyed {
    Done,
    /// There is no such event.
    Unknown,
    /// A delivery is under way.
    NotNow,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Deliveries at once.
    pub parallel: usize,
    /// How long an event is tried before it is parked.
    pub park_after: Duration,
}

pub struct Schedule {
    limits: Limits,
    circuit: Circuit,
    lanes: BTreeMap<LaneKey, Lane>,
    /// Installations whose next event was not tried, and those whose was.
    fresh: VecDeque<Key>,
    again: VecDeque<Key>,
    waiting: BTreeSet<(Instant, Key)>,
    in_flight: usize,
    retries_in_flight: usize,
    generation: u64,
    /// When the handler last took an event.
    delivered_at: Option<Timestamp>,
}

impl Schedule {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            circuit: Circuit::default(),
            lanes: BTreeMap::new(),
            fresh: VecDeque::new(),
            again: VecDeque::new(),
            waiting: BTreeSet::new(),
            in_flight: 0,
            retries_in_flight: 0,
            generation: 0,
            delivered_at: None,
        }
    }

    pub fn resume(
        &mut self,
        key: LaneKey,
        watermark: &Watermark,
        places: impl IntoIterator<Item = (Installation, Place)>,
    ) {
        self.generation += 1;
        self.lanes.insert(key, Lane::new(self.generation, watermark, places));
    }

    /// Nothing more of it is delivered. What is under way may still arrive.
    pub fn revoke(&mut self, key: LaneKey) {
        self.lanes.remove(&key);
    }

    pub fn lanes(&self) -> impl Iterator<Item = (LaneKey, &Lane)> {
        self.lanes.iter().map(|(key, lane)| (*key, lane))
    }

    pub fn lane(&self, key: LaneKey) -> Option<&Lane> {
        self.lanes.get(&key)
    }

    /// Whether there is room to read on. A target that takes nothing fills the window, and no more is read; one
    /// installation that it does not take goes back to the log, so that others are read.
    pub fn may_read(&mut self, key: LaneKey) -> bool {
        let is_closed = self.circuit.is_closed();
        let Some(lane) = self.lanes.get_mut(&key) else { return false };
        if lane.room().is_none() && is_closed {
            lane.evict_waiting();
        }
        lane.room().is_some() && lane.has_places()
    }

    /// The events of the log up to `until`, of this app. Returns how many of them are lost.
    pub fn read(&mut self, key: LaneKey, events: Vec<Event>, until: u64) -> u64 {
        let Some(lane) = self.lanes.get_mut(&key) else { return 0 };
        let mut lost = 0;
        for event in events {
            if event.head.offset < lane.next {
                continue;
            }
            let installation = event.installation.clone();
            if event.request.is_none() && lane.wants(&installation) {
                lane.lost(event.head.id);
                lost += 1;
            } else if lane.push(event) {
                self.fresh.push_back((key, installation));
            }
        }
        lane.next = lane.next.max(until);
        lost
    }

    /// The installations whose events are to be read again, and from where.
    pub fn loading_places(&mut self, key: LaneKey) -> BTreeMap<Installation, u64> {
        self.lanes.get_mut(&key).map(Lane::loading_places).unwrap_or_default()
    }

    /// All events up to `until` of the installations that [`Self::loading_places`] named with these places. Returns how many are
    /// lost.
    pub fn loaded(
        &mut self,
        key: LaneKey,
        places: &BTreeMap<Installation, u64>,
        until: u64,
        events: Vec<Event>,
    ) -> u64 {
        let Some(lane) = self.lanes.get_mut(&key) else { return 0 };
        let (found, lost): (Vec<Event>, Vec<Event>) = events.into_iter().partition(|event| event.request.is_some());
        for event in &lost {
            lane.lost(event.head.id);
        }
        for installation in lane.loaded(places, until, found) {
            let queue = lane.queues.get_mut(&installation).expect("it is ready");
            // What was tried before may be lost by now.
            let first = queue.events.front().map(|event| event.head.id);
            if queue.head.as_ref().is_some_and(|head| Some(head.id) != first) {
                queue.tries = Tries::default();
            }
            let ready = if queue.tries.attempts > 0 { &mut self.again } else { &mut self.fresh };
            ready.push_back((key, installation));
        }
        lost.len() as u64
    }

    /// The next delivery, if one may begin now.
    pub fn take(&mut self, now: Instant) -> Option<Delivery> {
        self.wake(now);
        if self.in_flight >= self.limits.parallel {
            return None;
        }
        let (is_probe, retries_max) = match self.circuit.gate(now) {
            Gate::Open { .. } => return None,
            Gate::Probe => (true, usize::MAX),
            // Events that fail must not take all places of those that do not.
            Gate::Closed => (false, self.limits.parallel.div_ceil(2)),
        };
        let may_retry = self.retries_in_flight < retries_max;
        // A probe with an event that failed before would keep the circuit open if the event is the reason.
        let order = if is_probe { [false, true] } else { [true, false] };
        for is_retry in order.into_iter().filter(|is_retry| may_retry || !is_retry) {
            while let Some(key) = if is_retry { self.again.pop_front() } else { self.fresh.pop_front() } {
                if let Some(delivery) = self.begin(key, is_retry) {
                    if is_probe {
                        self.circuit.probe();
                    }
                    return Some(delivery);
                }
            }
        }
        None
    }

    fn begin(&mut self, (lane_key, installation): Key, is_retry: bool) -> Option<Delivery> {
        let lane = self.lanes.get_mut(&lane_key)?;
        let queue = lane.queues.get_mut(&installation).filter(|queue| queue.state == State::Ready)?;
        let event = queue.events.front()?;
        let delivery = Delivery {
            lane: lane_key,
            generation: lane.generation,
            head: event.head.clone(),
            request: Arc::clone(event.request.as_ref()?),
            attempt: queue.tries.attempts.saturating_add(1),
            installation,
            is_retry,
        };
        queue.state = State::InFlight;
        self.in_flight += 1;
        self.retries_in_flight += usize::from(is_retry);
        Some(delivery)
    }

    fn wake(&mut self, now: Instant) {
        while let Some((due, _)) = self.waiting.first()
            && *due <= now
        {
            let Some((due, key)) = self.waiting.pop_first() else { return };
            self.is_due(key, due);
        }
    }

    fn is_due(&mut self, key: Key, due: Instant) {
        let Some(lane) = self.lanes.get_mut(&key.0) else { return };
        let Some(queue) = lane.queues.get_mut(&key.1).filter(|queue| queue.state == State::Waiting(due)) else {
            return;
        };
        if queue.events.is_empty() {
            lane.load(&key.1);
        } else {
            queue.state = State::Ready;
            self.again.push_back(key);
        }
    }

    /// When something may be taken without another call.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let waiting = self.waiting.first().map(|(due, _)| *due);
        match self.circuit.gate(now) {
            Gate::Open { until } => until.into_iter().chain(waiting).min(),
            Gate::Closed | Gate::Probe => waiting,
        }
    }

    pub fn finished(&mut self, delivery: &Delivery, outcome: Outcome, now: Instant, at: Timestamp) -> Became {
        self.in_flight -= 1;
        self.retries_in_flight -= usize::from(delivery.is_retry);
        match outcome {
            Outcome::Delivered => {
                self.circuit.reached();
                self.delivered_at = self.delivered_at.max(Some(at));
            }
            Outcome::Failed(failure, _) if failure.is_of_the_event() => self.circuit.reached(),
            Outcome::Failed(..) => self.circuit.failed(now),
        }
        let key = (delivery.lane, delivery.installation.clone());
        let lane = self.lanes.get_mut(&key.0).filter(|lane| lane.generation == delivery.generation);
        let Some(lane) = lane else { return Became::Revoked };
        let Outcome::Failed(failure, pause) = outcome else {
            if lane.pop(&key.1) {
                self.fresh.push_back(key);
            }
            return Became::Delivered;
        };
        let Some(queue) = lane.queues.get_mut(&key.1) else { return Became::Revoked };
        let tries = &mut queue.tries;
        (tries.attempts, tries.failure) = (delivery.attempt, Some(failure));
        let since = *tries.since.get_or_insert(at);
        let was_tried = tries.attempts >= ATTEMPTS_MIN && at.since(since) >= self.limits.park_after;
        // While nothing at all is taken, the event is not the reason.
        let takes_others = self.delivered_at.is_some_and(|delivered| delivered >= since);
        if was_tried && takes_others && failure.is_of_the_event() {
            (tries.parked_at, queue.state) = (Some(at), State::Parked);
            lane.evict(&key.1);
            return Became::Parked;
        }
        let seed = u64::from_be_bytes(*delivery.head.id.as_bytes().last_chunk().expect("an id has 16 bytes"));
        let wait = backoff(delivery.attempt - 1, seed, RETRY_MAX).max(pause.unwrap_or_default().min(PAUSE_MAX));
        queue.state = State::Waiting(now + wait);
        self.waiting.insert((now + wait, key));
        Became::Waits
    }

    /// Does what an operator decided about an event.
    pub fn obey(&mut self, key: LaneKey, installation: &Installation, order: Order) -> Obeyed {
        let Some(lane) = self.lanes.get_mut(&key) else { return Obeyed::NotNow };
        let Some(queue) = lane.queues.get_mut(installation) else { return Obeyed::Unknown };
        let offset = match queue.head() {
            Some(head) if head.id == order.id => head.offset,
            Some(_) | None => return Obeyed::Unknown,
        };
        if matches!(queue.state, State::InFlight) {
            return Obeyed::NotNow;
        }
        match order.action {
            Action::Retry => {
                // As long as at first, and as often.
                queue.tries = Tries::default();
                if queue.events.is_empty() {
                    lane.load(installation);
                } else {
                    queue.state = State::Ready;
                    self.again.push_back((key, installation.clone()));
                }
            }
            Action::Skip if queue.events.is_empty() => lane.skip_cut(installation, offset),
            Action::Skip => {
                if lane.pop(installation) {
                    self.fresh.push_back((key, installation.clone()));
                }
            }
        }
        Obeyed::Done
    }

    pub fn snapshot(&mut self, key: LaneKey) -> Option<(Watermark, BTreeMap<Installation, Place>)> {
        self.lanes.get_mut(&key).map(Lane::snapshot)
    }

    /// The receipt of the oldest event that is neither delivered nor parked.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.lanes.values().filter_map(Lane::oldest).min()
    }

    pub fn parked(&self) -> usize {
        self.lanes.values().map(Lane::parked).sum()
    }

    pub fn is_open(&self) -> bool {
        !self.circuit.is_closed()
    }
}

#[cfg(test)]
mod tests;
