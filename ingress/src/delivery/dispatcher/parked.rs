//! Entries that Kafka rejects permanently: sent again now and then, and moved out of the way of deletion.

use std::io;
use std::sync::Arc;

use event_log::Record;

use super::{Client, Dispatcher, flag};

/// Parked entries that are moved to the end of the disk log at a time.
const MOVE_RECORDS_MAX: usize = 64;

impl<C: Client> Dispatcher<C> {
    /// Sends the smallest parked entry again and returns its offset, if there is one.
    pub fn retry_parked(&self) -> io::Result<Option<u64>> {
        let now = self.clock.now();
        let Some((offset, resent)) = self.lock().next_parked(now) else { return Ok(None) };
        let record = self.entry(offset, resent)?;
        let mut state = self.lock();
        state.retry_parked(now, offset, self.partition_of(&record), Arc::new(record));
        self.go_on(state, now);
        Ok(Some(offset))
    }

    /// Moves parked entries to the end of the disk log, when most of the log is kept only for them.
    pub fn move_parked(&self) -> io::Result<()> {
        for _ in 0..MOVE_RECORDS_MAX {
            if !self.is_kept_for_parked() {
                return Ok(());
            }
            let Some((offset, resent)) = self.lock().oldest_parked() else { return Ok(()) };
            let record = self.entry(offset, resent)?;
            let mut state = self.lock();
            state.move_to_end(offset, resent, Arc::new(record));
            self.go_on(state, self.clock.now());
        }
        Ok(())
    }

    /// Whether the disk log is long, and most of it is in Kafka but lies behind a parked entry.
    fn is_kept_for_parked(&self) -> bool {
        let length = self.log.bounds().1.saturating_sub(self.delivered.watermark());
        let long = self.log.bytes() > self.rules.move_parked_above_bytes;
        long && self.delivered.undelivered() < length / 2
    }

    fn entry(&self, offset: u64, resent: bool) -> io::Result<Record> {
        let found = self.log.reader(offset)?.next()?.filter(|(at, _)| *at == offset);
        let (_, mut record) = found.ok_or_else(|| io::Error::other(format!("the disk log has no entry {offset}")))?;
        if resent {
            flag(&mut record);
        }
        Ok(record)
    }
}
