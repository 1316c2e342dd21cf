//! An event log in memory, for tests. Records are made when they are read; a [`Script`] plays the group and the broker.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::contract::Topic;
use crate::log::{EventLog, EventLogError, LogEvent, LogReader, Visit};
use crate::record::{Applied, Entry, FactOffsets, Output, Position, Record};
use primitives::time::Timestamp;

/// The identity of a log in memory.
pub const IDENTITY: &str = "memory";

pub struct MemoryEventLog<S> {
    partitions: Vec<MemoryFacts>,
    tells_progress: bool,
    script: S,
}

/// One partition of `facts`; `raw` is never read.
pub struct MemoryFacts {
    pub first: u64,
    pub end: u64,
    record: Box<dyn Fn(u64) -> Option<Record> + Send>,
}

/// What a test decides, or wants to know.
pub trait Script: Send {
    fn committed(&mut self) -> Option<u64> {
        None
    }

    /// `facts` are about to be read.
    fn reads(&mut self) {}

    fn joined(&mut self) {}

    fn next(&mut self) -> LogEvent {
        LogEvent::Quiet
    }

    fn started(&mut self) -> Result<(), EventLogError> {
        Ok(())
    }

    fn unowned(&mut self) -> Option<usize> {
        None
    }

    fn lost_a_broker(&mut self) -> bool {
        false
    }

    fn undecided(&mut self) -> Vec<(Topic, Position)> {
        Vec::new()
    }
}

/// A reader alone.
impl Script for () {}

impl MemoryFacts {
    /// Records that are made when they are read; none where there is a gap.
    pub fn made(first: u64, end: u64, record: impl Fn(u64) -> Option<Record> + Send + 'static) -> Self {
        Self { first, end, record: Box::new(record) }
    }

    pub fn of(first: u64, end: u64, records: impl IntoIterator<Item = (u64, Record)>) -> Self {
        let records: BTreeMap<u64, Record> = records.into_iter().collect();
        Self::made(first, end, move |offset| records.get(&offset).cloned())
    }
}

impl<S: Script> MemoryEventLog<S> {
    pub fn new(partitions: Vec<MemoryFacts>, tells_progress: bool, script: S) -> Self {
        Self { partitions, tells_progress, script }
    }
}

impl<S: Script> LogReader for MemoryEventLog<S> {
    fn identity(&self) -> &str {
        IDENTITY
    }

    fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).expect("few")
    }

    fn tells_progress(&self) -> bool {
        self.tells_progress
    }

    fn committed(&mut self, _: u32) -> Result<Option<u64>, EventLogError> {
        Ok(self.script.committed())
    }

    fn bounds(&mut self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError> {
        let MemoryFacts { first, end, .. } = &self.partitions[partition as usize];
        Ok(if topic == Topic::Facts { (*first, *end) } else { (0, 1 << 40) })
    }

    fn read(&mut self, topic: Topic, from: Position, until: u64, visit: Visit<'_>) -> Result<(), EventLogError> {
        assert_eq!(topic, Topic::Facts, "no other log has records");
        self.script.reads();
        let facts = &self.partitions[from.partition as usize];
        for offset in from.offset.max(facts.first)..until.min(facts.end) {
            if let Some(record) = (facts.record)(offset)
                && visit(Entry { position: Position { offset, ..from }, record }).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn offset_at(&mut self, _: u32, _: Timestamp) -> Result<u64, EventLogError> {
        Ok(0)
    }
}

impl<S: Script> EventLog for MemoryEventLog<S> {
    fn recover(&mut self, _: &[Applied]) -> Result<(), EventLogError> {
        Ok(())
    }

    fn join(&mut self) -> Result<(), EventLogError> {
        self.script.joined();
        Ok(())
    }

    fn next(&mut self, _: Duration) -> Result<LogEvent, EventLogError> {
        Ok(self.script.next())
    }

    fn start(&mut self, _: &[Position]) -> Result<(), EventLogError> {
        self.script.started()
    }

    fn follow(&mut self, _: &[Position]) -> Result<(), EventLogError> {
        Ok(())
    }

    fn unowned(&mut self) -> Option<usize> {
        self.script.unowned()
    }

    fn lost_a_broker(&mut self) -> bool {
        self.script.lost_a_broker()
    }

    fn undecided(&mut self) -> Result<Vec<(Topic, Position)>, EventLogError> {
        Ok(self.script.undecided())
    }

    /// No test on this log publishes a record.
    fn begin_publication(&mut self, outputs: Vec<Output>, _: &[Position]) -> Result<(), EventLogError> {
        match outputs.first() {
            None => Ok(()),
            Some(_) => Err(EventLogError::Fatal("nothing is published here".into())),
        }
    }

    fn end_publication(&mut self) -> Result<FactOffsets, EventLogError> {
        Ok(FactOffsets::new())
    }
}
