//! One partition for one app: a bounded window of events that wait, in a queue for each installation.
//!
//! An installation whose events do not fit is *cut*: its further events stay in the log, and its place is remembered.
//! Others are read on past it, and it is read again from its place when it is its turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bitrix24::Installation;
use event_log::EventId;
use primitives::time::Timestamp;

use super::progress::{Head, Place, Tries, Watermark};
use super::request::Request;

/// Events of a lane in memory.
const EVENTS_MAX: usize = 1_000;
/// Their bodies; exceeded only by the last one.
const BYTES_MAX: usize = 2 * 1024 * 1024;
/// Events of one installation in memory.
pub const QUEUE_MAX: usize = 64;
/// Installations with a place of their own; with more, nothing further is read.
const PLACES_MAX: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub installation: Installation,
    pub head: Head,
    /// None if `raw` does not have it any longer.
    pub request: Option<Arc<Request>>,
}

impl Event {
    fn bytes(&self) -> usize {
        self.request.as_ref().map_or(0, |request| request.body.len())
    }
}

/// What may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub events: usize,
    pub bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In a queue of the schedule.
    Ready,
    InFlight,
    Waiting(Instant),
    /// It is its turn, and its events have to be read.
    Loading,
    Parked,
}

#[derive(Debug)]
pub struct Queue {
    pub state: State,
    pub events: VecDeque<Event>,
    /// Events from here on are not in memory, those of the window included.
    pub cut: Option<u64>,
    /// Of the first event, also while it is not in memory.
    pub tries: Tries,
    pub head: Option<Head>,
    /// Was in flight when progress was last saved.
    was_in_flight: bool,
}

impl Queue {
    fn new(state: State) -> Self {
        Self { state, events: VecDeque::new(), cut: None, tries: Tries::default(), head: None, was_in_flight: false }
    }

    /// The event that is next, if it is known.
    pub fn head(&self) -> Option<&Head> {
        self.events.front().map(|event| &event.head).or(self.head.as_ref())
    }

    fn place(&self) -> Option<u64> {
        self.events.front().map(|event| event.head.offset).or(self.cut)
    }
}

#[derive(Debug)]
pub struct Lane {
    /// Distinguishes it from a former lane of the same partition.
    pub generation: u64,
    /// The next offset to read.
    pub next: u64,
    pub queues: BTreeMap<Installation, Queue>,
    /// The queues that are [`State::Loading`].
    pub loading: BTreeSet<Installation>,
    events: usize,
    bytes: usize,
    lost: u64,
    last_lost: Option<EventId>,
}

impl Lane {
    pub fn new(
        generation: u64,
        watermark: &Watermark,
        places: impl IntoIterator<Item = (Installation, Place)>,
    ) -> Self {
        let mut lane = Self {
            generation,
            next: watermark.next,
            queues: BTreeMap::new(),
            loading: BTreeSet::new(),
            events: 0,
            bytes: 0,
            lost: watermark.lost,
            last_lost: watermark.last_lost,
        };
        for (installation, place) in places {
            let state = if place.tries.parked_at.is_some() { State::Parked } else { State::Loading };
            if state == State::Loading {
                lane.loading.insert(installation.clone());
            }
            let queue = Queue { cut: Some(place.next), tries: place.tries, head: place.event, ..Queue::new(state) };
            lane.queues.insert(installation, queue);
        }
        lane
    }

    /// None if nothing more fits.
    pub fn room(&self) -> Option<Room> {
        let room = Room { events: EVENTS_MAX.saturating_sub(self.events), bytes: BYTES_MAX.saturating_sub(self.bytes) };
        (room.events > 0 && room.bytes > 0).then_some(room)
    }

    /// Whether further installations may get a place of their own.
    pub fn has_places(&self) -> bool {
        self.queues.len() < PLACES_MAX
    }

    pub fn lost(&mut self, id: EventId) {
        self.lost += 1;
        self.last_lost = Some(id);
    }

    /// The next event of the log. Returns whether its queue is new, and so ready.
    pub fn push(&mut self, event: Event) -> bool {
        self.next = event.head.offset + 1;
        let known = self.queues.contains_key(&event.installation);
        let queue = self.queues.entry(event.installation.clone()).or_insert_with(|| Queue::new(State::Ready));
        if queue.cut.is_some() {
            return false;
        }
        if queue.events.len() >= QUEUE_MAX {
            queue.cut = Some(event.head.offset);
            return false;
        }
        (self.events, self.bytes) = (self.events + 1, self.bytes + event.bytes());
        queue.events.push_back(event);
        !known
    }

    /// Whether events of the installation are kept when they are pushed. No other thread makes this true.
    pub fn wants(&self, installation: &Installation) -> bool {
        self.queues.get(installation).is_none_or(|queue| queue.cut.is_none())
    }

    /// The installations whose events are to be read again, and from where.
    pub fn loading_places(&mut self) -> BTreeMap<Installation, u64> {
        let mut places = BTreeMap::new();
        for installation in self.loading.clone() {
            let cut = self.queues.get(&installation).and_then(|queue| queue.cut);
            match cut {
                Some(cut) if cut < self.next => drop(places.insert(installation, cut)),
                // Its further events are read with all others.
                Some(cut) if cut > self.next => {}
                Some(_) | None => {
                    self.queues.remove(&installation);
                    self.loading.remove(&installation);
                }
            }
        }
        places
    }

    /// All events up to `until` of installations that [`Self::loading_places`] named with these places. Returns those that are
    /// ready.
    pub fn loaded(
        &mut self,
        places: &BTreeMap<Installation, u64>,
        until: u64,
        events: Vec<Event>,
    ) -> Vec<Installation> {
        for event in events {
            let Some(queue) = self.queues.get_mut(&event.installation) else { continue };
            if self.loading.contains(&event.installation) {
                (self.events, self.bytes) = (self.events + 1, self.bytes + event.bytes());
                queue.events.push_back(event);
            }
        }
        let mut ready = Vec::new();
        for (installation, place) in places.iter().filter(|(_, place)| **place < until) {
            let Some(queue) = self.queues.get_mut(installation).filter(|queue| queue.cut == Some(*place)) else {
                continue;
            };
            queue.cut = (until < self.next).then_some(until);
            if !queue.events.is_empty() {
                queue.state = State::Ready;
                self.loading.remove(installation);
                ready.push(installation.clone());
            } else if queue.cut.is_none() {
                self.queues.remove(installation);
                self.loading.remove(installation);
            }
        }
        ready
    }

    /// Takes the first event away. Returns whether the installation has more in memory.
    pub fn pop(&mut self, installation: &Installation) -> bool {
        let Some(queue) = self.queues.get_mut(installation) else { return false };
        if let Some(event) = queue.events.pop_front() {
            (self.events, self.bytes) = (self.events - 1, self.bytes - event.bytes());
        }
        (queue.tries, queue.head, queue.was_in_flight) = (Tries::default(), None, false);
        if !queue.events.is_empty() {
            queue.state = State::Ready;
            return true;
        }
        if queue.cut.is_some() {
            self.load(installation);
        } else {
            self.queues.remove(installation);
        }
        false
    }

    pub fn load(&mut self, installation: &Installation) {
        if let Some(queue) = self.queues.get_mut(installation) {
            queue.state = State::Loading;
            self.loading.insert(installation.clone());
        }
    }

    /// Leaves the events of a queue in the log, from the first on.
    pub fn evict(&mut self, installation: &Installation) {
        let Some(queue) = self.queues.get_mut(installation) else { return };
        if let Some(first) = queue.events.front() {
            (queue.cut, queue.head) = (Some(first.head.offset), Some(first.head.clone()));
        }
        for event in queue.events.drain(..) {
            (self.events, self.bytes) = (self.events - 1, self.bytes - event.bytes());
        }
    }

    /// Makes room: the events of queues that wait for another attempt go back to the log.
    pub fn evict_waiting(&mut self) {
        let is_waiting = |queue: &Queue| matches!(queue.state, State::Waiting(_)) && !queue.events.is_empty();
        let waiting: Vec<Installation> =
            self.queues.iter().filter(|(_, queue)| is_waiting(queue)).map(|(name, _)| name.clone()).collect();
        for installation in &waiting {
            self.evict(installation);
        }
    }

    /// Jumps over the event that is parked, in the log.
    pub fn skip_cut(&mut self, installation: &Installation, offset: u64) {
        if let Some(queue) = self.queues.get_mut(installation) {
            (queue.cut, queue.tries, queue.head) = (Some(offset + 1), Tries::default(), None);
        }
        self.load(installation);
    }

    /// How far all is delivered, but for places of their own.
    pub fn snapshot(&mut self) -> (Watermark, BTreeMap<Installation, Place>) {
        let (mut next, mut places) = (self.next, BTreeMap::new());
        for (installation, queue) in &mut self.queues {
            let Some(place) = queue.place() else { continue };
            let is_in_flight = queue.state == State::InFlight;
            let is_slow = is_in_flight && queue.was_in_flight;
            queue.was_in_flight = is_in_flight;
            if queue.cut.is_some() || queue.tries.attempts > 0 || is_slow {
                let event = queue.head().cloned();
                places.insert(installation.clone(), Place { next: place, event, tries: queue.tries.clone() });
            } else {
                next = next.min(place);
            }
        }
        (Watermark { next, lost: self.lost, last_lost: self.last_lost }, places)
    }

    /// The receipt of the oldest event that is neither delivered nor parked.
    pub fn oldest(&self) -> Option<Timestamp> {
        let goes_on = self.queues.values().filter(|queue| queue.state != State::Parked);
        goes_on.filter_map(|queue| queue.head()).map(|head| head.received_at).min()
    }

    pub fn parked(&self) -> usize {
        self.queues.values().filter(|queue| queue.state == State::Parked).count()
    }
}
