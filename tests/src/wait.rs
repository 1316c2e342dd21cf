//! Waits for conditions, never for time to pass; says loudly what could not be run.

use std::io::Write;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(25);

/// Looks again and again until there is something, and panics with `what` when there is nothing by the deadline.
pub fn eventually<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// As [`eventually`], for what says by an error why it is not there yet; the last error is shown.
pub fn eventually_ok<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> anyhow::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(error) => assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what}: {error:#}"),
        }
        std::thread::sleep(POLL);
    }
}

/// Says, past the test runner's capture, that something was not run; with `CI=true` that is a failure.
pub fn not_run(what: &str, why: &str) {
    let line = format!("NOT RUN: {what}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("write to stderr");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{}", line.trim_end());
}

/// Says something about a run that people should see, past the test runner's capture.
pub fn report(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).expect("write to stderr");
}

/// Lets the heavy tests of one file run one after another, however many threads the test runner has.
pub fn alone() -> Place {
    place_among(1)
}

/// As [`alone`], for tests that mostly wait: two of one file share the machine well.
pub fn in_pairs() -> Place {
    place_among(2)
}

/// How many tests of this file have a place.
static TAKEN: Mutex<u32> = Mutex::new(0);
/// One of them has ended.
static FREE: Condvar = Condvar::new();

/// A place among the tests that run, until it is dropped.
pub struct Place(());

impl Drop for Place {
    fn drop(&mut self) {
        *taken() -= 1;
        FREE.notify_one();
    }
}

fn place_among(places: u32) -> Place {
    let free = FREE.wait_while(taken(), |taken| *taken >= places);
    *free.unwrap_or_else(PoisonError::into_inner) += 1;
    Place(())
}

// A test that failed has nothing to do with the next one.
fn taken() -> MutexGuard<'static, u32> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}
