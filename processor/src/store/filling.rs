//! Rows that are gathered in memory while a state is filled from nothing, and written in the order of their keys.
//!
//! sled writes a page anew for each row; in order, and only the last value of each key, it writes a fifth as often.
//! What was gathered and not written is lost if the process ends: then rows do not agree with their digest, or there
//! are none, and the state is made anew, as it is with any other damage.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Row, Rows, StoreError};

/// What is gathered takes about so much memory at most; then it is written.
const GATHERED_BYTES_MAX: usize = 192 * 1024 * 1024;
/// About what a row takes besides its bytes.
const ROW_BYTES: usize = 96;
/// So many rows are written at once.
const ROWS_AT_ONCE: usize = 1_000;

type Gathered = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows on top of others.
pub struct Filling<R> {
    below: R,
    gathered: Mutex<Option<(Gathered, usize)>>,
}

impl<R: Rows> Filling<R> {
    /// Passes everything on until it is told to fill.
    pub fn new(below: R) -> Self {
        Self { below, gathered: Mutex::new(None) }
    }

    fn gathered(&self) -> MutexGuard<'_, Option<(Gathered, usize)>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was gathered. Readers wait, or they would find it nowhere for a moment.
    fn pour(&self, gathered: &mut Gathered) -> Result<(), StoreError> {
        let mut rows = std::mem::take(gathered).into_iter();
        loop {
            let some: Vec<_> = rows.by_ref().take(ROWS_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.below.write(some)?;
        }
    }
}

impl<R: Rows> Rows for Filling<R> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some((gathered, _)) = &*self.gathered()
            && let Some(value) = gathered.get(key)
        {
            return Ok(value.clone());
        }
        self.below.get(key)
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let below = self.below.scan(prefix, from);
        if self.gathered().is_none() {
            return below;
        }
        Box::new(Merged { filling: self, prefix, from: from.to_vec(), below: below.peekable() })
    }

    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut filling = self.gathered();
        let Some((gathered, bytes)) = &mut *filling else {
            drop(filling);
            return self.below.write(rows);
        };
        for (key, value) in rows {
            *bytes += key.len() + value.as_ref().map_or(0, Vec::len) + ROW_BYTES;
            gathered.insert(key, value);
        }
        // Values that were replaced are counted all the same: it is only poured a little sooner.
        if *bytes >= GATHERED_BYTES_MAX {
            *bytes = 0;
            self.pour(gathered)?;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.below.bytes()
    }

    fn fill(&self) {
        self.gathered().get_or_insert_default();
    }

    fn settle(&self) -> Result<(), StoreError> {
        let mut filling = self.gathered();
        if let Some((gathered, _)) = &mut *filling {
            self.pour(gathered)?;
        }
        *filling = None;
        Ok(())
    }
}

/// Both in order; what was gathered holds.
struct Merged<'a, R> {
    filling: &'a Filling<R>,
    prefix: &'a [u8],
    from: Vec<u8>,
    below: Peekable<Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a>>,
}

impl<R: Rows> Iterator for Merged<'_, R> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let above = {
                let filling = self.filling.gathered();
                let gathered = filling.as_ref().map(|(gathered, _)| gathered);
                let next = gathered.and_then(|gathered| gathered.range(self.from.clone()..).next());
                next.filter(|(key, _)| key.starts_with(self.prefix)).map(|(key, value)| (key.clone(), value.clone()))
            };
            let below = match self.below.peek() {
                Some(Ok((key, _))) => Some(key.clone()),
                Some(Err(_)) => return self.below.next(),
                None => None,
            };
            let (key, value) = match (above, below) {
                (None, _) => return self.below.next(),
                (Some((key, _)), Some(below)) if below < key => return self.below.next(),
                (Some((key, value)), below) => {
                    if below.as_ref() == Some(&key) {
                        self.below.next();
                    }
                    (key, value)
                }
            };
            self.from.clone_from(&key);
            self.from.push(0);
            if let Some(value) = value {
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
            let filling = Filling::new(below.clone());
            for (key, value, what) in steps {
                let key = vec![b'a' + key % 3, key];
                let row = vec![(key.clone(), value.map(|value| vec![value]))];
                model.write(row.clone()).expect("written");
                match what {
                    0 => filling.fill(),
                    1 => filling.settle().expect("settled"),
                    _ => {}
                }
                filling.write(row).expect("written");
                for (prefix, from) in [(&b""[..], &b""[..]), (b"a", b"a"), (b"b", b"b\x05")] {
                    let rows = |rows: &dyn Rows| -> Vec<Row> { rows.scan(prefix, from).map(|row| row.expect("read")).collect() };
                    prop_assert_eq!(rows(&filling), rows(&model));
                }
                prop_assert_eq!(filling.get(&key).expect("read"), model.get(&key).expect("read"));
            }
            filling.settle().expect("settled");
            prop_assert_eq!(
                below.scan(b"", b"").map(|row| row.expect("read")).collect::<Vec<_>>(),
                model.scan(b"", b"").map(|row| row.expect("read")).collect::<Vec<_>>()
            );
        }
    }
}
