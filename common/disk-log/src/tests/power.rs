//! Power is lost at any moment, and nothing that was answered is missing.
//!
//! A log lives through a history of its own: appends, failed syncs, short writes, restarts, deletions, on real
//! files. Every call of the disk is written down, with the result that the user got. Then the plug is pulled
//! somewhere on that tape, again and again: what was synced is there, anything else perhaps, by the page or
//! by the sector. What is found then is opened by the real log; now and then the plug is pulled once more
//! while it does that. `HOOKLEDGER_TEST_POWER_LOSSES` says how often; a failure names its seed for
//! `HOOKLEDGER_TEST_SEED` and keeps its directory.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use ::tests::random::{Rng, number, seed};

use super::super::storage::faulty::{self, Act, Faults};
use super::*;

mod medium;

use medium::Medium;

/// How often the plug is pulled unless one says so.
const LOSSES: u64 = 2_000;
/// Of one history.
const LOSSES_PER_HISTORY: u64 = 40;
const THREADS: u64 = 2;

#[test]
fn no_loss_of_power_costs_what_was_answered_nor_brings_what_was_never_sent() {
    let losses = number("HOOKLEDGER_TEST_POWER_LOSSES").unwrap_or(LOSSES);
    let seed = seed();
    let begun = Instant::now();
    let histories = losses.div_ceil(LOSSES_PER_HISTORY);
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        for worker in 0..THREADS {
            let done = &done;
            scope.spawn(move || {
                for history in (worker..histories).step_by(usize::try_from(THREADS).expect("small")) {
                    // The history's own seed: alone, `HOOKLEDGER_TEST_SEED` of it repeats it as the first one.
                    live_through(seed.wrapping_add(history));
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(500) {
                        eprintln!("{} losses of power, {:.0?}", done * LOSSES_PER_HISTORY, begun.elapsed());
                    }
                }
            });
        }
    });
    eprintln!(
        "{} losses of power in {histories} histories, nothing missing, {:.1?} (seed {seed})",
        histories * LOSSES_PER_HISTORY,
        begun.elapsed()
    );
}

/// One history, and many losses of power in it.
fn live_through(seed: u64) {
    let mut dice = Rng::with_seed(seed);
    let History { tape, sent } = History::live(&mut dice);
    for _ in 0..LOSSES_PER_HISTORY {
        let cut = dice.usize(..=tape.len());
        let mut state = State::default();
        let mut medium = Medium::default();
        for act in &tape[..cut] {
            medium.apply(act);
            state.learn(act);
        }
        let mut twice = 0;
        loop {
            let dir = tempfile::tempdir().expect("a directory");
            medium.lose_power(&mut dice, dir.path());
            let checked = catch_unwind(AssertUnwindSafe(|| come_back(dir.path(), &state, &sent, &mut dice)));
            let tape = checked.unwrap_or_else(|panic| {
                eprintln!("seed {seed}, cut at {cut} of {}, found in {}", tape.len(), dir.keep().display());
                resume_unwind(panic);
            });
            // The plug is pulled again while the log comes back, or in what it does then.
            twice += 1;
            if twice > 2 || dice.usize(..4) > 0 {
                break;
            }
            let again = dice.usize(..=tape.acts.len());
            medium = tape.before;
            for act in &tape.acts[..again] {
                medium.apply(act);
                state.learn(act);
            }
        }
    }
}

/// What is known to everybody at a moment.
#[derive(Clone, Debug, Default)]
struct State {
    /// Number of the record at each offset that was answered.
    answered: BTreeMap<u64, u64>,
    delivered: BTreeSet<u64>,
    /// Of these, what was saved.
    saved: BTreeSet<u64>,
}

impl State {
    fn learn(&mut self, act: &Act) {
        match act {
            Act::Answered { offset, number } => _ = self.answered.insert(*offset, *number),
            Act::Delivered { offset } => _ = self.delivered.insert(*offset),
            Act::Saved { offsets } => self.saved.extend(offsets),
            Act::Made { .. }
            | Act::Zeroed { .. }
            | Act::Wrote { .. }
            | Act::Synced { .. }
            | Act::NotSynced { .. }
            | Act::Cut { .. }
            | Act::Renamed { .. }
            | Act::Removed { .. }
            | Act::SyncedDir
            | Act::NotSyncedDir => {}
        }
    }
}

/// What a log asked of the disk.
struct Tape {
    before: Medium,
    acts: Vec<Act>,
}

/// Numbers of the records of each group that was ever passed to the log, by the first of them.
type Sent = BTreeMap<u64, u64>;

/// Opens what is left, looks at everything, and goes on.
fn come_back(dir: &Path, state: &State, sent: &Sent, dice: &mut Rng) -> Tape {
    let before = Medium::of(dir);
    let (files, faults) = faulty::files();
    faults.hasty.store(true, Ordering::SeqCst);
    faults.record();
    let log = DiskLog::open_on(files.clone(), dir, power_options()).expect("open what is left");
    let found = records_found(&log, state, sent);
    let delivered = Delivered::load(&log).expect("load what is delivered");
    let (first, end) = log.bounds();
    for offset in first..end {
        assert!(!delivered.is_delivered(offset) || state.delivered.contains(&offset), "{offset} was never delivered");
        assert!(delivered.is_delivered(offset) || !state.saved.contains(&offset), "{offset} was delivered and saved");
    }
    for (offset, number) in &found {
        faults.note(Act::Answered { offset: *offset, number: *number });
    }

    // It takes more, under the numbers of a group that was sent.
    let (number, records) =
        sent.iter().nth(dice.usize(..sent.len().max(1))).map_or((0, 1), |(number, records)| (*number, *records));
    let again: Vec<_> = (number..number + records).map(big).collect();
    let is_new = found.values().all(|found| !(number..number + records).contains(found));
    if is_new {
        assert_eq!(log.append_blocking(again).expect("append"), end);
        for index in 0..records {
            faults.note(Act::Answered { offset: end + index, number: number + index });
        }
    }
    drop((log, delivered));
    let tape = Tape { before, acts: faults.recorded() };
    let log = DiskLog::open_on(files, dir, power_options()).expect("open it again");
    assert_eq!(log.bounds(), (first, if is_new { end + records } else { end }));
    let after = records_found(&log, state, sent);
    assert!(found.iter().all(|(offset, number)| after.get(offset) == Some(number)), "{found:?} {after:?}");
    tape
}

/// Everything that can be read: what was answered is there, and what else is there was sent, in whole groups, once.
fn records_found(log: &DiskLog, state: &State, sent: &Sent) -> BTreeMap<u64, u64> {
    let (first, end) = log.bounds();
    let mut found = BTreeMap::new();
    for (index, (offset, record)) in read(log, 0).expect("read").into_iter().enumerate() {
        assert_eq!(offset, first + index as u64, "offsets have no gaps");
        let number = number_of(&record);
        assert_eq!(record, big(number), "byte for byte");
        found.insert(offset, number);
    }
    assert_eq!(found.len() as u64, end - first, "all up to the end");

    for (offset, number) in &state.answered {
        match found.get(offset) {
            Some(found) => assert_eq!(found, number, "another record at {offset}"),
            None => assert!(
                *offset < first && state.delivered.contains(offset),
                "the record at {offset} was answered, not delivered, and is gone: {first} to {end}"
            ),
        }
    }
    let delivered_first = (0..first).all(|offset| state.delivered.contains(&offset));
    assert!(delivered_first, "deleted before it was delivered: {first}");

    let numbers: BTreeSet<_> = found.values().copied().collect();
    assert_eq!(numbers.len(), found.len(), "a record is there twice");
    let mut offset = first;
    while let Some(number) = found.get(&offset) {
        // Segments are deleted whole, and groups are not divided between them.
        let records = sent.get(number).unwrap_or_else(|| panic!("the group of record {number} has no beginning"));
        for index in 0..*records {
            assert_eq!(found.get(&(offset + index)), Some(&(number + index)), "a group is there in part");
        }
        offset += records;
    }
    found
}

/// Several pages each: what is torn is torn anywhere.
fn power_options() -> Options {
    Options { segment_bytes: 16 * KIB, segment_age_max: None, ..Options::log() }
}

/// A record of up to 1.5 KiB that can be told from others.
fn big(number: u64) -> Record {
    let filler = number.wrapping_mul(0x9e37_79b9) % 1_500;
    let value: Vec<u8> = (0..filler).map(|index| u8::try_from((index ^ number) & 0xff).expect("a byte")).collect();
    Record { value: Some(value.into()), ..record(number) }
}

fn number_of(record: &Record) -> u64 {
    let number = std::str::from_utf8(record.header("ce_id").expect("a number")).expect("text");
    number.parse().expect("a number")
}

/// What a log lived through.
struct History {
    tape: Vec<Act>,
    sent: Sent,
}

impl History {
    fn live(dice: &mut Rng) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, faults) = faulty::files();
        faults.record();
        let mut life = Life { dir, files, faults, dice, sent: Sent::new(), next: 0 };
        let mut open = Some(life.open());
        for _ in 0..12 + life.dice.usize(..12) {
            open = Some(life.step(open.take().expect("open between steps")));
        }
        // The end is on the tape too.
        drop(open);
        let Life { faults, sent, .. } = life;
        Self { tape: faults.recorded(), sent }
    }
}

struct Life<'a> {
    dir: tempfile::TempDir,
    files: Files,
    faults: Arc<Faults>,
    dice: &'a mut Rng,
    sent: Sent,
    /// The next record's number.
    next: u64,
}

impl Life<'_> {
    fn open(&self) -> (DiskLog, Delivered) {
        let log = DiskLog::open_on(self.files.clone(), self.dir.path(), power_options()).expect("open");
        let delivered = Delivered::load(&log).expect("load");
        // What a reader can see is as good as answered.
        for (offset, record) in read(&log, 0).expect("read") {
            self.faults.note(Act::Answered { offset, number: number_of(&record) });
        }
        (log, delivered)
    }

    fn step(&mut self, (log, delivered): (DiskLog, Delivered)) -> (DiskLog, Delivered) {
        let faults = self.faults.clone();
        match self.dice.usize(..16) {
            0..=6 => self.append(&log),
            7 => {
                faults.syncs.store(1, Ordering::SeqCst);
                self.append(&log);
                faults.syncs.store(0, Ordering::SeqCst);
            }
            8 => {
                faults.syncs.store(2 + u32::from(self.dice.bool()), Ordering::SeqCst);
                self.append(&log);
                faults.syncs.store(0, Ordering::SeqCst);
            }
            9 => {
                faults.writes.store(1, Ordering::SeqCst);
                self.append(&log);
                faults.writes.store(0, Ordering::SeqCst);
            }
            10 => {
                faults.dirs.store(1, Ordering::SeqCst);
                self.append(&log);
                faults.dirs.store(0, Ordering::SeqCst);
            }
            11..=13 => self.deliver(&log, &delivered),
            14 => {
                let _ = log.delete_before(delivered.watermark());
            }
            _ => {
                drop((log, delivered));
                return self.open();
            }
        }
        (log, delivered)
    }

    /// Some groups, which mostly share a write.
    fn append(&mut self, log: &DiskLog) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let groups: Vec<_> = (0..=self.dice.usize(..4))
            .map(|_| {
                let (number, records) = (self.next, 1 + self.dice.usize(..4) as u64);
                self.next += records;
                self.sent.insert(number, records);
                (number, records)
            })
            .collect();
        runtime.block_on(async {
            let appends: Vec<_> = groups
                .into_iter()
                .map(|(number, records)| {
                    let (log, faults) = (log.clone(), self.faults.clone());
                    tokio::spawn(async move {
                        let group = (number..number + records).map(big).collect();
                        if let Ok(first) = log.append(group).await {
                            for index in 0..records {
                                faults.note(Act::Answered { offset: first + index, number: number + index });
                            }
                        }
                    })
                })
                .collect();
            for append in appends {
                append.await.expect("an append ends");
            }
        });
    }

    /// Some entries, mostly the first ones, and perhaps that is saved.
    fn deliver(&mut self, log: &DiskLog, delivered: &Delivered) {
        let (_, end) = log.bounds();
        for offset in delivered.watermark()..end {
            if self.dice.usize(..8) > 0 {
                self.faults.note(Act::Delivered { offset });
                delivered.deliver(offset);
            }
        }
        if self.dice.bool() && delivered.save().is_ok() {
            let offsets = (0..end).filter(|offset| delivered.is_delivered(*offset)).collect();
            self.faults.note(Act::Saved { offsets });
        }
    }
}
