//! At most one partition's batch is in flight. The partition that has waited longest is sent next, as one batch.
//!
//! A broker's cost is per produce request, not per record. Records that arrive while a batch is in flight gather here and
//! form the next batch, without lingering.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::Record;

/// A batch without a report for this long no longer blocks the queue: one unreachable broker must not hold up the
/// partitions of the others.
pub const SILENT_AFTER: Duration = Duration::from_millis(50);

pub type QueuedRecord = (u64, Arc<Record>);

/// Records of one partition, to be sent in this order.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub partition: u32,
    pub records: Vec<QueuedRecord>,
}

/// Waiting records, and the number in flight, per partition.
#[derive(Debug)]
pub struct SendQueue {
    partitions: Vec<PartitionQueue>,
    turn: u64,
    out: usize,
}

#[derive(Debug, Default)]
struct PartitionQueue {
    waiting: Vec<QueuedRecord>,
    sending: bool,
    out: usize,
    /// The last report, or the send if nothing else was in flight.
    heard_at: Option<Instant>,
    /// The turn in which the partition was last sent.
    sent_in: u64,
}

impl SendQueue {
    pub fn new(partitions: u32) -> Self {
        Self { partitions: (0..partitions.max(1)).map(|_| PartitionQueue::default()).collect(), turn: 0, out: 0 }
    }

    /// Behind all others of its partition.
    pub fn push(&mut self, partition: u32, record: QueuedRecord) {
        self.queue(partition).waiting.push(record);
    }

    /// The batch to send now. There is no other until [`Self::sent`].
    pub fn next(&mut self, now: Instant) -> Option<Batch> {
        if self.partitions.iter().any(|queue| queue.blocks(now)) {
            return None;
        }
        let longest = self.partitions.iter().enumerate().filter(|(_, queue)| !queue.waiting.is_empty());
        let (partition, _) = longest.min_by_key(|(_, queue)| queue.sent_in)?;
        self.turn += 1;
        let queue = &mut self.partitions[partition];
        let records = std::mem::take(&mut queue.waiting);
        if queue.out == 0 {
            queue.heard_at = Some(now);
        }
        queue.sent_in = self.turn;
        queue.sending = true;
        queue.out += records.len();
        self.out += records.len();
        Some(Batch { partition: u32::try_from(partition).expect("made from a u32"), records })
    }

    /// A batch was passed to the client; the refused records did not fit into its queue.
    pub fn sent(&mut self, partition: u32, mut refused: Vec<QueuedRecord>) {
        self.out -= refused.len();
        let queue = self.queue(partition);
        queue.sending = false;
        queue.out -= refused.len();
        refused.append(&mut queue.waiting);
        queue.waiting = refused;
    }

    /// Returns whether the record was the last of its partition in flight.
    pub fn reported(&mut self, partition: u32, now: Instant) -> bool {
        self.out = self.out.saturating_sub(1);
        let queue = self.queue(partition);
        queue.out = queue.out.saturating_sub(1);
        queue.heard_at = Some(now);
        queue.out == 0
    }

    /// Whether records are with the client, or being passed to it.
    pub fn is_sending(&self) -> bool {
        self.out > 0 || self.partitions.iter().any(|queue| queue.sending)
    }

    pub fn clear(&mut self) -> Vec<QueuedRecord> {
        self.partitions.iter_mut().flat_map(|queue| std::mem::take(&mut queue.waiting)).collect()
    }

    fn queue(&mut self, partition: u32) -> &mut PartitionQueue {
        let index = partition as usize % self.partitions.len();
        &mut self.partitions[index]
    }
}

impl PartitionQueue {
    fn blocks(&self, now: Instant) -> bool {
        let fresh = |at: Instant| now.saturating_duration_since(at) < SILENT_AFTER;
        self.sending || (self.out > 0 && self.heard_at.is_some_and(fresh))
    }
}

#[cfg(test)]
mod tests {
    use primitives::time::Timestamp;

    use super::*;

    fn record(ticket: u64) -> QueuedRecord {
        (ticket, Arc::new(Record { key: None, value: None, headers: vec![], at: Timestamp::default() }))
    }

    fn go(send_queue: &mut SendQueue, now: Instant) -> Option<(u32, Vec<u64>)> {
        let batch = send_queue.next(now)?;
        send_queue.sent(batch.partition, vec![]);
        Some((batch.partition, batch.records.iter().map(|(ticket, _)| *ticket).collect()))
    }

    #[test]
    fn one_partition_goes_at_a_time_and_the_one_that_waited_longest_goes_next() {
        let (mut send_queue, now) = (SendQueue::new(3), Instant::now());
        for (partition, ticket) in [(1, 0), (0, 1), (1, 2)] {
            send_queue.push(partition, record(ticket));
        }
        assert_eq!(go(&mut send_queue, now), Some((0, vec![1])));
        send_queue.push(0, record(3));
        assert_eq!(go(&mut send_queue, now), None, "a batch is in flight");
        assert!(send_queue.reported(0, now));
        assert_eq!(go(&mut send_queue, now), Some((1, vec![0, 2])), "the other waited longer");
        assert!(!send_queue.reported(1, now));
        assert_eq!(go(&mut send_queue, now), None, "half of the batch is still in flight");
        assert!(send_queue.reported(1, now));
        assert_eq!(go(&mut send_queue, now), Some((0, vec![3])));
    }

    #[test]
    fn a_batch_without_a_report_no_longer_blocks_the_queue() {
        let (mut send_queue, now) = (SendQueue::new(2), Instant::now());
        send_queue.push(0, record(0));
        assert_eq!(go(&mut send_queue, now), Some((0, vec![0])));
        send_queue.push(1, record(1));
        send_queue.push(0, record(2));
        assert_eq!(go(&mut send_queue, now), None);
        let later = now + SILENT_AFTER;
        assert_eq!(go(&mut send_queue, later), Some((1, vec![1])));
        assert_eq!(go(&mut send_queue, later), None, "the other partition replies, so it is waited for");
        assert!(send_queue.reported(1, later));
        assert_eq!(go(&mut send_queue, later), Some((0, vec![2])), "its order is the client's business now");
        send_queue.push(0, record(3));
        assert_eq!(go(&mut send_queue, later), Some((0, vec![3])), "a silent partition stays open");
        assert!(!send_queue.reported(0, later));
        send_queue.push(0, record(4));
        assert_eq!(go(&mut send_queue, later), None, "it is heard of again");
    }

    #[test]
    fn what_the_client_refused_goes_first_the_next_time() {
        let (mut send_queue, now) = (SendQueue::new(1), Instant::now());
        send_queue.push(0, record(0));
        send_queue.push(0, record(1));
        let batch = send_queue.next(now).expect("a batch");
        send_queue.push(0, record(2));
        assert_eq!(send_queue.next(now), None, "a batch is being passed on");
        send_queue.sent(0, batch.records.into_iter().skip(1).collect());
        assert_eq!(send_queue.out, 1);
        assert!(send_queue.reported(0, now));
        assert_eq!(go(&mut send_queue, now), Some((0, vec![1, 2])));
    }
}
