//! The newest rejected events of all partitions, a page at a time.
//!
//! Each partition is read from its end towards its beginning, a chunk at a time; of the newest record of each chunk,
//! the newest is next. A page reads a bounded number of records, whatever the filter finds.

use std::fmt;
use std::ops::ControlFlow;

use event_log::contract::Topic;
use event_log::{LogQuery, Stretch};
use primitives::time::Timestamp;

use super::item::Item;
use crate::query::log_reads::ReadFailure;

/// Records read for one page, but for the rest of the last chunks.
const SCANNED_MAX: usize = 10_000;
/// Of one partition at once. It grows while the filter finds little.
const CHUNK_MIN: u64 = 50;
const CHUNK_MAX: u64 = 1_000;

/// The offsets, one a partition, below which the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(Vec<u64>);

impl Cursor {
    pub fn parse(text: &str) -> Option<Self> {
        let offsets = text.split('.').map(|offset| offset.parse().ok());
        offsets.collect::<Option<Vec<u64>>>().map(Self)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offsets: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&offsets.join("."))
    }
}

/// One partition on the way back.
struct Lane {
    partition: u32,
    /// Where it ends: the beginning of the log, or of the time that is asked for.
    floor: u64,
    /// All from here on was loaded.
    loaded: u64,
    /// Above it, all was looked at.
    next: u64,
    /// Loaded, but not looked at: the newest last.
    chunk: Vec<(u64, Timestamp, Option<Item>)>,
}

impl Lane {
    fn needs_more(&self) -> bool {
        self.chunk.is_empty() && self.loaded > self.floor
    }

    fn stretch(&self, chunk: u64) -> Stretch {
        let from = self.loaded.saturating_sub(chunk).max(self.floor);
        Stretch { partition: self.partition, from, until: self.loaded }
    }
}

/// Up to `limit` items behind the cursor that the filter takes, and the cursor behind them; none at the end.
pub fn page(
    logs: &dyn LogQuery,
    cursor: Option<Cursor>,
    limit: usize,
    since: Option<Timestamp>,
    mut takes: impl FnMut(&Item) -> bool,
) -> Result<(Vec<Item>, Option<String>), ReadFailure> {
    let mut lanes = lanes(logs, cursor, since)?;
    let (mut items, mut scanned) = (Vec::new(), 0);
    let mut chunk = u64::try_from(limit).unwrap_or(CHUNK_MAX).clamp(CHUNK_MIN, CHUNK_MAX);
    while items.len() < limit {
        if lanes.iter().any(Lane::needs_more) {
            if scanned >= SCANNED_MAX {
                break;
            }
            scanned += load(logs, &mut lanes, chunk)?;
            chunk = (chunk * 2).min(CHUNK_MAX);
        }
        let newest = lanes.iter_mut().filter_map(|lane| lane.chunk.last().map(|last| (last.1, lane.partition)));
        let Some((_, partition)) = newest.max() else {
            if lanes.iter().any(Lane::needs_more) {
                continue;
            }
            return Ok((items, None));
        };
        let lane = &mut lanes[partition as usize];
        let (offset, _, item) = lane.chunk.pop().expect("it has the newest");
        lane.next = if lane.chunk.is_empty() { lane.loaded } else { offset };
        items.extend(item.filter(&mut takes));
    }
    let is_over = lanes.iter().all(|lane| lane.next <= lane.floor);
    let next = Cursor(lanes.iter().map(|lane| lane.next).collect());
    Ok((items, (!is_over).then(|| next.to_string())))
}

fn lanes(logs: &dyn LogQuery, cursor: Option<Cursor>, since: Option<Timestamp>) -> Result<Vec<Lane>, ReadFailure> {
    let bounds = logs.bounds(Topic::Rejected)?;
    let begins = match since {
        Some(since) => logs.offsets_at(Topic::Rejected, since)?,
        None => vec![Some(0); bounds.len()],
    };
    let Cursor(below) = cursor.unwrap_or_else(|| Cursor(vec![u64::MAX; bounds.len()]));
    if below.len() != bounds.len() {
        return Err(ReadFailure::Cursor);
    }
    let mut lanes = Vec::new();
    for (partition, (((first, end), begin), below)) in (0..).zip(bounds.into_iter().zip(begins).zip(below)) {
        let floor = begin.unwrap_or(end).clamp(first, end.max(first));
        let next = below.clamp(floor, end.max(floor));
        lanes.push(Lane { partition, floor, loaded: next, next, chunk: Vec::new() });
    }
    Ok(lanes)
}

/// Loads one more chunk of each lane that has nothing left. Returns the number of records.
fn load(logs: &dyn LogQuery, lanes: &mut [Lane], chunk: u64) -> Result<usize, ReadFailure> {
    let stretches: Vec<Stretch> =
        lanes.iter().filter(|lane| lane.needs_more()).map(|lane| lane.stretch(chunk)).collect();
    let mut read = 0;
    logs.read(Topic::Rejected, &stretches, &mut |entry| {
        read += 1;
        let (position, at) = (entry.position, entry.record.at);
        lanes[position.partition as usize].chunk.push((position.offset, at, Item::of(&entry)));
        ControlFlow::Continue(())
    })?;
    for stretch in stretches {
        let lane = &mut lanes[stretch.partition as usize];
        lane.loaded = stretch.from;
        if lane.chunk.is_empty() {
            lane.next = stretch.from;
        }
    }
    // A stretch of markers alone has no records, but was read.
    Ok(read.max(1))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use event_log::{Entry, EventLogError, LogTail, Position, Record, Visit};
    use serde_json::json;

    use super::*;

    /// Partitions of records that came in turn, one a second; only some partitions have the reason that is asked for.
    struct Topics {
        partitions: u32,
        each: u64,
        read: AtomicUsize,
    }

    impl LogQuery for Topics {
        fn identity(&self, _: Topic) -> Result<String, EventLogError> {
            unreachable!("a list of rejected events has no use for it")
        }

        fn tail(&self, _: Topic, _: &[u64]) -> Result<Box<dyn LogTail>, EventLogError> {
            unreachable!("a list of rejected events follows nothing")
        }

        fn bounds(&self, _: Topic) -> Result<Vec<(u64, u64)>, EventLogError> {
            Ok((0..self.partitions).map(|_| (0, self.each)).collect())
        }

        fn offsets_at(&self, _: Topic, at: Timestamp) -> Result<Vec<Option<u64>>, EventLogError> {
            let begin = |partition| (0..self.each).find(|offset| self.at(partition, *offset) >= at);
            Ok((0..self.partitions).map(begin).collect())
        }

        fn read(&self, _: Topic, stretches: &[Stretch], visit: Visit<'_>) -> Result<(), EventLogError> {
            for stretch in stretches {
                for offset in stretch.from..stretch.until {
                    self.read.fetch_add(1, Ordering::Relaxed);
                    let position = Position { partition: stretch.partition, offset };
                    let at = self.at(stretch.partition, offset);
                    let value = json!({ "id": null, "reason": "no_event", "app": null, "member_id": null,
                        "received_at": at, "size": 1, "raw": position });
                    let value = Some(Bytes::from(value.to_string()));
                    let _ = visit(Entry { position, record: Record { key: None, value, headers: vec![], at } });
                }
            }
            Ok(())
        }
    }

    impl Topics {
        fn of(partitions: u32, each: u64) -> Self {
            Self { partitions, each, read: AtomicUsize::default() }
        }

        fn at(&self, partition: u32, offset: u64) -> Timestamp {
            Timestamp::from_s(1_000_000 + offset * u64::from(self.partitions) + u64::from(partition))
        }
    }

    #[test]
    fn pages_of_any_size_are_the_whole_log_newest_first() {
        let topics = Topics::of(3, 700);
        for limit in [1_000, 7, 2_100] {
            let (mut all, mut cursor) = (Vec::new(), None);
            loop {
                let (items, next) = page(&topics, cursor, limit, None, |_| true).expect("read");
                assert!(items.len() <= limit);
                all.extend(items);
                let Some(next) = next else { break };
                cursor = Some(Cursor::parse(&next).expect("its own"));
            }
            assert_eq!(all.len(), 2_100, "pages of {limit}");
            assert!(all.windows(2).all(|pair| pair[0].received_at > pair[1].received_at), "pages of {limit}");
            assert_eq!((all[0].place.as_str(), all[2_099].place.as_str()), ("2-699", "0-0"));
        }
    }

    #[test]
    fn a_filter_that_finds_nothing_costs_a_bounded_amount_and_goes_on() {
        let topics = Topics::of(2, 20_000);
        let (items, next) = page(&topics, None, 10, None, |_| false).expect("read");
        assert!(items.is_empty() && next.is_some());
        let read = topics.read.load(Ordering::Relaxed);
        assert!(read <= SCANNED_MAX + 2 * usize::try_from(CHUNK_MAX).expect("small"), "{read} records");

        let mut cursor = next;
        let mut pages = 1;
        while let Some(text) = cursor {
            pages += 1;
            (_, cursor) = page(&topics, Cursor::parse(&text), 10, None, |_| false).expect("read");
        }
        assert!((4..=6).contains(&pages), "{pages} pages");
        // What was loaded and not looked at is read again.
        let read = topics.read.load(Ordering::Relaxed);
        assert!((40_000..45_000).contains(&read), "{read} records");
    }

    #[test]
    fn nothing_older_than_asked_for_is_read() {
        let topics = Topics::of(2, 20_000);
        let since = topics.at(0, 19_990);
        let (items, next) = page(&topics, None, 1_000, Some(since), |_| true).expect("read");
        assert_eq!((items.len(), next), (20, None));
        assert_eq!(topics.read.load(Ordering::Relaxed), 20);
    }

    #[test]
    fn a_cursor_of_other_logs_is_refused() {
        let refused = page(&Topics::of(2, 1), Cursor::parse("1.2.3"), 1, None, |_| true);
        assert!(matches!(refused, Err(ReadFailure::Cursor)));
        for text in ["", "x", "1.", "-1", "1.99999999999999999999"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
