//! One partition of one topic.

use std::collections::BTreeMap;

use event_log::Record;
use primitives::time::Timestamp;

pub struct Slot {
    pub offset: u64,
    pub record: Record,
    /// Whether compaction removed it.
    pub is_gone: bool,
    transaction: Option<usize>,
}

/// Markers have offsets, too.
#[derive(Default)]
pub struct Log {
    slots: Vec<Slot>,
    first: u64,
    next: u64,
    /// Transactions without a marker here, by their first offset.
    open: BTreeMap<usize, u64>,
    /// The outcome in the markers.
    committed: BTreeMap<usize, bool>,
    /// Below it compaction may have removed records.
    cleaned: u64,
}

impl Log {
    /// The first and the next offset, open transactions included.
    pub fn bounds(&self) -> (u64, u64) {
        (self.first, self.next)
    }

    pub fn stable_end(&self) -> u64 {
        self.first_open().map_or(self.next, |(_, offset)| offset)
    }

    pub fn cleaned(&self) -> u64 {
        self.cleaned
    }

    /// What a committed reader sees from this offset on.
    pub fn committed(&self, from: u64) -> impl Iterator<Item = &Slot> {
        let (from, stable) = (from.max(self.first), self.stable_end());
        self.from(from).take_while(move |slot| slot.offset < stable).filter(|slot| !slot.is_gone && self.is_seen(slot))
    }

    /// All records from this offset on, aborted ones included.
    pub fn uncommitted(&self, from: u64) -> impl Iterator<Item = &Slot> {
        self.from(from.max(self.first)).filter(|slot| !slot.is_gone)
    }

    /// What a committed reader would see without compaction and trimming.
    pub fn ever_committed(&self, from: u64) -> impl Iterator<Item = &Slot> {
        let stable = self.stable_end();
        self.from(from).take_while(move |slot| slot.offset < stable).filter(|slot| self.is_seen(slot))
    }

    /// The first offset whose record is at least as young, else the end.
    pub fn offset_at(&self, at: Timestamp) -> u64 {
        self.from(self.first).find(|slot| slot.record.at >= at).map_or(self.next, |slot| slot.offset)
    }

    pub fn append(&mut self, record: Record, transaction: Option<usize>) -> u64 {
        let offset = self.next;
        self.next += 1;
        if let Some(transaction) = transaction {
            self.open.entry(transaction).or_insert(offset);
        }
        self.slots.push(Slot { offset, record, is_gone: false, transaction });
        offset
    }

    /// The transaction and the offset of the first undecided record.
    pub fn first_open(&self) -> Option<(usize, u64)> {
        self.open.iter().map(|(transaction, offset)| (*transaction, *offset)).min_by_key(|(_, offset)| *offset)
    }

    /// Whether only records of this transaction follow its first, and no other is undecided.
    pub fn is_last(&self, transaction: usize) -> bool {
        let behind = |first: &u64| self.from(*first).all(|slot| slot.transaction == Some(transaction));
        self.open.get(&transaction).is_none_or(behind) && self.open.keys().all(|open| *open == transaction)
    }

    /// Transactions without a marker that begin below this offset.
    pub fn open_below(&self, below: u64) -> impl Iterator<Item = usize> {
        self.open.iter().filter(move |(_, first)| **first < below).map(|(transaction, _)| *transaction)
    }

    /// Writes the marker of a transaction, which also stands for the hanging ones.
    pub fn mark(&mut self, transaction: usize, hanging: &[usize], committed: bool) {
        for transaction in hanging.iter().chain([&transaction]) {
            self.open.remove(transaction);
            self.committed.insert(*transaction, committed);
        }
        self.next += 1;
    }

    pub fn trim(&mut self, before: u64) {
        self.first = self.first.max(before.min(self.next));
    }

    /// Keeps only the newest record of each key, and no aborted one, below the last stable offset.
    pub fn compact(&mut self, before: u64) {
        let before = before.min(self.stable_end());
        let mut newest: BTreeMap<Option<String>, u64> = BTreeMap::new();
        for slot in self.ever_committed(0).take_while(|slot| slot.offset < before) {
            newest.insert(slot.record.key.clone(), slot.offset);
        }
        for slot in self.slots.iter_mut().take_while(|slot| slot.offset < before) {
            slot.is_gone |= newest.get(&slot.record.key) != Some(&slot.offset);
        }
        self.cleaned = self.cleaned.max(before);
    }

    /// Removes the newest record of a key, which no correct log does.
    pub fn lose_newest(&mut self, key: &str) {
        let newest = self.slots.iter_mut().rev().find(|slot| !slot.is_gone && slot.record.key.as_deref() == Some(key));
        if let Some(slot) = newest {
            slot.is_gone = true;
        }
    }

    fn from(&self, from: u64) -> impl Iterator<Item = &Slot> {
        self.slots[self.slots.partition_point(|slot| slot.offset < from)..].iter()
    }

    fn is_seen(&self, slot: &Slot) -> bool {
        slot.transaction.is_none_or(|transaction| self.committed.get(&transaction) == Some(&true))
    }
}
