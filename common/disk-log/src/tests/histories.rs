//! Any history of the log is one of the model: whatever happens, all that can be seen of the two is the same.

use ::tests::random::number;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::files::is_full;
use super::super::storage::faulty::{self, Faults};
use super::model::{Answer, Disk, Group, Model};
use super::*;

/// More than this is not taken.
const BYTES_MAX: u64 = 64 * SEGMENT_BYTES;

/// A step of a history.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A group of so many records.
    Append(u64),
    /// The next sync fails.
    BadSync,
    /// The next write stops halfway.
    ShortWrite,
    /// From now on all syncs fail.
    Die,
    /// From now on no file fits.
    Fill,
    /// The disk is well again.
    Mend,
    /// An orderly end.
    Restart,
    /// An end without a flush, and garbage where the next record would be.
    Kill,
    /// So many hundredths of the log are delivered, all but every so manieth.
    Deliver(u64, u64),
    /// What is delivered is saved, and goes.
    Save,
    /// Whole segments before so many hundredths of the log go.
    Delete(u64),
    /// Whole segments go that are older than the record at so many hundredths.
    Retain(u64),
    /// A reader that stays goes on to the end.
    Follow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (1..40_u64).prop_map(Step::Append),
        2 => Just(Step::BadSync),
        1 => Just(Step::ShortWrite),
        1 => Just(Step::Die),
        1 => Just(Step::Fill),
        3 => Just(Step::Mend),
        1 => Just(Step::Restart),
        2 => Just(Step::Kill),
        2 => (0..110_u64, 2..9_u64).prop_map(|(hundredths, but)| Step::Deliver(hundredths, but)),
        2 => Just(Step::Save),
        1 => (0..110_u64).prop_map(Step::Delete),
        1 => (0..110_u64).prop_map(Step::Retain),
        2 => Just(Step::Follow),
    ];
    vec(step, 1..40)
}

fn cases() -> u32 {
    number("HOOKLEDGER_TEST_HISTORIES").map_or(48, |cases| u32::try_from(cases).expect("not that many"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn any_history_is_one_of_the_model(steps in steps()) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.take(*step).and_then(|()| pair.compare()).map_err(TestCaseError::fail)?;
        }
        // And all of it once more, on a disk that is well.
        for step in [Step::Mend, Step::Append(3), Step::Restart, Step::Follow] {
            pair.take(step).and_then(|()| pair.compare()).map_err(TestCaseError::fail)?;
        }
    }
}

/// The log and its model, side by side.
struct Pair {
    dir: tempfile::TempDir,
    files: Files,
    faults: Arc<Faults>,
    log: DiskLog,
    delivered: Delivered,
    model: Model,
    /// The next record's number.
    number: u64,
    reader: Reader,
    /// The next offset that the reader is to bring.
    followed: u64,
}

fn open(files: &Files, dir: &Path) -> (DiskLog, Delivered) {
    let options = Options { bytes_max: Some(BYTES_MAX), ..options() };
    let log = DiskLog::open_on(files.clone(), dir, options).expect("open");
    let delivered = Delivered::load(&log).expect("load");
    (log, delivered)
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, faults) = faulty::files();
        let (log, delivered) = open(&files, dir.path());
        let reader = log.reader(0).expect("a reader");
        Self { dir, files, faults, log, delivered, model: Model::new(), number: 0, reader, followed: 0 }
    }

    fn take(&mut self, step: Step) -> Result<(), String> {
        let (first, end) = self.model.bounds();
        let at = |hundredths: u64| first + (end - first) * hundredths / 100;
        match step {
            Step::Append(records) => self.append(records),
            Step::BadSync => {
                self.becomes(Disk::OneBadFile, |faults| faults.syncs.store(1, Ordering::SeqCst));
                Ok(())
            }
            Step::ShortWrite => {
                self.becomes(Disk::OneBadFile, |faults| faults.writes.store(1, Ordering::SeqCst));
                Ok(())
            }
            Step::Die => {
                self.becomes(Disk::Dead, |faults| faults.dies_after.store(0, Ordering::SeqCst));
                Ok(())
            }
            Step::Fill => {
                self.becomes(Disk::NoRoom, |faults| faults.full.store(true, Ordering::SeqCst));
                Ok(())
            }
            Step::Mend => self.mend(),
            Step::Restart => self.restart(false),
            Step::Kill => self.restart(true),
            Step::Deliver(hundredths, but) => {
                for offset in (first..at(hundredths).min(end)).filter(|offset| !offset.is_multiple_of(but)) {
                    self.delivered.deliver(offset);
                    self.model.deliver(offset);
                }
                Ok(())
            }
            Step::Save => match self.delivered.save() {
                Ok(()) => self.model.saved(self.log.bounds().0),
                // Nothing is deleted before it is saved, but where there is no room.
                Err(error) if is_full(&error) && self.model.disk() == Disk::NoRoom => {
                    self.model.deleted(self.model.watermark(), self.log.bounds().0)
                }
                Err(_) if self.model.disk() != Disk::Well => {
                    if self.model.disk() == Disk::OneBadFile {
                        self.model.becomes(Disk::Well);
                    }
                    self.model.deleted(first, self.log.bounds().0)
                }
                Err(error) => Err(format!("save what is delivered: {error}")),
            },
            Step::Delete(hundredths) => {
                self.log.delete_before(at(hundredths)).map_err(|error| error.to_string())?;
                self.model.deleted(at(hundredths), self.log.bounds().0)
            }
            Step::Retain(hundredths) => self.retain(at(hundredths)),
            Step::Follow => self.follow(),
        }
    }

    fn becomes(&mut self, disk: Disk, set: impl Fn(&Faults)) {
        // One fault at a time: what two of them do is a matter of their order in files.
        if self.model.disk() == Disk::Well {
            set(&self.faults);
            self.model.becomes(disk);
        }
    }

    fn mend(&mut self) -> Result<(), String> {
        self.faults.mend();
        self.model.becomes(Disk::Well);
        // The log finds out by itself, without an append.
        let begun = std::time::Instant::now();
        while self.log.fault().is_some() {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err("it never looks again".to_owned());
            }
            thread::yield_now();
        }
        Ok(())
    }

    fn append(&mut self, records: u64) -> Result<(), String> {
        let group = Group { number: self.number, records };
        self.number += records;
        let wanted = super::records(group.number..group.number + records);
        let answer = match self.log.append_blocking(wanted) {
            Ok(offset) => Answer::Kept(offset),
            Err(AppendError::Full) => Answer::Full,
            Err(AppendError::Io(_)) => Answer::Failed,
        };
        let at_limit = self.log.bytes() + 40 * 150 > BYTES_MAX;
        if answer == Answer::Full && at_limit && self.model.disk() != Disk::NoRoom {
            return Ok(());
        }
        self.model.answered(group, answer)
    }

    fn restart(&mut self, killed: bool) -> Result<(), String> {
        self.faults.mend();
        let current = self.log.shared.current().expect("a segment");
        let copy = killed.then(|| crashed(self.dir.path()));
        if let Some(dir) = copy {
            garbage(&segment::path(dir.path(), current.number), current.bytes);
            let (log, delivered) = open(&self.files, dir.path());
            // The killed process changes nothing from here on.
            self.reader = log.reader(0).expect("a reader");
            (self.log, self.delivered, self.dir) = (log, delivered, dir);
        } else {
            let (elsewhere, files) = (tempfile::tempdir().expect("a directory"), Files::default());
            let (log, delivered) = open(&files, elsewhere.path());
            self.reader = log.reader(0).expect("a reader");
            (self.log, self.delivered) = (log, delivered);
            let (log, delivered) = open(&self.files, self.dir.path());
            self.reader = log.reader(0).expect("a reader");
            (self.log, self.delivered) = (log, delivered);
        }
        self.followed = 0;
        self.model.reopened(&seen(&self.log)?)
    }

    fn retain(&mut self, offset: u64) -> Result<(), String> {
        let Some((_, number)) = self.model.records().into_iter().find(|(at, _)| *at == offset) else { return Ok(()) };
        // A record's time is its number.
        let young = Timestamp::from_s(number);
        self.log.delete_older_than_and_before(young, offset).map_err(|error| error.to_string())?;
        self.model.deleted(offset, self.log.bounds().0)
    }

    fn follow(&mut self) -> Result<(), String> {
        let (first, end) = self.model.bounds();
        while let Some((offset, _)) = self.reader.next().map_err(|error| error.to_string())? {
            // It may have had the file of a deleted segment open.
            let expected = if offset < first { self.followed } else { self.followed.max(first) };
            if offset != expected {
                return Err(format!("the reader brings {offset} in place of {expected}"));
            }
            self.followed = offset + 1;
        }
        if self.followed.max(first) == end { Ok(()) } else { Err(format!("the reader stops at {}", self.followed)) }
    }

    /// All that can be seen is the same.
    fn compare(&self) -> Result<(), String> {
        let same = |what: &str, log: &dyn std::fmt::Debug, model: &dyn std::fmt::Debug| {
            let (log, model) = (format!("{log:?}"), format!("{model:?}"));
            if log == model { Ok(()) } else { Err(format!("{what}: the log says {log}, the model {model}")) }
        };
        same("bounds", &self.log.bounds(), &self.model.bounds())?;
        same("records", &seen(&self.log)?, &self.model.records())?;
        same("watermark", &self.delivered.watermark(), &self.model.watermark())?;
        same("undelivered", &self.delivered.undelivered(), &self.model.undelivered())?;
        let (first, end) = self.model.bounds();
        for offset in first..end {
            same("delivered", &self.delivered.is_delivered(offset), &self.model.is_delivered(offset))?;
        }
        if self.log.bytes() > BYTES_MAX {
            return Err(format!("{} bytes", self.log.bytes()));
        }
        match (self.log.fault(), self.model.disk()) {
            (Some(fault), Disk::Well) => Err(format!("a fault on a disk that is well: {fault}")),
            _ => Ok(()),
        }
    }
}

/// Each offset with its record's number; the record is the one of that number, byte for byte.
fn seen(log: &DiskLog) -> Result<Vec<(u64, u64)>, String> {
    let found = read(log, 0).map_err(|error| error.to_string())?;
    let number = |found: &Record| found.at.s();
    match found.iter().find(|(_, found)| *found != record(number(found))) {
        Some((offset, _)) => Err(format!("another record at {offset}")),
        None => Ok(found.iter().map(|(offset, found)| (*offset, number(found))).collect()),
    }
}

fn garbage(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(path).expect("open");
    file.write_all_at(&[0x5a; 33], at).expect("write");
}
