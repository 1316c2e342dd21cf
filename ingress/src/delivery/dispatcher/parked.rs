//! Entries that Kafka rejects permanently: sent again now and then, and moved out of the way of deletion.

use std::io;
use std::sync::Arc;

use event_log::Record;

use super::{Client, Dispatcher, WorkerSide};
use crate::delivery::state::{Input, Role, Work};

/// Parked entries that are moved to the end of the disk log at a time.
const MOVE_RECORDS_MAX: usize = 64;

impl<C: Client> Dispatcher<C> {
    /// Sends the smallest parked entry again and returns its offset, if there is one.
    pub fn retry_parked(&self) -> io::Result<Option<u64>> {
        let Some(Work::Retry(offset)) = self.poll(Role::Retry) else { return Ok(None) };
        let record = self.entry(offset)?;
        self.handle([Input::Retried { offset, partition: self.partition_of(&record), record }]);
        Ok(Some(offset))
    }

    /// Moves parked entries to the end of the disk log, when most of the log is kept only for them.
    pub fn move_parked(&self) -> io::Result<()> {
        for _ in 0..MOVE_RECORDS_MAX {
            if !self.is_kept_for_parked() {
                return Ok(());
            }
            let Some(Work::Move(offset)) = self.poll(Role::Move) else { return Ok(()) };
            self.handle([Input::Moved { offset, record: self.entry(offset)? }]);
        }
        Ok(())
    }

    /// Whether the disk log is long, and most of it is in Kafka but lies behind a parked entry.
    fn is_kept_for_parked(&self) -> bool {
        let length = self.log.bounds().1.saturating_sub(self.delivered.watermark());
        let long = self.log.bytes() > self.rules.move_parked_above_bytes;
        long && self.delivered.undelivered() < length / 2
    }

    fn entry(&self, offset: u64) -> io::Result<Arc<Record>> {
        let found = self.log.reader(offset)?.next()?.filter(|(at, _)| *at == offset);
        let (_, record) = found.ok_or_else(|| io::Error::other(format!("the disk log has no entry {offset}")))?;
        Ok(Arc::new(record))
    }
}
