//! Entries of the disk log are sent, and those that Kafka rejected are retried or moved.

use std::sync::Arc;
use std::time::Instant;

use event_log::Record;
use event_log::contract::header;

use super::appends::Origin;
use super::in_flight::Location;
use super::{DeliveryState, ProducerState, Span};

impl DeliveryState {
    pub(super) fn span(&self) -> Option<Span> {
        let records_max = if self.on_probation() { 1 } else { self.rules.records_max };
        let count_max = records_max.saturating_sub(self.in_flight.open());
        let wanted = self.producer == ProducerState::Up && !self.cursor.at_end() && count_max > 0 && !self.is_full();
        wanted.then(|| Span { next: self.cursor.next(), end: self.cursor.end(), count_max })
    }

    /// Sends an entry of the disk log, unless its record is in flight or parked.
    pub(super) fn drained(&mut self, now: Instant, offset: u64, partition: u32, record: Arc<Record>) {
        if self.producer == ProducerState::Up && offset >= self.cursor.next() {
            if !self.cursor.is_queued(offset) && !self.parked.contains(offset) {
                self.send_entry(now, offset, partition, record);
            }
            self.cursor.pass(offset);
        }
    }

    pub(super) fn pass(&mut self, offset: u64) {
        if self.producer == ProducerState::Up {
            self.cursor.pass(offset);
        }
    }

    pub(super) fn retried(&mut self, now: Instant, offset: u64, partition: u32, record: Arc<Record>) {
        if self.producer == ProducerState::Up && self.parked.contains(offset) {
            self.parked.take(offset);
            self.send_entry(now, offset, partition, record);
        }
    }

    /// Writes a parked entry to the end of the disk log, so that its old segment can be deleted.
    pub(super) fn moved(&mut self, offset: u64, record: Arc<Record>) {
        if self.parked.contains(offset) {
            self.parked.set_moving(offset, true);
            self.appends.push(record, self.cursor.is_resent(offset), Origin::Entry(offset));
        }
    }

    fn send_entry(&mut self, now: Instant, offset: u64, partition: u32, mut record: Arc<Record>) {
        if self.cursor.is_resent(offset) {
            flag(Arc::make_mut(&mut record));
        }
        let ticket = self.track(now, partition, &record, None, Location::Disk(offset));
        self.cursor.queue(offset);
        self.send_queue.push(partition, (ticket, record));
    }
}

/// Marks a record as a possible second copy.
pub fn flag(record: &mut Record) {
    if record.header(header::RESENT).is_none() {
        record.headers.push((header::RESENT.into(), b"1".to_vec()));
    }
}
