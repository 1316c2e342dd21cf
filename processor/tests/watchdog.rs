//! What ends a processor that has trouble with sled, in a process of its own: a panic in one of sled's threads, an
//! opening that takes too long. The next process makes the state again or opens it again, as the case is.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use processor::state::{StoreError, Trusts, opening, watchdog};

/// Tells the process of its own what to do, and where.
const BREAKS: &str = "HOOKLEDGER_TEST_BREAKS";

#[test]
fn a_panic_in_a_thread_of_sleds_ends_the_process_and_the_state_is_not_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let said = ends("panics", &state);
    assert!(said.contains("sled panicked, and its state is not opened again (noted: true)"), "{said}");
    assert!(matches!(opening::open(&state, "log", 1, Trusts::default()), Err(StoreError::Damaged(_))));
    opening::quarantine(&state).expect("quarantined");
    drop(opening::open(&state, "log", 1, Trusts::default()).expect("a new one"));
}

#[test]
fn an_opening_that_takes_too_long_ends_the_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let said = ends("hangs", &state);
    assert!(said.contains("opening") && said.contains("took more than 0 s"), "{said}");
    drop(opening::open(&state, "log", 1, Trusts::default()).expect("there was nothing wrong with it"));
}

/// Runs [`a_process_of_its_own`], which must end with code 1; returns what it said.
fn ends(how: &str, state: &Path) -> String {
    let ran = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_process_of_its_own", "--ignored", "--nocapture"])
        .env(BREAKS, format!("{how} {}", state.display()))
        .stdin(Stdio::null())
        .output()
        .expect("started");
    let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    said
}

#[test]
#[ignore = "the other side of the tests above"]
fn a_process_of_its_own() {
    let order = std::env::var(BREAKS).expect("an order");
    let (how, state) = order.split_once(' ').expect("how and where");
    let state = Path::new(state);
    runtime::telemetry::init_logs(runtime::telemetry::LogFormat::Text);
    runtime::abort::on_abort(exit).expect("a thread");
    watchdog::end_with(state);
    match how {
        "panics" => {
            let _open = opening::open(state, "log", 1, Trusts::default()).expect("open");
            let panics = thread::Builder::new().name("sled-io-0".into()).spawn(|| panic!("as sled does"));
            // The process ends in its hook.
            panics.expect("a thread").join().expect_err("it panics");
        }
        "hangs" => {
            let (_kept, never) = mpsc::channel::<()>();
            watchdog::while_opening(state, Duration::from_millis(10), || never.recv()).expect_err("no sender");
        }
        other => panic!("{other}"),
    }
    unreachable!("the process has ended");
}

fn exit(why: &str) {
    println!("exiting: {why}");
    std::process::exit(1)
}
