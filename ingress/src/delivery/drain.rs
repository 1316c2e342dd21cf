//! Follows the disk log with a cursor and sends its entries in order, as far as there is room.

use disk_log::Reader;
use event_log::Record;

use crate::delivery::dispatcher::{Client, Dispatcher};
use crate::delivery::state::Span;

/// Entries that are sent under one lock.
const STEP_RECORDS_MAX: usize = 64;

/// Reads the disk log at the cursor.
#[derive(Default)]
pub struct Drain {
    /// Kept while there is more: the next entry is usually in the same file.
    reader: Option<Reader>,
}

impl Drain {
    /// Sends some entries.
    pub fn step<C: Client>(&mut self, dispatcher: &Dispatcher<C>, span: Option<Span>) -> std::io::Result<()> {
        let Some(Span { next, end, count_max }) = span else {
            self.reader = None;
            return Ok(());
        };
        let mut reader = match self.reader.take() {
            Some(reader) if reader.position() == next => reader,
            Some(_) | None => dispatcher.log().reader(next)?,
        };
        let entries = read(&mut reader, count_max.min(STEP_RECORDS_MAX), end)?;
        if entries.is_empty() {
            let text = format!("the disk log has no entry {next}, although it ends at {end}");
            return Err(std::io::Error::other(text));
        }
        self.reader = Some(reader);
        dispatcher.drain(entries);
        Ok(())
    }
}

/// Reads entries before `end`: later ones may be in flight while the state machine does not know their offset yet.
fn read(reader: &mut Reader, count_max: usize, end: u64) -> std::io::Result<Vec<(u64, Record)>> {
    let mut entries = Vec::new();
    while entries.len() < count_max && reader.position() < end {
        match reader.next() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => break,
            // The entries before the error go first; it is met again then.
            Err(_) if !entries.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}
