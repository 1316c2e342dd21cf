//! At most one partition's batch on its way, and the partition that waited longest goes next, whole.
//!
//! A broker's price is per produce request, not per record. What arrives while a batch is on its way
//! gathers here and goes as the next batch, without any lingering.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::log::Record;

/// A batch that was not heard of for this long no longer closes the gate: one broker that is away must
/// not hold up the partitions of the others.
pub const SILENT_AFTER: Duration = Duration::from_millis(50);

/// A record with its ticket.
pub type Parcel = (u64, Arc<Record>);

/// Records of one partition, to be sent in this order.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The partition.
    pub partition: u32,
    /// What to send.
    pub parcels: Vec<Parcel>,
}

/// What waits for its turn, and what is on its way, per partition.
#[derive(Debug)]
pub struct Gate {
    lanes: Vec<Lane>,
    turn: u64,
    out: usize,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: Vec<Parcel>,
    /// A batch is being passed to the client right now.
    sending: bool,
    /// Records on their way.
    out: usize,
    /// When the lane's records were last heard of: sent into an empty lane, or reported.
    heard_at: Option<Instant>,
    /// The turn in which the lane was last sent.
    sent_in: u64,
}

impl Gate {
    /// A gate in front of this many partitions.
    pub fn new(partitions: u32) -> Self {
        Self { lanes: (0..partitions.max(1)).map(|_| Lane::default()).collect(), turn: 0, out: 0 }
    }

    /// Puts a record behind all others of its partition.
    pub fn push(&mut self, partition: u32, parcel: Parcel) {
        self.lane(partition).waiting.push(parcel);
    }

    /// The batch that may go now. Whoever takes it sends it and calls [`Self::sent`].
    pub fn next(&mut self, now: Instant) -> Option<Batch> {
        if self.lanes.iter().any(|lane| lane.closes(now)) {
            return None;
        }
        let longest = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.waiting.is_empty());
        let (partition, _) = longest.min_by_key(|(_, lane)| lane.sent_in)?;
        self.turn += 1;
        let lane = &mut self.lanes[partition];
        let parcels = std::mem::take(&mut lane.waiting);
        if lane.out == 0 {
            lane.heard_at = Some(now);
        }
        lane.sent_in = self.turn;
        lane.sending = true;
        lane.out += parcels.len();
        self.out += parcels.len();
        Some(Batch { partition: u32::try_from(partition).expect("made from a u32"), parcels })
    }

    /// A batch was passed on, but for these: the client had no room for them.
    pub fn sent(&mut self, partition: u32, mut refused: Vec<Parcel>) {
        self.out -= refused.len();
        let lane = self.lane(partition);
        lane.sending = false;
        lane.out -= refused.len();
        refused.append(&mut lane.waiting);
        lane.waiting = refused;
    }

    /// A record came to its end. Whether it was the last of its partition that was on its way.
    pub fn reported(&mut self, partition: u32, now: Instant) -> bool {
        self.out = self.out.saturating_sub(1);
        let lane = self.lane(partition);
        lane.out = lane.out.saturating_sub(1);
        lane.heard_at = Some(now);
        lane.out == 0
    }

    /// Records on their way.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Whether a batch is being passed to the client right now.
    pub fn sending(&self) -> bool {
        self.lanes.iter().any(|lane| lane.sending)
    }

    /// Takes out all that waits.
    pub fn clear(&mut self) -> Vec<Parcel> {
        self.lanes.iter_mut().flat_map(|lane| std::mem::take(&mut lane.waiting)).collect()
    }

    fn lane(&mut self, partition: u32) -> &mut Lane {
        let index = partition as usize % self.lanes.len();
        &mut self.lanes[index]
    }
}

impl Lane {
    fn closes(&self, now: Instant) -> bool {
        let fresh = |at: Instant| now.saturating_duration_since(at) < SILENT_AFTER;
        self.sending || (self.out > 0 && self.heard_at.is_some_and(fresh))
    }
}

#[cfg(test)]
mod tests {
    use common::time::Timestamp;

    use super::*;

    fn parcel(ticket: u64) -> Parcel {
        (ticket, Arc::new(Record { key: None, value: None, headers: vec![], at: Timestamp::default() }))
    }

    fn go(gate: &mut Gate, now: Instant) -> Option<(u32, Vec<u64>)> {
        let batch = gate.next(now)?;
        gate.sent(batch.partition, vec![]);
        Some((batch.partition, batch.parcels.iter().map(|(ticket, _)| *ticket).collect()))
    }

    #[test]
    fn one_partition_goes_at_a_time_and_the_one_that_waited_longest_goes_next() {
        let (mut gate, now) = (Gate::new(3), Instant::now());
        for (partition, ticket) in [(1, 0), (0, 1), (1, 2)] {
            gate.push(partition, parcel(ticket));
        }
        assert_eq!(go(&mut gate, now), Some((0, vec![1])));
        gate.push(0, parcel(3));
        assert_eq!(go(&mut gate, now), None, "a batch is on its way");
        assert!(gate.reported(0, now));
        assert_eq!(go(&mut gate, now), Some((1, vec![0, 2])), "the other waited longer");
        assert!(!gate.reported(1, now));
        assert_eq!(go(&mut gate, now), None, "half of the batch is still on its way");
        assert!(gate.reported(1, now));
        assert_eq!(go(&mut gate, now), Some((0, vec![3])));
    }

    #[test]
    fn a_batch_that_is_not_heard_of_no_longer_closes_the_gate() {
        let (mut gate, now) = (Gate::new(2), Instant::now());
        gate.push(0, parcel(0));
        assert_eq!(go(&mut gate, now), Some((0, vec![0])));
        gate.push(1, parcel(1));
        gate.push(0, parcel(2));
        assert_eq!(go(&mut gate, now), None);
        let later = now + SILENT_AFTER;
        assert_eq!(go(&mut gate, later), Some((1, vec![1])));
        assert_eq!(go(&mut gate, later), None, "the other partition answers, so it is waited for");
        assert!(gate.reported(1, later));
        assert_eq!(go(&mut gate, later), Some((0, vec![2])), "its order is the client's business now");
        gate.push(0, parcel(3));
        assert_eq!(go(&mut gate, later), Some((0, vec![3])), "a silent partition stays open");
        assert!(!gate.reported(0, later));
        gate.push(0, parcel(4));
        assert_eq!(go(&mut gate, later), None, "it is heard of again");
    }

    #[test]
    fn what_the_client_refused_goes_first_the_next_time() {
        let (mut gate, now) = (Gate::new(1), Instant::now());
        gate.push(0, parcel(0));
        gate.push(0, parcel(1));
        let batch = gate.next(now).expect("a batch");
        gate.push(0, parcel(2));
        assert_eq!(gate.next(now), None, "a batch is being passed on");
        gate.sent(0, batch.parcels.into_iter().skip(1).collect());
        assert_eq!(gate.out(), 1);
        assert!(gate.reported(0, now));
        assert_eq!(go(&mut gate, now), Some((0, vec![1, 2])));
    }
}
