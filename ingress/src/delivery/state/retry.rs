//! What is done with entries that Kafka refused for what they are: tried again, and carried along.

use std::sync::Arc;
use std::time::Instant;

use common::log::Record;

use super::appends::Origin;
use super::in_flight::Place;
use super::{Handover, Link};

impl Handover {
    /// How many entries Kafka refused for what they are.
    pub fn refused(&self) -> usize {
        self.aside.len()
    }

    /// The refused entry that is to be tried again first, while Kafka takes others, and whether as one that may be
    /// a second copy.
    pub fn next_refused(&self, now: Instant) -> Option<(u64, bool)> {
        let well = self.is_direct() && !self.is_stalled(now);
        let offset = self.aside.smallest().filter(|_| well)?;
        Some((offset, self.cursor.is_resent(offset)))
    }

    /// Hands a refused entry over once more.
    pub fn try_refused(&mut self, now: Instant, offset: u64, partition: u32, record: Arc<Record>) {
        if self.link != Link::Up || !self.aside.contains(offset) {
            return;
        }
        self.aside.take(offset);
        let ticket = self.fly(now, partition, &record, None, Place::Disk(offset));
        self.cursor.queue(offset);
        self.gate.push(partition, (ticket, record));
    }

    /// The refused entry that is in the way if all others before it are in Kafka, and whether it may be a second copy.
    pub fn oldest_refused(&self) -> Option<(u64, bool)> {
        self.aside.oldest().map(|offset| (offset, self.cursor.is_resent(offset)))
    }

    /// Writes a refused entry to the end of the disk log, so that its place there can go.
    pub fn carry(&mut self, offset: u64, resent: bool, record: Arc<Record>) {
        if self.aside.contains(offset) {
            self.aside.set_moving(offset, true);
            self.appends.push(record, resent, Origin::Entry(offset));
        }
    }
}
