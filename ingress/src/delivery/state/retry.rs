//! Parked entries are retried, and moved to the end of the disk log so that old segments can be deleted.

use std::sync::Arc;
use std::time::Instant;

use event_log::Record;

use super::appends::Origin;
use super::in_flight::Place;
use super::{DeliveryState, ProducerState};

impl DeliveryState {
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// The parked entry to retry now, only while Kafka takes other records, and whether it may be a second copy.
    pub fn next_parked(&self, now: Instant) -> Option<(u64, bool)> {
        let well = self.is_direct() && !self.is_stalled(now);
        let offset = self.parked.smallest().filter(|_| well)?;
        Some((offset, self.cursor.is_resent(offset)))
    }

    pub fn retry_parked(&mut self, now: Instant, offset: u64, partition: u32, record: Arc<Record>) {
        if self.producer != ProducerState::Up || !self.parked.contains(offset) {
            return;
        }
        self.parked.take(offset);
        let ticket = self.track(now, partition, &record, None, Place::Disk(offset));
        self.cursor.queue(offset);
        self.send_queue.push(partition, (ticket, record));
    }

    /// The oldest parked entry, which keeps its segment from being deleted, and whether it may be a second copy.
    pub fn oldest_parked(&self) -> Option<(u64, bool)> {
        self.parked.oldest().map(|offset| (offset, self.cursor.is_resent(offset)))
    }

    /// Writes a parked entry to the end of the disk log, so that its old segment can be deleted.
    pub fn move_to_end(&mut self, offset: u64, resent: bool, record: Arc<Record>) {
        if self.parked.contains(offset) {
            self.parked.set_moving(offset, true);
            self.appends.push(record, resent, Origin::Entry(offset));
        }
    }
}
