//! Rows in memory: the model that sled is compared with, and the store of tests; and facts in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::{FactLog, Row, Rows, StoreError, lock};
use domain::Fact;

/// A clone is another handle to the same rows.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>);

/// The facts of one partition, by their offsets.
#[derive(Clone, Debug, Default)]
pub struct Facts(pub BTreeMap<u64, Fact>);

impl FactLog for Facts {
    type Error = StoreError;

    fn read(&mut self, _: u32, offsets: &BTreeSet<u64>) -> Result<BTreeMap<u64, Fact>, StoreError> {
        Ok(offsets.iter().filter_map(|offset| Some((*offset, self.0.get(offset)?.clone()))).collect())
    }
}

impl Rows for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(lock(&self.0).get(key).cloned())
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let rows = lock(&self.0);
        let found = rows.range(from.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let found: Vec<_> = found.map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
        Box::new(found.into_iter())
    }

    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut known = lock(&self.0);
        for (key, value) in rows {
            match value {
                Some(value) => known.insert(key, value),
                None => known.remove(&key),
            };
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        let rows = lock(&self.0);
        rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}
