//! Each record is handed to Kafka once, in order, and nobody waits for it longer than the deadline.
//!
//! A record goes straight to Kafka while every entry of the disk log has been handed over and what is on
//! its way is bounded. If it is not reported within the deadline it goes to the disk log too; its report
//! settles that entry. Other records go to the disk log only, and a cursor hands them over later.
//!
//! All of this is pure: time comes in, answers and work come out. Sockets, disk and client are outside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::log::Record;

mod cursor;
mod flights;
mod gate;
#[cfg(test)]
mod tests;

use cursor::Cursor;
use flights::{Flight, Flights, Place};

pub use flights::Reported;
pub use gate::{Batch, Parcel};

/// Records that go to the disk log in one group.
const APPEND_RECORDS_MAX: usize = 1_024;
/// About how many bytes of records go to the disk log in one group.
const APPEND_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A request that waits, in a slot of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiter {
    /// The worker.
    pub worker: u32,
    /// The slot.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// What a request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Acknowledged by Kafka.
    Kafka,
    /// Durable in the disk log.
    Disk,
    /// Neither.
    Nowhere,
}

/// A record that came in.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Who waits for it.
    pub waiter: Waiter,
    /// Its partition.
    pub partition: u32,
    /// The record.
    pub record: Arc<Record>,
}

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether every record goes to the disk log at once, and is answered from there.
    pub disk_first: bool,
    /// How long a report is awaited before the disk log takes the record too.
    pub deadline: Duration,
    /// How long a report is awaited when the disk log has no room.
    pub report_wait_max: Duration,
    /// Records that are on their way at most.
    pub records_max: usize,
    /// About how many bytes are on their way at most.
    pub bytes_max: usize,
}

/// What follows from an input.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Who is told what.
    pub answers: Vec<(Waiter, Answer)>,
    /// Entries of the disk log that are in Kafka now.
    pub settled: Vec<u64>,
}

/// Whether records can be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Kafka was not reached yet.
    Down,
    /// They can.
    Up,
    /// The producer is done for. It is replaced once all of its records are reported.
    Failing,
}

/// A record for the disk log.
#[derive(Debug)]
pub struct Append {
    /// The record.
    pub record: Arc<Record>,
    /// Whether it may have been handed over in vain.
    pub resent: bool,
    waiter: Option<Waiter>,
    ticket: Option<u64>,
}

/// The state of the hand-over.
#[derive(Debug)]
pub struct Handover {
    rules: Rules,
    link: Link,
    flights: Flights,
    gate: gate::Gate,
    cursor: Cursor,
    /// For the next group that goes to the disk log.
    appends: VecDeque<Append>,
    /// The group that is being written, without its records.
    writing: Vec<(Option<Waiter>, Option<u64>)>,
    /// The link failed while the group was being written.
    failed_meanwhile: bool,
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
            gate: gate::Gate::new(partitions),
            cursor: Cursor::new(first_unsettled, end),
            appends: VecDeque::new(),
            writing: Vec::new(),
            failed_meanwhile: false,
            without_room: VecDeque::new(),
        }
    }

    /// Takes a record in.
    pub fn offer(&mut self, now: Instant, offer: Offer) {
        let Offer { waiter, partition, record } = offer;
        if !self.is_direct() {
            self.appends.push_back(Append { record, resent: false, waiter: Some(waiter), ticket: None });
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
        if reported == Reported::Failed {
            self.fail();
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
            effects.answers.extend(waiter.map(|waiter| (waiter, Answer::Nowhere)));
            self.without_room.pop_front();
        }
    }

    /// The group that is to be written to the disk log now, one at a time. Whoever takes it calls
    /// [`Self::appended`] afterwards.
    pub fn next_append(&mut self) -> Option<Vec<(Arc<Record>, bool)>> {
        if !self.writing.is_empty() {
            return None;
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < APPEND_RECORDS_MAX && bytes < APPEND_BYTES_MAX {
            let Some(append) = self.appends.pop_front() else { break };
            if self.is_kept_by_now(&append) {
                continue;
            }
            bytes += append.record.size();
            self.writing.push((append.waiter, append.ticket));
            group.push((append.record, append.resent));
        }
        self.failed_meanwhile = false;
        (!group.is_empty()).then_some(group)
    }

    /// The group is durable, its first record at this offset.
    pub fn appended(&mut self, first: u64, effects: &mut Effects) {
        let group = std::mem::take(&mut self.writing);
        let end = first + group.len() as u64;
        let mut settled = Vec::new();
        for (offset, (waiter, ticket)) in (first..).zip(group) {
            let waiter = match ticket {
                Some(ticket) => self.landed(ticket, offset, &mut settled),
                None => waiter,
            };
            effects.answers.extend(waiter.map(|waiter| (waiter, Answer::Disk)));
        }
        self.cursor.appended(first, end, &settled);
        if std::mem::take(&mut self.failed_meanwhile) {
            self.cursor.flag_to_end();
        }
        effects.settled.append(&mut settled);
    }

    /// The group could not be written. These were its records.
    pub fn not_appended(&mut self, records: Vec<(Arc<Record>, bool)>, effects: &mut Effects) {
        let group = std::mem::take(&mut self.writing);
        for ((waiter, ticket), (record, _)) in group.into_iter().zip(records) {
            let Some(ticket) = ticket else {
                effects.answers.extend(waiter.map(|waiter| (waiter, Answer::Nowhere)));
                continue;
            };
            let Some(flight) = self.flights.get_mut(ticket) else { continue };
            let Place::ToDisk(reported) = flight.place else { continue };
            if let Some(reported) = reported {
                let answer = match reported {
                    Reported::Kept => Answer::Kafka,
                    Reported::Failed => Answer::Nowhere,
                };
                effects.answers.extend(flight.waiter.take().map(|waiter| (waiter, answer)));
                self.flights.remove(ticket);
            } else {
                flight.place = Place::NoRoom(record);
                self.without_room.push_back(ticket);
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
        self.failed_meanwhile = !self.writing.is_empty();
        self.recall();
        for ticket in self.flights.tickets() {
            self.save(ticket);
        }
        for append in &mut self.appends {
            append.resent = true;
        }
    }

    /// Whether the failed producer has no record left, so that it can be replaced.
    pub fn is_empty_after_failure(&self) -> bool {
        self.link == Link::Failing && self.gate.out() == 0 && !self.gate.sending()
    }

    /// There is a new producer: all that is not settled is handed over again.
    pub fn renewed(&mut self, first_unsettled: u64) {
        self.cursor.rewind(first_unsettled);
        self.link = Link::Up;
    }

    /// Where to read on in the disk log, and how many entries may be handed over now.
    pub fn drainable(&self) -> Option<(u64, usize)> {
        let room = self.rules.records_max.saturating_sub(self.flights.open());
        let wanted = self.link == Link::Up && !self.cursor.at_end() && room > 0 && !self.is_full();
        wanted.then(|| (self.cursor.next(), room))
    }

    /// Entries at or behind this place are not known to us yet and must not be drained.
    pub fn known_end(&self) -> u64 {
        self.cursor.end()
    }

    /// Whether an entry that was read has to be handed over, and whether as one that may be a second copy.
    pub fn wants(&self, offset: u64) -> Option<bool> {
        let wanted = self.link == Link::Up && offset >= self.cursor.next() && !self.cursor.is_queued(offset);
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
        self.link == Link::Up && self.cursor.at_end() && !self.is_full()
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
        self.writing.is_empty() && !self.appends.is_empty()
    }

    /// Whether all that was to be written to the disk log is there, or had no room.
    pub fn nothing_to_write(&self) -> bool {
        self.appends.is_empty() && self.writing.is_empty()
    }

    fn is_full(&self) -> bool {
        let Rules { records_max, bytes_max, .. } = self.rules;
        self.flights.open() >= records_max || self.flights.bytes() >= bytes_max || self.flights.too_long()
    }

    fn fly(&mut self, now: Instant, partition: u32, record: &Record, waiter: Option<Waiter>, place: Place) -> u64 {
        self.flights.insert(Flight { partition, entered: now, size: record.size(), waiter, place })
    }

    fn append(&mut self, record: Arc<Record>, ticket: u64) {
        let resent = self.link == Link::Failing;
        self.appends.push_back(Append { record, resent, waiter: None, ticket: Some(ticket) });
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
                        self.appends.push_back(Append { record, resent: true, waiter, ticket: None });
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
            (Place::Memory(record) | Place::NoRoom(record), Reported::Failed) => {
                self.appends.push_back(Append { record, resent: true, waiter: flight.waiter, ticket: None });
            }
            // Such a flight is noted, and stays until the disk log has spoken.
            (Place::ToDisk(_), Reported::Failed) => {}
        }
    }

    /// A record that was handed over is in the disk log too. Who is still waiting for it?
    fn landed(&mut self, ticket: u64, offset: u64, settled: &mut Vec<u64>) -> Option<Waiter> {
        let flight = self.flights.get_mut(ticket)?;
        let waiter = flight.waiter.take();
        match flight.place {
            Place::ToDisk(None) => {
                flight.place = Place::Disk(offset);
                self.cursor.queue(offset);
            }
            Place::ToDisk(Some(reported)) => {
                if reported == Reported::Kept {
                    settled.push(offset);
                }
                self.flights.remove(ticket);
            }
            Place::Memory(_) | Place::Disk(_) | Place::NoRoom(_) => {}
        }
        waiter
    }

    /// Whether Kafka has acknowledged a record before it was the disk log's turn. Then it is spared.
    fn is_kept_by_now(&mut self, append: &Append) -> bool {
        let Some(ticket) = append.ticket else { return false };
        let Some(flight) = self.flights.get_mut(ticket) else { return true };
        let kept = matches!(flight.place, Place::ToDisk(Some(Reported::Kept))) && flight.waiter.is_none();
        if kept {
            self.flights.remove(ticket);
        }
        kept
    }
}
