//! Ends what Kafka has forgotten to end of the transactions of our former self.
//!
//! A broker without a replica that is killed and started again can decide a transaction and lose the marks that say so,
//! to all partitions or to some. Then the transaction *hangs*: readers of committed records wait for ever, and what a
//! producer with the same id decides next in such a partition decides the hanging one there, too. So that is how it is
//! ended here, before anything else is published: in the way in which Kafka decided it, as far as its marks have come.
//!
//! Nothing of ours can be open here but what hangs, since the producer has just been initialised. Whether what is open
//! is ours is not told; whatever we do leaves what others have open as it is.
//!
//! How it was decided is seen by how far `raw` was read: the group's offsets, the progress records, and all else that
//! is published are of the same transaction, and our own state applied nothing that was not committed. If any of them
//! tells of the first record that is open in a log, it was committed, unless that log had told of it before: then it is
//! the second time, by somebody who had lost the partition, and nobody took that. This holds because nobody goes on in
//! a partition in which anything is open (see [`EventLog::committed`]), and because nobody publishes on after a broker
//! went away before everything that he published, and everything in the partitions that he publishes in, is decided.
//!
//! What cannot be done: where records of two transactions lie in one log behind the first that is open, nothing tells
//! which of them hangs; and while a commit is told again there is a moment in which the end of this process takes it back.
//!
//! [`EventLog::committed`]: super::EventLog::committed

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::{Applied, Entry, EventLogError, Output, Position, Record};
use crate::contract::{NOOP, NOOP_TYPE, Topic, header};
use primitives::time::Timestamp;

/// The logs, and a producer that was just initialised and has published nothing since.
pub trait Recovering {
    /// What is undecided now. Waits a moment for what is about to be decided.
    fn undecided(&self) -> Result<Undecided, EventLogError>;

    /// Visits the newest records of a log that are committed. Returns whether these are all that ever were.
    fn newest(&self, published: &Published, visit: &mut dyn FnMut(&Entry)) -> Result<bool, EventLogError>;

    /// Visits what lies in a log from the first record on that is open, whatever became of it, until that is enough.
    fn open(
        &self,
        published: &Published,
        visit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<(), EventLogError>;

    /// Publishes these.
    fn commit(&self, outputs: &[Output]) -> Result<(), EventLogError>;

    /// Brings all of these, and where the group goes on in `raw`, into one transaction and aborts it.
    fn abort(&self, outputs: &[Output], read: &[Position]) -> Result<(), EventLogError>;
}

/// What was undecided and did not become decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// Everything that is published.
    pub published: Vec<Published>,
    /// Where something hangs of all that.
    pub hanging: BTreeSet<(Topic, u32)>,
    /// Where the group left off.
    pub left_off: LeftOff,
}

/// Where the group left off in `raw`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOff {
    /// Partitions that tell it; those of which the group never committed anything are in neither.
    pub told: BTreeMap<u32, u64>,
    /// Partitions in which a transaction may move it.
    pub untold: BTreeSet<u32>,
}

/// A partition of a topic that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// Below it no transaction is open.
    pub stable: u64,
    /// The next offset, open transactions included.
    pub end: u64,
}

impl Published {
    /// Whether a transaction is open here.
    pub fn is_open(&self) -> bool {
        self.stable < self.end
    }

    /// Up to where all is decided.
    pub fn place(&self) -> Position {
        Position { partition: self.partition, offset: self.stable }
    }
}

/// Where a broker that went away may have forgotten to end what we published, or what somebody else did who had a partition
/// before us.
#[derive(Debug, Default)]
pub struct Doubts {
    /// Partitions in which we published.
    published_in: BTreeSet<u32>,
    /// Partitions that were not seen to be decided since.
    doubtful: BTreeSet<u32>,
    /// A broker went away, and nobody was told yet.
    is_news: bool,
}

impl Doubts {
    /// We published in these.
    pub fn published(&mut self, partitions: BTreeSet<u32>) {
        self.published_in.extend(partitions);
    }

    /// A broker went away: any of so many partitions may be undecided.
    pub fn doubt(&mut self, partitions: u32) {
        self.doubtful = (0..partitions).collect();
        self.is_news = true;
    }

    /// Whether a broker went away since this was last asked.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// What must be decided before these are published: all that we published, since an abort would take it back; and all
    /// that is in their partitions, since nobody could tell any more how that was decided.
    pub fn due(&mut self, outputs: &[Output]) -> Vec<u32> {
        self.published(outputs.iter().map(|output| output.partition).collect());
        self.doubtful.intersection(&self.published_in).copied().collect()
    }

    /// All is decided in a partition.
    pub fn decided(&mut self, partition: u32) {
        self.doubtful.remove(&partition);
    }

    /// Where something may be undecided.
    pub fn doubtful(&self) -> &BTreeSet<u32> {
        &self.doubtful
    }

    /// Only where these are is anything undecided.
    pub fn keep(&mut self, open: &[(Topic, Position)]) {
        self.doubtful.retain(|partition| open.iter().any(|(_, place)| place.partition == *partition));
    }
}

/// Ends what may hang of ours in every log, and in the group's offsets where they are not told; `applied` is what our state
/// knows. Returns the partitions in which something was published for that.
pub fn end_what_hangs(logs: &impl Recovering, applied: &[Applied]) -> Result<BTreeSet<u32>, EventLogError> {
    let Undecided { published, hanging, left_off } = logs.undecided()?;
    if hanging.is_empty() && left_off.untold.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (commits, aborts) = decide(logs, &published, &hanging, &left_off, applied)?;
    if !commits.is_empty() {
        say("committed, since what was published or our state tells that they were", commits.len(), 0);
        logs.commit(&commits)?;
    }
    // Where the group goes on is told by `facts`, too, so that these can be aborted whatever they were. Committed, they
    // would tell of all partitions of the transaction at once.
    let void: Vec<Position> = left_off.untold.into_iter().map(|partition| Position { partition, offset: 0 }).collect();
    if !aborts.is_empty() || !void.is_empty() {
        say("aborted", aborts.len(), void.len());
        logs.abort(&aborts, &void)?;
    }
    let recovered = commits.iter().chain(&aborts).map(|ended| ended.partition);
    Ok(recovered.chain(void.iter().map(|place| place.partition)).collect())
}

fn say(how: &str, partitions: usize, offsets: usize) {
    tracing::info!(
        partitions,
        offsets,
        "transactions are open in {partitions} partitions of what is published, and in {offsets} of the group's offsets: \
         in case that they are ours and hang, they are {how}"
    );
}

/// A log in which something hangs.
struct Hanging {
    topic: Topic,
    partition: u32,
    /// Where in `raw` the step began that is open here, or later: before the record that the first open one follows from,
    /// and in `facts`, which tell of every step, behind the step before. None if it is not the first time, or of no step.
    began: Option<u64>,
}

/// What commits again what was committed, as far as can be told, and what aborts the rest.
fn decide(
    logs: &impl Recovering,
    published: &[Published],
    hanging: &BTreeSet<(Topic, u32)>,
    left_off: &LeftOff,
    applied: &[Applied],
) -> Result<(Vec<Output>, Vec<Output>), EventLogError> {
    let (mut commits, mut aborts) = (Vec::new(), Vec::new());
    for partition in hanging.iter().map(|(_, partition)| *partition).collect::<BTreeSet<u32>>() {
        // How far `raw` was read by all that is decided.
        let mut read =
            left_off.told.get(&partition).copied().unwrap_or(0).max(applied_of(partition, published, applied));
        let mut found = Vec::new();
        for published in published.iter().filter(|published| published.partition == partition) {
            let topic = published.topic;
            let mut read_here = None;
            let mut tell = |entry: &Entry| read_here = read_here.max(raw_offset(entry).map(|offset| offset + 1));
            if logs.newest(published, &mut tell)? {
                read_here = read_here.max(Some(0));
            }
            read = read.max(read_here.unwrap_or(0));
            if hanging.contains(&(topic, partition)) {
                let cause = cause(logs, published)?;
                let began = cause.filter(|cause| read_here.is_none_or(|read| *cause >= read));
                let step_before = read_here.filter(|_| topic == Topic::Facts);
                found.push(Hanging { topic, partition, began: began.map(|cause| step_before.unwrap_or(cause)) });
            }
        }
        // All that is there for the first time is of one transaction.
        let began = found.iter().filter_map(|log| log.began).min();
        let is_committed = began.is_some_and(|began| began < read);
        for Hanging { topic, partition, began } in found {
            if began.is_some() && is_committed {
                commits.push(noop(topic, partition, read));
            } else {
                aborts.push(noop(topic, partition, 0));
            }
        }
    }
    Ok((commits, aborts))
}

/// How far `raw` was read to our state's knowledge, if that applied facts which are open now: it was told of the commit.
/// Where no facts are open, they tell themselves.
fn applied_of(partition: u32, published: &[Published], applied: &[Applied]) -> u64 {
    let facts = published.iter().find(|log| log.topic == Topic::Facts && log.partition == partition);
    let is_of_these = |applied: &&Applied| {
        applied.partition == partition
            && facts.is_some_and(|log| log.stable < applied.facts && applied.facts <= log.end)
    };
    applied.iter().find(is_of_these).map_or(0, |applied| applied.raw)
}

/// What the first record follows from that is open, but for those which only say that all before is decided: whoever
/// wrote these had published nothing else in that transaction.
fn cause(logs: &impl Recovering, published: &Published) -> Result<Option<u64>, EventLogError> {
    let mut cause = None;
    logs.open(published, &mut |entry| {
        if entry.record.header(header::TYPE) == Some(NOOP_TYPE.as_bytes()) {
            return ControlFlow::Continue(());
        }
        cause = raw_offset(entry);
        ControlFlow::Break(())
    })?;
    Ok(cause)
}

fn raw_offset(entry: &Entry) -> Option<u64> {
    std::str::from_utf8(entry.record.header(header::RAW_OFFSET)?).ok()?.parse().ok()
}

/// A noop record, for where `raw` was read to.
fn noop(topic: Topic, partition: u32, read: u64) -> Output {
    let headers = vec![
        (header::TYPE.to_owned(), NOOP_TYPE.as_bytes().to_vec()),
        (header::RAW_PARTITION.to_owned(), partition.to_string().into_bytes()),
        (header::RAW_OFFSET.to_owned(), read.saturating_sub(1).to_string().into_bytes()),
    ];
    let record = Record { key: Some(NOOP.to_owned()), value: None, headers, at: Timestamp::now() };
    Output { topic, partition, record }
}

#[cfg(test)]
mod tests;
