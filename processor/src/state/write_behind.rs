//! Writes rows in the background: [`Rows::write`] only buffers them, and a thread writes what was buffered meanwhile, in the
//! order of their keys.
//!
//! The state is a cache of `facts`, which may lag behind. Each write of the thread is atomic and holds whole steps, so a
//! killed process leaves the fold up to an earlier offset, from which facts are read again. While an empty state is
//! loaded, the buffer is large and not written atomically: what a killed process leaves then has another digest, or no
//! rows, and is folded again.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Row, Rows, StoreError, lock};

/// Approximate size of the buffer, beside a second one in the writer.
const BUFFERED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The same while an empty state is loaded: the larger, the more rows of one key are written once.
const BULK_LOAD_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Approximate overhead of a row.
const ROW_BYTES: usize = 96;
/// Rows per write of a bulk load.
const ROWS_AT_ONCE: usize = 1_000;
/// Buffered rows that a scan reads at once.
const ROWS_AHEAD: usize = 64;

/// By key; a row without a value is to be removed.
type Buffered = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Buffered rows on top of others.
pub struct WriteBehind<R: Rows + 'static> {
    shared: Arc<Shared<R>>,
    writer: Option<JoinHandle<()>>,
}

struct Shared<R> {
    below: R,
    buffer: Mutex<Buffer>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Usual,
    BulkLoad,
    /// All is to be written, however little it is.
    EndOfBulkLoad,
}

#[derive(Default)]
struct Buffer {
    /// They hide the rows below.
    rows: Buffered,
    bytes: usize,
    /// Rows in the writer: readable here until all are written.
    in_writer: Arc<Buffered>,
    is_writing: bool,
    mode: Mode,
    is_closed: bool,
    /// Of the writer, which waits until it was reported.
    failure: Option<StoreError>,
}

impl Buffer {
    fn bytes_max(&self) -> usize {
        if self.mode == Mode::Usual { BUFFERED_BYTES_MAX } else { BULK_LOAD_BYTES_MAX }
    }

    fn is_due(&self) -> bool {
        let is_enough = self.mode != Mode::BulkLoad || self.is_closed || self.bytes >= self.bytes_max();
        is_enough && !self.rows.is_empty() && self.failure.is_none()
    }

    fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let size = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let (row, new) = (key.len() + ROW_BYTES, size(&value));
        match self.rows.insert(key, value) {
            Some(replaced) => self.bytes = self.bytes + new - size(&replaced),
            None => self.bytes += row + new,
        }
    }

    /// Takes rows back that could not be written.
    fn put_back(&mut self, unwritten: &Buffered) {
        for (key, value) in unwritten {
            if !self.rows.contains_key(key) {
                self.put(key.clone(), value.clone());
            }
        }
    }
}

impl<R: Rows + 'static> WriteBehind<R> {
    pub fn over(below: R) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared { below, buffer: Mutex::default(), changed: Condvar::new() });
        let writer = thread::Builder::new().name("state-writer".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.write_all()
        });
        let writer = writer.map_err(|error| StoreError::Rows(format!("start a thread: {error}")))?;
        Ok(Self { shared, writer: Some(writer) })
    }
}

impl<R: Rows + 'static> Drop for WriteBehind<R> {
    /// Writes what is buffered, and waits for the thread, so the directory can be reopened at once.
    fn drop(&mut self) {
        lock(&self.shared.buffer).is_closed = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            // It catches its panics. Rows that it cannot write are read again from `facts`.
            let _ = writer.join();
        }
    }
}

impl<R: Rows> Shared<R> {
    fn wait<'a>(&self, buffer: MutexGuard<'a, Buffer>) -> MutexGuard<'a, Buffer> {
        self.changed.wait(buffer).unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer: whenever rows are due, writes all of them.
    fn write_all(&self) {
        let mut buffer = lock(&self.buffer);
        loop {
            while !buffer.is_due() {
                if buffer.is_closed {
                    return;
                }
                buffer = self.wait(buffer);
            }
            let (rows, mode) = (Arc::new(std::mem::take(&mut buffer.rows)), buffer.mode);
            (buffer.bytes, buffer.in_writer, buffer.is_writing) = (0, rows.clone(), true);
            drop(buffer);
            // Those who wait for room in the buffer.
            self.changed.notify_all();
            let write = || match mode {
                Mode::Usual => self.below.write(cloned(&*rows)),
                Mode::BulkLoad | Mode::EndOfBulkLoad => self.write_in_parts(&rows),
            };
            let written = catch_unwind(AssertUnwindSafe(write));
            let written = written.unwrap_or_else(|_| Err(StoreError::Rows("a write panicked".to_owned())));
            buffer = lock(&self.buffer);
            buffer.is_writing = false;
            if let Err(error) = written {
                buffer.put_back(&rows);
                buffer.failure = Some(error);
            }
            self.changed.notify_all();
        }
    }

    fn write_in_parts(&self, rows: &Buffered) -> Result<(), StoreError> {
        let mut rows = rows.iter().peekable();
        while rows.peek().is_some() {
            // What is buffered cannot be rebuilt, so this waits for free space.
            self.below.write_patiently(cloned(rows.by_ref().take(ROWS_AT_ONCE)))?;
        }
        Ok(())
    }
}

fn cloned<'a>(rows: impl IntoIterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    rows.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl<R: Rows + 'static> Rows for WriteBehind<R> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let buffer = lock(&self.shared.buffer);
        if let Some(value) = buffer.rows.get(key).or_else(|| buffer.in_writer.get(key)) {
            return Ok(value.clone());
        }
        drop(buffer);
        self.shared.below.get(key)
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let in_writer = lock(&self.shared.buffer).in_writer.clone();
        // In this order: rows that are written meanwhile are still in our copy of the buffer.
        let below = self.shared.below.scan(prefix, from).peekable();
        let (from, buffer) = (from.to_vec(), &self.shared.buffer);
        Box::new(Merged { buffer, in_writer, prefix, from, ahead: VecDeque::new(), only_below: false, below })
    }

    /// Returns an error of the writer, once. Then these rows are not buffered, and the writer tries again.
    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut buffer = lock(&self.shared.buffer);
        while buffer.failure.is_none() && buffer.bytes >= buffer.bytes_max() {
            buffer = self.shared.wait(buffer);
        }
        let failure = buffer.failure.take();
        if failure.is_none() {
            for (key, value) in rows {
                buffer.put(key, value);
            }
        }
        drop(buffer);
        self.shared.changed.notify_all();
        failure.map_or(Ok(()), Err)
    }

    fn bytes(&self) -> u64 {
        self.shared.below.bytes()
    }

    fn begin_bulk_load(&self) {
        lock(&self.shared.buffer).mode = Mode::BulkLoad;
    }

    /// Waits until every buffered row is written.
    fn finish_bulk_load(&self) -> Result<(), StoreError> {
        let mut buffer = lock(&self.shared.buffer);
        buffer.mode = Mode::EndOfBulkLoad;
        self.shared.changed.notify_all();
        while buffer.failure.is_none() && (buffer.is_writing || !buffer.rows.is_empty()) {
            buffer = self.shared.wait(buffer);
        }
        buffer.mode = Mode::Usual;
        buffer.failure.take().map_or(Ok(()), Err)
    }
}

/// All rows in order; of rows with one key the topmost is returned.
struct Merged<'a> {
    buffer: &'a Mutex<Buffer>,
    /// The rows in the writer at the start: `below` may not have them, and the buffer may drop them.
    in_writer: Arc<Buffered>,
    prefix: &'a [u8],
    /// Behind all buffered rows that were read.
    from: Vec<u8>,
    ahead: VecDeque<(Vec<u8>, Option<Vec<u8>>)>,
    only_below: bool,
    below: Peekable<Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a>>,
}

impl Merged<'_> {
    fn look_ahead(&mut self) {
        if self.only_below || !self.ahead.is_empty() {
            return;
        }
        let buffer = lock(self.buffer);
        let mut found = Buffered::new();
        let mut read = |rows: &Buffered| {
            let next = rows.range(self.from.clone()..).take_while(|(key, _)| key.starts_with(self.prefix));
            found.extend(next.take(ROWS_AHEAD).map(|(key, value)| (key.clone(), value.clone())));
        };
        // The topmost last: it replaces the others.
        read(&self.in_writer);
        read(&buffer.in_writer);
        read(&buffer.rows);
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

impl Iterator for Merged<'_> {
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

    fn all(rows: &dyn Rows) -> Vec<Row> {
        rows.scan(b"", b"").map(|row| row.expect("read")).collect()
    }

    fn row(key: &[u8], value: u8) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        vec![(key.to_vec(), Some(vec![value]))]
    }

    proptest! {
        #[test]
        fn a_reader_sees_no_difference(
            steps in prop::collection::vec((0..40_u8, prop::option::of(any::<u8>()), 0..12_u8), 0..120)
        ) {
            let (below, model) = (Memory::default(), Memory::default());
            let rows = WriteBehind::over(below.clone()).expect("a thread");
            for (key, value, what) in steps {
                let key = vec![b'a' + key % 3, key];
                let row = vec![(key.clone(), value.map(|value| vec![value]))];
                model.write(row.clone()).expect("written");
                match what {
                    0 => rows.begin_bulk_load(),
                    1 => rows.finish_bulk_load().expect("finished"),
                    2 => thread::yield_now(),
                    _ => {}
                }
                rows.write(row).expect("written");
                for (prefix, from) in [(&b""[..], &b""[..]), (b"a", b"a"), (b"b", b"b\x05")] {
                    let found = |rows: &dyn Rows| -> Vec<Row> { rows.scan(prefix, from).map(|row| row.expect("read")).collect() };
                    prop_assert_eq!(found(&rows), found(&model));
                }
                prop_assert_eq!(rows.get(&key).expect("read"), model.get(&key).expect("read"));
            }
            drop(rows);
            prop_assert_eq!(all(&below), all(&model));
        }
    }

    /// Rows that take a write only when told, and remember each.
    #[derive(Clone, Default)]
    struct Gate(Memory, Arc<(Mutex<Told>, Condvar)>);

    #[derive(Default)]
    struct Told {
        writes: usize,
        allowed: usize,
        begun: usize,
        is_full: bool,
    }

    impl Gate {
        fn tell(&self, tell: impl FnOnce(&mut Told)) {
            tell(&mut lock(&self.1.0));
            self.1.1.notify_all();
        }

        fn wait_until(&self, is_so: impl Fn(&Told) -> bool) {
            let mut told = lock(&self.1.0);
            while !is_so(&told) {
                told = self.1.1.wait(told).expect("no panic");
            }
        }
    }

    impl Rows for Gate {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.get(key)
        }

        fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
            self.0.scan(prefix, from)
        }

        fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
            self.tell(|told| told.begun += 1);
            self.wait_until(|told| told.allowed > 0);
            self.tell(|told| told.allowed -= 1);
            if lock(&self.1.0).is_full {
                return Err(StoreError::NoRoom);
            }
            self.tell(|told| told.writes += 1);
            self.0.write(rows)
        }

        fn bytes(&self) -> u64 {
            self.0.bytes()
        }
    }

    #[test]
    fn what_is_buffered_during_a_write_is_written_at_once_and_only_the_last_of_a_key() {
        let below = Gate::default();
        let rows = WriteBehind::over(below.clone()).expect("a thread");
        rows.write(row(b"a", 0)).expect("buffered");
        below.wait_until(|told| told.begun == 1);
        for value in 1..100 {
            rows.write(row(b"a", value)).expect("buffered");
            rows.write(row(b"b", value)).expect("buffered");
        }
        assert_eq!((all(&below), rows.get(b"a").expect("read")), (vec![], Some(vec![99])));
        below.tell(|told| told.allowed = 2);
        rows.finish_bulk_load().expect("written");
        assert_eq!(all(&below), [(b"a".to_vec(), vec![99]), (b"b".to_vec(), vec![99])]);
        assert_eq!(lock(&below.1.0).writes, 2);
    }

    #[test]
    fn a_full_disk_is_reported_once_and_loses_nothing() {
        let below = Gate::default();
        let rows = WriteBehind::over(below.clone()).expect("a thread");
        below.tell(|told| (told.is_full, told.allowed) = (true, 1));
        rows.write(row(b"a", 1)).expect("buffered");
        assert!(matches!(rows.finish_bulk_load(), Err(StoreError::NoRoom)));
        below.tell(|told| told.allowed = 1);
        rows.write(row(b"b", 1)).expect("buffered");
        below.wait_until(|told| told.begun == 2 && told.allowed == 0);
        let is_reported = |rows: &WriteBehind<Gate>| lock(&rows.shared.buffer).failure.is_some();
        while !is_reported(&rows) {
            thread::yield_now();
        }
        assert!(matches!(rows.write(row(b"c", 1)), Err(StoreError::NoRoom)), "not buffered");
        assert_eq!(all(&rows), [(b"a".to_vec(), vec![1]), (b"b".to_vec(), vec![1])]);
        below.tell(|told| (told.is_full, told.allowed) = (false, 9));
        rows.finish_bulk_load().expect("there is room");
        assert_eq!(all(&below), all(&rows));
        drop(rows);
        assert_eq!(all(&below).len(), 2);
    }

    #[test]
    fn a_full_buffer_waits_for_the_writer() {
        let below = Gate::default();
        let rows = WriteBehind::over(below.clone()).expect("a thread");
        rows.write(row(b"a", 0)).expect("buffered");
        below.wait_until(|told| told.begun == 1);
        rows.write(vec![(b"b".to_vec(), Some(vec![0; BUFFERED_BYTES_MAX]))]).expect("it was empty");
        thread::scope(|scope| {
            let waits = scope.spawn(|| rows.write(row(b"c", 0)));
            assert_eq!(rows.get(b"c").expect("read"), None);
            below.tell(|told| told.allowed = 9);
            waits.join().expect("no panic").expect("buffered");
        });
        rows.finish_bulk_load().expect("written");
        assert_eq!(all(&below).len(), 3);
    }
}
