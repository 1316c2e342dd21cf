//! The fuzz targets, on their corpora and on small changes of them: what libFuzzer once found stays found.
//!
//! `HOOKLEDGER_TEST_MUTATIONS` says how many changed inputs each target gets, `HOOKLEDGER_TEST_SEED` from which number on.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fuzz::TARGETS;
use tests::random::{Rng, number, pick, seed};
use tests::wait::report;

/// In CI for a target that only computes; one that opens files gets fewer.
const MUTATIONS: u64 = 100_000;
/// Of these so many fewer.
const WITH_FILES: [(&str, u64); 3] = [("disk_log", 40), ("segment", 20), ("settings", 10)];
/// What has a meaning somewhere.
const WORDS: [&[u8]; 30] = [
    b"[",
    b"]",
    b"[]",
    b"=",
    b"&",
    b"%",
    b"+",
    b".",
    b" ",
    b"\0",
    b"\xff",
    b"\"",
    b"\n",
    b"{",
    b"}",
    b",",
    b":",
    b"0",
    b"-1",
    b"9223372036854775807",
    b"auth",
    b"auth[member_id]",
    b"event",
    b"ts",
    b"data",
    b"%5B",
    b"@",
    b"\x80",
    b"\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
];

/// What is tried with one target.
fn check(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let corpus = corpus(name);
    for (path, input) in &corpus {
        attempt(*target, input, path);
    }
    let divisor = WITH_FILES.iter().find(|(known, _)| *known == name).map_or(1, |(_, divisor)| *divisor);
    let (seed, count) = (seed(), number("HOOKLEDGER_TEST_MUTATIONS").unwrap_or(MUTATIONS) / divisor);
    for nth in 0..count {
        let mut random = Rng::with_seed(seed.wrapping_add(nth));
        let input = mutated(&corpus, &mut random);
        attempt(*target, &input, &format!("HOOKLEDGER_TEST_SEED={}", seed.wrapping_add(nth)));
    }
    report(&format!("{name}: {} inputs of the corpus and {count} changed ones hold", corpus.len()));
}

fn attempt(target: fn(&[u8]), input: &[u8], from: &str) {
    let done = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(done.is_ok(), "{from} does not hold: {}", input.escape_ascii());
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = dir.read_dir().unwrap_or_else(|error| panic!("read {}: {error}", dir.display()));
    let mut corpus: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("an input")))
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty(), "{} is empty", dir.display());
    corpus
}

/// One input of the corpus after a few small changes.
fn mutated(corpus: &[(String, Vec<u8>)], random: &mut Rng) -> Vec<u8> {
    let mut input = corpus[random.usize(..corpus.len())].1.clone();
    for _ in 0..=random.usize(..5) {
        let at = random.usize(..=input.len());
        let end = (at + random.usize(..16)).min(input.len());
        match random.usize(..8) {
            0 | 1 => _ = input.splice(at..at, pick(random, &WORDS).iter().copied()),
            2 => _ = input.drain(at..end),
            3 => input.truncate(at),
            4 if at < input.len() => input[at] ^= 1 << random.usize(..8),
            5 if at < input.len() => input[at] = random.u8(..),
            6 => {
                let piece = input[at..end].to_vec();
                let to = random.usize(..=input.len());
                input.splice(to..to, piece);
            }
            _ => {
                let other = &corpus[random.usize(..corpus.len())].1;
                let from = random.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}

#[test]
fn bodies_are_read_within_bounds_and_scanned_alike() {
    check("form");
}

#[test]
fn bodies_mean_something_and_show_no_secret() {
    check("interpret");
}

#[test]
fn records_and_their_headers_survive_their_bytes() {
    check("record");
}

#[test]
fn a_damaged_disk_log_is_refused_or_gives_what_was_written() {
    check("disk_log");
}

#[test]
fn made_up_segments_give_what_is_in_them() {
    check("segment");
}

#[test]
fn settings_are_read_or_refused_without_a_secret() {
    check("settings");
}

#[test]
fn what_strangers_write_into_a_proxys_header_changes_nothing() {
    check("forwarded");
}

#[test]
fn a_proxys_header_is_whole_at_its_end_and_never_before() {
    check("proxy");
}

#[test]
fn every_target_has_a_corpus_and_a_shell() {
    let shells = Path::new(env!("CARGO_MANIFEST_DIR")).join("libfuzzer/fuzz_targets");
    for (name, _) in TARGETS {
        assert!(!corpus(name).is_empty());
        assert!(shells.join(format!("{name}.rs")).is_file(), "{name} has no shell for libFuzzer");
    }
}
