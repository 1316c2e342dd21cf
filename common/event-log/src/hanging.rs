//! Resolves hanging transactions of our former process.
//!
//! A broker without a replica that is killed and restarted can decide a transaction and lose the markers, for all
//! partitions or for some. Then the transaction *hangs*: committed readers wait for ever, and the next decision of a
//! producer with the same id in such a partition decides the hanging transaction there, too. Recovery uses this: before
//! anything else is published, it repeats the decision of Kafka, as far as its markers have arrived.
//!
//! Any open transaction of ours is a hanging one, since the producer has just been initialised. Kafka does not report
//! the owner of an open transaction; recovery does not change those of other producers.
//!
//! The decision follows from how far `raw` was read: the group's offsets, the progress records, and all other
//! output are of the same transaction, and our own state applied committed records only. If any of them covers the
//! first open record of a log, it was committed, unless that log had covered it before: then it is a repetition by a
//! processor that had lost the partition, and it was aborted. This holds because a processor starts a partition only
//! when nothing is open in it (see [`EventLog::committed`]), and because after a broker went away a processor publishes
//! only when its own output, and everything in the partitions of that output, is decided.
//!
//! Two limits: where records of two transactions lie in one log behind the first open record, the hanging one cannot be
//! determined; and while a commit is repeated, there is a moment in which a crash of this process reverts it.
//!
//! [`EventLog::committed`]: super::EventLog::committed

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::{Applied, Entry, EventLogError, Output, Position, Record};
use crate::contract::{NOOP, NOOP_TYPE, Topic, header};
use primitives::time::Timestamp;

/// The logs, and a newly initialised producer that has published nothing.
pub trait Recovering {
    /// Waits a moment for transactions that are about to be decided.
    fn undecided(&self) -> Result<Undecided, EventLogError>;

    /// Visits the newest committed records of a log. Returns whether these are all that ever were.
    fn newest(&self, published: &Published, visit: &mut dyn FnMut(&Entry)) -> Result<bool, EventLogError>;

    /// Visits the records of a log from the first open one on, decided or not, until `visit` stops.
    fn open(
        &self,
        published: &Published,
        visit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<(), EventLogError>;

    fn commit(&self, outputs: &[Output]) -> Result<(), EventLogError>;

    /// Writes all of these, and the group's offsets in `raw`, in one transaction and aborts it.
    fn abort(&self, outputs: &[Output], read: &[Position]) -> Result<(), EventLogError>;
}

/// The transactions that stayed undecided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    pub published: Vec<Published>,
    pub hanging: BTreeSet<(Topic, u32)>,
    pub left_off: LeftOff,
}

/// The group's offsets in `raw`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOff {
    /// Partitions with a known offset; those without any commit are in neither field.
    pub known: BTreeMap<u32, u64>,
    /// Partitions in which an open transaction may move the offset.
    pub unknown: BTreeSet<u32>,
}

/// A partition of an output topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    pub topic: Topic,
    pub partition: u32,
    /// Below it no transaction is open.
    pub stable: u64,
    /// The next offset, open transactions included.
    pub end: u64,
}

impl Published {
    pub fn is_open(&self) -> bool {
        self.stable < self.end
    }

    pub fn place(&self) -> Position {
        Position { partition: self.partition, offset: self.stable }
    }
}

/// Where a lost broker may have left transactions undecided: ours, or those of a former owner of the partition.
#[derive(Debug, Default)]
pub struct Doubts {
    published_in: BTreeSet<u32>,
    /// Partitions that were not seen decided since.
    doubtful: BTreeSet<u32>,
    /// A lost broker that was not reported yet.
    is_news: bool,
}

impl Doubts {
    pub fn published(&mut self, partitions: BTreeSet<u32>) {
        self.published_in.extend(partitions);
    }

    /// A broker went away: any partition may be undecided.
    pub fn doubt(&mut self, partitions: u32) {
        self.doubtful = (0..partitions).collect();
        self.is_news = true;
    }

    /// Whether a broker went away since the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.is_news)
    }

    /// The partitions that must be decided before these are published: all of our output, since an abort would revert
    /// it, and all of the partitions in `outputs`, since a later decision could not be determined any more.
    pub fn due(&mut self, outputs: &[Output]) -> Vec<u32> {
        self.published(outputs.iter().map(|output| output.partition).collect());
        self.doubtful.intersection(&self.published_in).copied().collect()
    }

    pub fn decided(&mut self, partition: u32) {
        self.doubtful.remove(&partition);
    }

    pub fn doubtful(&self) -> &BTreeSet<u32> {
        &self.doubtful
    }

    /// Everything outside of these positions is decided.
    pub fn keep(&mut self, open: &[(Topic, Position)]) {
        self.doubtful.retain(|partition| open.iter().any(|(_, place)| place.partition == *partition));
    }
}

/// Resolves our hanging transactions in every log, and in the group's offsets where they are undecided. Returns the
/// partitions that were written for that.
pub fn end_what_hangs(logs: &impl Recovering, applied: &[Applied]) -> Result<BTreeSet<u32>, EventLogError> {
    let Undecided { published, hanging, left_off } = logs.undecided()?;
    if hanging.is_empty() && left_off.unknown.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (commits, aborts) = decide(logs, &published, &hanging, &left_off, applied)?;
    if !commits.is_empty() {
        say("committed, as the published records or our state show", commits.len(), 0);
        logs.commit(&commits)?;
    }
    // The group's offsets are also in `facts`, so they can be aborted in any case. A commit would set them for all
    // partitions of the transaction at once.
    let void: Vec<Position> = left_off.unknown.into_iter().map(|partition| Position { partition, offset: 0 }).collect();
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
        "transactions are open in {partitions} output partitions, and in {offsets} of the group's offsets: if they \
         are ours and hang, they are {how}"
    );
}

struct Hanging {
    topic: Topic,
    partition: u32,
    /// The lowest offset in `raw` at which the open step may have begun: before the cause of the first open record, and
    /// in `facts`, which cover every step, behind the step before. None if it is a repetition, or of no step.
    began: Option<u64>,
}

/// Returns the records that repeat a commit, and those that abort the rest.
fn decide(
    logs: &impl Recovering,
    published: &[Published],
    hanging: &BTreeSet<(Topic, u32)>,
    left_off: &LeftOff,
    applied: &[Applied],
) -> Result<(Vec<Output>, Vec<Output>), EventLogError> {
    let (mut commits, mut aborts) = (Vec::new(), Vec::new());
    for partition in hanging.iter().map(|(_, partition)| *partition).collect::<BTreeSet<u32>>() {
        // How far `raw` was read according to all decided records.
        let mut read =
            left_off.known.get(&partition).copied().unwrap_or(0).max(applied_of(partition, published, applied));
        let mut found = Vec::new();
        for published in published.iter().filter(|published| published.partition == partition) {
            let topic = published.topic;
            let mut read_here = None;
            let mut note = |entry: &Entry| read_here = read_here.max(raw_offset(entry).map(|offset| offset + 1));
            if logs.newest(published, &mut note)? {
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
        // All first occurrences are of one transaction.
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

/// How far our state has read `raw`, if it applied facts that are open now: these were committed. Where no facts are
/// open, the facts hold it themselves.
fn applied_of(partition: u32, published: &[Published], applied: &[Applied]) -> u64 {
    let facts = published.iter().find(|log| log.topic == Topic::Facts && log.partition == partition);
    let is_of_these = |applied: &&Applied| {
        applied.partition == partition
            && facts.is_some_and(|log| log.stable < applied.facts && applied.facts <= log.end)
    };
    applied.iter().find(is_of_these).map_or(0, |applied| applied.raw)
}

/// The cause of the first open record, without noops that only follow a decision: their transaction held nothing else.
fn cause(logs: &impl Recovering, published: &Published) -> Result<Option<u64>, EventLogError> {
    let mut cause = None;
    logs.open(published, &mut |entry| {
        if entry.record.header(header::KIND) == Some(NOOP_TYPE.as_bytes()) {
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

/// A noop record that carries how far `raw` was read.
fn noop(topic: Topic, partition: u32, read: u64) -> Output {
    let headers = vec![
        (header::KIND.into(), NOOP_TYPE.as_bytes().to_vec()),
        (header::RAW_PARTITION.into(), partition.to_string().into_bytes()),
        (header::RAW_OFFSET.into(), read.saturating_sub(1).to_string().into_bytes()),
    ];
    let record = Record { key: Some(NOOP.to_owned()), value: None, headers, at: Timestamp::now() };
    Output { topic, partition, record }
}

#[cfg(test)]
mod tests;
