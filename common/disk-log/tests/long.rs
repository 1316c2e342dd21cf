//! However long a log is, it takes no more memory: written, opened, read and delivered from one end to the other.
//!
//! `HOOKLEDGER_TEST_LOG_RECORDS` says how long. The test has a process of its own, whose memory it measures.

use std::fs;
use std::time::Instant;

use bytes::Bytes;
use disk_log::{Delivered, DiskLog, Options};
use event_log::Record;
use primitives::time::Timestamp;
use tests::random::number;
use tests::wait::report;

const RECORDS: u64 = 400_000;
const GROUP: u64 = 500;
/// What the longest log may take more than the first tenth of it did. The log itself is about 100 bytes a record.
const GROWTH_BYTES_MAX: u64 = 24 * 1024 * 1024;

#[test]
fn a_log_takes_no_more_memory_the_longer_it_is() {
    let records = number("HOOKLEDGER_TEST_LOG_RECORDS").unwrap_or(RECORDS);
    let dir = tempfile::tempdir().expect("a directory");
    let options = || Options { bytes_max: None, segment_bytes: 1024 * 1024, ..Options::spool(u64::MAX) };
    let begun = Instant::now();

    let log = DiskLog::open(dir.path(), options()).expect("open");
    append(&log, records / 10);
    let before = peak_bytes();
    append(&log, records);
    drop(log);
    let log = DiskLog::open(dir.path(), options()).expect("open");
    let delivered = Delivered::load(&log).expect("load");
    assert_eq!(delivered.undelivered(), records);

    // A window of entries is on its way, and is delivered out of order; everything else follows.
    let mut reader = log.reader(0).expect("a reader");
    let mut window = Vec::new();
    while let Some((offset, found)) = reader.next().expect("read") {
        assert_eq!(found.at.ms(), offset);
        window.push(offset);
        if window.len() == 20_000 {
            window.iter().step_by(2).for_each(|offset| delivered.deliver(*offset));
            window.drain(..).skip(1).step_by(2).for_each(|offset| delivered.deliver(offset));
            delivered.save().expect("save");
        }
    }
    for offset in window {
        delivered.deliver(offset);
    }
    delivered.save().expect("save");
    assert_eq!((delivered.watermark(), delivered.undelivered()), (records, 0));
    assert_eq!(fs::read_dir(dir.path()).expect("list").filter(is_segment).count(), 1, "the current one alone is left");
    let grown = peak_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more at the end than after a tenth");
    report(&format!(
        "{records} records through a disk log in {:.1?}: {} KiB more memory",
        begun.elapsed(),
        grown / 1024
    ));
}

fn is_segment(entry: &std::io::Result<fs::DirEntry>) -> bool {
    let entry = entry.as_ref().expect("an entry");
    entry.path().extension().is_some_and(|extension| extension == "segment")
}

fn append(log: &DiskLog, until: u64) {
    while log.bounds().1 < until {
        let first = log.bounds().1;
        let group = (first..until.min(first + GROUP)).map(record).collect();
        assert_eq!(log.append_blocking(group).expect("append"), first);
    }
}

fn record(number: u64) -> Record {
    let value = Some(Bytes::from(vec![7; 60]));
    Record { key: Some(format!("app/{number}")), value, headers: vec![], at: Timestamp::from_ms(number) }
}

/// The most memory that this process has had so far.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}
