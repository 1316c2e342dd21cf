//! Records for the disk log: those that wait for its next group, and whose the group is that is being written.

use std::collections::VecDeque;
use std::sync::Arc;

use event_log::Record;

use super::Waiter;

/// Records that go to the disk log in one group.
const GROUP_RECORDS_MAX: usize = 1_024;
/// About how many bytes of records go to the disk log in one group.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A record for the disk log.
#[derive(Debug)]
pub struct Append {
    /// The record.
    pub record: Arc<Record>,
    /// Whether it may have been sent without an acknowledgement.
    pub resent: bool,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a record for the disk log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a request, which waits unless it was answered. It is not in flight.
    Request(Option<Waiter>),
    /// From this ticket, which is in flight or was a moment ago.
    InFlight(u64),
    /// From a request whose record Kafka rejected permanently: it is parked once it is written.
    ToPark(Option<Waiter>),
    /// From this place in the disk log, where it was in the way of segments that could go.
    Entry(u64),
}

/// A record of the group that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Where it comes from.
    pub origin: Origin,
    /// About what it takes in memory.
    pub size: usize,
}

/// What is to be written to the disk log.
#[derive(Debug, Default)]
pub struct Appends {
    waiting: VecDeque<Append>,
    /// The group that is being written, without its records.
    writing: Vec<Written>,
    /// The producer failed while the group was being written.
    failed_meanwhile: bool,
}

impl Appends {
    /// Puts a record behind all others.
    pub fn push(&mut self, record: Arc<Record>, resent: bool, origin: Origin) {
        self.waiting.push_back(Append { record, resent, origin });
    }

    /// The next group, one at a time, without records that are `spared` by now.
    pub fn next_group(&mut self, mut spared: impl FnMut(Origin) -> bool) -> Option<Vec<(Arc<Record>, bool)>> {
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

    /// The group was written, or could not be. Says whose it was, and whether the producer failed meanwhile.
    pub fn group_ended(&mut self) -> (Vec<Written>, bool) {
        (std::mem::take(&mut self.writing), std::mem::take(&mut self.failed_meanwhile))
    }

    /// The producer failed: all that is here may have been sent without an acknowledgement.
    pub fn producer_failed(&mut self) {
        self.failed_meanwhile = !self.writing.is_empty();
        self.waiting.iter_mut().for_each(|append| append.resent = true);
    }

    /// Whether a group waits and none is being written.
    pub fn ready(&self) -> bool {
        self.writing.is_empty() && !self.waiting.is_empty()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.writing.is_empty()
    }
}
