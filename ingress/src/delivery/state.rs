//! The delivery state machine: each record is sent to Kafka once, in order, and no request waits longer than the deadline.
//!
//! A record goes straight to Kafka while every entry of the disk log has been sent and the records in flight are within
//! their limits. If it is not reported within the deadline it goes to the disk log too; its report marks that entry as
//! delivered. Other records go to the disk log only, and a cursor sends them later.
//!
//! An entry that Kafka rejects permanently, because it is too large, is parked in the disk log and does not block the
//! rest. After a producer that failed, its successor is tried with one record before it gets more.
//!
//! Pure: time and inputs come in, effects and work come out. Sockets, disk and client are outside: what happened to them is an
//! [`Input`], what they have to do next is [`Work`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::Record;

mod appends;
mod cursor;
mod entries;
mod in_flight;
mod parked;
mod send_queue;
#[cfg(test)]
mod tests;
mod types;

use appends::{Appends, Origin, Written};
use cursor::Cursor;
use in_flight::{InFlight, InFlightRecord, Location};
use parked::Parked;
use send_queue::SendQueue;

pub use entries::flag;
pub use send_queue::{Batch, QueuedRecord};
pub use types::{
    Effects, Group, Input, Offer, ProducerState, Reply, Reported, Role, Rules, Span, Status, Waiter, Work,
};

#[derive(Debug)]
pub struct DeliveryState {
    rules: Rules,
    producer: ProducerState,
    in_flight: InFlight,
    send_queue: SendQueue,
    cursor: Cursor,
    parked: Parked,
    appends: Appends,
    /// The producer replaced a failed one, and has no acknowledgement yet.
    probation: bool,
    renewed: u64,
    /// Records that only a report can save, oldest first.
    without_room: VecDeque<u64>,
}

impl DeliveryState {
    /// Entries of the disk log before `first_undelivered` are in Kafka.
    pub fn new(rules: Rules, partitions: u32, first_undelivered: u64, end: u64) -> Self {
        Self {
            rules,
            producer: ProducerState::Connecting,
            in_flight: InFlight::default(),
            send_queue: SendQueue::new(partitions),
            cursor: Cursor::new(first_undelivered, end),
            parked: Parked::default(),
            appends: Appends::default(),
            probation: false,
            renewed: 0,
            without_room: VecDeque::new(),
        }
    }

    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Effects) {
        match input {
            Input::Offered(offer) => {
                self.offer(now, offer);
                effects.send = true;
            }
            Input::Tick => {
                self.tick(now, effects);
                (effects.send, effects.announce) = (true, true);
            }
            Input::Connected { first_undelivered } => {
                self.connected(first_undelivered);
                effects.drain = true;
            }
            Input::Failed => self.fail(),
            Input::Reported { ticket, reported } => {
                let is_last = self.reported(now, ticket, reported, effects);
                effects.send |= is_last;
                effects.announce |= is_last;
            }
            Input::Sent { partition, refused } => {
                // A client without room is tried again at the next tick.
                effects.send |= refused.is_empty();
                self.sent(partition, refused);
            }
            Input::Appended { first } => {
                self.appended(first, effects);
                (effects.drain, effects.announce) = (true, true);
            }
            Input::NotAppended(group) => {
                self.not_appended(group, effects);
                effects.announce = true;
            }
            Input::Drained { offset, partition, record } => {
                self.drained(now, offset, partition, record);
                effects.send = true;
            }
            Input::Passed { offset } => {
                self.pass(offset);
                effects.send = true;
            }
            Input::Retried { offset, partition, record } => {
                self.retried(now, offset, partition, record);
                effects.send = true;
            }
            Input::Moved { offset, record } => {
                self.moved(offset, record);
                effects.send = true;
            }
        }
        effects.append |= self.appends.ready();
    }

    /// The work of a role now, if there is some.
    pub fn poll(&mut self, now: Instant, role: Role) -> Option<Work> {
        match role {
            Role::Send if self.producer != ProducerState::Up => None,
            Role::Send => self.send_queue.next(now).map(Work::Send),
            Role::Append => {
                let in_flight = &mut self.in_flight;
                self.appends.next_group(|origin| is_kept_by_now(in_flight, origin)).map(Work::Append)
            }
            Role::Drain => self.span().map(Work::Drain),
            // Only while Kafka takes other records.
            Role::Retry => {
                self.parked.smallest().filter(|_| self.is_direct() && !self.is_stalled(now)).map(Work::Retry)
            }
            Role::Move => self.parked.oldest().map(Work::Move),
        }
    }

    pub fn status(&self, now: Instant) -> Status {
        let kafka_up = self.producer == ProducerState::Up && !self.is_stalled(now) && !self.on_probation();
        Status {
            producer: self.producer,
            kafka_up,
            direct: kafka_up && self.is_direct(),
            replaceable: self.producer == ProducerState::Failing && !self.send_queue.is_sending(),
            renewed: self.renewed,
            open: self.in_flight.open(),
            appends: self.appends.len(),
            parked: self.parked.len(),
        }
    }

    fn offer(&mut self, now: Instant, offer: Offer) {
        let Offer { waiter, partition, record } = offer;
        if !self.is_direct() {
            self.appends.push(record, false, Origin::Request(Some(waiter)));
            return;
        }
        let to_disk = self.rules.disk_first || self.is_stalled(now);
        let place = if to_disk { Location::ToDisk(None) } else { Location::Memory(Arc::clone(&record)) };
        let ticket = self.track(now, partition, &record, Some(waiter), place);
        if to_disk {
            self.append(Arc::clone(&record), ticket);
        }
        self.send_queue.push(partition, (ticket, record));
    }

    fn sent(&mut self, partition: u32, refused: Vec<QueuedRecord>) {
        self.send_queue.sent(partition, refused);
        if self.producer == ProducerState::Failing {
            self.recall();
        }
    }

    /// Returns whether the record was the last of its partition in flight.
    fn reported(&mut self, now: Instant, ticket: u64, reported: Reported, effects: &mut Effects) -> bool {
        let reported = if self.parked.is_full() { reported.or_failed() } else { reported };
        match reported {
            Reported::Failed => self.fail(),
            Reported::Kept | Reported::Refused => self.probation = false,
        }
        let Some(pending) = self.in_flight.get_mut(ticket) else { return false };
        let last = self.send_queue.reported(pending.partition, now);
        if let Location::ToDisk(_) = pending.place {
            if reported == Reported::Kept && !self.rules.disk_first {
                effects.replies.extend(pending.waiter.take().map(|waiter| (waiter, Reply::Kafka)));
            }
            self.in_flight.note(ticket, reported);
            return last;
        }
        if let Some(pending) = self.in_flight.remove(ticket) {
            self.ended(pending, reported, effects);
        }
        last
    }

    /// Records past the deadline go to the disk log.
    fn tick(&mut self, now: Instant, effects: &mut Effects) {
        if let Some(at) = now.checked_sub(self.rules.deadline) {
            while let Some(ticket) = self.in_flight.next_due(at) {
                self.save(ticket);
            }
        }
        let wait_max = self.rules.report_wait_max;
        while let Some(ticket) = self.without_room.front().copied() {
            let pending = self.in_flight.get_mut(ticket).filter(|pending| matches!(pending.place, Location::NoRoom(_)));
            if pending.as_ref().is_some_and(|pending| now.saturating_duration_since(pending.entered) < wait_max) {
                return;
            }
            let waiter = pending.and_then(|pending| pending.waiter.take());
            effects.replies.extend(waiter.map(|waiter| (waiter, Reply::StorageUnavailable)));
            self.without_room.pop_front();
        }
    }

    fn appended(&mut self, first: u64, effects: &mut Effects) {
        let (group, failed_meanwhile) = self.appends.group_ended();
        let end = first + group.len() as u64;
        let mut delivered = Vec::new();
        for (offset, Written { origin, size }) in (first..).zip(group) {
            let waiter = match origin {
                Origin::Request(waiter) => waiter,
                Origin::InFlight(ticket) => self.saved(ticket, offset, size, &mut delivered),
                Origin::ToPark(waiter) => {
                    self.parked.put(offset, size);
                    waiter
                }
                Origin::Entry(before) => {
                    self.parked.take(before);
                    effects.delivered.push(before);
                    self.parked.put(offset, size);
                    None
                }
            };
            effects.replies.extend(waiter.map(|waiter| (waiter, Reply::Disk)));
        }
        let parked = &self.parked;
        self.cursor.appended(first, end, |offset| delivered.binary_search(&offset).is_ok() || parked.contains(offset));
        if failed_meanwhile {
            self.cursor.flag_to_end();
        }
        effects.delivered.append(&mut delivered);
    }

    fn not_appended(&mut self, records: Group, effects: &mut Effects) {
        let (group, _) = self.appends.group_ended();
        for (Written { origin, .. }, (record, _)) in group.into_iter().zip(records) {
            match origin {
                Origin::Request(waiter) | Origin::ToPark(waiter) => {
                    effects.replies.extend(waiter.map(|waiter| (waiter, Reply::StorageUnavailable)));
                }
                Origin::InFlight(ticket) => self.not_saved(ticket, record, effects),
                Origin::Entry(before) => self.parked.set_moving(before, false),
            }
        }
    }

    /// The successor of a failed producer sends undelivered entries again.
    fn connected(&mut self, first_undelivered: u64) {
        if self.producer == ProducerState::Failing {
            self.cursor.rewind(first_undelivered);
            self.probation = true;
            self.renewed += 1;
        }
        self.producer = ProducerState::Up;
    }

    /// The producer failed: nothing more is sent, and the disk log takes the waiting records.
    fn fail(&mut self) {
        if self.producer != ProducerState::Up {
            return;
        }
        self.producer = ProducerState::Failing;
        self.recall();
        for ticket in self.in_flight.tickets() {
            self.save(ticket);
        }
        self.appends.producer_failed();
    }

    /// Whether the producer replaced a failed one, and has no acknowledgement yet.
    fn on_probation(&self) -> bool {
        let none_to_try = self.cursor.at_end() && self.in_flight.open() == 0;
        self.probation && !none_to_try
    }

    fn is_direct(&self) -> bool {
        self.producer == ProducerState::Up && self.cursor.at_end() && !self.is_full() && !self.on_probation()
    }

    fn is_stalled(&self, now: Instant) -> bool {
        self.silence(now) > self.rules.deadline
    }

    fn silence(&self, now: Instant) -> Duration {
        self.in_flight.oldest_open().map_or(Duration::ZERO, |entered| now.saturating_duration_since(entered))
    }

    fn is_full(&self) -> bool {
        let Rules { records_max, bytes_max, .. } = self.rules;
        self.in_flight.open() >= records_max || self.in_flight.bytes() >= bytes_max || self.in_flight.too_long()
    }

    fn track(&mut self, now: Instant, partition: u32, record: &Record, waiter: Option<Waiter>, place: Location) -> u64 {
        self.in_flight.insert(InFlightRecord { partition, entered: now, size: record.size(), waiter, place })
    }

    fn append(&mut self, record: Arc<Record>, ticket: u64) {
        self.appends.push(record, self.producer == ProducerState::Failing, Origin::InFlight(ticket));
    }

    /// Writes a record in flight to the disk log, unless it is there.
    fn save(&mut self, ticket: u64) {
        let failing = self.producer == ProducerState::Failing;
        let Some(pending) = self.in_flight.get_mut(ticket) else { return };
        let record = match &pending.place {
            Location::Memory(record) => Arc::clone(record),
            // Without Kafka the disk is tried again: it may have room by now.
            Location::NoRoom(record) if failing => Arc::clone(record),
            Location::NoRoom(_) | Location::ToDisk(_) | Location::Disk(_) => return,
        };
        pending.place = Location::ToDisk(None);
        self.append(record, ticket);
    }

    /// Takes back records that were never passed to the client.
    fn recall(&mut self) {
        for (ticket, record) in self.send_queue.clear() {
            if let Some(pending) = self.in_flight.get_mut(ticket)
                && let Location::ToDisk(_) = pending.place
            {
                self.in_flight.note(ticket, Reported::Failed);
            } else if let Some(InFlightRecord { place, waiter, .. }) = self.in_flight.remove(ticket) {
                match place {
                    Location::Disk(offset) => self.cursor.unqueue(offset),
                    Location::Memory(_) | Location::NoRoom(_) | Location::ToDisk(_) => {
                        self.appends.push(record, true, Origin::Request(waiter));
                    }
                }
            }
        }
    }

    /// A record was reported, and is not being written to the disk log.
    fn ended(&mut self, pending: InFlightRecord, reported: Reported, effects: &mut Effects) {
        match (pending.place, reported) {
            (Location::Disk(offset), Reported::Kept) => {
                self.cursor.unqueue(offset);
                effects.delivered.push(offset);
            }
            (Location::Disk(offset), Reported::Failed) => self.cursor.unqueue(offset),
            (location @ (Location::Memory(_) | Location::NoRoom(_) | Location::ToDisk(_)), Reported::Kept) => {
                effects.replies.extend(pending.waiter.map(|waiter| (waiter, Reply::Kafka)));
                if let Location::Memory(record) | Location::NoRoom(record) = location {
                    effects.done.push(record);
                }
            }
            (Location::Disk(offset), Reported::Refused) => {
                self.cursor.unqueue(offset);
                self.parked.put(offset, pending.size);
            }
            (Location::Memory(record) | Location::NoRoom(record), Reported::Failed) => {
                self.appends.push(record, true, Origin::Request(pending.waiter));
            }
            (Location::Memory(record) | Location::NoRoom(record), Reported::Refused) => {
                self.appends.push(record, false, Origin::ToPark(pending.waiter));
            }
            // The report was noted; the record stays until the write to the disk log ends.
            (Location::ToDisk(_), Reported::Failed | Reported::Refused) => {}
        }
    }

    /// A sent record is in the disk log too. Returns its waiting request.
    fn saved(&mut self, ticket: u64, offset: u64, size: usize, delivered: &mut Vec<u64>) -> Option<Waiter> {
        let pending = self.in_flight.get_mut(ticket)?;
        let waiter = pending.waiter.take();
        match pending.place {
            Location::ToDisk(None) => {
                pending.place = Location::Disk(offset);
                self.cursor.queue(offset);
            }
            Location::ToDisk(Some(reported)) => {
                match reported {
                    Reported::Kept => delivered.push(offset),
                    Reported::Refused => self.parked.put(offset, size),
                    Reported::Failed => {}
                }
                self.in_flight.remove(ticket);
            }
            Location::Memory(_) | Location::Disk(_) | Location::NoRoom(_) => {}
        }
        waiter
    }

    /// The disk log had no room for a sent record.
    fn not_saved(&mut self, ticket: u64, record: Arc<Record>, effects: &mut Effects) {
        let Some(pending) = self.in_flight.get_mut(ticket) else { return };
        let Location::ToDisk(reported) = pending.place else { return };
        let Some(reported) = reported else {
            pending.place = Location::NoRoom(record);
            return self.without_room.push_back(ticket);
        };
        let reply = match reported {
            Reported::Kept => Reply::Kafka,
            Reported::Failed | Reported::Refused => Reply::StorageUnavailable,
        };
        effects.replies.extend(pending.waiter.take().map(|waiter| (waiter, reply)));
        self.in_flight.remove(ticket);
    }
}

/// Whether Kafka acknowledged a record before it was written to the disk log. Then the write is skipped.
fn is_kept_by_now(in_flight: &mut InFlight, origin: Origin) -> bool {
    let Origin::InFlight(ticket) = origin else { return false };
    let Some(pending) = in_flight.get_mut(ticket) else { return true };
    let kept = matches!(pending.place, Location::ToDisk(Some(Reported::Kept))) && pending.waiter.is_none();
    if kept {
        in_flight.remove(ticket);
    }
    kept
}
