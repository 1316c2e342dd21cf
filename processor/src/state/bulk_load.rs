//! Buffers rows in memory while an empty state is loaded, and writes them in the order of their keys.
//!
//! sled rewrites a page for each row; with sorted keys, and only the last value of each, it writes a fifth as much. A
//! thread writes one buffer while the next is filled. Buffered rows are lost if the process ends: then the digest does
//! not match, or there are no rows, and the state is rebuilt like after any other damage.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::panic;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::{Row, Rows, StoreError, lock};

/// Approximate size of the buffer; a second one may be in the writer.
const GATHERED_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Approximate overhead of a row.
const ROW_BYTES: usize = 96;
/// Rows per write.
const ROWS_AT_ONCE: usize = 1_000;
/// Buffered rows that a scan reads at once.
const ROWS_AHEAD: usize = 64;

/// By key; a row without a value is to be removed.
type Gathered = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Buffered rows on top of others.
pub struct BulkLoad<R: Rows + 'static> {
    below: Arc<R>,
    /// `None` outside a bulk load.
    above: Mutex<Option<Above>>,
}

/// Buffered rows, which hide those below.
#[derive(Default)]
struct Above {
    rows: Gathered,
    bytes: usize,
    /// Rows in the writer: readable here until all are written.
    pouring: Arc<Gathered>,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
}

impl<R: Rows + 'static> BulkLoad<R> {
    /// Passes everything through until [`Rows::begin_bulk_load`].
    pub fn new(below: R) -> Self {
        Self { below: Arc::new(below), above: Mutex::new(None) }
    }

    /// Starts to write the buffer, once the previous one is written. Does not block readers.
    fn pour(&self) -> Result<(), StoreError> {
        self.wait_for_writer()?;
        let mut above = lock(&self.above);
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
        let Some(writer) = lock(&self.above).as_mut().and_then(|above| above.writer.take()) else { return Ok(()) };
        writer.join().unwrap_or_else(|why| panic::resume_unwind(why))
    }
}

impl<R: Rows + 'static> Drop for BulkLoad<R> {
    /// Joins the writer thread, so the directory can be reopened at once.
    fn drop(&mut self) {
        if let Some(writer) = lock(&self.above).as_mut().and_then(|above| above.writer.take()) {
            // Its result does not matter.
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
        // The buffer cannot be rebuilt, so this waits for free space.
        below.write_patiently(some)?;
    }
}

impl<R: Rows + 'static> Rows for BulkLoad<R> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(above) = &*lock(&self.above)
            && let Some(value) = above.rows.get(key).or_else(|| above.pouring.get(key))
        {
            return Ok(value.clone());
        }
        self.below.get(key)
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let Some(pouring) = lock(&self.above).as_ref().map(|above| above.pouring.clone()) else {
            return self.below.scan(prefix, from);
        };
        // In this order: rows that are written meanwhile are still in our copy of the buffer.
        let below = self.below.scan(prefix, from).peekable();
        let from = from.to_vec();
        Box::new(Merged { bulk_load: self, pouring, prefix, from, ahead: VecDeque::new(), only_below: false, below })
    }

    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut guard = lock(&self.above);
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
        lock(&self.above).get_or_insert_default();
    }

    fn finish_bulk_load(&self) -> Result<(), StoreError> {
        self.pour()?;
        self.wait_for_writer()?;
        *lock(&self.above) = None;
        Ok(())
    }
}

/// All rows in order; of rows with one key the topmost is returned.
struct Merged<'a, R: Rows + 'static> {
    bulk_load: &'a BulkLoad<R>,
    /// The rows in the writer at the start: `below` may not have them, and the buffer may drop them.
    pouring: Arc<Gathered>,
    prefix: &'a [u8],
    /// Behind all buffered rows that were read.
    from: Vec<u8>,
    ahead: VecDeque<(Vec<u8>, Option<Vec<u8>>)>,
    only_below: bool,
    below: Peekable<Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a>>,
}

impl<R: Rows + 'static> Merged<'_, R> {
    fn look_ahead(&mut self) {
        if self.only_below || !self.ahead.is_empty() {
            return;
        }
        let above = lock(&self.bulk_load.above);
        let mut found = Gathered::new();
        let mut read = |rows: &Gathered| {
            let next = rows.range(self.from.clone()..).take_while(|(key, _)| key.starts_with(self.prefix));
            found.extend(next.take(ROWS_AHEAD).map(|(key, value)| (key.clone(), value.clone())));
        };
        // The topmost last: it replaces the others.
        read(&self.pouring);
        if let Some(above) = &*above {
            read(&above.pouring);
            read(&above.rows);
        }
        // The first few of each layer contain the first few of all.
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
