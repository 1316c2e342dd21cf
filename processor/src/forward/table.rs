//! The log `forward` in memory: the newest record of each key, of all partitions.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bitrix24::{AppName, Installation};
use bytes::Bytes;
use event_log::contract::Topic;
use event_log::{EventLogError, LogQuery, Stretch};

use super::progress::{Key, Order, Place, Source, Watermark, value};
use super::schedule::LaneKey;

/// Records that one call reads.
const CHUNK: u64 = 5_000;

#[derive(Default)]
pub struct Table {
    /// Of each partition, the next offset to read.
    next: Vec<u64>,
    values: Vec<BTreeMap<Key, Bytes>>,
}

/// Keys and values of one partition, and the offset behind them.
type Read = (u32, u64, Vec<(Key, Option<Bytes>)>);

impl Table {
    /// What was written since, a part at a time; none at the end. Does not change the table, which others read.
    pub fn unread(next: &[u64], logs: &dyn LogQuery) -> Result<Vec<Read>, EventLogError> {
        let mut read = Vec::new();
        for (partition, (first, end)) in (0..).zip(logs.bounds(Topic::Forward)?) {
            let next = next.get(partition as usize).copied().unwrap_or_default();
            if next > end {
                // The topic was made again.
                read.push((partition, 0, Vec::new()));
                continue;
            }
            let from = first.max(next);
            let until = end.min(from.saturating_add(CHUNK));
            if from >= until {
                continue;
            }
            let mut records = Vec::new();
            logs.read(Topic::Forward, &[Stretch { partition, from, until }], &mut |entry| {
                let key = entry.record.key.as_deref().and_then(Key::parse);
                records.extend(key.map(|key| (key, entry.record.value)));
                ControlFlow::Continue(())
            })?;
            read.push((partition, until, records));
        }
        Ok(read)
    }

    pub fn next(&self) -> Vec<u64> {
        self.next.clone()
    }

    pub fn apply(&mut self, (partition, next, records): Read) {
        let index = partition as usize;
        let partitions = self.next.len().max(index + 1);
        self.next.resize(partitions, 0);
        self.values.resize(partitions, BTreeMap::new());
        if next < self.next[index] {
            self.values[index].clear();
        }
        self.next[index] = next;
        for (key, value) in records {
            put(&mut self.values[index], key, value);
        }
    }

    /// What was written by this process.
    pub fn put(&mut self, partition: u32, key: Key, value: Option<Bytes>) {
        if let Some(values) = self.values.get_mut(partition as usize) {
            put(values, key, value);
        }
    }

    pub fn get(&self, partition: u32, key: &Key) -> Option<&Bytes> {
        self.values.get(partition as usize)?.get(key)
    }

    pub fn len(&self) -> usize {
        self.values.iter().map(BTreeMap::len).sum()
    }

    pub fn all(&self) -> impl Iterator<Item = (u32, &Key, &Bytes)> {
        let partitions = (0..).zip(&self.values);
        partitions.flat_map(|(partition, values)| values.iter().map(move |(key, value)| (partition, key, value)))
    }

    pub fn watermark(&self, lane: LaneKey, app: &AppName) -> Option<Watermark> {
        value(self.get(lane.partition, &Key::Watermark(lane.source, app.clone()))?)
    }

    pub fn places(&self, lane: LaneKey, app: &AppName) -> impl Iterator<Item = (Installation, Place)> {
        self.of_partition(lane.partition).filter_map(move |(key, bytes)| match key {
            Key::Place(source, installation) if *source == lane.source && installation.app == *app => {
                Some((installation.clone(), value(bytes)?))
            }
            Key::Watermark(..) | Key::Place(..) | Key::Order(..) => None,
        })
    }

    pub fn orders(&self, partition: u32) -> impl Iterator<Item = (Key, Option<Order>)> {
        self.of_partition(partition).filter_map(|(key, bytes)| match key {
            Key::Order(..) => Some((key.clone(), value(bytes))),
            Key::Watermark(..) | Key::Place(..) => None,
        })
    }

    /// The partition, and the place, of an installation.
    pub fn place(&self, source: Source, installation: &Installation) -> Option<(u32, Place)> {
        let key = Key::Place(source, installation.clone());
        (0..).zip(&self.values).find_map(|(partition, values)| Some((partition, value(values.get(&key)?)?)))
    }

    fn of_partition(&self, partition: u32) -> impl Iterator<Item = (&Key, &Bytes)> {
        self.values.get(partition as usize).into_iter().flatten()
    }
}

fn put(values: &mut BTreeMap<Key, Bytes>, key: Key, value: Option<Bytes>) {
    match value {
        Some(value) => values.insert(key, value),
        None => values.remove(&key),
    };
}
