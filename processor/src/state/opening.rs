//! Opens the state safely: any irregularity is damage, and the state is quarantined.
//!
//! Besides errors, sled can panic, which is caught; panic in a thread of its own or exhaust memory, which ends the
//! process; or hang, which a deadline ends. Crashes are counted beside the state ([`crash_marker`]), so that a
//! supervisor does not repeat the same crash for ever.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use super::beside::beside;
use super::room::Patience;
use super::sled::Sled;
use super::write_behind::WriteBehind;
use super::{Store, StoreError, Trusts, crash_marker, watchdog};

/// Crashes while opening, after which the state is quarantined. One may have had another cause.
const ENDS_MAX: u32 = 2;
/// The minimal deadline.
const OPENING_TIME: Duration = Duration::from_secs(60);
/// Extends the deadline: a hundredth of the throughput of a slow disk.
const BYTES_PER_SECOND: u64 = 1024 * 1024;

/// Opens or creates the state in `dir`; reads every row and compares the digest.
pub fn open(dir: &Path, log: &str, partitions: u32, trusts: Trusts) -> Result<Store, StoreError> {
    open_patiently(dir, log, partitions, trusts, &Patience::default())
}

/// The same, but waits for free space, now and on every write.
pub(crate) fn open_patiently(
    dir: &Path,
    log: &str,
    partitions: u32,
    trusts: Trusts,
    patience: &Patience,
) -> Result<Store, StoreError> {
    patience.wait_to_open(dir, bytes(dir))?;
    let open = |rows: Sled| Store::open(Box::new(WriteBehind::over(rows.with(patience))?), log, partitions, trusts);
    open_with(dir, open)
}

/// Opens the state in `dir` for the logs that it names; `None` if it names none.
pub fn inspect(dir: &Path, trusts: Trusts) -> Result<Option<Store>, StoreError> {
    open_with(dir, |rows| match Store::whose(&rows)? {
        Some((log, partitions)) => Store::open(Box::new(rows), &log, partitions, trusts).map(Some),
        None => Ok(None),
    })
}

/// Moves the state away, replacing a previously quarantined one; returns its new path.
pub fn quarantine(dir: &Path) -> io::Result<PathBuf> {
    let aside = beside(dir, "quarantine");
    throw_away(&aside)?;
    if dir.exists() {
        fs::rename(dir, &aside)?;
    }
    crash_marker::clear(dir)?;
    Ok(aside)
}

pub fn throw_away(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => crash_marker::clear(dir),
    }
}

fn open_with<T>(dir: &Path, read: impl FnOnce(Sled) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let noted =
        |error: io::Error| StoreError::Rows(format!("note beside {} that it is opened: {error}", dir.display()));
    let ends = crash_marker::ends(dir);
    if ends >= ENDS_MAX {
        return Err(StoreError::Damaged("a process ended because of it, or two while they opened it".to_owned()));
    }
    crash_marker::note(dir, ends + 1).map_err(noted)?;
    let deadline = OPENING_TIME + Duration::from_secs(bytes(dir) / BYTES_PER_SECOND);
    let opened = watchdog::while_opening(dir, deadline, || {
        // On damage, sled panics more often than it returns an error.
        catch_unwind(AssertUnwindSafe(|| read(Sled::open(dir)?)))
            .unwrap_or_else(|_| Err(StoreError::Damaged("sled panicked while it was opened and read".to_owned())))
    });
    crash_marker::clear(dir).map_err(noted)?;
    opened
}

/// Approximate size of the files.
fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_here(dir: &Path) -> Result<Store, StoreError> {
        open(dir, "log", 1, Trusts::default())
    }

    #[test]
    fn a_state_that_ended_two_processes_is_not_opened_a_third_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        drop(open_here(&state).expect("open"));
        assert_eq!(crash_marker::ends(&state), 0, "it ended in order");
        crash_marker::note(&state, 1).expect("noted");
        drop(open_here(&state).expect("one end may have had other reasons"));
        crash_marker::note(&state, ENDS_MAX).expect("noted");
        assert!(matches!(open_here(&state), Err(StoreError::Damaged(_))));
        let aside = quarantine(&state).expect("quarantined");
        assert!(aside.join("db").exists() && !state.exists());
        drop(open_here(&state).expect("a new one"));
    }

    #[test]
    fn a_state_that_somebody_has_is_not_damaged() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let _open = open_here(&state).expect("open");
        assert!(matches!(open_here(&state), Err(StoreError::Rows(_))));
    }

    /// sled's threads hold its files for a moment after the last handle is dropped.
    #[test]
    fn a_state_that_was_let_go_a_moment_ago_can_be_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let had = open_here(&state).expect("open");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while crash_marker::ends(&state) == 0 {
                    std::thread::yield_now();
                }
                // The retry is running.
                drop(had);
            });
            drop(open_here(&state).expect("open again"));
        });
    }

    #[test]
    fn half_a_snapshot_is_no_obstacle() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        drop(open_here(&state).expect("open"));
        fs::write(state.join("snap.FFFFFFFFFFFFFFFF.generating"), [7; 100]).expect("written");
        drop(open_here(&state).expect("open again"));
        let left = fs::read_dir(&state).expect("read").filter_map(Result::ok);
        assert_eq!(left.filter(|file| file.file_name().to_string_lossy().ends_with(".generating")).count(), 0);
    }
}
