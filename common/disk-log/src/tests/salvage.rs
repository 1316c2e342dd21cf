//! After damage, what can be read is saved at its offset, and what cannot is named.

use std::os::unix::fs::FileExt;

use super::*;
use ::tests::random::of_this_run;

/// A damaged log of so many records, the one of each number at its offset.
struct Damaged {
    _home: tempfile::TempDir,
    dir: PathBuf,
    records: u64,
}

impl Damaged {
    fn new(records: u64) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join("log");
        drop(log_of(&dir, records));
        Self { _home: home, dir, records }
    }

    fn segment(&self, index: usize) -> PathBuf {
        segment_files(&self.dir)[index].clone()
    }

    /// Salvages, and finds each record at its offset but for those that are named as lost.
    fn salvage(&self) -> Salvaged {
        let saved = salvage(&self.dir).expect("salvage");
        let lost: BTreeSet<u64> = saved.lost.iter().flat_map(|lost| lost.offsets.clone()).collect();
        let log = log_of(&self.dir, 0);
        let expected = (0..self.records).filter(|offset| !lost.contains(offset));
        let expected: Vec<_> = expected.map(|offset| (offset, record(offset))).collect();
        assert_eq!(read(&log, 0).expect("read"), expected, "{:?}", saved.lost);
        assert_eq!(saved.records, expected.len() as u64);

        // It goes on behind all that may have been there, and lost records delay no reader. A log that opens as it is
        // goes on where its last good write ends.
        let (_, end) = log.bounds();
        assert!(end >= self.records || saved.set_aside.is_none(), "{end}");
        let delivered = Delivered::load(&log).expect("load");
        for (offset, _) in &expected {
            delivered.deliver(*offset);
        }
        assert_eq!(delivered.undelivered(), 0, "{:?}", log.bounds());
        assert_eq!(log.append_blocking(vec![record(end)]).expect("append"), end);
        drop((log, delivered));
        assert_eq!(read(&log_of(&self.dir, 0), end).expect("read"), [(end, record(end))]);
        saved
    }
}

fn change(path: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(path).and_then(|file| file.write_all_at(bytes, at)).expect("write");
}

fn lost(saved: &Salvaged) -> Vec<std::ops::Range<u64>> {
    saved.lost.iter().map(|lost| lost.offsets.clone()).collect()
}

#[test]
fn one_damaged_record_costs_that_record() {
    for within in [0, 4, 20] {
        let damaged = Damaged::new(100);
        let log = log_of(&damaged.dir, 0);
        let before = (log.identity(), damaged.segment(1));
        drop(log);
        // The second segment's first frame behind its mark: its length, its checksum, its record.
        change(&before.1, segment::HEADER_BYTES + frame::MARK_BYTES as u64 + within, &[0xff]);
        let saved = damaged.salvage();
        let [stretch] = &lost(&saved)[..] else { panic!("{saved:?}") };
        assert_eq!(stretch.end - stretch.start, 1);
        assert_eq!(saved.lost[0].file, before.1);
        assert!(saved.set_aside.is_some_and(|aside| aside.join(before.1.file_name().expect("a name")).exists()));
        assert_ne!(log_of(&damaged.dir, 0).identity(), before.0, "a state of the old log is not one of this");
    }
}

#[test]
fn a_segment_without_a_header_costs_that_segment_and_its_offsets_stay_empty() {
    for index in [0, 1, 2] {
        let damaged = Damaged::new(100);
        change(&damaged.segment(index), 9, &[0xff]);
        let saved = damaged.salvage();
        assert_eq!(saved.lost.len(), 1, "{saved:?}");
    }
}

#[test]
fn what_is_delivered_stays_so() {
    let damaged = Damaged::new(100);
    let log = log_of(&damaged.dir, 0);
    let delivered = Delivered::load(&log).expect("load");
    for offset in [0, 1, 2, 50] {
        delivered.deliver(offset);
    }
    delivered.save().expect("save");
    drop((log, delivered));
    change(&damaged.segment(2), 300, &[0xff; 40]);
    salvage(&damaged.dir).expect("salvage");
    let log = log_of(&damaged.dir, 0);
    let delivered = Delivered::load(&log).expect("load");
    assert!(delivered.is_delivered(2) && delivered.is_delivered(50) && !delivered.is_delivered(3));
}

#[test]
fn a_log_that_is_whole_is_left_alone() {
    let damaged = Damaged::new(30);
    let files = segment_files(&damaged.dir);
    let saved = salvage(&damaged.dir).expect("salvage");
    assert!(saved.lost.is_empty() && saved.set_aside.is_none() && saved.records == 30, "{saved:?}");
    assert_eq!(segment_files(&damaged.dir), files);
    check(&log_of(&damaged.dir, 0), 0..30);
}

#[test]
fn a_last_write_without_a_good_end_is_named_and_the_log_is_left_alone() {
    let damaged = Damaged::new(60);
    let file = damaged.segment(segment_files(&damaged.dir).len() - 1);
    let bytes = fs::read(&file).expect("read");
    let last = bytes.windows(9).rposition(|bytes| bytes == b"value 59 ").expect("the last record");
    // Nor is there the mark any more that says it was synced.
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("something");
    change(&file, last as u64, &vec![0xff; written - last + 1]);
    let saved = damaged.salvage();
    assert!(saved.set_aside.is_none() && saved.records == 59, "{saved:?}");
    assert!(saved.lost.len() == 1 && saved.lost[0].offsets.start == 59 && !saved.lost[0].is_certain, "{saved:?}");
}

#[test]
fn a_log_that_is_open_is_left_alone() {
    let damaged = Damaged::new(3);
    let log = log_of(&damaged.dir, 0);
    let refused = salvage(&damaged.dir).expect_err("it is in use").to_string();
    assert!(refused.contains("in use"), "{refused}");
    drop(log);
}

#[test]
fn any_damage_ends_in_what_is_good_and_what_is_lost() {
    let mut dice = of_this_run("salvage");
    for _ in 0..60 {
        let damaged = Damaged::new(60);
        let files = segment_files(&damaged.dir);
        for _ in 0..=dice.usize(..3) {
            let file = &files[dice.usize(..files.len())];
            let length = fs::metadata(file).expect("there").len();
            let at = dice.usize(..usize::try_from(length).expect("small")) as u64;
            let bytes: Vec<u8> = (0..=dice.usize(..60)).map(|_| dice.u8(..)).collect();
            change(file, at, &bytes[..bytes.len().min(usize::try_from(length - at).expect("small"))]);
        }
        damaged.salvage();
    }
}
