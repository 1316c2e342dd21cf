//! Records and their positions.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::contract::{HeaderName, Topic};
use primitives::time::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub partition: u32,
    /// Counted from 0; offsets may have gaps.
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// None for events of unknown portals.
    pub key: Option<String>,
    /// None is a tombstone.
    pub value: Option<Bytes>,
    /// Name and value, in order.
    pub headers: Vec<(HeaderName, Vec<u8>)>,
    pub at: Timestamp,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_slice())
    }

    /// Approximate size in memory.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        self.key.as_ref().map_or(0, String::len) + self.value.as_ref().map_or(0, Bytes::len) + headers + 64
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub position: Position,
    pub record: Record,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub topic: Topic,
    /// Always that of the raw event from which it follows.
    pub partition: u32,
    pub record: Record,
}

/// Where the records of `facts` in a publication lie: by partition, in the order in which they were given.
pub type FactOffsets = BTreeMap<u32, Vec<u64>>;

/// How far a state has come in a partition. The records that it applied had been published before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    pub partition: u32,
    /// `F`: the next offset of `facts`.
    pub facts: u64,
    /// `K`: the next offset of `raw`.
    pub raw: u64,
}
