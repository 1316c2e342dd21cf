//! Whatever happens while a batch is published, each log ends up with what follows from `raw`, once.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::super::storage::faulty;
use super::*;

const RAW_RECORDS: u64 = 40;

/// What follows from a raw event: for some an event, or two, for some a fact, for some nothing.
fn outputs(raw: u64) -> Vec<Output> {
    let output = |topic, part: u64| {
        let value = Some(Bytes::from(format!("{raw}/{part}")));
        let headers = vec![(header::RAW_OFFSET.into(), raw.to_string().into_bytes())];
        Output { topic, partition: PARTITION, record: Record { key: None, value, headers, at: Timestamp::now() } }
    };
    let mut outputs = vec![];
    if raw.is_multiple_of(2) {
        outputs.extend([output(Topic::Events, 0), output(Topic::Installations, 0)]);
    }
    if raw.is_multiple_of(3) {
        outputs.extend([output(Topic::Facts, 0), output(Topic::Events, 1)]);
    }
    if raw.is_multiple_of(5) {
        outputs.push(output(Topic::Unverified, 0));
    }
    if raw.is_multiple_of(7) {
        outputs.push(output(Topic::Rejected, 0));
    }
    outputs
}

fn raw(dir: &Path) -> DiskLog {
    let raw = DiskLog::open(&dir.join("raw"), Options::progress()).expect("open raw");
    let missing = raw.bounds().1..RAW_RECORDS;
    let record = |number: u64| Record { key: None, value: None, headers: vec![], at: Timestamp::from_s(number) };
    raw.append_blocking(missing.map(record).collect()).expect("append to raw");
    raw
}

fn open(files: &Files, dir: &Path) -> DiskEventLog {
    let options = Options::progress();
    DiskEventLog::open_on(files, dir, raw(dir), Upkeep::new(Retention::default()), &options)
        .expect("open the event log")
}

/// Reads on where the last process left off, and publishes in batches of this size.
fn process(event_log: &mut DiskEventLog, batch: usize) -> Result<(), EventLogError> {
    let mut from = event_log.committed(PARTITION)?.unwrap_or(0);
    while from < RAW_RECORDS {
        let until = RAW_RECORDS.min(from + batch as u64);
        let all = (from..until).flat_map(outputs).collect();
        event_log.publish(all, &[Position { partition: PARTITION, offset: until }])?;
        from = until;
    }
    Ok(())
}

/// Every log holds what follows from all of `raw`, once, in order.
fn check(event_log: &mut DiskEventLog) {
    assert_eq!(event_log.committed(PARTITION).expect("committed"), Some(RAW_RECORDS));
    for topic in PUBLISHED {
        let all = (0..RAW_RECORDS).flat_map(outputs).filter(|output| output.topic == topic);
        let expected: Vec<_> = all.map(|output| output.record.value).collect();
        let mut found = vec![];
        let log = event_log.log(topic).expect("a log").clone();
        let mut reader = log.reader(0).expect("a reader");
        while let Some((_, record)) = reader.next().expect("read") {
            found.push(record.value);
        }
        assert_eq!(found, expected, "{}", topic.name());
    }
}

#[test]
fn a_disk_that_dies_at_any_sync_costs_and_doubles_nothing() {
    for before in [7, 40] {
        let mut syncs = 0;
        loop {
            let dir = tempfile::tempdir().expect("a directory");
            // Opening takes syncs of its own, which are not what this is about.
            let (files, faults) = faulty::files();
            let mut event_log = open(&files, dir.path());
            faults.dies_after.store(syncs, Ordering::SeqCst);
            let published = process(&mut event_log, before);
            drop(event_log);
            for again in [3, 40] {
                let mut event_log = open(&Files::default(), dir.path());
                process(&mut event_log, again).expect("publish");
                check(&mut event_log);
            }
            match published {
                Ok(()) => break,
                Err(error) => assert!(matches!(error, EventLogError::Fatal(_)), "{error}"),
            }
            syncs += 1;
        }
        assert!(syncs >= 5, "{syncs}");
    }
}

#[test]
fn a_kill_between_any_two_logs_costs_and_doubles_nothing() {
    const BATCH: u64 = 16;
    for steps in 0..=6 {
        for again in [1, 5, 40] {
            let dir = tempfile::tempdir().expect("a directory");
            let mut event_log = open(&Files::default(), dir.path());
            // The first batch whole, of the second what the steps before the kill did.
            let first: Vec<_> = (0..BATCH).flat_map(outputs).collect();
            event_log.publish(first, &[Position { partition: PARTITION, offset: BATCH }]).expect("publish");
            for topic in &PUBLISHED[..steps.min(5)] {
                let all = (BATCH..2 * BATCH).flat_map(outputs).filter(|output| output.topic == *topic);
                let records = all.map(|output| output.record).collect();
                event_log.log(*topic).expect("a log").append_blocking(records).expect("append");
            }
            if steps == 6 {
                event_log.progress.append_blocking(vec![progress(2 * BATCH)]).expect("append");
            }
            drop(event_log);

            let mut event_log = open(&Files::default(), dir.path());
            // The last fact of the second batch follows from 30.
            let expected = [BATCH, BATCH, BATCH, BATCH, BATCH, 31, 2 * BATCH][steps];
            assert_eq!(event_log.committed(PARTITION).expect("committed"), Some(expected));
            process(&mut event_log, again).expect("publish");
            check(&mut event_log);
            drop(event_log);
            check(&mut open(&Files::default(), dir.path()));
        }
    }
}

#[test]
fn a_batch_that_failed_may_be_published_again_by_the_same_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let (files, faults) = faulty::files();
    let mut event_log = open(&files, dir.path());
    // Events get through, unverified do not.
    faults.dies_after.store(1, Ordering::SeqCst);
    let error = process(&mut event_log, 40).expect_err("the disk is dead").to_string();
    assert!(error.starts_with("publish to the log unverified"), "{error}");
    faults.dies_after.store(-1, Ordering::SeqCst);
    let begun = Instant::now();
    while process(&mut event_log, 9).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the disk is well again");
        std::thread::yield_now();
    }
    check(&mut event_log);
}

#[test]
fn raw_comes_from_the_start_on_in_batches_and_then_as_it_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut event_log = open(&Files::default(), dir.path());
    let identity = event_log.identity().to_owned();
    assert!(matches!(event_log.next(Duration::ZERO), Ok(LogEvent::Assigned(partitions)) if partitions == [PARTITION]));
    assert!(matches!(event_log.next(Duration::ZERO), Ok(LogEvent::Quiet)), "nothing comes before the start");

    event_log.start(&[Position { partition: PARTITION, offset: 10 }]).expect("start");
    assert_eq!(offsets(event_log.next(Duration::ZERO)), (10..RAW_RECORDS).collect::<Vec<_>>());
    assert!(matches!(event_log.next(Duration::from_millis(1)), Ok(LogEvent::Quiet)));
    let many = vec![Record { key: None, value: None, headers: vec![], at: Timestamp::now() }; 700];
    event_log.raw.append_blocking(many).expect("append");
    assert_eq!(offsets(event_log.next(Duration::from_secs(60))), (40..540).collect::<Vec<_>>());
    assert_eq!(offsets(event_log.next(Duration::from_secs(60))), (540..740).collect::<Vec<_>>());

    let offset = 741;
    let refused =
        event_log.start(&[Position { partition: PARTITION, offset }]).expect_err("beyond the end").to_string();
    assert!(refused.contains("raw holds 0 to 740"), "{refused}");
    drop(event_log);
    assert_eq!(open(&Files::default(), dir.path()).identity(), identity);
}

fn offsets(event: Result<LogEvent, EventLogError>) -> Vec<u64> {
    match event.expect("an event") {
        LogEvent::Raw(entries) => entries.iter().map(|entry| entry.position.offset).collect(),
        other @ (LogEvent::Facts(_) | LogEvent::Assigned(_) | LogEvent::Revoked(_) | LogEvent::Quiet) => {
            panic!("{other:?}")
        }
    }
}

#[test]
fn facts_are_read_between_two_offsets_and_publishing_says_where_they_lie() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut event_log = open(&Files::default(), dir.path());
    assert_eq!(event_log.committed(PARTITION).expect("committed"), None);
    let at = |offset| Position { partition: PARTITION, offset };
    let facts = event_log.publish((0..10).flat_map(outputs).collect(), &[at(10)]).expect("publish");
    assert_eq!(facts, FactOffsets::from([(PARTITION, vec![0, 1, 2, 3])]));
    assert_eq!(event_log.publish(vec![], &[at(12)]).expect("publish"), FactOffsets::new());
    let more = event_log.publish((12..16).flat_map(outputs).collect(), &[at(16)]).expect("publish");
    assert_eq!(more, FactOffsets::from([(PARTITION, vec![4, 5])]));
    assert_eq!(event_log.bounds(Topic::Facts, PARTITION).expect("bounds"), (0, 6));
    assert_eq!(event_log.committed(PARTITION).expect("committed"), Some(16));

    let mut values = vec![];
    let visit = &mut |entry: Entry| {
        values.push((entry.position.offset, entry.record.value.expect("a value")));
        ControlFlow::Continue(())
    };
    event_log.read(Topic::Facts, at(1), 3, visit).expect("read");
    assert_eq!(values, [(1, "3/0".into()), (2, "6/0".into())]);
}

#[test]
fn records_that_do_not_say_what_they_follow_from_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut event_log = open(&Files::default(), dir.path());
    let read = [Position { partition: PARTITION, offset: 5 }];
    let mut without = outputs(2);
    without[0].record.headers.clear();
    for bad in [without, outputs(6)] {
        assert!(matches!(event_log.publish(bad, &read), Err(EventLogError::Fatal(_))));
    }
    assert_eq!(event_log.bounds(Topic::Events, PARTITION).expect("bounds"), (0, 0));
    assert!(matches!(event_log.bounds(Topic::Permissions, PARTITION), Err(EventLogError::Fatal(_))));
    assert!(matches!(event_log.bounds(Topic::Facts, 1), Err(EventLogError::Fatal(_))));
}

#[test]
fn old_records_of_raw_go_but_never_what_was_not_read_yet() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut event_log = open(&Files::default(), dir.path());
    event_log.next(Duration::ZERO).expect("assigned");
    event_log.next(Duration::ZERO).expect("quiet");
    assert_eq!(event_log.raw.bounds(), (0, RAW_RECORDS), "all of it is old, none of it was read");

    process(&mut event_log, 40).expect("publish");
    event_log.retained_at = None;
    event_log.next(Duration::ZERO).expect("quiet");
    assert_eq!(event_log.raw.bounds(), (RAW_RECORDS, RAW_RECORDS));
    assert_eq!(event_log.bounds(Topic::Facts, PARTITION).expect("bounds"), (0, 14));
    assert!(event_log.bounds(Topic::Events, PARTITION).expect("bounds").0 == 0, "these are young");
}

#[test]
fn the_log_of_progress_stays_small() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut event_log = open(&Files::default(), dir.path());
    let bytes = usize::try_from(3 * 256 * 1024_u64).expect("small");
    let filler = Record { key: None, value: Some(vec![0; bytes].into()), headers: vec![], at: Timestamp::now() };
    event_log.progress.append_blocking(vec![filler]).expect("append");
    process(&mut event_log, 40).expect("publish");
    assert!(event_log.progress.bytes() < 1024, "{}", event_log.progress.bytes());
    drop(event_log);
    check(&mut open(&Files::default(), dir.path()));
}

#[test]
fn a_correction_of_what_lies_far_behind_is_kept_and_moves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut event_log = open(&Files::default(), dir.path());
    process(&mut event_log, 7).expect("published");
    let corrected = Some(Bytes::from("corrected"));
    let header = |name: &'static str, value: &str| (name.into(), value.as_bytes().to_vec());
    let headers = vec![header(header::RAW_OFFSET, "3"), header(header::CORRECTION, "other")];
    let record = Record { key: None, value: corrected.clone(), headers, at: Timestamp::now() };
    let read = [Position { partition: PARTITION, offset: RAW_RECORDS }];
    let output = Output { topic: Topic::Facts, partition: PARTITION, record };
    let offsets = event_log.publish(vec![output], &read).expect("published");
    let newest = last(event_log.log(Topic::Facts).expect("a log")).expect("read").expect("a record");
    assert_eq!(
        (newest.value, offsets[&PARTITION][0] + 1),
        (corrected, event_log.bounds(Topic::Facts, PARTITION).expect("bounds").1)
    );
    drop(event_log);
    // Also where only the logs themselves tell how far they go.
    std::fs::remove_dir_all(dir.path().join(PROGRESS)).expect("removed");
    let mut again = open(&Files::default(), dir.path());
    assert_eq!(again.committed(PARTITION).expect("committed"), Some(RAW_RECORDS));
}

/// an event log whose logs find room when `files` say so, and the token that ends its waiting.
fn waiting(files: &Files, dir: &Path) -> (DiskEventLog, Upkeep, runtime::lifecycle::Stop) {
    let stop = runtime::lifecycle::Stop::default();
    let upkeep = Upkeep::new(Retention::default()).until(stop.clone());
    let event_log = DiskEventLog::open_on(files, dir, raw(dir), upkeep.clone(), &Options::progress()).expect("open");
    (event_log, upkeep, stop)
}

/// What follows from all of `raw`, each record too large for what is left of any segment.
fn large() -> Vec<Output> {
    let mut all: Vec<_> = (0..RAW_RECORDS).flat_map(outputs).collect();
    let filler = ("filler".into(), vec![0; 64 * 1024]);
    for output in &mut all {
        output.record.headers.push(filler.clone());
    }
    all
}

#[test]
fn what_finds_no_room_waits_for_it_and_is_published_once_in_its_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let (files, faults) = faulty::files();
    let (mut event_log, upkeep, _stop) = waiting(&files, dir.path());
    let gauge = runtime::telemetry::registry();
    upkeep.register(&gauge, &runtime::lifecycle::Readiness::default());
    let waits = || {
        gauge.gather().iter().any(|family| {
            family.name().ends_with("derived_logs_wait_for_room")
                && family.get_metric()[0].get_gauge().get_value() > 0.0
        })
    };
    let lengths = |event_log: &DiskEventLog| PUBLISHED.map(|topic| event_log.log(topic).expect("a log").bounds().1);
    faults.full.store(true, Ordering::SeqCst);
    let logs = PUBLISHED.map(|topic| event_log.log(topic).expect("a log").clone());
    let at = Position { partition: PARTITION, offset: RAW_RECORDS };
    let publishing = std::thread::spawn(move || event_log.publish(large(), &[at]).map(|_| event_log));
    let begun = Instant::now();
    while !waits() {
        assert!(begun.elapsed() < Duration::from_secs(60) && !publishing.is_finished(), "it waits");
        std::thread::yield_now();
    }
    assert_eq!(logs[3].bounds().1, 0, "facts come last");
    faults.full.store(false, Ordering::SeqCst);
    let event_log = publishing.join().expect("no panic").expect("published");
    assert!(!waits());
    let expected = PUBLISHED.map(|topic| large().iter().filter(|output| output.topic == topic).count() as u64);
    assert_eq!(lengths(&event_log), expected);
    drop((event_log, logs));
    assert_eq!(open(&Files::default(), dir.path()).committed(PARTITION).expect("committed"), Some(RAW_RECORDS));
}

#[test]
fn waiting_ends_with_the_process_and_the_next_one_publishes_the_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let (files, faults) = faulty::files();
    let (mut event_log, _, stop) = waiting(&files, dir.path());
    faults.full.store(true, Ordering::SeqCst);
    stop.request();
    let at = Position { partition: PARTITION, offset: RAW_RECORDS };
    assert!(matches!(event_log.publish(large(), &[at]), Err(EventLogError::Reopen(_))));
    drop(event_log);
    // It comes up where not even a segment can be made.
    let (event_log, ..) = waiting(&files, dir.path());
    drop(event_log);
    let mut event_log = open(&Files::default(), dir.path());
    assert_eq!(event_log.committed(PARTITION).expect("committed"), None);
    process(&mut event_log, 7).expect("published");
    check(&mut event_log);
}

#[test]
fn what_is_old_enough_makes_room_while_something_waits() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut event_log = open(&Files::default(), dir.path());
    let old = |number: u64| Record {
        key: None,
        value: Some(vec![0; 100 * 1024].into()),
        headers: vec![(header::RAW_OFFSET.into(), number.to_string().into_bytes())],
        at: Timestamp::from_s(number),
    };
    let events = event_log.log(Topic::Events).expect("a log").clone();
    (0..8).for_each(|number| _ = events.append_blocking(vec![old(number)]).expect("append"));
    event_log.published[0].until = 8;
    assert_eq!(events.bounds(), (0, 8));
    event_log.retain_while_waiting();
    let (first, end) = events.bounds();
    assert!(first > 0 && end == 8, "{first}");
    assert_eq!(until(&events).expect("read"), 8, "the last record tells how far the log goes");
}

#[test]
fn the_oldest_unverified_events_give_way_and_are_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let upkeep = Upkeep::new(Retention::default()).with_unverified_limit(2 * 256 * 1024);
    let registry = runtime::telemetry::registry();
    upkeep.register(&registry, &runtime::lifecycle::Readiness::default());
    let mut event_log =
        DiskEventLog::open_on(&Files::default(), dir.path(), raw(dir.path()), upkeep, &Options::progress())
            .expect("open");
    for raw in (0..RAW_RECORDS).step_by(5) {
        let mut all = outputs(raw);
        for output in &mut all {
            output.record.value = Some(vec![0; 100 * 1024].into());
        }
        event_log.publish(all, &[Position { partition: PARTITION, offset: raw + 1 }]).expect("published");
    }
    let (first, end) = event_log.bounds(Topic::Unverified, PARTITION).expect("bounds");
    assert!(end == 8 && first > 0, "{first}");
    assert!(event_log.log(Topic::Unverified).expect("a log").bytes() <= 3 * 256 * 1024);
    assert_eq!(event_log.bounds(Topic::Facts, PARTITION).expect("bounds").0, 0);
    let gone = registry
        .gather()
        .iter()
        .find(|family| family.name().ends_with("unverified_events_gave_way_total"))
        .map(|family| family.get_metric()[0].get_counter().get_value());
    assert_eq!(gone, Some(f64::from(u32::try_from(first).expect("few"))));
}

#[test]
fn raw_leaves_room_for_what_follows_from_it_until_that_is_published() {
    let dir = tempfile::tempdir().expect("a directory");
    let (files, faults) = faulty::files();
    let leaves = Leaves { bytes: 1_000, times_unused: 8 };
    let options = Options { leaves, ..Options::log() };
    let log = DiskLog::open_on(files.clone(), &dir.path().join("raw"), options).expect("open raw");
    let record =
        |bytes: usize| Record { key: None, value: Some(vec![1; bytes].into()), headers: vec![], at: Timestamp::now() };
    let upkeep = Upkeep::new(Retention::default());
    let mut event_log =
        DiskEventLog::open_on(&Files::default(), dir.path(), log.clone(), upkeep, &Options::progress()).expect("open");
    event_log.next(Duration::ZERO).expect("assigned");
    event_log.start(&[Position { partition: PARTITION, offset: 0 }]).expect("start");

    // Room for 10,000 bytes with what follows.
    faults.room.store(1_000 + 80_000, Ordering::SeqCst);
    for _ in 0..4 {
        log.append_blocking(vec![record(2_000)]).expect("there is room for it and what follows");
    }
    assert!(matches!(log.append_blocking(vec![record(2_000)]), Err(AppendError::Full)));
    assert!(log.fault().is_some(), "it says so");
    assert_eq!(offsets(event_log.next(Duration::ZERO)), [0, 1, 2, 3]);
    assert!(matches!(log.append_blocking(vec![record(2_000)]), Err(AppendError::Full)), "nothing is published yet");
    event_log.publish(vec![], &[Position { partition: PARTITION, offset: 2 }]).expect("published");
    let begun = Instant::now();
    while log.append_blocking(vec![record(2_000)]).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "there is room again");
        std::thread::yield_now();
    }
    assert_eq!(log.fault(), None);
    // Nothing of the disk itself was taken meanwhile: segments are made ahead.
    faults.room.store(1_000 + 8 * 100, Ordering::SeqCst);
    assert!(matches!(log.append_blocking(vec![record(200)]), Err(AppendError::Full)));
}
