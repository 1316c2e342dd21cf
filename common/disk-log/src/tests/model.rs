//! What a log is, in few words: a small state machine, without files, threads or clocks.
//!
//! Each step says what the log may answer, takes what it did answer, and knows afterwards what must be seen.
//! Where the answer depends on how records lie in files, the model leaves a choice and follows the log.

use std::collections::{BTreeMap, BTreeSet};

/// How the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// It does what it is asked.
    Well,
    /// The next sync, or the next write, fails. Those of other files succeed.
    OneBadFile,
    /// Every sync fails.
    Dead,
    /// What was made ahead is there; nothing new fits.
    NoRoom,
}

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Kept(u64),
    Full,
    Failed,
}

/// Records that are kept together, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub number: u64,
    pub records: u64,
}

/// The log, as its user sees it.
#[derive(Clone, Debug)]
pub(super) struct Model {
    disk: Disk,
    /// Number of the record at each offset.
    records: BTreeMap<u64, u64>,
    first: u64,
    end: u64,
    /// Passed to the log since something was kept last, and refused: real events, which may surface.
    refused: Vec<Group>,
    delivered: BTreeSet<u64>,
    saved: BTreeSet<u64>,
}

impl Model {
    pub fn new() -> Self {
        let (records, refused, delivered, saved) = Default::default();
        Self { disk: Disk::Well, records, first: 0, end: 0, refused, delivered, saved }
    }

    pub fn bounds(&self) -> (u64, u64) {
        (self.first, self.end)
    }

    pub fn records(&self) -> Vec<(u64, u64)> {
        self.records.iter().map(|(offset, number)| (*offset, *number)).collect()
    }

    pub fn disk(&self) -> Disk {
        self.disk
    }

    pub fn becomes(&mut self, disk: Disk) {
        self.disk = disk;
    }

    /// A group was answered like this.
    pub fn answered(&mut self, group: Group, answer: Answer) -> Result<(), String> {
        let allowed = match (self.disk, answer) {
            (_, Answer::Kept(offset)) if offset != self.end => false,
            (Disk::Well | Disk::OneBadFile, Answer::Kept(_))
            | (Disk::NoRoom, Answer::Kept(_) | Answer::Full)
            | (Disk::Dead, Answer::Failed) => true,
            (Disk::Well | Disk::OneBadFile, Answer::Full | Answer::Failed)
            | (Disk::NoRoom, Answer::Failed)
            | (Disk::Dead, Answer::Kept(_) | Answer::Full) => false,
        };
        if !allowed {
            return Err(format!("{group:?} on {:?} was answered {answer:?}, the end being {}", self.disk, self.end));
        }
        match answer {
            Answer::Kept(_) => {
                self.refused.clear();
                self.take(group);
            }
            Answer::Full | Answer::Failed => self.refused.push(group),
        }
        if self.disk == Disk::OneBadFile {
            self.disk = Disk::Well;
        }
        Ok(())
    }

    /// The log was closed, or killed, and opened again: this is what it holds now.
    pub fn reopened(&mut self, found: &[(u64, u64)]) -> Result<(), String> {
        let known = self.records.len();
        let (before, surfaced) = found.split_at(known.min(found.len()));
        if before != self.records() {
            return Err(format!("opened again, it holds {before:?} in place of {:?}", self.records()));
        }
        let mut rest = surfaced;
        for group in std::mem::take(&mut self.refused) {
            if rest.first().map(|(_, number)| *number) != Some(group.number) {
                continue;
            }
            let whole = (0..group.records).map(|index| (self.end + index, group.number + index));
            let length = whole.clone().count();
            if rest.len() < length || !rest.iter().copied().take(length).eq(whole) {
                return Err(format!("{group:?} surfaced in part: {rest:?}"));
            }
            self.take(group);
            rest = &rest[length..];
        }
        if !rest.is_empty() {
            return Err(format!("these were never sent: {rest:?}"));
        }
        self.disk = Disk::Well;
        self.delivered = self.saved.clone();
        self.delivered.extend(0..self.first);
        Ok(())
    }

    pub fn deliver(&mut self, offset: u64) {
        self.delivered.insert(offset);
    }

    pub fn watermark(&self) -> u64 {
        (0..u64::MAX).find(|offset| !self.delivered.contains(offset)).unwrap_or_default()
    }

    pub fn is_delivered(&self, offset: u64) -> bool {
        self.delivered.contains(&offset)
    }

    pub fn undelivered(&self) -> u64 {
        (self.first..self.end).filter(|offset| !self.delivered.contains(offset)).count() as u64
    }

    /// What is delivered was saved, so that a first part of it may have been deleted.
    pub fn saved(&mut self, first: u64) -> Result<(), String> {
        self.saved = self.delivered.clone();
        self.deleted(self.watermark(), first)
    }

    /// Whole segments before this offset were to be deleted, and the log begins here now.
    pub fn deleted(&mut self, before: u64, first: u64) -> Result<(), String> {
        if first < self.first || first > before.max(self.first) {
            return Err(format!("it begins at {first} after a deletion before {before}; it began at {}", self.first));
        }
        self.first = first;
        // What is not there any more needs no delivery.
        self.delivered.extend(0..first);
        self.records = self.records.split_off(&first);
        Ok(())
    }

    fn take(&mut self, group: Group) {
        for index in 0..group.records {
            self.records.insert(self.end + index, group.number + index);
        }
        self.end += group.records;
    }
}
