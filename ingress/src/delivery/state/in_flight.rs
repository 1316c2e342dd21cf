//! Records that were sent to Kafka and are not reported yet, oldest first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use event_log::Record;

use super::types::{Reported, Waiter};

/// Bound on the tickets between the oldest open one and the newest: one stuck record keeps the slots of all later ones.
const SPAN_MAX: usize = 160_000;

#[derive(Debug)]
pub struct InFlightRecord {
    pub partition: u32,
    pub entered: Instant,
    /// Approximate size in memory.
    pub size: usize,
    /// None once it was answered.
    pub waiter: Option<Waiter>,
    pub place: Location,
}

#[derive(Debug)]
pub enum Location {
    Memory(Arc<Record>),
    /// Being written to the disk log, with Kafka's report if there was one.
    ToDisk(Option<Reported>),
    Disk(u64),
    /// In memory only, because the disk log had no room.
    NoRoom(Arc<Record>),
}

/// The records in flight, by ticket. Tickets count up and are never reused.
#[derive(Debug, Default)]
pub struct InFlight {
    oldest: u64,
    ring: VecDeque<Option<InFlightRecord>>,
    /// The first ticket that [`Self::next_due`] has not checked.
    due: u64,
    open: usize,
    bytes: usize,
}

impl InFlight {
    pub fn insert(&mut self, pending: InFlightRecord) -> u64 {
        self.open += 1;
        self.bytes += pending.size;
        self.ring.push_back(Some(pending));
        self.oldest + self.ring.len() as u64 - 1
    }

    /// None if it is no longer in flight.
    pub fn get_mut(&mut self, ticket: u64) -> Option<&mut InFlightRecord> {
        let index = usize::try_from(ticket.checked_sub(self.oldest)?).ok()?;
        self.ring.get_mut(index)?.as_mut()
    }

    pub fn remove(&mut self, ticket: u64) -> Option<InFlightRecord> {
        let index = usize::try_from(ticket.checked_sub(self.oldest)?).ok()?;
        let pending = self.ring.get_mut(index)?.take()?;
        if pending.is_open() {
            self.close(pending.size);
        }
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.oldest += 1;
        }
        Some(pending)
    }

    /// Stores the report on a record that is being written to the disk log; the record stays until the write ends.
    pub fn note(&mut self, ticket: u64, reported: Reported) {
        if let Some(pending) = self.get_mut(ticket)
            && pending.is_open()
        {
            pending.place = Location::ToDisk(Some(reported));
            let size = pending.size;
            self.close(size);
        }
    }

    pub fn oldest_open(&self) -> Option<Instant> {
        self.ring.iter().flatten().find(|pending| pending.is_open()).map(|pending| pending.entered)
    }

    /// The next ticket that was sent no later than `at`. Each is returned once.
    pub fn next_due(&mut self, at: Instant) -> Option<u64> {
        self.due = self.due.max(self.oldest);
        loop {
            let index = usize::try_from(self.due - self.oldest).ok()?;
            let pending = self.ring.get(index)?;
            if pending.as_ref().is_some_and(|pending| pending.entered > at) {
                return None;
            }
            self.due += 1;
            if pending.is_some() {
                return Some(self.due - 1);
            }
        }
    }

    /// Oldest first.
    pub fn tickets(&self) -> Vec<u64> {
        (self.oldest..).zip(&self.ring).filter(|(_, pending)| pending.is_some()).map(|(ticket, _)| ticket).collect()
    }

    pub fn open(&self) -> usize {
        self.open
    }

    /// Approximate size of these in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one stuck record keeps too many slots.
    pub fn too_long(&self) -> bool {
        self.ring.len() >= SPAN_MAX
    }

    fn close(&mut self, size: usize) {
        self.open -= 1;
        self.bytes -= size;
    }
}

impl InFlightRecord {
    fn is_open(&self) -> bool {
        !matches!(self.place, Location::ToDisk(Some(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(entered: Instant) -> InFlightRecord {
        InFlightRecord { partition: 0, entered, size: 10, waiter: None, place: Location::ToDisk(None) }
    }

    #[test]
    fn the_oldest_open_record_is_found_behind_those_that_ended() {
        let (mut in_flight, now) = (InFlight::default(), Instant::now());
        let tickets: Vec<u64> = (0..4).map(|ms| in_flight.insert(record(now + Duration::from_millis(ms)))).collect();
        in_flight.remove(tickets[1]);
        in_flight.note(tickets[0], Reported::Kept);
        assert_eq!((in_flight.open(), in_flight.bytes()), (2, 20));
        assert_eq!(in_flight.oldest_open(), Some(now + Duration::from_millis(2)));
        in_flight.remove(tickets[0]);
        assert_eq!((in_flight.open(), in_flight.bytes()), (2, 20), "a noted record was counted out already");
        assert_eq!(in_flight.tickets(), tickets[2..]);
        assert!(in_flight.get_mut(tickets[0]).is_none());
    }

    #[test]
    fn each_record_becomes_due_once() {
        let (mut in_flight, now) = (InFlight::default(), Instant::now());
        let first = in_flight.insert(record(now));
        let gone = in_flight.insert(record(now));
        let late = in_flight.insert(record(now + Duration::from_millis(5)));
        in_flight.remove(gone);
        assert_eq!(in_flight.next_due(now), Some(first));
        assert_eq!(in_flight.next_due(now), None);
        assert_eq!(in_flight.next_due(now + Duration::from_millis(5)), Some(late));
        assert_eq!(in_flight.next_due(now + Duration::from_millis(9)), None);
    }
}
