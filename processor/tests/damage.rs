//! State directories that were damaged, or that a power loss left: found out, and repaired without an operator.
//!
//! Each goes to a real processor in a process of its own, with the `facts` that it was folded from. In the end the
//! state must be what a fresh fold of them is; a process may end on the way, as damage makes it, and is followed by
//! another one, as a supervisor does it. None may hang, and no number of them may fail in turn.
//!
//! What a power loss leaves is modelled: of two moments of a state that is being written, every page of 4 KiB is as
//! it was at the one or the other, every file as long as at the one or the other, and files that came or went are
//! there or not. That is what a disk with a cache may do to writes that were not synced. The moments are copies of the
//! directory that are made while it is written, file by file, so that one moment may itself be a little longer.
//! Not modelled: pages that are neither old nor new, and what a file system does to its own tables.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use domain::{Change, FactKey, HeldDetails};
use event_log::Entry;
use event_log::EventId;
use fastrand::Rng;
use processor::state::memory::{Facts, Memory};
use processor::state::sled::Sled;
use processor::state::{Progressed, Store, Trusts, opening};
use serde_json::Value;

use event_log::memory::IDENTITY;
use history::{History, PARTITIONS};
use image::Image;
use worker::Worker;

#[path = "damage/history.rs"]
mod history;
#[path = "damage/image.rs"]
mod image;
#[path = "damage/worker.rs"]
mod worker;

/// How many states are damaged, and how many lose power.
const STATES: u64 = 500;
/// Of how many histories.
const STATES_OF_ONE: u64 = 50;
/// A history is up to so long.
const RECORDS_MAX: usize = 3_000;
/// So many moments of each are kept: about what fits into 100 MB.
const MOMENTS_MAX: usize = 48;
/// And at least so many.
const MOMENTS_MIN: usize = 4;
/// So many records are applied at once.
const STEP_RECORDS: usize = 20;

#[test]
fn whatever_happens_to_a_file_the_state_is_right_or_made_anew() {
    let mut tally = Tally::begin("bit flips and other damage", "HOOKLEDGER_TEST_BIT_FLIPS");
    while tally.goes_on() {
        let folded = Folded::any(&mut tally.random, 1);
        let whole = folded.image(&mut tally.random);
        tally.each(&folded, Some(&whole), |random| {
            let mut image = whole.clone();
            let what = image.harm(random);
            (image, what)
        });
    }
    tally.end();
}

#[test]
fn whatever_a_power_loss_leaves_the_state_is_right_or_made_anew() {
    let mut tally = Tally::begin("power losses", "HOOKLEDGER_TEST_STATE_POWER_LOSSES");
    while tally.goes_on() {
        let folded = Folded::any(&mut tally.random, RECORDS_MAX / 3);
        let moments = folded.moments();
        tally.each(&folded, None, |random| {
            let last = random.usize(1..moments.len());
            let first = random.usize(..last);
            (moments[last].torn(&moments[first], random), format!("between the moments {first} and {last}"))
        });
    }
    tally.end();
}

/// Whatever an end before left beside it.
#[test]
fn a_state_of_an_older_fold_answers_until_facts_were_read_again_into_a_new_one() {
    let history = Arc::new(History::of(7, 1_000));
    let expected = fresh(&history);
    for left in ["nothing", "a third", "all", "half a swap", "another log", "damage"] {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, beside) = (dir.path().join("state"), dir.path().join("state.rebuilding"));
        let rows = Sled::open(&state).expect("open");
        fold(&Store::open_as(1, Box::new(rows), IDENTITY, PARTITIONS, Trusts::default()).expect("open"), &history, 2);
        let begin = |log| opening::open(&beside, log, PARTITIONS, Trusts::default()).expect("open");
        match left {
            "a third" => fold(&begin(IDENTITY), &history, 1),
            "all" => fold(&begin(IDENTITY), &history, 3),
            "half a swap" => {
                fold(&begin(IDENTITY), &history, 3);
                fs::remove_dir_all(&state).expect("quarantined");
            }
            "another log" => drop(begin("another log")),
            "damage" => {
                fs::create_dir(&beside).expect("made");
                fs::write(beside.join("db"), [7; 5_000]).expect("written");
            }
            _ => {}
        }
        let seen = worker::restore(&state, &history);
        assert_eq!(seen.digests, expected, "{left}");
        assert_eq!(seen.stale > 0, left != "half a swap", "{left}");
        assert!(!beside.exists(), "{left}");
        let whole =
            opening::open(&state, IDENTITY, PARTITIONS, Trusts::default()).expect("what was put there is whole");
        assert!(!whole.is_outdated(), "{left}");
    }
}

#[test]
#[ignore = "the processor of the tests here: they start it in processes of its own"]
fn a_processor_of_its_own() {
    worker::serve();
}

/// What came of all states.
struct Tally {
    name: &'static str,
    random: Rng,
    seed: u64,
    all: u64,
    done: u64,
    quarantined: u64,
    ended: u64,
    worker: Worker,
    began: Instant,
}

impl Tally {
    fn begin(name: &'static str, variable: &str) -> Self {
        let seed = number("HOOKLEDGER_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
        eprintln!("{name}: HOOKLEDGER_TEST_SEED={seed}");
        let all = number(variable).unwrap_or(STATES);
        let (random, worker, began) = (Rng::with_seed(seed), Worker::default(), Instant::now());
        Self { name, random, seed, all, done: 0, quarantined: 0, ended: 0, worker, began }
    }

    fn goes_on(&self) -> bool {
        self.done < self.all
    }

    /// Makes some states of one history, and sees what a processor makes of them.
    fn each(&mut self, folded: &Folded, whole: Option<&Image>, make: impl Fn(&mut Rng) -> (Image, String)) {
        let Folded { seed, records, digests } = folded;
        for number in 0..STATES_OF_ONE.min(self.all - self.done) {
            // One of them is left alone, if there is one to leave alone: who throws all away is always right.
            let (image, what) = match whole {
                Some(whole) if number == 0 => (whole.clone(), "nothing".to_owned()),
                _ => make(&mut self.random),
            };
            let dir = tempfile::tempdir().expect("a directory");
            let state = dir.path().join("state");
            image.lay_out(&state);
            let answer = self.worker.restore(&state, *seed, *records);
            assert_eq!(
                &answer.digests, digests,
                "{}, state {} of seed {}: {what}: {answer:?}",
                self.name, self.done, self.seed
            );
            assert!(what != "nothing" || !answer.is_quarantined, "a sound state was thrown away: {answer:?}");
            self.done += 1;
            self.quarantined += u64::from(answer.is_quarantined);
            self.ended += answer.ended as u64;
        }
        if self.done.is_multiple_of(1_000) {
            eprintln!("{}: {} of {}, {} s", self.name, self.done, self.all, self.began.elapsed().as_secs());
        }
    }

    fn end(&self) {
        let Self { name, done, quarantined, ended, began, .. } = self;
        eprintln!(
            "{name}: {done} states, 0 wrong; {quarantined} were quarantined and read again, {} were right as they were; \
             {ended} processes ended on the way; {} s",
            done - quarantined,
            began.elapsed().as_secs()
        );
        assert!(*quarantined > 0, "nothing was ever found out, so this test shows nothing");
        assert!(quarantined < done, "everything was thrown away, so this test shows little");
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A history and what it comes to.
struct Folded {
    seed: u64,
    records: usize,
    digests: Vec<String>,
}

impl Folded {
    fn any(random: &mut Rng, records_min: usize) -> Self {
        let (seed, records) = (random.u64(..), random.usize(records_min..RECORDS_MAX));
        Self { seed, records, digests: fresh(&History::of(seed, records)) }
    }

    /// A state that was closed in order, or left as a killed process leaves it.
    fn image(&self, random: &mut Rng) -> Image {
        let history = History::of(self.seed, self.records);
        let dir = tempfile::tempdir().expect("a directory");
        for third in 1..=3 {
            fold(&open(dir.path()), &history, third);
        }
        let store = open(dir.path());
        let killed = random.bool().then(|| Image::of(&dir.path().join("state")));
        drop(store);
        killed.unwrap_or_else(|| Image::of(&dir.path().join("state")))
    }

    /// Moments of a state that is being written.
    fn moments(&self) -> Vec<Image> {
        let history = History::of(self.seed, self.records);
        let dir = tempfile::tempdir().expect("a directory");
        let is_over = AtomicBool::new(false);
        let mut moments = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                // Opened in between: that is when sled writes snapshots.
                (1..=3).for_each(|third| fold(&open(dir.path()), &history, third));
                is_over.store(true, Ordering::Release);
            });
            while !is_over.load(Ordering::Acquire) || moments.len() < MOMENTS_MIN {
                moments.push(Image::of(&dir.path().join("state")));
                if moments.len() > MOMENTS_MAX {
                    // Every other one is enough.
                    let mut keep = false;
                    moments.retain(|_| {
                        keep = !keep;
                        keep
                    });
                }
            }
        });
        moments
    }
}

/// Applies what is not applied yet of the first thirds, in steps of some records.
fn fold(store: &Store, history: &History, thirds: usize) {
    for partition in 0..PARTITIONS {
        let facts = history.facts(partition);
        let known = store.checkpoint(partition).facts;
        let some: Vec<_> =
            facts[..facts.len() * thirds / 3].iter().filter(|one| one.position.offset >= known).collect();
        for step in some.chunks(STEP_RECORDS) {
            let mut progressed = None;
            let mut changes = Vec::new();
            for Entry { record, position } in step {
                match (FactKey::parse(record.key.as_deref().expect("a key")).expect("ours"), &record.value) {
                    (FactKey::Fact(..), Some(value)) => {
                        let fact = Change::Fact(Box::new(serde_json::from_slice(value).expect("a fact")));
                        changes.push((fact, position.offset));
                    }
                    (FactKey::Held(held), Some(value)) => {
                        let details: HeldDetails = serde_json::from_slice(value).expect("JSON");
                        changes.push((Change::Held(held, details), position.offset));
                    }
                    (FactKey::Held(held), None) => changes.push((Change::NoLongerHeld(held), position.offset)),
                    (FactKey::Progress, Some(value)) => {
                        let told: Value = serde_json::from_slice(value).expect("JSON");
                        let log = told["log"].as_str().and_then(|log| EventId::parse_str(log).ok()).expect("a log");
                        let last = told["last"].as_str().map(|id| EventId::parse_str(id).expect("an id"));
                        progressed = Some(Progressed { raw: told["raw"].as_u64().expect("a number"), log, last });
                    }
                    (FactKey::Fact(..) | FactKey::Progress, None)
                    | (FactKey::Heard(_) | FactKey::Vault(_) | FactKey::Accepted(_), _) => {
                        panic!("no history has this")
                    }
                }
            }
            let end = step.last().expect("not empty").position.offset + 1;
            let changes = changes.iter().map(|(change, offset)| (change, *offset));
            store.apply(partition, changes, progressed, end, &mut Facts::default()).expect("applied");
        }
    }
}

fn open(dir: &Path) -> Store {
    opening::open(&dir.join("state"), IDENTITY, PARTITIONS, Trusts::default()).expect("open")
}

/// The digests of a fold that never saw a disk.
fn fresh(history: &History) -> Vec<String> {
    let store = Store::open(Box::new(Memory::default()), IDENTITY, PARTITIONS, Trusts::default()).expect("open");
    fold(&store, history, 3);
    (0..PARTITIONS).map(|partition| store.digest(partition)).collect()
}
