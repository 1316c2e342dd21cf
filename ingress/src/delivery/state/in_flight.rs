//! Records that were handed over and are not yet reported, oldest first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use common::log::Record;

use super::Waiter;

/// Tickets between the oldest open one and the newest. One record that is stuck keeps the places of all
/// that came behind it; this bounds them.
const SPAN_MAX: usize = 160_000;

/// A record that was handed over.
#[derive(Debug)]
pub struct Flight {
    /// Its partition.
    pub partition: u32,
    /// When it was handed over.
    pub entered: Instant,
    /// About what it takes in memory.
    pub size: usize,
    /// Who waits for it, unless answered already.
    pub waiter: Option<Waiter>,
    /// Where else it is.
    pub place: Place,
}

/// Where a record is, besides on its way to Kafka.
#[derive(Debug)]
pub enum Place {
    /// Nowhere else.
    Memory(Arc<Record>),
    /// Being written to the disk log; and what Kafka said meanwhile, if it did.
    ToDisk(Option<Reported>),
    /// In the disk log.
    Disk(u64),
    /// Nowhere else, because the disk log had no room.
    NoRoom(Arc<Record>),
}

/// What Kafka said of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It is kept.
    Kept,
    /// It may be, or may not be.
    Failed,
    /// It is not, for what it is: too large. Others may go on.
    Refused,
}

impl Reported {
    /// Where nothing more can be set aside, a refusal is a failure.
    #[must_use]
    pub fn or_failed(self) -> Self {
        match self {
            Self::Kept => Self::Kept,
            Self::Failed | Self::Refused => Self::Failed,
        }
    }
}

/// The flights by ticket. Tickets count up and are never used again.
#[derive(Debug, Default)]
pub struct Flights {
    oldest: u64,
    ring: VecDeque<Option<Flight>>,
    /// The first ticket that was not looked at by [`Self::next_due`].
    due: u64,
    open: usize,
    bytes: usize,
}

impl Flights {
    /// Takes a flight in.
    pub fn insert(&mut self, flight: Flight) -> u64 {
        self.open += 1;
        self.bytes += flight.size;
        self.ring.push_back(Some(flight));
        self.oldest + self.ring.len() as u64 - 1
    }

    /// A flight, if it is still there.
    pub fn get_mut(&mut self, ticket: u64) -> Option<&mut Flight> {
        let index = usize::try_from(ticket.checked_sub(self.oldest)?).ok()?;
        self.ring.get_mut(index)?.as_mut()
    }

    /// Takes a flight out.
    pub fn remove(&mut self, ticket: u64) -> Option<Flight> {
        let index = usize::try_from(ticket.checked_sub(self.oldest)?).ok()?;
        let flight = self.ring.get_mut(index)?.take()?;
        if flight.is_open() {
            self.close(flight.size);
        }
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.oldest += 1;
        }
        Some(flight)
    }

    /// Notes what Kafka said of a flight that is being written to the disk log; it stays until that is done.
    pub fn note(&mut self, ticket: u64, reported: Reported) {
        if let Some(flight) = self.get_mut(ticket)
            && flight.is_open()
        {
            flight.place = Place::ToDisk(Some(reported));
            let size = flight.size;
            self.close(size);
        }
    }

    /// When the oldest record that is not reported was handed over.
    pub fn oldest_open(&self) -> Option<Instant> {
        self.ring.iter().flatten().find(|flight| flight.is_open()).map(|flight| flight.entered)
    }

    /// The next ticket that was handed over no later than `at`. Each is returned once.
    pub fn next_due(&mut self, at: Instant) -> Option<u64> {
        self.due = self.due.max(self.oldest);
        loop {
            let index = usize::try_from(self.due - self.oldest).ok()?;
            let flight = self.ring.get(index)?;
            if flight.as_ref().is_some_and(|flight| flight.entered > at) {
                return None;
            }
            self.due += 1;
            if flight.is_some() {
                return Some(self.due - 1);
            }
        }
    }

    /// All tickets, oldest first.
    pub fn tickets(&self) -> Vec<u64> {
        (self.oldest..).zip(&self.ring).filter(|(_, flight)| flight.is_some()).map(|(ticket, _)| ticket).collect()
    }

    /// Records that are not reported.
    pub fn open(&self) -> usize {
        self.open
    }

    /// About what these take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one stuck record keeps too many places.
    pub fn too_long(&self) -> bool {
        self.ring.len() >= SPAN_MAX
    }

    fn close(&mut self, size: usize) {
        self.open -= 1;
        self.bytes -= size;
    }
}

impl Flight {
    /// Whether Kafka has not said anything of it.
    fn is_open(&self) -> bool {
        !matches!(self.place, Place::ToDisk(Some(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn flight(entered: Instant) -> Flight {
        Flight { partition: 0, entered, size: 10, waiter: None, place: Place::ToDisk(None) }
    }

    #[test]
    fn the_oldest_open_flight_is_found_behind_those_that_ended() {
        let (mut flights, now) = (Flights::default(), Instant::now());
        let tickets: Vec<u64> = (0..4).map(|ms| flights.insert(flight(now + Duration::from_millis(ms)))).collect();
        flights.remove(tickets[1]);
        flights.note(tickets[0], Reported::Kept);
        assert_eq!((flights.open(), flights.bytes()), (2, 20));
        assert_eq!(flights.oldest_open(), Some(now + Duration::from_millis(2)));
        flights.remove(tickets[0]);
        assert_eq!((flights.open(), flights.bytes()), (2, 20), "a noted flight was counted out already");
        assert_eq!(flights.tickets(), tickets[2..]);
        assert!(flights.get_mut(tickets[0]).is_none());
    }

    #[test]
    fn each_flight_becomes_due_once() {
        let (mut flights, now) = (Flights::default(), Instant::now());
        let first = flights.insert(flight(now));
        let gone = flights.insert(flight(now));
        let late = flights.insert(flight(now + Duration::from_millis(5)));
        flights.remove(gone);
        assert_eq!(flights.next_due(now), Some(first));
        assert_eq!(flights.next_due(now), None);
        assert_eq!(flights.next_due(now + Duration::from_millis(5)), Some(late));
        assert_eq!(flights.next_due(now + Duration::from_millis(9)), None);
    }
}
