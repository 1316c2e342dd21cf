//! How many instructions the paths of an event take: counted, not timed, so that a busy machine changes nothing.
//!
//! `instructions.txt` has the counts that a change may not exceed. A path that takes over 3 % more fails. Where
//! that is meant, or another compiler counts otherwise, write down what is counted now:
//! `HOOKLEDGER_RECORD=1 cargo test -p bench --test instructions`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use tests::wait::{not_run, report};

const EVENTS: u64 = 1_000;
const PATHS: [&str; 6] = ["scan", "append", "request", "interpret", "fold", "encode"];
const PERCENT_MAX: u64 = 3;
const RECORD: &str = "HOOKLEDGER_RECORD";

#[test]
fn no_path_of_an_event_takes_more_instructions_than_before() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return not_run("instruction counts", "there is no valgrind");
    }
    let without = count("nothing");
    let now: BTreeMap<&str, u64> =
        PATHS.into_iter().map(|path| (path, count(path).saturating_sub(without) / EVENTS)).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.txt");
    if std::env::var_os(RECORD).is_some() {
        let mut text = String::new();
        for (path, instructions) in &now {
            writeln!(text, "{path} {instructions}").expect("a String takes all");
        }
        fs::write(&file, text).expect("written");
    }
    let before = fs::read_to_string(&file).expect("it is part of the project");
    for line in before.lines() {
        let (path, before) = line.split_once(' ').expect("a path and a number");
        let (before, now): (u64, u64) = (before.parse().expect("a number"), now[path]);
        report(&format!("{path}: {now} instructions for each event, {before} before"));
        assert!(now <= before + before * PERCENT_MAX / 100, "{path}: {now} instructions, {before} before");
    }
    assert_eq!(before.lines().count(), PATHS.len());
}

/// The instructions of a whole run.
fn count(path: &str) -> u64 {
    let run = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(env!("CARGO_BIN_EXE_bench"))
        .args(["path", path, "--events", &EVENTS.to_string()])
        .output()
        .expect("valgrind runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let output = String::from_utf8(run.stderr).expect("text");
    let refs = output.lines().find_map(|line| line.split_once("refs:")).expect("a count").1;
    refs.trim().replace(',', "").parse().expect("a number")
}
