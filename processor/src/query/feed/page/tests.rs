use super::super::event::numbers;
use super::super::memory_log::MemoryLog;
use super::*;
use crate::query::access::Caller;

fn all() -> Filter {
    Filter::of(None, Caller::full())
}

fn of_app(app: &str) -> Filter {
    Filter::of(Some(app), Caller::full())
}

const AMOUNT: Amount = Amount { events: 100, bytes: usize::MAX };

fn read(log: &MemoryLog, start: &Start) -> Page {
    page(log, start, &all(), AMOUNT).expect("a page")
}

/// As a reader sends it again.
fn sent(cursor: &Cursor) -> Start {
    Start::At(Cursor::parse(&cursor.to_string()).expect("it was written by us"))
}

fn fault(log: &MemoryLog, cursor: &Cursor) -> Option<CursorFault> {
    match page(log, &sent(cursor), &all(), AMOUNT) {
        Ok(_) => None,
        Err(PageError::Cursor(fault)) => Some(fault),
        Err(PageError::Log(error)) => panic!("{error}"),
    }
}

/// Events in turn in three partitions, with markers between them.
fn log_of(events: u64) -> MemoryLog {
    let log = MemoryLog::new("log", 3);
    for number in 0..events {
        log.add(usize::try_from(number % 3).expect("few"), if number % 2 == 0 { "even" } else { "odd" });
        log.add_marker(usize::try_from(number % 3).expect("few"));
    }
    log
}

#[test]
fn events_of_all_partitions_come_by_time_and_each_once() {
    let log = log_of(50);
    let (mut start, mut seen) = (Start::Oldest, Vec::new());
    loop {
        let page = page(&log, &start, &all(), Amount { events: 7, bytes: usize::MAX }).expect("a page");
        seen.extend(numbers(&page.events));
        if page.is_end {
            break;
        }
        assert_eq!(page.events.len(), 7);
        start = sent(&page.next);
    }
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
}

#[test]
fn a_page_ends_behind_the_event_that_exceeds_its_bytes() {
    let log = log_of(10);
    let first = page(&log, &Start::Oldest, &all(), Amount { events: 100, bytes: 1 }).expect("a page");
    assert_eq!((numbers(&first.events), first.is_end), (vec![0], false));
}

#[test]
fn what_the_filter_leaves_out_is_behind_the_reader_too() {
    let log = log_of(10);
    let first = page(&log, &Start::Oldest, &of_app("odd"), Amount { events: 2, ..AMOUNT }).expect("a page");
    assert_eq!(numbers(&first.events), [1, 3]);
    let rest = read(&log, &sent(&first.next));
    assert_eq!(numbers(&rest.events), (4..10).collect::<Vec<_>>());
}

#[test]
fn a_filter_that_takes_little_costs_no_more_than_a_page() {
    let log = MemoryLog::new("log", 1);
    for _ in 0..SCANNED_MAX * 2 {
        log.add(0, "other");
    }
    let first = page(&log, &Start::Oldest, &of_app("this"), AMOUNT).expect("a page");
    assert!(first.events.is_empty() && !first.is_end);
    assert!((SCANNED_MAX..SCANNED_MAX + CHUNK_MAX).contains(&log.reads()), "{}", log.reads());
    let second = page(&log, &sent(&first.next), &of_app("this"), AMOUNT).expect("a page");
    assert!(second.next.lanes[0].next > first.next.lanes[0].next, "the next page goes on");
}

#[test]
fn a_filter_that_takes_little_looks_for_few_places_whatever_the_limit() {
    let log = MemoryLog::new("log", 1);
    for _ in 0..SCANNED_MAX * 2 {
        log.add(0, "other");
    }
    for events in [1, 100, 1_000] {
        let before = log.searches();
        page(&log, &Start::Oldest, &of_app("this"), Amount { events, ..AMOUNT }).expect("a page");
        assert!(log.searches() - before <= 15, "{} searches for a limit of {events}", log.searches() - before);
    }
}

#[test]
fn a_reader_that_begins_at_a_time_sees_nothing_older() {
    let log = log_of(20);
    assert_eq!(numbers(&read(&log, &Start::Since(MemoryLog::at(15))).events), (15..20).collect::<Vec<_>>());
    let none = read(&log, &Start::Since(MemoryLog::at(1_000)));
    assert!(none.events.is_empty() && none.is_end);
    log.add(0, "later");
    assert_eq!(numbers(&read(&log, &sent(&none.next)).events), [20], "and what comes after");
}

#[test]
fn a_cursor_is_too_old_once_events_behind_it_are_deleted() {
    let log = log_of(30);
    let first = page(&log, &Start::Oldest, &all(), Amount { events: 9, ..AMOUNT }).expect("a page");
    let next = first.next.lanes[1].next;
    log.delete_before(1, next);
    assert_eq!(fault(&log, &first.next), None, "all that was deleted had been seen");
    assert_eq!(numbers(&read(&log, &sent(&first.next)).events), (9..30).collect::<Vec<_>>());
    log.delete_before(1, next + 2);
    assert_eq!(fault(&log, &first.next), Some(CursorFault::TooOld));
}

#[test]
fn a_reader_that_saw_all_is_not_too_old_when_all_is_deleted() {
    let log = log_of(6);
    log.add_noop(0);
    log.add_marker(0);
    let page = read(&log, &Start::Oldest);
    assert!(page.is_end);
    for (partition, (_, end)) in log.bounds(Topic::Events).expect("bounds").into_iter().enumerate() {
        log.delete_before(partition, end);
    }
    assert_eq!(fault(&log, &page.next), None);
}

#[test]
fn a_cursor_of_another_log_is_refused() {
    let log = log_of(12);
    let cursor = read(&log, &Start::Oldest).next;
    assert_eq!(fault(&log, &cursor), None);
    assert_eq!(fault(&log.made_again(), &cursor), Some(CursorFault::OtherLog), "other records");
    for other in [MemoryLog::new("other", 3), MemoryLog::new("log", 4)] {
        assert_eq!(fault(&other, &cursor), Some(CursorFault::OtherLog), "another name, or other partitions");
    }
    assert_eq!(fault(&MemoryLog::new("log", 3), &cursor), Some(CursorFault::Ahead), "made again, and empty");
}

#[test]
fn noop_records_behind_the_last_event_are_no_sign_of_another_log() {
    let log = log_of(3);
    log.add_noop(0);
    let page = read(&log, &Start::Oldest);
    log.add(0, "later");
    assert_eq!(numbers(&read(&log, &sent(&page.next)).events), [3]);
}

#[test]
fn a_log_reaches_back_to_where_no_partition_lacks_anything() {
    let log = MemoryLog::new("log", 3);
    assert_eq!(reaches_back_to(&log).expect("read"), None);
    let log = log_of(12);
    assert_eq!(reaches_back_to(&log).expect("read"), Some(MemoryLog::at(0)));
    // Partition 1 lacks event 1, partition 2 lacks 2 and 5.
    log.delete_before(1, 2);
    log.delete_before(2, 4);
    assert_eq!(reaches_back_to(&log).expect("read"), Some(MemoryLog::at(8)));
}
