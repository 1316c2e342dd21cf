//! What a log promises, seen from outside; `torn` and `faults` damage its files and its disk, `power` pulls the plug,
//! `histories` compares it with a `model`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::*;
use crate::options::{KIB, RETRY_AFTER};

mod faults;
mod histories;
mod model;
mod power;
mod salvage;
mod torn;

/// Small enough that a few records fill one.
const SEGMENT_BYTES: u64 = 2 * KIB;

pub(super) fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, segment_age_max: None, ..Options::log() }
}

/// A record that can be told from others.
pub(super) fn record(number: u64) -> Record {
    Record {
        key: Some(format!("app/{number}")),
        value: Some(Bytes::from(format!(
            "value {number} {}",
            "x".repeat(usize::try_from(number % 50).expect("small"))
        ))),
        headers: vec![("ce_id".into(), number.to_string().into_bytes())],
        at: Timestamp::from_s(number),
    }
}

/// A log of small segments with so many records more.
pub(super) fn log_of(dir: &Path, records: u64) -> DiskLog {
    let log = DiskLog::open(dir, options()).expect("open");
    let first = log.bounds().1;
    for number in first..first + records {
        log.append_blocking(vec![record(number)]).expect("append");
    }
    log
}

fn records(numbers: std::ops::Range<u64>) -> Vec<Record> {
    numbers.map(record).collect()
}

/// All that a reader sees from `offset` on.
fn read(log: &DiskLog, offset: u64) -> io::Result<Vec<(u64, Record)>> {
    let mut reader = log.reader(offset)?;
    let mut all = Vec::new();
    while let Some(entry) = reader.next()? {
        all.push(entry);
    }
    Ok(all)
}

/// The log holds exactly the records of these numbers, each at its number.
fn check(log: &DiskLog, numbers: std::ops::Range<u64>) {
    assert_eq!(log.bounds(), (numbers.start, numbers.end));
    let expected: Vec<_> = numbers.map(|number| (number, record(number))).collect();
    assert_eq!(read(log, 0).expect("read"), expected);
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    segment::numbers(&Files::default(), dir)
        .expect("list")
        .into_iter()
        .map(|number| segment::path(dir, number))
        .collect()
}

/// The directory as a crash would leave it now.
pub(super) fn crashed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for entry in fs::read_dir(dir).expect("list") {
        let entry = entry.expect("an entry");
        // The spare comes and goes meanwhile.
        let copied = fs::copy(entry.path(), copy.path().join(entry.file_name()));
        assert!(copied.is_ok() || entry.path().extension().is_none_or(|extension| extension != "segment"));
    }
    copy
}

#[test]
fn what_is_appended_is_read_back_also_after_opening_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = DiskLog::open(&dir.path().join("a/b"), options()).expect("open");
    let identity = log.identity();
    check(&log, 0..0);
    assert_eq!(log.append_blocking(records(0..3)).expect("append"), 0);
    assert_eq!(log.append_blocking(vec![]).expect("append nothing"), 3);
    assert_eq!(log.append_blocking(records(3..4)).expect("append"), 3);
    check(&log, 0..4);
    drop(log);

    for _ in 0..3 {
        let log = DiskLog::open(&dir.path().join("a/b"), options()).expect("open again");
        assert_eq!(log.identity(), identity);
        check(&log, 0..4);
    }
    let log = log_of(&dir.path().join("a/b"), 2);
    check(&log, 0..6);
}

#[test]
fn a_log_goes_on_through_many_segments() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 200);
    check(&log, 0..200);
    assert!(segment_files(dir.path()).len() > 5);
    assert_eq!(read(&log, 150).expect("read").first().map(|(offset, _)| *offset), Some(150));
    assert_eq!(read(&log, 200).expect("read"), vec![]);
    drop(log);
    check(&log_of(dir.path(), 0), 0..200);
}

#[test]
fn segments_that_have_ended_take_no_more_room_than_their_records() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(log_of(dir.path(), 3));
    let log = log_of(dir.path(), 0);
    let sizes: u64 = segment_files(dir.path()).iter().map(|file| fs::metadata(file).expect("there").len()).sum();
    let current = log.shared.current().expect("a segment");
    assert_eq!(segment_files(dir.path()).len(), 2);
    assert_eq!(sizes, log.bytes() - current.bytes + SEGMENT_BYTES);
}

#[test]
fn a_group_larger_than_a_segment_gets_one_of_its_size() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 1);
    assert_eq!(log.append_blocking(records(1..400)).expect("append"), 1);
    log.append_blocking(records(400..401)).expect("append");
    check(&log, 0..401);
    drop(log);
    check(&log_of(dir.path(), 0), 0..401);
}

#[test]
fn a_second_opener_is_refused_and_told_of_the_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 1);
    let reader = log.reader(0).expect("a reader");
    drop(log);
    let refused = DiskLog::open(dir.path(), options()).expect_err("a reader holds the log").to_string();
    assert!(refused.contains(&dir.path().display().to_string()) && refused.contains("in use"), "{refused}");
    drop(reader);
    check(&log_of(dir.path(), 0), 0..1);
}

#[test]
fn all_who_wait_are_answered_by_fewer_syncs_than_they_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let syncs = Arc::new(AtomicU64::new(0));
    let on_sync = {
        let syncs = syncs.clone();
        Arc::new(move |_| _ = syncs.fetch_add(1, Ordering::SeqCst))
    };
    let options = Options { on_sync: Some(on_sync), ..Options::log() };
    let log = DiskLog::open(dir.path(), options).expect("open");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let offsets = runtime.block_on(async {
        let appends: Vec<_> = (0..500)
            .map(|number| {
                let log = log.clone();
                tokio::spawn(async move { log.append(vec![record(number)]).await.expect("append") })
            })
            .collect();
        let mut offsets = BTreeSet::new();
        for append in appends {
            offsets.insert(append.await.expect("the append ends"));
        }
        offsets
    });
    assert_eq!(offsets, (0..500).collect());
    let syncs = syncs.load(Ordering::SeqCst);
    assert!((1..250).contains(&syncs), "{syncs} syncs for 500 appends");
}

#[test]
fn appends_wait_while_the_queue_is_full_and_all_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = DiskLog::open(dir.path(), Options::log()).expect("open");
    let big = |number| Record { value: Some(vec![7; 3 * 1024 * 1024].into()), ..record(number) };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let appends = (0..8).map(|number| {
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![big(number)]).await })
        });
        for append in appends.collect::<Vec<_>>() {
            append.await.expect("the append ends").expect("append");
        }
    });
    assert_eq!(log.bounds(), (0, 8));
}

#[test]
fn a_reader_follows_while_the_writer_appends() {
    const RECORDS: u64 = 300;
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 0);
    let writer = thread::spawn({
        let log = log.clone();
        move || {
            for first in (0..RECORDS).step_by(3) {
                log.append_blocking(records(first..first + 3)).expect("append");
            }
        }
    });
    let mut reader = log.reader(0).expect("a reader");
    for expected in 0..RECORDS {
        let (offset, found) = loop {
            let (_, end) = log.bounds();
            match reader.next().expect("read") {
                Some(entry) => break entry,
                None => assert!(end <= expected && log.wait_beyond(expected, Duration::from_secs(60)), "{expected}"),
            }
        };
        assert_eq!((offset, found), (expected, record(expected)));
        assert!(log.bounds().1 > offset, "only what is durable is read");
    }
    writer.join().expect("the writer ends");
}

#[test]
fn waiting_ends_when_the_time_is_up_or_the_log_has_grown() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 1);
    assert!(log.wait_beyond(0, Duration::ZERO));
    assert!(!log.wait_beyond(1, Duration::from_millis(1)));
    let waiting = thread::spawn({
        let log = log.clone();
        move || log.wait_beyond(1, Duration::from_secs(60))
    });
    log.append_blocking(records(1..2)).expect("append");
    assert!(waiting.join().expect("it ends"));
}

#[test]
fn a_log_at_its_limit_takes_no_more_until_something_is_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { bytes_max: Some(4 * SEGMENT_BYTES), ..options() };
    let log = DiskLog::open(dir.path(), options).expect("open");
    let mut number = 0;
    let refused = loop {
        match log.append_blocking(records(number..number + 1)) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full), "{refused}");
    assert!(log.bytes() <= 4 * SEGMENT_BYTES && log.bytes() > 3 * SEGMENT_BYTES, "{}", log.bytes());
    check(&log, 0..number);

    log.delete_before(number / 2).expect("delete");
    assert_eq!(log.append_blocking(records(number..number + 1)).expect("append"), number);
}

#[test]
fn whole_old_segments_are_deleted_and_readers_pass_over_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 100);
    let mut behind = log.reader(0).expect("a reader");
    assert_eq!(behind.next().expect("read"), Some((0, record(0))));

    log.delete_before(50).expect("delete");
    let (first, _) = log.bounds();
    assert!(first > 0 && first <= 50, "{first}");
    check(&log, first..100);
    let rest = std::iter::from_fn(|| behind.next().expect("read")).map(|(offset, _)| offset).collect::<Vec<_>>();
    assert!(rest.ends_with(&(first..100).collect::<Vec<_>>()), "{rest:?}");

    log.delete_before(u64::MAX).expect("delete");
    let (first, _) = log.bounds();
    assert!(first < 100, "the current segment stays");
    drop((log, behind));
    let log = log_of(dir.path(), 10);
    check(&log, first..110);
}

#[test]
fn old_records_are_deleted_by_their_time_and_the_current_segment_ends_for_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 100);
    let from = log.offset_at(Timestamp::from_s(60));
    assert!(from > 0 && from <= 60, "{from}");
    assert_eq!(log.offset_at(Timestamp::from_s(100)), 100);

    log.delete_older_than_and_before(Timestamp::from_s(60), 20).expect("delete");
    assert!(log.bounds().0 <= 20);
    log.delete_older_than(Timestamp::from_s(60)).expect("delete");
    check(&log, from..100);
    log.delete_older_than(Timestamp::from_s(1_000)).expect("delete");
    check(&log, 100..100);
    log.append_blocking(records(100..101)).expect("append");
    check(&log, 100..101);
    drop(log);
    assert_eq!(log_of(dir.path(), 0).offset_at(Timestamp::from_s(100)), 100);
}

#[test]
fn a_segment_that_is_old_takes_no_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { segment_age_max: Some(Duration::ZERO), ..options() };
    let log = DiskLog::open(dir.path(), options).expect("open");
    (0..4).for_each(|number| _ = log.append_blocking(records(number..number + 1)).expect("append"));
    assert_eq!(segment_files(dir.path()).len(), 4);
    check(&log, 0..4);
}

#[test]
fn a_crash_at_any_moment_leaves_what_was_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 0);
    for end in 1..40 {
        log.append_blocking(records(end - 1..end)).expect("append");
        let crashed = crashed(dir.path());
        check(&log_of(crashed.path(), 0), 0..end);
        // And the crash after that one.
        check(&log_of(crashed.path(), 1), 0..end + 1);
        check(&log_of(crashed.path(), 0), 0..end + 1);
    }
}
