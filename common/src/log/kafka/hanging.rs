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
//! How it was decided is seen by how far `raw` was read: the group's offsets, the progress records, and all else that is
//! published are of the same transaction. If any of them tells of the first record that is open, it was committed. That
//! holds because nobody goes on in a partition in which anything is open ([`Reader::wait_until_published`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use super::KafkaSettings;
use super::reader::{Published, Reader};
use super::transaction::Publisher;
use crate::contract::{SETTLED, SETTLED_TYPE, header};
use crate::lifecycle::Stop;
use crate::log::{Entry, LedgerError, Output, Position, Record};
use crate::time::Timestamp;

/// Offsets that are not told within this time may wait for a transaction that hangs.
const OFFSETS_WAIT: Duration = Duration::from_secs(1);
/// How far back the newest decided record of a partition is looked for: it may be followed by marks and aborted records.
const LOOK_BACK: u64 = 2_000;

/// Ends what may hang of ours in every partition in which anything is open, and in the group's offsets if they are not
/// told.
pub(super) fn end_what_hangs(
    publisher: &Publisher,
    reader: &Reader,
    settings: &KafkaSettings,
    stop: &Stop,
) -> Result<(), LedgerError> {
    let published = reader.published()?;
    let left_off = reader.all_left_off(OFFSETS_WAIT);
    let open: Vec<Published> = published.iter().copied().filter(Published::is_open).collect();
    if open.is_empty() && left_off.is_some() {
        return Ok(());
    }
    let partitions: BTreeSet<u32> = open.iter().map(|open| open.partition).collect();
    let mut committed = BTreeMap::new();
    for partition in partitions {
        let here = published.iter().filter(|published| published.partition == partition);
        let told = left_off.as_ref().and_then(|all| all.get(&partition)).copied();
        committed.insert(partition, read_if_committed(reader, here, told)?);
    }
    // What was decided while we looked was not hanging, and what we saw of it is void.
    let now = reader.published()?;
    let hangs = |open: &Published| {
        let found = now.iter().find(|now| (now.topic, now.partition) == (open.topic, open.partition));
        found.is_some_and(|now| now.is_open() && now.stable == open.stable)
    };
    let (mut commits, mut aborts) = (Vec::new(), Vec::new());
    for open in open.into_iter().filter(hangs) {
        match committed[&open.partition] {
            Some(read) => commits.push(settled(open, read)),
            None => aborts.push(settled(open, 0)),
        }
    }
    tracing::info!(
        commits = commits.len(),
        aborts = aborts.len(),
        offsets = left_off.is_none(),
        "a transaction is open in {} partitions{}: in case that it is ours and hangs, it is committed in {} of them, where \
         what was published tells that it was, and aborted in the others",
        commits.len() + aborts.len(),
        if left_off.is_some() { "" } else { " and in the group's offsets" },
        commits.len(),
    );
    let member = reader.no_member();
    if !commits.is_empty() {
        // Where offsets are told, their mark has come.
        let read = committed.into_iter().filter(|_| left_off.is_none());
        let read: Vec<_> = read.filter_map(|(partition, read)| Some(Position { partition, offset: read? })).collect();
        publisher.publish(&commits, &read, member.as_ref(), stop)?;
    }
    let offsets_are_open = left_off.is_none() && commits.is_empty();
    if aborts.is_empty() && !offsets_are_open {
        return Ok(());
    }
    let read: Vec<_> = if offsets_are_open { 0..settings.partitions } else { 0..0 }
        .map(|partition| Position { partition, offset: 0 })
        .collect();
    publisher.abort(&aborts, &read, member.as_ref(), stop)
}

/// How far `raw` was read by what is decided of a partition, if that tells of the first record that is open there.
fn read_if_committed<'a>(
    reader: &Reader,
    here: impl Iterator<Item = &'a Published>,
    left_off: Option<u64>,
) -> Result<Option<u64>, LedgerError> {
    let (mut read, mut open): (u64, Option<u64>) = (left_off.unwrap_or(0), None);
    for published in here {
        let Published { topic, partition, stable, .. } = *published;
        let (first, _) = reader.bounds(topic, partition)?;
        let from = Position { partition, offset: first.max(stable.saturating_sub(LOOK_BACK)) };
        let mut tell = |entry: Entry| {
            read = read.max(raw_offset(&entry).map_or(0, |offset| offset + 1));
            ControlFlow::Continue(())
        };
        reader.read(topic, from, stable, &mut tell, &mut || Ok(()))?;
        if published.is_open() {
            let first = reader.record_from(topic, published.place())?;
            open = [open, raw_offset(&first)].into_iter().flatten().min();
        }
    }
    Ok(open.filter(|open| read > *open).map(|_| read))
}

fn raw_offset(entry: &Entry) -> Option<u64> {
    std::str::from_utf8(entry.record.header(header::RAW_OFFSET)?).ok()?.parse().ok()
}

/// A record that says nothing, for where `raw` was read to.
fn settled(open: Published, read: u64) -> Output {
    let Published { topic, partition, .. } = open;
    let headers = vec![
        (header::TYPE.to_owned(), SETTLED_TYPE.as_bytes().to_vec()),
        (header::RAW_PARTITION.to_owned(), partition.to_string().into_bytes()),
        (header::RAW_OFFSET.to_owned(), read.saturating_sub(1).to_string().into_bytes()),
    ];
    let record = Record { key: Some(SETTLED.to_owned()), value: None, headers, at: Timestamp::now() };
    Output { topic, partition, record }
}
