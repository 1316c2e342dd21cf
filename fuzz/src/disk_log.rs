//! A disk log whose files were damaged, exchanged or cut.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use disk_log::{Delivered, DiskLog, Options, salvage};
use event_log::Record;
use primitives::time::Timestamp;
use tempfile::TempDir;

use crate::input::Input;

/// Few enough records for many openings, in more than one segment.
const SEGMENT_BYTES: u64 = 2 * 1024;
const RECORDS: u64 = 40;
/// So many of them are delivered.
const DELIVERED: u64 = 3;
/// More changes than this are no damage any more.
const CHANGES_MAX: usize = 8;

type Files = BTreeMap<String, Vec<u8>>;

/// Whatever becomes of a log's files: it opens, or is refused and can be salvaged; what it reads is what was written,
/// at its place, and when it says that it has read all, it has. What opens takes more, and keeps it.
pub fn disk_log(data: &[u8]) {
    let written = written();
    let mut files = written.clone();
    change(&mut files, &mut Input(data));
    let is_whole = files == *written;
    let dir = lay(&files);
    let Some((log, first, end)) = open(dir.path()) else {
        assert!(!is_whole, "an unchanged log opens");
        return check_salvage(dir.path());
    };
    if is_whole {
        assert_eq!((first, end), (0, RECORDS));
    }
    check_delivered(&log, is_whole);
    let all = check_records(&log, end, false);

    // Kept at its end, and there after the next opening, with all that was there before.
    assert_eq!(log.append_blocking(vec![record(end)]).expect("a log that opened takes more"), end);
    drop(log);
    let (log, first_now, end_now) = open(dir.path()).expect("a log that opened opens again");
    assert_eq!((first_now, end_now), (first, end + 1));
    assert_eq!(check_records(&log, end_now, false), all);
}

/// What can be read of a log that was refused is in a new one, at its place.
fn check_salvage(dir: &Path) {
    let salvaged = salvage(&log_in(dir)).expect("a damaged log can be salvaged");
    assert!(salvaged.set_aside.is_some(), "a refused log is damaged");
    let (log, _, end) = open(dir).expect("a salvaged log opens");
    assert!(check_records(&log, end, true), "a salvaged log is whole");
    assert_eq!(log.append_blocking(vec![record(end)]).expect("a salvaged log takes more"), end);
}

/// Opens a log; a refusal says what is wrong with which file.
pub fn open(dir: &Path) -> Option<(DiskLog, u64, u64)> {
    match DiskLog::open(&log_in(dir), options()) {
        Ok(log) => {
            let (first, end) = log.bounds();
            assert!(first <= end, "{first} to {end}");
            Some((log, first, end))
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("corrupt disk log") && text.contains(".segment"), "{text}");
            None
        }
    }
}

/// A directory in memory, where the machine has such, with these files.
pub fn lay(files: &Files) -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.expect("a directory");
    let log = log_in(dir.path());
    fs::create_dir(&log).expect("make the log's directory");
    for (name, bytes) in files {
        fs::write(log.join(name), bytes).expect("write a file");
    }
    dir
}

/// The log's own directory: a damaged one is set aside beside it.
pub fn log_in(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Reads all that there is, perhaps with gaps; whether it came to the end.
fn check_records(log: &DiskLog, end: u64, with_gaps: bool) -> bool {
    let mut reader = log.reader(0).expect("a reader");
    let mut expected = log.bounds().0;
    loop {
        match reader.next() {
            Ok(Some((offset, found))) => {
                assert!(offset == expected || with_gaps && offset > expected, "{offset} follows {expected}");
                assert_eq!(found, record(offset), "what was never written");
                expected = offset + 1;
            }
            Ok(None) => {
                assert!(expected == end || with_gaps && expected < end, "all of it was read");
                return true;
            }
            Err(error) => {
                assert!(error.to_string().starts_with("corrupt disk log"), "{error}");
                return false;
            }
        }
    }
}

/// The delivered offsets are read again, or none are.
fn check_delivered(log: &DiskLog, untouched: bool) {
    let delivered = Delivered::load(log).expect("its file is there or not");
    let (watermark, first) = (delivered.watermark(), log.bounds().0);
    assert!(watermark == DELIVERED || watermark == first, "delivered up to {watermark}");
    assert!(!untouched || watermark == DELIVERED);
}

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, segment_age_max: None, ..Options::log() }
}

/// A record that can be told from all others.
fn record(number: u64) -> Record {
    let length = usize::try_from(number * 37 % 200).expect("small");
    Record {
        key: (!number.is_multiple_of(3)).then(|| format!("app/{number}")),
        value: Some(Bytes::from(format!("value {number} {}", "x".repeat(length)))),
        headers: vec![("ce_id".into(), number.to_string().into_bytes())],
        at: Timestamp::from_s(number),
    }
}

/// The files of a log as a crash leaves them: some segments, the last of which was being written to.
fn written() -> &'static Files {
    static WRITTEN: OnceLock<Files> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let dir = lay(&Files::new());
        let log = DiskLog::open(&log_in(dir.path()), options()).expect("open");
        let mut number = 0;
        while number < RECORDS {
            // Groups of one, two and three.
            let group = (number..RECORDS).take(usize::try_from(number % 3).expect("small") + 1);
            let records: Vec<Record> = group.map(record).collect();
            number += records.len() as u64;
            log.append_blocking(records).expect("append");
        }
        let delivered = Delivered::load(&log).expect("load");
        (0..DELIVERED).for_each(|offset| delivered.deliver(offset));
        delivered.save().expect("save");
        // Taken while the log is open.
        let paths = fs::read_dir(log_in(dir.path())).expect("list").map(|entry| entry.expect("an entry").path());
        let kept =
            |path: &PathBuf| path.extension().is_some_and(|kind| kind == "segment") || path.ends_with("delivered");
        let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let files: Files = paths.filter(kept).map(|path| (name(&path), fs::read(&path).expect("a file"))).collect();
        assert!(files.len() > 3, "several segments: {:?}", files.keys());
        files
    })
}

/// Changes files as the input says. Bytes are flipped, not replaced, so that a checksum cannot be made to fit.
fn change(files: &mut Files, input: &mut Input<'_>) {
    for _ in 0..CHANGES_MAX {
        let names: Vec<String> = files.keys().cloned().collect();
        let Some(name) = input.below(names.len()).map(|at| &names[at]).filter(|_| !input.is_empty()) else { return };
        let other = input.below(names.len()).map_or(name, |at| &names[at]);
        let source = files[other].clone();
        let Some(file) = files.get_mut(name) else { return };
        let at = input.below(file.len() + 1).unwrap_or_default();
        match input.byte() % 9 {
            0 | 1 => {
                let length = usize::from(input.byte() % 4) + 1;
                file[at..].iter_mut().zip(input.take(length)).for_each(|(byte, flip)| *byte ^= flip);
            }
            2 => file.truncate(at),
            3 => {
                let length = input.below(300).unwrap_or_default();
                file.splice(at..at, vec![input.byte(); length]);
            }
            4 => {
                let end = (at + input.below(300).unwrap_or_default()).min(file.len());
                file[at..end].fill(0);
            }
            5 | 6 => {
                let from = input.below(source.len() + 1).unwrap_or_default();
                let length = input.below(600).unwrap_or_default();
                file[at..].iter_mut().zip(&source[from..]).take(length).for_each(|(byte, other)| *byte = *other);
            }
            7 => _ = files.remove(name),
            _ => {
                let moved = format!("{:020}.segment", input.byte() % 8);
                let bytes = files.remove(name).unwrap_or_default();
                files.insert(moved, bytes);
            }
        }
    }
}
