//! Ends a process whose threads may block for ever.
//!
//! The library that finds this out cannot return to a caller that might block, too. It gives the reason and waits;
//! `main`, which alone ends the process, gets it on a thread of its own.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

static REASONS: OnceLock<SyncSender<String>> = OnceLock::new();

/// Calls `end` with the first reason to end the process. For `main`; a second call has no effect.
pub fn on_abort(end: impl FnOnce(&str) + Send + 'static) -> io::Result<()> {
    let (reasons, reason) = sync_channel(1);
    if REASONS.set(reasons).is_ok() {
        let wait = move || {
            if let Ok(why) = reason.recv() {
                end(&why);
            }
        };
        thread::Builder::new().name("abort".into()).spawn(wait)?;
    }
    Ok(())
}

/// Has the process ended.
///
/// # Panics
///
/// If no `main` called [`on_abort`].
pub fn abort(why: String) -> ! {
    let reasons = REASONS.get().unwrap_or_else(|| panic!("{why}"));
    // Full or closed: the process is ending for another reason.
    let _ = reasons.try_send(why);
    loop {
        thread::park();
    }
}
