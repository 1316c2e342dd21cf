//! Each record is handed to Kafka once, in order, and nobody waits for it longer than the deadline.
//!
//! A record goes straight to Kafka while every entry of the disk log has been handed over and what is on
//! its way is bounded. If it is not reported within the deadline it goes to the disk log too; its report
//! settles that entry. Other records go to the disk log only, and a cursor hands them over later.
//!
//! What Kafka refuses for itself, because it is too large, stays in the disk log and holds nobody up. After a
//! producer that failed, its successor is tried with one record before it gets more.
//!
//! All of this is pure: time comes in, answers and work come out. Sockets, disk and client are outside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::log::Record;

mod appends;
mod cursor;
mod in_flight;
mod parked;
mod retry;
mod send_queue;
#[cfg(test)]
mod tests;
mod types;

use appends::{Appends, Origin, Written};
use cursor::Cursor;
use in_flight::{Flight, Flights, Place};
use parked::Aside;

pub use in_flight::Reported;
pub use send_queue::{Batch, Parcel};
pub use types::{Answer, Effects, Link, Offer, Rules, Waiter};

/// The state of the hand-over.
#[derive(Debug)]
pub struct Handover {
    rules: Rules,
    link: Link,
    flights: Flights,
    gate: send_queue::Gate,
    cursor: Cursor,
    aside: Aside,
    appends: Appends,
    /// The producer is new after one that failed, and Kafka has not taken anything from it yet.
    probation: bool,
    /// Records that only a report can save, oldest first.
    without_room: VecDeque<u64>,
}

impl Handover {
    /// A hand-over in front of a disk log whose entries before `first_unsettled` are in Kafka.
    pub fn new(rules: Rules, partitions: u32, first_unsettled: u64, end: u64) -> Self {
        Self {
            rules,
            link: Link::Down,
            flights: Flights::default(),
            gate: send_queue::Gate::new(partitions),
            cursor: Cursor::new(first_unsettled, end),
            aside: Aside::default(),
            appends: Appends::default(),
            probation: false,
            without_room: VecDeque::new(),
        }
    }

    /// Takes a record in.
    pub fn offer(&mut self, now: Instant, offer: Offer) {
        let Offer { waiter, partition, record } = offer;
        if !self.is_direct() {
            self.appends.push(record, false, Origin::Request(Some(waiter)));
            return;
        }
        let to_disk = self.rules.disk_first || self.is_stalled(now);
        let place = if to_disk { Place::ToDisk(None) } else { Place::Memory(Arc::clone(&record)) };
        let ticket = self.fly(now, partition, &record, Some(waiter), place);
        if to_disk {
            self.append(Arc::clone(&record), ticket);
        }
        self.gate.push(partition, (ticket, record));
    }

    /// The batch that is to be sent now. Whoever takes it calls [`Self::sent`] afterwards.
    pub fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        match self.link {
            Link::Up => self.gate.next(now),
            Link::Down | Link::Failing => None,
        }
    }

    /// A batch was passed to the client, but for these.
    pub fn sent(&mut self, partition: u32, refused: Vec<Parcel>) {
        self.gate.sent(partition, refused);
        if self.link == Link::Failing {
            self.recall();
        }
    }

    /// Kafka said what became of a record. Whether it was the last of its partition on its way.
    pub fn reported(&mut self, now: Instant, ticket: u64, reported: Reported, effects: &mut Effects) -> bool {
        let reported = if self.aside.is_full() { reported.or_failed() } else { reported };
        match reported {
            Reported::Failed => self.fail(),
            Reported::Kept | Reported::Refused => self.probation = false,
        }
        let Some(flight) = self.flights.get_mut(ticket) else { return false };
        let last = self.gate.reported(flight.partition, now);
        if let Place::ToDisk(_) = flight.place {
            if reported == Reported::Kept && !self.rules.disk_first {
                effects.answers.extend(flight.waiter.take().map(|waiter| (waiter, Answer::Kafka)));
            }
            self.flights.note(ticket, reported);
            return last;
        }
        if let Some(flight) = self.flights.remove(ticket) {
            self.ended(flight, reported, effects);
        }
        last
    }

    /// Time goes by: who has waited for the deadline is helped by the disk log.
    pub fn tick(&mut self, now: Instant, effects: &mut Effects) {
        if let Some(at) = now.checked_sub(self.rules.deadline) {
            while let Some(ticket) = self.flights.next_due(at) {
                self.save(ticket);
            }
        }
        let wait_max = self.rules.report_wait_max;
        while let Some(ticket) = self.without_room.front().copied() {
            let flight = self.flights.get_mut(ticket).filter(|flight| matches!(flight.place, Place::NoRoom(_)));
            if flight.as_ref().is_some_and(|flight| now.saturating_duration_since(flight.entered) < wait_max) {
                return;
            }
            let waiter = flight.and_then(|flight| flight.waiter.take());
            effects.answers.extend(waiter.map(|waiter| (waiter, Answer::StorageUnavailable)));
            self.without_room.pop_front();
        }
    }

    /// The group that is to be written to the disk log now, one at a time. Whoever takes it calls
    /// [`Self::appended`] afterwards.
    pub fn next_append(&mut self) -> Option<Vec<(Arc<Record>, bool)>> {
        let flights = &mut self.flights;
        self.appends.next_group(|origin| is_kept_by_now(flights, origin))
    }

    /// The group is durable, its first record at this offset.
    pub fn appended(&mut self, first: u64, effects: &mut Effects) {
        let (group, failed_meanwhile) = self.appends.group_ended();
        let end = first + group.len() as u64;
        let mut settled = Vec::new();
        for (offset, Written { origin, size }) in (first..).zip(group) {
            let waiter = match origin {
                Origin::Request(waiter) => waiter,
                Origin::Flight(ticket) => self.landed(ticket, offset, size, &mut settled),
                Origin::Refused(waiter) => {
                    self.aside.put(offset, size);
                    waiter
                }
                Origin::Entry(before) => {
                    self.aside.take(before);
                    effects.settled.push(before);
                    self.aside.put(offset, size);
                    None
                }
            };
            effects.answers.extend(waiter.map(|waiter| (waiter, Answer::Disk)));
        }
        let aside = &self.aside;
        self.cursor.appended(first, end, |offset| settled.binary_search(&offset).is_ok() || aside.contains(offset));
        if failed_meanwhile {
            self.cursor.flag_to_end();
        }
        effects.settled.append(&mut settled);
    }

    /// The group could not be written. These were its records.
    pub fn not_appended(&mut self, records: Vec<(Arc<Record>, bool)>, effects: &mut Effects) {
        let (group, _) = self.appends.group_ended();
        for (Written { origin, .. }, (record, _)) in group.into_iter().zip(records) {
            match origin {
                Origin::Request(waiter) | Origin::Refused(waiter) => {
                    effects.answers.extend(waiter.map(|waiter| (waiter, Answer::StorageUnavailable)));
                }
                Origin::Flight(ticket) => self.not_landed(ticket, record, effects),
                Origin::Entry(before) => self.aside.set_moving(before, false),
            }
        }
    }

    /// Kafka was reached for the first time.
    pub fn connected(&mut self) {
        if self.link == Link::Down {
            self.link = Link::Up;
        }
    }

    /// The producer is done for: nothing more is handed over, and who waits is helped by the disk log.
    pub fn fail(&mut self) {
        if self.link != Link::Up {
            return;
        }
        self.link = Link::Failing;
        self.recall();
        for ticket in self.flights.tickets() {
            self.save(ticket);
        }
        self.appends.link_failed();
    }

    /// Whether the failed producer has no record left, so that it can be replaced.
    pub fn is_empty_after_failure(&self) -> bool {
        self.link == Link::Failing && self.gate.out() == 0 && !self.gate.sending()
    }

    /// There is a new producer: all that is not settled is handed over again.
    pub fn renewed(&mut self, first_unsettled: u64) {
        self.cursor.rewind(first_unsettled);
        self.link = Link::Up;
        self.probation = true;
    }

    /// Whether Kafka has yet to take a first record from a producer that is new after one that failed.
    pub fn on_probation(&self) -> bool {
        let none_to_try = self.cursor.at_end() && self.flights.open() == 0;
        self.probation && !none_to_try
    }

    /// Where to read on in the disk log, and how many entries may be handed over now.
    pub fn drainable(&self) -> Option<(u64, usize)> {
        let records_max = if self.on_probation() { 1 } else { self.rules.records_max };
        let room = records_max.saturating_sub(self.flights.open());
        let wanted = self.link == Link::Up && !self.cursor.at_end() && room > 0 && !self.is_full();
        wanted.then(|| (self.cursor.next(), room))
    }

    /// Entries at or behind this place are not known to us yet and must not be drained.
    pub fn known_end(&self) -> u64 {
        self.cursor.end()
    }

    /// Whether an entry that was read has to be handed over, and whether as one that may be a second copy.
    pub fn wants(&self, offset: u64) -> Option<bool> {
        let needs_nobody = self.cursor.is_queued(offset) || self.aside.contains(offset);
        let wanted = self.link == Link::Up && offset >= self.cursor.next() && !needs_nobody;
        wanted.then(|| self.cursor.is_resent(offset))
    }

    /// Hands an entry of the disk log over.
    pub fn drain(&mut self, now: Instant, offset: u64, partition: u32, record: Arc<Record>) {
        let ticket = self.fly(now, partition, &record, None, Place::Disk(offset));
        self.cursor.queue(offset);
        self.cursor.pass(offset);
        self.gate.push(partition, (ticket, record));
    }

    /// Passes by an entry that needs no handing over.
    pub fn pass(&mut self, offset: u64) {
        if self.link == Link::Up {
            self.cursor.pass(offset);
        }
    }

    /// Whether a new record goes straight to Kafka.
    pub fn is_direct(&self) -> bool {
        self.link == Link::Up && self.cursor.at_end() && !self.is_full() && !self.on_probation()
    }

    /// Whether the oldest record on its way is older than the deadline.
    pub fn is_stalled(&self, now: Instant) -> bool {
        self.silence(now) > self.rules.deadline
    }

    /// How long the oldest record on its way has not been reported.
    pub fn silence(&self, now: Instant) -> Duration {
        self.flights.oldest_open().map_or(Duration::ZERO, |entered| now.saturating_duration_since(entered))
    }

    /// Whether records can be handed over.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Records that are on their way.
    pub fn open(&self) -> usize {
        self.flights.open()
    }

    /// Whether a group waits for the disk log.
    pub fn has_appends(&self) -> bool {
        self.appends.ready()
    }

    /// Whether all that was to be written to the disk log is there, or had no room.
    pub fn nothing_to_write(&self) -> bool {
        self.appends.is_empty()
    }

    fn is_full(&self) -> bool {
        let Rules { records_max, bytes_max, .. } = self.rules;
        self.flights.open() >= records_max || self.flights.bytes() >= bytes_max || self.flights.too_long()
    }

    fn fly(&mut self, now: Instant, partition: u32, record: &Record, waiter: Option<Waiter>, place: Place) -> u64 {
        self.flights.insert(Flight { partition, entered: now, size: record.size(), waiter, place })
    }

    fn append(&mut self, record: Arc<Record>, ticket: u64) {
        self.appends.push(record, self.link == Link::Failing, Origin::Flight(ticket));
    }

    /// Writes a record that is on its way to the disk log, unless it is there.
    fn save(&mut self, ticket: u64) {
        let failing = self.link == Link::Failing;
        let Some(flight) = self.flights.get_mut(ticket) else { return };
        let record = match &flight.place {
            Place::Memory(record) => Arc::clone(record),
            // Without Kafka the disk is asked again: it may have room by now.
            Place::NoRoom(record) if failing => Arc::clone(record),
            Place::NoRoom(_) | Place::ToDisk(_) | Place::Disk(_) => return,
        };
        flight.place = Place::ToDisk(None);
        self.append(record, ticket);
    }

    /// Takes back what was never passed to the client.
    fn recall(&mut self) {
        for (ticket, record) in self.gate.clear() {
            if let Some(flight) = self.flights.get_mut(ticket)
                && let Place::ToDisk(_) = flight.place
            {
                self.flights.note(ticket, Reported::Failed);
            } else if let Some(Flight { place, waiter, .. }) = self.flights.remove(ticket) {
                match place {
                    Place::Disk(offset) => self.cursor.unqueue(offset),
                    Place::Memory(_) | Place::NoRoom(_) | Place::ToDisk(_) => {
                        self.appends.push(record, true, Origin::Request(waiter));
                    }
                }
            }
        }
    }

    /// A record was reported, and is not being written to the disk log.
    fn ended(&mut self, flight: Flight, reported: Reported, effects: &mut Effects) {
        match (flight.place, reported) {
            (Place::Disk(offset), Reported::Kept) => {
                self.cursor.unqueue(offset);
                effects.settled.push(offset);
            }
            (Place::Disk(offset), Reported::Failed) => self.cursor.unqueue(offset),
            (Place::Memory(_) | Place::NoRoom(_) | Place::ToDisk(_), Reported::Kept) => {
                effects.answers.extend(flight.waiter.map(|waiter| (waiter, Answer::Kafka)));
            }
            (Place::Disk(offset), Reported::Refused) => {
                self.cursor.unqueue(offset);
                self.aside.put(offset, flight.size);
            }
            (Place::Memory(record) | Place::NoRoom(record), Reported::Failed) => {
                self.appends.push(record, true, Origin::Request(flight.waiter));
            }
            (Place::Memory(record) | Place::NoRoom(record), Reported::Refused) => {
                self.appends.push(record, false, Origin::Refused(flight.waiter));
            }
            // Such a flight is noted, and stays until the disk log has spoken.
            (Place::ToDisk(_), Reported::Failed | Reported::Refused) => {}
        }
    }

    /// A record that was handed over is in the disk log too. Who is still waiting for it?
    fn landed(&mut self, ticket: u64, offset: u64, size: usize, settled: &mut Vec<u64>) -> Option<Waiter> {
        let flight = self.flights.get_mut(ticket)?;
        let waiter = flight.waiter.take();
        match flight.place {
            Place::ToDisk(None) => {
                flight.place = Place::Disk(offset);
                self.cursor.queue(offset);
            }
            Place::ToDisk(Some(reported)) => {
                match reported {
                    Reported::Kept => settled.push(offset),
                    Reported::Refused => self.aside.put(offset, size),
                    Reported::Failed => {}
                }
                self.flights.remove(ticket);
            }
            Place::Memory(_) | Place::Disk(_) | Place::NoRoom(_) => {}
        }
        waiter
    }

    /// The disk log had no room for a record that was handed over.
    fn not_landed(&mut self, ticket: u64, record: Arc<Record>, effects: &mut Effects) {
        let Some(flight) = self.flights.get_mut(ticket) else { return };
        let Place::ToDisk(reported) = flight.place else { return };
        let Some(reported) = reported else {
            flight.place = Place::NoRoom(record);
            return self.without_room.push_back(ticket);
        };
        let answer = match reported {
            Reported::Kept => Answer::Kafka,
            Reported::Failed | Reported::Refused => Answer::StorageUnavailable,
        };
        effects.answers.extend(flight.waiter.take().map(|waiter| (waiter, answer)));
        self.flights.remove(ticket);
    }
}

/// Whether Kafka has acknowledged a record before it was the disk log's turn. Then it is spared.
fn is_kept_by_now(flights: &mut Flights, origin: Origin) -> bool {
    let Origin::Flight(ticket) = origin else { return false };
    let Some(flight) = flights.get_mut(ticket) else { return true };
    let kept = matches!(flight.place, Place::ToDisk(Some(Reported::Kept))) && flight.waiter.is_none();
    if kept {
        flights.remove(ticket);
    }
    kept
}
