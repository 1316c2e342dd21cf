//! Records for the disk log: those that wait for the next group, and those of the group that is being written.

use std::collections::VecDeque;
use std::sync::Arc;

use event_log::Record;

use super::{Group, Waiter};

const GROUP_RECORDS_MAX: usize = 1_024;
/// Approximate.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub struct Append {
    pub record: Arc<Record>,
    /// Whether it may have been sent without an acknowledgement.
    pub resent: bool,
    pub origin: Origin,
}

/// The source of a record for the disk log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A request, which waits unless it was answered. Not in flight.
    Request(Option<Waiter>),
    /// A ticket that is in flight or was a moment ago.
    InFlight(u64),
    /// A request whose record Kafka rejected permanently: it is parked once it is written.
    ToPark(Option<Waiter>),
    /// An entry that keeps old segments from being deleted.
    Entry(u64),
}

/// A record of the group that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub origin: Origin,
    /// Approximate size in memory.
    pub size: usize,
}

#[derive(Debug, Default)]
pub struct Appends {
    waiting: VecDeque<Append>,
    writing: Vec<Written>,
    failed_meanwhile: bool,
}

impl Appends {
    pub fn push(&mut self, record: Arc<Record>, resent: bool, origin: Origin) {
        self.waiting.push_back(Append { record, resent, origin });
    }

    /// The next group, one at a time, without records that are `spared` by now.
    pub fn next_group(&mut self, mut spared: impl FnMut(Origin) -> bool) -> Option<Group> {
        if !self.writing.is_empty() {
            return None;
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < GROUP_RECORDS_MAX && bytes < GROUP_BYTES_MAX {
            let Some(Append { record, resent, origin }) = self.waiting.pop_front() else { break };
            if spared(origin) {
                continue;
            }
            let size = record.size();
            bytes += size;
            self.writing.push(Written { origin, size });
            group.push((record, resent));
        }
        self.failed_meanwhile = false;
        (!group.is_empty()).then_some(group)
    }

    /// Returns the group's records, and whether the producer failed meanwhile.
    pub fn group_ended(&mut self) -> (Vec<Written>, bool) {
        (std::mem::take(&mut self.writing), std::mem::take(&mut self.failed_meanwhile))
    }

    /// All records here may have been sent without an acknowledgement.
    pub fn producer_failed(&mut self) {
        self.failed_meanwhile = !self.writing.is_empty();
        self.waiting.iter_mut().for_each(|append| append.resent = true);
    }

    pub fn ready(&self) -> bool {
        self.writing.is_empty() && !self.waiting.is_empty()
    }

    pub fn len(&self) -> usize {
        self.waiting.len() + self.writing.len()
    }
}
