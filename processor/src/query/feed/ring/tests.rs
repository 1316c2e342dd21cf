use super::super::event::numbers;
use super::super::memory_log::MemoryLog;
use super::super::page::{Start, page};
use super::*;
use crate::query::access::Caller;
use event_log::contract::Topic;
use event_log::{LogQuery, LogTail};

const AMOUNT: Amount = Amount { events: 1_000, bytes: usize::MAX };

/// A log of two partitions, the ring that follows it, and what fills the ring.
struct World {
    log: MemoryLog,
    ring: Ring,
    tail: Box<dyn LogTail>,
}

impl World {
    /// The ring begins behind so many events.
    fn new(before: u64) -> Self {
        let log = MemoryLog::new("log", 2);
        for number in 0..before {
            log.add(usize::try_from(number % 2).expect("few"), "app");
        }
        let ends: Vec<u64> = log.bounds(Topic::Events).expect("bounds").iter().map(|(_, end)| *end).collect();
        let ring = Ring::new(Self::cursor_of(&log).log, &ends, 0);
        let tail = log.tail(Topic::Events, &ends).expect("a tail");
        Self { log, ring, tail }
    }

    fn cursor_of(log: &MemoryLog) -> Cursor {
        page(log, &Start::Oldest, &Self::all(), AMOUNT).expect("a page").next
    }

    fn all() -> Filter {
        Filter::of(None, Caller::full())
    }

    fn fill(&mut self) {
        for entry in self.tail.next(std::time::Duration::ZERO).expect("entries") {
            self.ring.push(&entry);
        }
    }

    fn page(&self, cursor: &Cursor) -> Option<Page> {
        self.ring.page(cursor, &Self::all(), AMOUNT)
    }
}

/// As a reader sends it again.
fn sent(cursor: &Cursor) -> Cursor {
    Cursor::parse(&cursor.to_string()).expect("it was written by us")
}

#[test]
fn a_reader_that_keeps_up_reads_no_log_and_misses_nothing() {
    let mut world = World::new(4);
    let mut cursor = World::cursor_of(&world.log);
    let reads = world.log.reads();
    let mut seen = Vec::new();
    for _ in 0..20 {
        world.log.add(0, "app");
        world.log.add(1, "app");
        world.fill();
        let page = world.page(&cursor).expect("the ring has it");
        assert!(page.is_end);
        seen.extend(numbers(&page.events));
        cursor = page.next;
    }
    assert_eq!((seen, world.log.reads()), ((4..44).collect::<Vec<_>>(), reads));
}

#[test]
fn pages_of_the_ring_are_as_long_as_asked_for_and_go_on() {
    let mut world = World::new(0);
    let cursor = World::cursor_of(&world.log);
    for _ in 0..10 {
        world.log.add(0, "app");
    }
    world.fill();
    let page =
        |cursor: &Cursor| world.ring.page(cursor, &World::all(), Amount { events: 4, ..AMOUNT }).expect("a page");
    let first = page(&cursor);
    let second = page(&first.next);
    let third = page(&sent(&second.next));
    assert_eq!(numbers(&[&first.events[..], &second.events, &third.events].concat()), (0..10).collect::<Vec<_>>());
    assert_eq!((first.is_end, second.is_end, third.is_end), (false, false, true));
    let small = world.ring.page(&cursor, &World::all(), Amount { events: 10, bytes: 1 }).expect("a page");
    assert_eq!(small.events.len(), 1);
}

#[test]
fn a_cursor_is_known_by_the_records_that_it_names() {
    let mut world = World::new(2);
    let before = World::cursor_of(&world.log);
    assert!(world.page(&before).is_some(), "it was checked with the log");
    assert!(world.page(&sent(&before)).is_none(), "the ring does not know these records");
    world.log.add(0, "app");
    world.log.add(1, "app");
    world.fill();
    let after = World::cursor_of(&world.log);
    assert!(world.page(&sent(&after)).is_some());

    let mut other = sent(&after);
    other.lanes[1].last.as_mut().expect("a mark").tag ^= 1;
    assert!(world.page(&other).is_none(), "another record");
    let ahead = Cursor { lanes: vec![Lane::at(900); 2], ..after.clone() };
    assert!(world.page(&ahead).is_none(), "not there yet");
    assert!(world.page(&Cursor { log: 1, ..after }).is_none(), "another log");
}

#[test]
fn what_fell_out_of_the_ring_is_not_skipped() {
    let mut world = World::new(0);
    let cursor = World::cursor_of(&world.log);
    let events = EVENTS_MAX as u64 + 10;
    for _ in 0..events {
        world.log.add(0, "app");
    }
    world.fill();
    assert!(world.page(&cursor).is_none(), "ten events are gone from the ring");
    let start = Start::At(cursor.clone());
    let amount = |events| Amount { events, ..AMOUNT };
    let ten = page(&world.log, &start, &World::all(), amount(10)).expect("a page");
    assert_eq!(world.page(&sent(&ten.next)).expect("the rest").events.len(), 1_000);
    let eleven = page(&world.log, &start, &World::all(), amount(11)).expect("a page");
    assert_eq!(numbers(&world.page(&sent(&eleven.next)).expect("the rest").events)[0], 11);
    let nine = page(&world.log, &start, &World::all(), amount(9)).expect("a page");
    assert!(world.page(&nine.next).is_none());
    assert!(world.page(&sent(&nine.next)).is_none());
}

#[test]
fn large_events_do_not_fill_the_memory() {
    let mut ring = Ring::new(1, &[0], 0);
    let log = MemoryLog::new("log", 1);
    let name = "x".repeat(1024 * 1024);
    for _ in 0..40 {
        log.add_named(0, &name);
    }
    for entry in log.tail(Topic::Events, &[0]).expect("a tail").next(std::time::Duration::ZERO).expect("entries") {
        ring.push(&entry);
    }
    assert!(ring.bytes <= BYTES_MAX && ring.events.len() == 7, "{} events", ring.events.len());
    assert_eq!((ring.end(), ring.lanes[0].begin), (40, 33));
}

#[test]
fn a_new_ring_shows_a_reader_what_the_old_one_did_not() {
    let mut world = World::new(0);
    let cursor = World::cursor_of(&world.log);
    world.log.add(0, "app");
    world.fill();
    let page = world.page(&cursor).expect("a page");
    world.log.add(0, "app");
    world.ring = Ring::new(page.next.log, &[0, 0], world.ring.end());
    world.tail = world.log.tail(Topic::Events, &[0, 0]).expect("a tail");
    world.fill();
    assert_eq!(numbers(&world.page(&page.next).expect("a page").events), [1]);
}

#[test]
fn a_reader_moves_on_behind_markers_and_its_lag_counts_them_no_more() {
    let mut world = World::new(0);
    let cursor = World::cursor_of(&world.log);
    world.log.add(0, "app");
    world.fill();
    assert_eq!(world.ring.behind(&cursor.lanes), 1);
    world.ring.is_read_to(0, 5);
    let page = world.page(&cursor).expect("a page");
    assert_eq!((page.next.lanes[0].next, world.ring.behind(&page.next.lanes)), (5, 0));
}
