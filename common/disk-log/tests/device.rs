//! A device that really fails and a disk that is really full: nothing that was answered is missing.
//!
//! The tests mount file systems in a mount namespace of their own, which takes root. Where that is not
//! permitted they say `NOT RUN`, in CI too: the same is tested with injected faults everywhere.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use disk_log::{AppendError, Delivered, DiskLog, Options};
use event_log::Record;
use primitives::time::Timestamp;
use tests::wait::{eventually, report};

/// Set where the mounts are our own.
const INSIDE: &str = "HOOKLEDGER_TEST_MOUNTS_ARE_OURS";
const MIB: u64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_device_whose_syncs_really_fail_costs_nothing_that_was_answered() {
    let test = "a_device_whose_syncs_really_fail_costs_nothing_that_was_answered";
    with_mounts_of_its_own(test, |dir| {
        for journal in ["has_journal", "^has_journal"] {
            let Some(device) = Device::mount(test, &dir.join(journal.replace('^', "no-")), journal) else { return };
            break_it(&device, journal);
        }
    });
}

#[test]
fn a_log_takes_a_small_disk_to_its_end_and_comes_back_when_there_is_room() {
    let test = "a_log_takes_a_small_disk_to_its_end_and_comes_back_when_there_is_room";
    with_mounts_of_its_own(test, |dir| {
        if mount(&["-t", "tmpfs", "-o", "size=3m", "none"], dir) {
            fill_it(dir);
        } else {
            not_permitted(test, "tmpfs cannot be mounted");
        }
    });
}

fn fill_it(disk: &Path) {
    let open = || DiskLog::open(&disk.join("log"), options(256 * 1024)).expect("open");
    let log = open();
    let mut kept = 0;
    let refused = loop {
        match log.append_blocking(vec![record(kept)]) {
            Ok(offset) => assert_eq!(offset, kept),
            Err(error) => break error,
        }
        kept += 1;
    };
    assert!(matches!(refused, AppendError::Full), "{refused}");
    assert!(log.fault().is_some());
    let (used, room) = (log.bytes(), log.room().expect("how much room"));
    assert!(used > 2 * MIB, "only {used} bytes of 3 MiB were used");
    check(&log, 0, kept);
    drop(log);

    // Not a byte more fits: it opens all the same, and what is delivered makes room.
    let mut filler = File::create(disk.join("filler")).expect("create");
    while filler.write_all(&[1; 4096]).is_ok() {}
    let log = open();
    check(&log, 0, kept);
    assert!(matches!(log.append_blocking(vec![record(0)]), Err(AppendError::Full)));
    let delivered = Delivered::load(&log).expect("load");
    (0..kept / 2).for_each(|offset| delivered.deliver(offset));
    delivered.save().expect("save without room");
    let (first, _) = log.bounds();
    assert!(first > kept / 4, "only {first} of {kept} went");
    eventually(PATIENCE, "the log takes events again", || log.fault().is_none().then_some(()));
    for number in kept..kept + 20 {
        assert_eq!(log.append_blocking(vec![record(number)]).expect("append"), number);
    }
    drop((delivered, log));
    let log = open();
    check(&log, first, kept + 20);
    assert_eq!(Delivered::load(&log).expect("load").watermark(), kept / 2);
    report(&format!("a disk of 3 MiB held {used} bytes of records ({room} left), and {first} of {kept} made room"));
}

fn break_it(device: &Device, journal: &str) {
    let home = device.disk.join("log");
    let log = DiskLog::open(&home, options(MIB)).expect("open");
    let (mut answered, mut next, mut failed) = (BTreeMap::new(), 0, 0);
    let mut append = |log: &DiskLog| {
        let number = next;
        next += 1;
        let kept = log.append_blocking(vec![record(number)]);
        kept.map(|offset| assert_eq!(answered.insert(offset, number), None)).is_ok()
    };
    for round in 0..8 {
        (0..30).for_each(|_| _ = append(&log));
        // The next segment is there: zeros, for which the device has no memory.
        eventually(PATIENCE, "a spare", || home.join("spare").exists().then_some(()));
        device.break_down((3 - round % 4) * 4);
        failed += (0..40).filter(|_| !append(&log)).count();
        device.mend();
        if !device.is_writable() {
            // With a journal ext4 gives up when that cannot be written, and refuses all writes.
            break;
        }
        eventually(PATIENCE, "the log takes events again", || log.fault().is_none().then_some(()));
    }
    drop(log);
    device.remount();
    let log = DiskLog::open(&home, options(MIB)).expect("open");
    let mut found = BTreeMap::new();
    let mut reader = log.reader(0).expect("a reader");
    while let Some((offset, record)) = reader.next().expect("read") {
        found.insert(offset, record);
    }
    for (offset, number) in &answered {
        assert_eq!(found.get(offset), Some(&record(*number)), "{offset}");
    }
    assert!(failed > 0, "the device never failed");
    report(&format!("ext4 {journal}: {} answered and there, {failed} refused", answered.len()));
}

/// A disk in compressed memory, which fails writes when it may take no more memory. Zeros take none.
///
/// A loop device on a full file system would not do: it says yes to writes of which only a part had room.
struct Device {
    number: String,
    disk: PathBuf,
}

impl Device {
    fn mount(test: &str, disk: &Path, journal: &str) -> Option<Self> {
        fs::create_dir_all(disk).expect("create");
        let Ok(number) = fs::read_to_string("/sys/class/zram-control/hot_add") else {
            not_permitted(test, "there is no zram, or no right to make one");
            return None;
        };
        let device = Self { number: number.trim().to_owned(), disk: disk.to_owned() };
        device.set("disksize", &(96 * MIB).to_string());
        if !runs("mkfs.ext4", &["-q", "-F", "-m", "0", "-O", journal, &device.node()]) {
            not_permitted(test, "mkfs.ext4 does not run");
            return None;
        }
        if !mount(&["-o", "errors=continue", &device.node()], &device.disk) {
            not_permitted(test, "file systems cannot be mounted");
            return None;
        }
        Some(device)
    }

    fn node(&self) -> String {
        format!("/dev/zram{}", self.number)
    }

    fn file(&self, name: &str) -> String {
        format!("/sys/block/zram{}/{name}", self.number)
    }

    fn set(&self, name: &str, value: &str) {
        fs::write(self.file(name), value).expect("set a property of the device");
    }

    /// From now on it has memory for so many more pages.
    fn break_down(&self, pages: u64) {
        // It fails if the device did before; that is of no concern here.
        runs("sync", &["-f", &self.disk.display().to_string()]);
        let used = fs::read_to_string(self.file("mm_stat")).expect("how much it uses");
        let used: u64 = used.split_whitespace().nth(2).and_then(|used| used.parse().ok()).expect("a number");
        self.set("mem_limit", &(used + pages * 4096).to_string());
    }

    fn mend(&self) {
        self.set("mem_limit", "0");
    }

    fn is_writable(&self) -> bool {
        File::create(self.disk.join("probe")).is_ok()
    }

    /// With that the page cache is gone: what is read now comes from the device.
    fn remount(&self) {
        assert!(runs("umount", &[&self.disk.display().to_string()]), "unmount");
        assert!(mount(&[&self.node()], &self.disk), "mount again");
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        runs("umount", &[&self.disk.display().to_string()]);
        let _ = fs::write(self.file("reset"), "1");
        let _ = fs::write("/sys/class/zram-control/hot_remove", &self.number);
    }
}

/// Runs the test in a process of its own whose mounts no other process sees, and which takes them along when it ends.
fn with_mounts_of_its_own(test: &str, body: impl Fn(&Path)) {
    if let Some(dir) = env::var_os(INSIDE) {
        return body(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let unshare = ["--mount", "--propagation", "private"];
    if !runs("unshare", &[&unshare[..], &["true"]].concat()) {
        return not_permitted(test, "mount namespaces cannot be made");
    }
    let myself = env::current_exe().expect("a test has a file");
    let inside = Command::new("unshare")
        .args(unshare)
        .arg(myself)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, dir.path())
        .output()
        .expect("start the test's own program");
    let (out, report_text) = (String::from_utf8_lossy(&inside.stdout), String::from_utf8_lossy(&inside.stderr));
    assert!(inside.status.success(), "{out}{report_text}");
    report(report_text.trim_end());
}

fn not_permitted(test: &str, why: &str) {
    report(&format!("NOT RUN: {test}: {why}. Nothing is wrong with that: it takes root and mounts"));
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    runs("mount", &[arguments, &[&at.display().to_string()]].concat())
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|done| done.status.success())
}

fn options(segment_bytes: u64) -> Options {
    Options { segment_bytes, ..Options::log() }
}

/// A record of about 3 KB that can be told from others, and not made smaller.
fn record(number: u64) -> Record {
    let mut mixed = number;
    let value: Vec<u8> = (0..375)
        .flat_map(|_| {
            mixed = mixed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (mixed ^ (mixed >> 29)).to_le_bytes()
        })
        .collect();
    Record { key: None, value: Some(Bytes::from(value)), headers: vec![], at: Timestamp::from_s(number) }
}

fn check(log: &DiskLog, first: u64, end: u64) {
    assert_eq!(log.bounds(), (first, end));
    let mut reader = log.reader(0).expect("a reader");
    for number in first..end {
        assert_eq!(reader.next().expect("read"), Some((number, record(number))));
    }
}
