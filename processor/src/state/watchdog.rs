//! Ends the process when sled can no longer be trusted, so that a new one starts from the disk.
//!
//! After a panic in sled, the next caller may block for ever, and its threads belong to the whole process. So nothing
//! is repaired in place: the process ends, and the next one quarantines the state. Only failures on
//! the thread that opens a state are left to that thread, since no other has the state yet.

use std::cell::Cell;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use runtime::abort::abort;

use super::crash_marker;

/// The state whose failure ends this process.
static WATCHED: OnceLock<PathBuf> = OnceLock::new();

/// The crash count after a panic in sled: the state is not opened again.
const NEVER_AGAIN: u32 = 100;

thread_local! {
    static OPENS: Cell<bool> = const { Cell::new(false) };
}

/// From now on the process ends when sled fails: see [`abort`]. For programs; tests handle failures themselves.
pub fn end_with(dir: &Path) {
    if WATCHED.set(dir.to_owned()).is_err() {
        return;
    }
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        before(panic);
        if is_sleds(panic) && !OPENS.get() {
            let noted = WATCHED.get().map(|dir| crash_marker::note(dir, NEVER_AGAIN));
            end(&format!(
                "sled panicked, and its state is not opened again (noted: {})",
                matches!(noted, Some(Ok(())))
            ));
        }
    }));
}

/// sled returned an error for a verified state.
pub fn failed(why: &str) {
    if WATCHED.get().is_some() && !OPENS.get() {
        end(why);
    }
}

/// Whether this thread is opening a state, which no other has yet.
pub(crate) fn is_opening() -> bool {
    OPENS.get()
}

/// Opens a state: panics and errors are left to the caller. A watched process ends if it takes too long.
pub fn while_opening<T>(dir: &Path, deadline: Duration, open: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    if WATCHED.get().is_some() {
        let what = dir.display().to_string();
        let waiting = thread::Builder::new().name("state-opening".into()).spawn(move || {
            if is_done.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                end(&format!("opening {what} took more than {} s", deadline.as_secs()));
            }
        });
        if let Err(error) = waiting {
            tracing::warn!("opening the state has no deadline: {error}");
        }
    }
    OPENS.set(true);
    let opened = open();
    OPENS.set(false);
    drop(done);
    opened
}

fn end(why: &str) -> ! {
    abort(format!(
        "{why}. Nothing is lost: the state follows from facts, and the next start reads again what it cannot use of it"
    ))
}

/// Whether it comes from sled's code or threads.
fn is_sleds(panic: &PanicHookInfo<'_>) -> bool {
    let thread = thread::current();
    let of_thread = thread.name().is_some_and(|name| name.starts_with("sled") || name.contains("flusher"));
    of_thread || panic.location().is_some_and(|at| at.file().contains("/sled-0."))
}
