//! Files that are not as they were written.

use std::os::unix::fs::FileExt;

use super::super::frame::MARK_BYTES;
use super::super::segment::{HEADER_BYTES, Segment};
use super::*;

/// A log that a crash left with records in one segment, and where that segment's records end. The crash
/// came before the mark behind the last record.
fn left(dir: &Path, records: u64) -> (tempfile::TempDir, PathBuf, u64) {
    let log = log_of(dir, records);
    let Segment { number, bytes, .. } = log.shared.current().expect("a segment");
    let crashed = crashed(dir);
    let path = segment::path(crashed.path(), number);
    write(&path, bytes, &[0; MARK_BYTES]);
    (crashed, path, bytes)
}

fn write(path: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(path).and_then(|file| file.write_all_at(bytes, at)).expect("write");
}

/// Where the last record of one more begins.
fn last_record(dir: &Path, records: u64) -> u64 {
    left(dir, records).2
}

fn copy_of(dir: &Path, file: &Path) -> (tempfile::TempDir, PathBuf) {
    let copy = crashed(dir);
    let path = copy.path().join(file.file_name().expect("a name"));
    (copy, path)
}

#[test]
fn a_tail_that_is_cut_anywhere_costs_only_its_own_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let begin = last_record(dir.path(), 4);
    drop(fs::remove_dir_all(dir.path()));
    let (crashed, path, end) = left(dir.path(), 5);
    for cut in begin..=end {
        let (copy, path) = copy_of(crashed.path(), &path);
        let file = File::options().write(true).open(path).expect("open");
        file.set_len(cut).expect("cut");
        check(&log_of(copy.path(), 0), 0..if cut == end { 5 } else { 4 });
        check(&log_of(copy.path(), 1), 0..if cut == end { 6 } else { 5 });
    }
}

#[test]
fn garbage_anywhere_in_the_last_record_costs_only_that_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let begin = last_record(dir.path(), 4);
    drop(fs::remove_dir_all(dir.path()));
    let (crashed, path, end) = left(dir.path(), 5);
    for at in begin..end {
        let (copy, path) = copy_of(crashed.path(), &path);
        flip(&path, at);
        check(&log_of(copy.path(), 0), 0..4);
    }
    // And behind it, nothing at all.
    flip(&path, end + 40);
    check(&log_of(crashed.path(), 0), 0..5);
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x40], at).expect("write");
}

#[test]
fn a_damaged_record_of_an_older_segment_is_corruption_and_never_served() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(log_of(dir.path(), 100));
    let oldest = &segment_files(dir.path())[0];
    let bytes = fs::metadata(oldest).expect("there").len();
    flip(oldest, bytes / 2);

    let log = log_of(dir.path(), 0);
    let mut reader = log.reader(0).expect("a reader");
    let error = loop {
        match reader.next() {
            Ok(entry) => assert_eq!(entry.map(|(offset, found)| found == record(offset)), Some(true)),
            Err(error) => break error,
        }
    };
    let text = error.to_string();
    assert!(text.starts_with("corrupt disk log") && text.contains(&oldest.display().to_string()), "{text}");
    assert!(reader.next().is_err(), "it does not go on behind the damage");
}

#[test]
fn damage_anywhere_before_what_was_synced_later_is_refused_and_costs_nothing_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let begin = last_record(dir.path(), 5);
    drop(fs::remove_dir_all(dir.path()));
    let (crashed, path, _) = left(dir.path(), 6);
    // Lengths, checksums, kinds, marks and records alike, up to the mark with which the last write begins.
    for at in HEADER_BYTES..begin {
        let (copy, path) = copy_of(crashed.path(), &path);
        flip(&path, at);
        let refused = DiskLog::open(copy.path(), options()).expect_err("damage").to_string();
        let place = refused.contains(&path.display().to_string()) && refused.contains(", byte ");
        assert!(place || refused.contains("from byte"), "{refused}");
        assert!(refused.contains("damaged now") && refused.contains("hookledger salvage --dir"), "{refused}");
    }
    for at in 0..HEADER_BYTES {
        let (copy, path) = copy_of(crashed.path(), &path);
        flip(&path, at);
        let refused = DiskLog::open(copy.path(), options()).expect_err("damage").to_string();
        assert!(refused.contains("its header is damaged"), "{refused}");
    }
}

#[test]
fn a_block_that_was_synced_and_reads_as_zeros_is_damage() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = DiskLog::open(dir.path(), Options::progress()).expect("open");
    (0..200).for_each(|number| _ = log.append_blocking(records(number..number + 1)).expect("append"));
    let crashed = crashed(dir.path());
    let path = segment::path(crashed.path(), log.shared.current().expect("a segment").number);
    write(&path, 4096, &[0; 4096]);
    let refused = DiskLog::open(crashed.path(), Options::progress()).expect_err("damage").to_string();
    assert!(refused.contains("of the records at offsets") && refused.contains("were synced"), "{refused}");
}

#[test]
fn after_an_orderly_end_damage_to_the_last_record_is_known_for_what_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 5);
    let Segment { number, bytes, .. } = log.shared.current().expect("a segment");
    drop(log);
    flip(&segment::path(dir.path(), number), bytes - 3);
    let refused = DiskLog::open(dir.path(), options()).expect_err("damage").to_string();
    assert!(refused.contains("the record at offset 4"), "{refused}");
}

#[test]
fn a_record_at_another_offset_does_not_pass_for_the_one_that_belongs_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = DiskLog::open(dir.path(), options()).expect("open");
    // Two of one length.
    let end_of = |number| {
        log.append_blocking(vec![record(number)]).expect("append");
        log.shared.current().expect("a segment").bytes
    };
    let (first, second) = (end_of(150), end_of(200));
    let crashed = crashed(dir.path());
    let path = segment::path(crashed.path(), log.shared.current().expect("a segment").number);
    let begin = HEADER_BYTES + MARK_BYTES as u64;
    let bytes = fs::read(&path).expect("read");
    let frame = &bytes[usize::try_from(begin).expect("small")..usize::try_from(first).expect("small")];
    assert_eq!(first - begin, second - first - MARK_BYTES as u64);
    write(&path, first + MARK_BYTES as u64, frame);
    write(&path, second, &[0; MARK_BYTES]);
    assert_eq!(read(&log_of(crashed.path(), 0), 0).expect("read"), [(0, record(150))]);
}

#[test]
fn an_older_segment_that_is_cut_damaged_or_gone_is_refused() {
    type Damage = fn(&[PathBuf]);
    let damages: [(&str, Damage); 4] = [
        ("and had", |files| {
            File::options().write(true).open(&files[1]).expect("open").set_len(300).expect("cut");
        }),
        ("its header is damaged", |files| flip(&files[1], 20)),
        ("it is missing", |files| fs::remove_file(&files[1]).expect("remove")),
        ("it was renamed", |files| {
            fs::rename(&files[1], files[1].with_file_name("00000000000000000999.segment")).expect("rename");
        }),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    drop(log_of(dir.path(), 100));
    for (why, damage) in damages {
        let copy = crashed(dir.path());
        damage(&segment_files(copy.path()));
        let refused = DiskLog::open(copy.path(), options()).expect_err(why).to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn a_segment_that_was_being_deleted_when_the_next_one_began_stays_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 5);
    let doomed = segment_files(dir.path())[0].clone();
    let bytes = fs::read(&doomed).expect("read");
    log.delete_older_than(Timestamp::from_s(100)).expect("delete");
    check(&log, 5..5);
    drop(log);
    check(&log_of(dir.path(), 1), 5..6);
    // Its deletion had not reached the disk.
    fs::write(&doomed, bytes).expect("write");
    check(&log_of(dir.path(), 0), 5..6);
    assert!(!doomed.exists());
    check(&log_of(dir.path(), 0), 5..6);
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("another"));
    drop((log_of(dir.path(), 100), log_of(other.path(), 100)));
    fs::copy(&segment_files(other.path())[1], &segment_files(dir.path())[1]).expect("copy");
    let refused = DiskLog::open(dir.path(), options()).expect_err("refused").to_string();
    assert!(refused.contains("it belongs to another log"), "{refused}");
}

#[test]
fn of_a_group_that_was_half_written_nothing_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log_of(dir.path(), 2);
    let begin = log.shared.current().expect("a segment").bytes;
    log.append_blocking(records(2..6)).expect("append");
    let Segment { number, bytes, .. } = log.shared.current().expect("a segment");
    let crashed_at = crashed(dir.path());
    for cut in begin..=bytes {
        let copy = crashed(crashed_at.path());
        File::options()
            .write(true)
            .open(segment::path(copy.path(), number))
            .and_then(|file| file.set_len(cut))
            .expect("cut");
        check(&log_of(copy.path(), 0), 0..if cut == bytes { 6 } else { 2 });
    }
}

#[test]
fn a_record_of_another_segment_does_not_pass_for_one_of_this() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, _, _) = left(dir.path(), 3);
    let other = crashed(one.path());

    // The same log goes on twice, in two segments that differ in nothing but their ids.
    let (log, log_of_other) = (log_of(one.path(), 0), log_of(other.path(), 0));
    let (current, current_of_other) = (log.shared.current(), log_of_other.shared.current());
    let Segment { number, bytes: begin, .. } = current.expect("a segment");
    assert_eq!(current_of_other.map(|segment| (segment.number, segment.bytes)), Some((number, begin)));
    log.append_blocking(records(3..4)).expect("append");
    let end = log.shared.current().expect("a segment").bytes;
    drop((log, log_of_other));

    let mut frame = vec![0; usize::try_from(end - begin).expect("small")];
    let (file, file_of_other) = (segment::path(one.path(), number), segment::path(other.path(), number));
    File::open(&file).and_then(|file| file.read_exact_at(&mut frame, begin)).expect("read");
    File::options().write(true).open(file_of_other).and_then(|file| file.write_all_at(&frame, begin)).expect("write");
    check(&log_of(one.path(), 0), 0..4);
    check(&log_of(other.path(), 0), 0..3);
}

#[test]
fn a_spare_that_was_used_before_brings_nothing_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (crashed, used, _) = left(dir.path(), 5);
    fs::copy(&used, crashed.path().join("spare")).expect("copy");
    let log = log_of(crashed.path(), 1);
    check(&log, 0..6);
    drop(log);
    check(&log_of(crashed.path(), 0), 0..6);
}
