//! The bug that is switched on in this thread.

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<&'static str> = const { Cell::new("") };
}

/// Runs with a bug, by its name.
pub fn with<T>(name: &'static str, run: impl FnOnce() -> T) -> T {
    ACTIVE.set(name);
    let done = run();
    ACTIVE.set("");
    done
}

pub(crate) fn is(name: &str) -> bool {
    ACTIVE.get() == name
}
