//! Ends the process as soon as sled cannot be trusted any more, so that a new one begins with what is on the disk.
//!
//! After a panic in sled, whoever comes next may wait for ever, and its threads belong to the whole process. So
//! nothing is repaired inside: the process says why and ends, and the next one quarantines the state. Only what goes
//! wrong on the thread that opens a state is left to that thread, since nobody else has the state yet.

use std::cell::Cell;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tracing::error;

use super::crash_marker;

/// The state that this process lives and ends with, if it does.
static WATCHED: OnceLock<PathBuf> = OnceLock::new();

/// What a state that made sled panic is noted with: enough not to be opened again.
const NEVER_AGAIN: u32 = 100;

thread_local! {
    static OPENS: Cell<bool> = const { Cell::new(false) };
}

/// From now on this process ends when sled fails. For programs; what tests break in their own process, they see.
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

/// Sled returned an error for a state that had been verified.
pub fn failed(why: &str) {
    if WATCHED.get().is_some() && !OPENS.get() {
        end(why);
    }
}

/// Whether this thread is opening a state, and nobody has it yet.
pub fn is_opening() -> bool {
    OPENS.get()
}

/// Opens a state: its panics and errors are left to the caller. A watched process ends if it takes too long.
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
    error!(
        "ending at once: {why}. Nothing is lost: the state is made of facts, and what cannot be read of it is read \
         again from there at the next start"
    );
    process::exit(1)
}

/// Whether it comes out of sled's code, or out of one of its threads.
fn is_sleds(panic: &PanicHookInfo<'_>) -> bool {
    let thread = thread::current();
    let of_thread = thread.name().is_some_and(|name| name.starts_with("sled") || name.contains("flusher"));
    of_thread || panic.location().is_some_and(|at| at.file().contains("/sled-0."))
}
