//! The newest events, in memory: readers that keep up share them, and read no log.

use std::collections::VecDeque;
use std::sync::Arc;

use event_log::Entry;

use super::cursor::{Cursor, Lane, Mark};
use super::event::{Event, Filter};
use super::page::{Amount, Page};

pub const BYTES_MAX: usize = 16 * 1024 * 1024;
const EVENTS_MAX: usize = 16 * 1024;

/// The newest events of all partitions, in the order in which they came.
pub struct Ring {
    log: u64,
    lanes: Vec<Held>,
    events: VecDeque<Arc<Event>>,
    /// The number of the first of them; numbers go on from ring to ring.
    first: u64,
    bytes: usize,
}

/// What is held of one partition.
struct Held {
    /// All events from here on are held.
    begin: u64,
    /// The last event before that, if it is known.
    before: Option<Mark>,
    /// All below was read.
    end: u64,
}

impl Ring {
    /// Holds nothing yet of what begins at these offsets. `first` is the end of the ring before it.
    pub fn new(log: u64, begins: &[u64], first: u64) -> Self {
        let lanes = begins.iter().map(|begin| Held { begin: *begin, before: None, end: *begin }).collect();
        Self { log, lanes, events: VecDeque::new(), first, bytes: 0 }
    }

    /// The number of the next event.
    pub fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    pub fn push(&mut self, entry: &Entry) {
        let Some(lane) = self.lanes.get_mut(entry.position.partition as usize) else { return };
        if entry.position.offset < lane.end {
            return;
        }
        lane.end = entry.position.offset + 1;
        if let Some(event) = Event::of(entry) {
            self.bytes += event.size();
            self.events.push_back(event);
        }
        while self.bytes > BYTES_MAX || self.events.len() > EVENTS_MAX {
            let Some(event) = self.events.pop_front() else { break };
            (self.first, self.bytes) = (self.first + 1, self.bytes - event.size());
            let lane = &mut self.lanes[event.partition as usize];
            (lane.begin, lane.before) = (event.mark.offset + 1, Some(event.mark));
        }
    }

    /// Nothing lies between what was read of a partition and this offset.
    pub fn is_read_to(&mut self, partition: usize, end: u64) {
        if let Some(lane) = self.lanes.get_mut(partition) {
            lane.end = lane.end.max(end);
        }
    }

    /// The end of what was read of each partition.
    pub fn ends(&self) -> Vec<u64> {
        self.lanes.iter().map(|lane| lane.end).collect()
    }

    /// A page behind this cursor; none if the ring does not reach back to it, or cannot tell.
    pub fn page(&self, cursor: &Cursor, filter: &Filter, amount: Amount) -> Option<Page> {
        if cursor.log != self.log || cursor.lanes.len() != self.lanes.len() || !self.has_all_behind(cursor) {
            return None;
        }
        let (mut lanes, mut events, mut bytes, mut is_end) = (cursor.lanes.clone(), Vec::new(), 0, true);
        let before = usize::try_from(cursor.seen.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut seen = self.end();
        for (number, event) in (self.first..).zip(&self.events).skip(before) {
            let lane = &mut lanes[event.partition as usize];
            if event.mark.offset < lane.next {
                continue;
            }
            if events.len() >= amount.events || bytes >= amount.bytes {
                (is_end, seen) = (false, number);
                break;
            }
            lane.saw(event.mark);
            if filter.takes(event) {
                bytes += event.value.len();
                events.push(Arc::clone(event));
            }
        }
        for (lane, held) in lanes.iter_mut().zip(&self.lanes) {
            lane.is_checked = true;
            if is_end {
                lane.next = lane.next.max(held.end);
            }
        }
        Some(Page { events, begin: cursor.clone(), next: Cursor { log: self.log, lanes, seen }, is_end })
    }

    fn has_all_behind(&self, cursor: &Cursor) -> bool {
        let is_held =
            |lane: &Lane, held: &Held| lane.next >= held.begin || lane.last.is_some() && lane.last == held.before;
        let mut is_known: Vec<bool> = cursor
            .lanes
            .iter()
            .zip(&self.lanes)
            .map(|(lane, held)| {
                lane.is_checked || lane.next <= held.end && (lane.last.is_none() || lane.last == held.before)
            })
            .collect();
        if is_known.contains(&false) {
            for event in &self.events {
                let partition = event.partition as usize;
                let lane = &cursor.lanes[partition];
                is_known[partition] |= lane.last == Some(event.mark) && lane.next <= self.lanes[partition].end;
            }
        }
        cursor
            .lanes
            .iter()
            .zip(&self.lanes)
            .zip(is_known)
            .all(|((lane, held), is_known)| is_known && is_held(lane, held))
    }

    /// How many events, or offsets that may be some, lie behind this position.
    pub fn behind(&self, lanes: &[Lane]) -> u64 {
        lanes.iter().zip(&self.lanes).map(|(lane, held)| held.end.saturating_sub(lane.next)).sum()
    }
}

#[cfg(test)]
mod tests;
