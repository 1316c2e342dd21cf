//! The newest records of some topics, of all their partitions, a page at a time.
//!
//! Each partition is read from its end towards its beginning, a chunk at a time; of the newest record of each chunk,
//! the newest is next. A page reads a bounded number of records and bytes, whatever the filter finds.

use std::fmt;
use std::ops::ControlFlow;

use event_log::contract::Topic;
use event_log::{Entry, LogQuery, Stretch};
use primitives::time::Timestamp;

use super::log_reads::ReadFailure;

/// Records read for one page, but for the rest of the last chunks.
const SCANNED_MAX: usize = 10_000;
/// Of their bytes. Records of `events` may have a megabyte each.
const SCANNED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of one partition at once. It grows while the filter finds little.
const CHUNK_MIN: u64 = 50;
const CHUNK_MAX: u64 = 1_000;
/// Of a partition among many: most of a chunk that is not shown was read in vain.
const CHUNK_OF_MANY: u64 = 8;
/// From this size on, chunks do not grow.
const LARGE_BYTES: usize = 1024 * 1024;

/// The offsets, one a partition of each topic, below which the next page begins.
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

/// Where to look, and how much of it to show.
#[derive(Clone, Debug)]
pub struct Range<'a> {
    pub topics: &'a [Topic],
    /// Only this partition; all of them without one.
    pub partition: Option<u32>,
    pub cursor: Option<Cursor>,
    pub since: Option<Timestamp>,
    pub limit: usize,
}

/// One partition of a topic on the way back.
struct Lane<T> {
    topic: Topic,
    partition: u32,
    /// Where it ends: the beginning of the log, or of the time that is asked for.
    floor: u64,
    /// All from here on was loaded.
    loaded: u64,
    /// Above it, all was looked at.
    next: u64,
    /// Loaded, but not looked at: the newest last.
    chunk: Vec<(u64, Timestamp, Option<T>)>,
}

impl<T> Lane<T> {
    fn needs_more(&self) -> bool {
        self.chunk.is_empty() && self.loaded > self.floor
    }

    fn stretch(&self, chunk: u64) -> Stretch {
        let from = self.loaded.saturating_sub(chunk).max(self.floor);
        Stretch { partition: self.partition, from, until: self.loaded }
    }
}

/// Up to `limit` items behind the cursor that the filter takes, and the cursor behind them; none at the end. `item` is
/// none for a record that is not to be shown.
pub fn newest<T>(
    logs: &dyn LogQuery,
    range: &Range<'_>,
    item: impl Fn(Topic, &Entry) -> Option<T>,
    mut takes: impl FnMut(&T) -> bool,
) -> Result<(Vec<T>, Option<String>), ReadFailure> {
    let limit = range.limit;
    let mut lanes = lanes(logs, range)?;
    let (mut items, mut read) = (Vec::new(), Read::default());
    let mut chunk = u64::try_from(limit).unwrap_or(CHUNK_MAX).clamp(CHUNK_MIN, CHUNK_MAX);
    if range.topics.len() > 1 {
        chunk = (chunk / (lanes.len() as u64).max(1)).max(CHUNK_OF_MANY);
    }
    while items.len() < limit {
        if lanes.iter().any(Lane::needs_more) {
            if read.records >= SCANNED_MAX || read.bytes >= SCANNED_BYTES_MAX {
                break;
            }
            let bytes = read.bytes;
            load(logs, range.topics, &mut lanes, chunk, &mut read, &item)?;
            if read.bytes - bytes < LARGE_BYTES {
                chunk = (chunk * 2).min(CHUNK_MAX);
            }
        }
        let newest = lanes.iter().enumerate().filter_map(|(index, lane)| Some((lane.chunk.last()?.1, index)));
        let Some((_, newest)) = newest.max() else {
            if lanes.iter().any(Lane::needs_more) {
                continue;
            }
            return Ok((items, None));
        };
        let lane = &mut lanes[newest];
        let (offset, _, item) = lane.chunk.pop().expect("it has the newest");
        lane.next = if lane.chunk.is_empty() { lane.loaded } else { offset };
        items.extend(item.filter(&mut takes));
    }
    let is_over = lanes.iter().all(|lane| lane.next <= lane.floor);
    let next = Cursor(lanes.iter().map(|lane| lane.next).collect());
    Ok((items, (!is_over).then(|| next.to_string())))
}

fn lanes<T>(logs: &dyn LogQuery, range: &Range<'_>) -> Result<Vec<Lane<T>>, ReadFailure> {
    let mut lanes = Vec::new();
    for topic in range.topics {
        let bounds = logs.bounds(*topic)?;
        let begins = match range.since {
            Some(since) => logs.offsets_at(*topic, since)?,
            None => vec![Some(0); bounds.len()],
        };
        let all = (0..).zip(bounds.into_iter().zip(begins));
        for (partition, ((first, end), begin)) in all.filter(|(own, _)| range.partition.is_none_or(|one| one == *own)) {
            let end = end.max(first);
            let floor = begin.unwrap_or(end).clamp(first, end);
            lanes.push(Lane { topic: *topic, partition, floor, loaded: end, next: end, chunk: Vec::new() });
        }
    }
    if let Some(Cursor(below)) = &range.cursor {
        if below.len() != lanes.len() {
            return Err(ReadFailure::Cursor);
        }
        for (lane, below) in lanes.iter_mut().zip(below) {
            lane.next = (*below).clamp(lane.floor, lane.next);
            lane.loaded = lane.next;
        }
    }
    Ok(lanes)
}

#[derive(Default)]
struct Read {
    records: usize,
    bytes: usize,
}

/// Loads one more chunk of each lane that has nothing left.
fn load<T>(
    logs: &dyn LogQuery,
    topics: &[Topic],
    lanes: &mut [Lane<T>],
    chunk: u64,
    read: &mut Read,
    item: impl Fn(Topic, &Entry) -> Option<T>,
) -> Result<(), ReadFailure> {
    for topic in topics {
        let mut wanted: Vec<(&mut Lane<T>, Stretch)> = Vec::new();
        for lane in lanes.iter_mut().filter(|lane| lane.topic == *topic && lane.needs_more()) {
            let stretch = lane.stretch(chunk);
            wanted.push((lane, stretch));
        }
        let stretches: Vec<Stretch> = wanted.iter().map(|(_, stretch)| *stretch).collect();
        logs.read(*topic, &stretches, &mut |entry| {
            read.records += 1;
            read.bytes += entry.record.size();
            let (position, at) = (entry.position, entry.record.at);
            let lane = wanted.iter_mut().find(|(lane, _)| lane.partition == position.partition);
            if let Some((lane, _)) = lane {
                lane.chunk.push((position.offset, at, item(*topic, &entry)));
            }
            ControlFlow::Continue(())
        })?;
        for (lane, stretch) in wanted {
            lane.loaded = stretch.from;
            if lane.chunk.is_empty() {
                lane.next = stretch.from;
            }
        }
    }
    // A stretch of markers alone has no records, but was read.
    read.records += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use event_log::{EventLogError, LogTail, Position, Record, Visit};
    use serde_json::json;

    use super::*;
    use crate::query::rejected::Item;

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

    fn page(
        logs: &Topics,
        cursor: Option<Cursor>,
        limit: usize,
        since: Option<Timestamp>,
        takes: impl FnMut(&Item) -> bool,
    ) -> Result<(Vec<Item>, Option<String>), ReadFailure> {
        let range = Range { topics: &[Topic::Rejected], partition: None, cursor, since, limit };
        newest(logs, &range, |_, entry| Item::of(entry), takes)
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
    fn several_topics_are_one_list_and_one_partition_may_be_asked_for() {
        let topics = Topics::of(2, 30);
        let range = |partition, cursor| Range {
            topics: &[Topic::Events, Topic::Rejected],
            partition,
            cursor,
            since: None,
            limit: 50,
        };
        let item = |topic: Topic, entry: &Entry| Some((entry.record.at, topic.name(), entry.position.partition));
        let (first, next) = newest(&topics, &range(None, None), item, |_| true).expect("read");
        let cursor = Cursor::parse(&next.expect("more")).expect("its own");
        let (rest, next) = newest(&topics, &range(None, Some(cursor)), item, |_| true).expect("read");
        let cursor = Cursor::parse(&next.expect("more")).expect("its own");
        let (last, next) = newest(&topics, &range(None, Some(cursor)), item, |_| true).expect("read");
        assert_eq!((first.len(), rest.len(), last.len(), next), (50, 50, 20, None));
        let all = [first, rest, last].concat();
        assert!(all.windows(2).all(|pair| pair[0].0 >= pair[1].0), "newest first");
        assert_eq!(all.iter().filter(|(_, topic, _)| *topic == Topic::Events.name()).count(), 60);
        let (one, _) = newest(&topics, &range(Some(1), None), item, |_| true).expect("read");
        assert_eq!(one.len(), 50);
        assert!(one.iter().all(|(_, _, partition)| *partition == 1));
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
