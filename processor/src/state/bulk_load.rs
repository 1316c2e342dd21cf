//! Rows that are gathered in memory while a state is filled from nothing, and written in the order of their keys.
//!
//! sled writes a page anew for each row; in order, and only the last value of each key, it writes a fifth as often. A
//! thread of its own writes what was gathered while more is gathered. What was not written is lost if the process ends:
//! then rows do not agree with their digest, or there are none, and the state is made anew, as it is with any other
//! damage.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::panic;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Row, Rows, StoreError};

/// What is gathered takes about so much memory at most, and as much again what is being written.
const GATHERED_BYTES_MAX: usize = 128 * 1024 * 1024;
/// About what a row takes besides its bytes.
const ROW_BYTES: usize = 96;
/// So many rows are written at once.
const ROWS_AT_ONCE: usize = 1_000;
/// So many gathered rows are looked at together while all are read in order.
const ROWS_AHEAD: usize = 64;

/// By key; a row without a value is to be removed.
type Gathered = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows on top of others.
pub struct BulkLoad<R: Rows + 'static> {
    below: Arc<R>,
    /// None unless it was told to fill.
    above: Mutex<Option<Above>>,
}

/// What is not below yet. Whoever reads finds a row here first.
#[derive(Default)]
struct Above {
    rows: Gathered,
    bytes: usize,
    /// What is being written: here, too, until all of it is.
    pouring: Arc<Gathered>,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
}

impl<R: Rows + 'static> BulkLoad<R> {
    /// Passes everything on until it is told to fill.
    pub fn new(below: R) -> Self {
        Self { below: Arc::new(below), above: Mutex::new(None) }
    }

    fn above(&self) -> MutexGuard<'_, Option<Above>> {
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to write what was gathered, once everything before it is written. Readers do not wait for that.
    fn pour(&self) -> Result<(), StoreError> {
        self.wait_for_writer()?;
        let mut above = self.above();
        let Some(above) = &mut *above else { return Ok(()) };
        above.pouring = Arc::new(std::mem::take(&mut above.rows));
        above.bytes = 0;
        let (below, rows) = (self.below.clone(), above.pouring.clone());
        let write = move || write_all(&*below, &rows);
        let writer = thread::Builder::new().name("fill".to_owned()).spawn(write);
        above.writer = Some(writer.map_err(|error| StoreError::Rows(format!("start a thread: {error}")))?);
        Ok(())
    }

    fn wait_for_writer(&self) -> Result<(), StoreError> {
        let Some(writer) = self.above().as_mut().and_then(|above| above.writer.take()) else { return Ok(()) };
        writer.join().unwrap_or_else(|why| panic::resume_unwind(why))
    }
}

impl<R: Rows + 'static> Drop for BulkLoad<R> {
    /// Who opens the same files next finds nobody there.
    fn drop(&mut self) {
        if let Some(writer) = self.above().as_mut().and_then(|above| above.writer.take()) {
            // What it wrote is of no use any more.
            let _ = writer.join();
        }
    }
}

fn write_all(below: &dyn Rows, rows: &Gathered) -> Result<(), StoreError> {
    let mut rows = rows.iter().map(|(key, value)| (key.clone(), value.clone()));
    loop {
        let some: Vec<_> = rows.by_ref().take(ROWS_AT_ONCE).collect();
        if some.is_empty() {
            return Ok(());
        }
        // What was gathered cannot be gathered again.
        below.write_patiently(some)?;
    }
}

impl<R: Rows + 'static> Rows for BulkLoad<R> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(above) = &*self.above()
            && let Some(value) = above.rows.get(key).or_else(|| above.pouring.get(key))
        {
            return Ok(value.clone());
        }
        self.below.get(key)
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let Some(pouring) = self.above().as_ref().map(|above| above.pouring.clone()) else {
            return self.below.scan(prefix, from);
        };
        // In this order: what is poured until the end is still in what we hold of it.
        let below = self.below.scan(prefix, from).peekable();
        let from = from.to_vec();
        Box::new(Merged { bulk_load: self, pouring, prefix, from, ahead: VecDeque::new(), only_below: false, below })
    }

    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut guard = self.above();
        let Some(above) = &mut *guard else {
            drop(guard);
            return self.below.write(rows);
        };
        let size = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        for (key, value) in rows {
            let (row, new) = (key.len() + ROW_BYTES, size(&value));
            match above.rows.insert(key, value) {
                Some(replaced) => above.bytes = above.bytes + new - size(&replaced),
                None => above.bytes += row + new,
            }
        }
        let is_full = above.bytes >= GATHERED_BYTES_MAX;
        drop(guard);
        if is_full { self.pour() } else { Ok(()) }
    }

    fn bytes(&self) -> u64 {
        self.below.bytes()
    }

    fn begin_bulk_load(&self) {
        self.above().get_or_insert_default();
    }

    fn finish_bulk_load(&self) -> Result<(), StoreError> {
        self.pour()?;
        self.wait_for_writer()?;
        *self.above() = None;
        Ok(())
    }
}

/// All in order; of rows with one key the topmost holds.
struct Merged<'a, R: Rows + 'static> {
    bulk_load: &'a BulkLoad<R>,
    /// What was being poured when we began: `below` may not see it, and it may be there no longer.
    pouring: Arc<Gathered>,
    prefix: &'a [u8],
    /// Behind everything that was looked at above.
    from: Vec<u8>,
    /// Rows from above that come next.
    ahead: VecDeque<(Vec<u8>, Option<Vec<u8>>)>,
    /// There is nothing more above.
    only_below: bool,
    below: Peekable<Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a>>,
}

impl<R: Rows + 'static> Merged<'_, R> {
    /// Looks at some more of what is above, if what was looked at is used up.
    fn look_ahead(&mut self) {
        if self.only_below || !self.ahead.is_empty() {
            return;
        }
        let above = self.bulk_load.above();
        let mut found = Gathered::new();
        let mut look = |rows: &Gathered| {
            let next = rows.range(self.from.clone()..).take_while(|(key, _)| key.starts_with(self.prefix));
            found.extend(next.take(ROWS_AHEAD).map(|(key, value)| (key.clone(), value.clone())));
        };
        // The topmost last: it replaces the others.
        look(&self.pouring);
        if let Some(above) = &*above {
            look(&above.pouring);
            look(&above.rows);
        }
        // Of each layer the first few: together, so many are surely the first.
        self.ahead = found.into_iter().take(ROWS_AHEAD).collect();
        match self.ahead.back() {
            Some((last, _)) => {
                self.from.clone_from(last);
                self.from.push(0);
            }
            None => self.only_below = true,
        }
    }
}

impl<R: Rows + 'static> Iterator for Merged<'_, R> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.look_ahead();
            let Some((key, _)) = self.ahead.front() else { return self.below.next() };
            match self.below.peek() {
                Some(Err(_)) => return self.below.next(),
                Some(Ok((below, _))) if below < key => return self.below.next(),
                Some(Ok((below, _))) if below == key => drop(self.below.next()),
                Some(Ok(_)) | None => {}
            }
            if let Some((key, Some(value))) = self.ahead.pop_front() {
                return Some(Ok((key, value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::memory::Memory;
    use super::*;

    proptest! {
        #[test]
        fn whoever_reads_sees_no_difference(
            steps in prop::collection::vec((0..40_u8, prop::option::of(any::<u8>()), 0..12_u8), 0..120)
        ) {
            let (below, model) = (Memory::default(), Memory::default());
            let bulk_load = BulkLoad::new(below.clone());
            for (key, value, what) in steps {
                let key = vec![b'a' + key % 3, key];
                let row = vec![(key.clone(), value.map(|value| vec![value]))];
                model.write(row.clone()).expect("written");
                match what {
                    0 => bulk_load.begin_bulk_load(),
                    1 => bulk_load.finish_bulk_load().expect("finished"),
                    2 => bulk_load.pour().expect("begun"),
                    _ => {}
                }
                bulk_load.write(row).expect("written");
                for (prefix, from) in [(&b""[..], &b""[..]), (b"a", b"a"), (b"b", b"b\x05")] {
                    let rows = |rows: &dyn Rows| -> Vec<Row> { rows.scan(prefix, from).map(|row| row.expect("read")).collect() };
                    prop_assert_eq!(rows(&bulk_load), rows(&model));
                }
                prop_assert_eq!(bulk_load.get(&key).expect("read"), model.get(&key).expect("read"));
            }
            bulk_load.finish_bulk_load().expect("finished");
            prop_assert_eq!(
                below.scan(b"", b"").map(|row| row.expect("read")).collect::<Vec<_>>(),
                model.scan(b"", b"").map(|row| row.expect("read")).collect::<Vec<_>>()
            );
        }
    }
}
