//! A disk that fails.

use std::time::Instant;

use super::super::storage::faulty::{self, Faults};
use super::*;

fn failing(dir: &Path) -> (DiskLog, Arc<Faults>) {
    let (files, faults) = faulty::files();
    (DiskLog::open_on(files, dir, options()).expect("open"), faults)
}

#[test]
fn after_a_failed_sync_the_file_is_abandoned_and_who_waits_is_answered_from_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, faults) = failing(dir.path());
    log.append_blocking(records(0..3)).expect("append");
    let abandoned = log.shared.current().expect("a segment");
    faults.syncs.store(1, Ordering::SeqCst);
    assert_eq!(log.append_blocking(records(3..5)).expect("append"), 3);
    log.append_blocking(records(5..6)).expect("append");

    let current = log.shared.current().expect("a segment");
    assert_eq!((current.number, current.base), (abandoned.number + 1, 3));
    check(&log, 0..6);
    let crashed = crashed(dir.path());
    check(&log_of(crashed.path(), 0), 0..6);
    drop(log);
    check(&log_of(dir.path(), 1), 0..7);
}

#[test]
fn after_a_short_write_it_is_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, faults) = failing(dir.path());
    log.append_blocking(records(0..3)).expect("append");
    faults.writes.store(1, Ordering::SeqCst);
    assert_eq!(log.append_blocking(records(3..5)).expect("append"), 3);
    check(&log, 0..5);
    drop(log);
    check(&log_of(dir.path(), 0), 0..5);
}

#[test]
fn when_the_next_file_fails_too_the_append_does_and_later_ones_may_succeed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, faults) = failing(dir.path());
    log.append_blocking(records(0..3)).expect("append");
    faults.syncs.store(2, Ordering::SeqCst);
    let failed = log.append_blocking(vec![record(100)]).expect_err("both failed");
    assert!(matches!(failed, AppendError::Io(_)), "{failed}");
    check(&log, 0..3);

    append_in_time(&log, 3);
    append_in_time(&log, 4);
    check(&log, 0..5);
    let crashed = crashed(dir.path());
    check(&log_of(crashed.path(), 0), 0..5);
}

#[test]
fn without_room_for_a_segment_the_log_is_full_once_the_current_one_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, faults) = failing(dir.path());
    faults.full.store(true, Ordering::SeqCst);
    let mut number = 0;
    let refused = loop {
        match log.append_blocking(records(number..number + 1)) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full), "{refused}");
    assert!(number > 10, "{number}");
    check(&log, 0..number);

    faults.full.store(false, Ordering::SeqCst);
    append_in_time(&log, number);
    check(&log, 0..number + 1);
    drop(log);
    check(&log_of(dir.path(), 0), 0..number + 1);
}

#[test]
fn a_new_log_on_a_full_disk_is_opened_and_takes_records_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let (files, faults) = faulty::files();
    faults.full.store(true, Ordering::SeqCst);
    let log = DiskLog::open_on(files.clone(), dir.path(), options()).expect("open");
    assert!(log.fault().is_some());
    assert!(matches!(log.append_blocking(records(0..1)), Err(AppendError::Full)));
    faults.full.store(false, Ordering::SeqCst);
    append_in_time(&log, 0);
    let identity = log.identity();
    check(&log, 0..1);
    drop(log);
    let log = log_of(dir.path(), 1);
    assert_eq!(log.identity(), identity);
    check(&log, 0..2);
}

#[test]
fn what_found_no_room_is_waited_for_before_the_log_says_that_it_is_well() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, faults) = failing(dir.path());
    let large = || Record { value: Some(vec![7; 200 * 1024].into()), ..record(0) };
    faults.room.store(100 * 1024, Ordering::SeqCst);
    assert!(matches!(log.append_blocking(vec![large()]), Err(AppendError::Full)));
    let begun = Instant::now();
    while begun.elapsed() < 4 * RETRY_AFTER {
        assert!(log.fault().is_some(), "it has not the room that was asked for");
        thread::yield_now();
    }
    // A small one has room all the same.
    log.append_blocking(vec![record(0)]).expect("append");
    faults.mend();
    let begun = Instant::now();
    while log.append_blocking(vec![large()]).is_err() || log.fault().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is well again");
        thread::yield_now();
    }
}

#[test]
fn what_is_deleted_behind_an_empty_segment_that_cannot_be_removed_leaves_no_hole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, faults) = failing(dir.path());
    let empty = segment_files(dir.path());
    faults.removals.store(u32::MAX, Ordering::SeqCst);
    // Too large for the first segment, which ends without a record.
    log.append_blocking(records(0..100)).expect("append");
    (100..140).for_each(|number| _ = log.append_blocking(records(number..number + 1)).expect("append"));
    assert!(segment_files(dir.path()).starts_with(&empty), "it could not be removed");

    assert!(log.delete_before(120).is_err(), "nothing can be removed");
    check(&log_of(crashed(dir.path()).path(), 0), 0..140);
    faults.mend();
    log.delete_before(120).expect("delete");
    let (first, _) = log.bounds();
    check(&log_of(crashed(dir.path()).path(), 0), first..140);
    assert!(first >= 100 && !segment_files(dir.path()).starts_with(&empty), "{first}");
    drop(log);
    check(&log_of(dir.path(), 0), first..140);
}

/// Appends as soon as the writer tries again.
fn append_in_time(log: &DiskLog, number: u64) {
    let begun = Instant::now();
    while log.append_blocking(records(number..number + 1)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never tries again");
        thread::yield_now();
    }
}

#[test]
fn unanswered_records_of_a_disk_that_died_surface_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, faults) = failing(dir.path());
    log.append_blocking(records(0..3)).expect("append");
    faults.syncs.store(u32::MAX, Ordering::SeqCst);
    log.append_blocking(records(3..6)).expect_err("the disk is dead");
    drop(log);
    let log = log_of(dir.path(), 0);
    let end = log.bounds().1;
    assert!(end == 3 || end == 6, "{end}");
    check(&log, 0..end);
}
