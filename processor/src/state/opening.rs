//! Opens the state so that nothing that lies there can do harm: what is odd in any way is damaged, and is quarantined.
//!
//! Three things can go wrong beyond an error: sled panics, which is caught here; it panics in a thread of its own or
//! takes more memory than there is, which ends the process; it never comes back, which a deadline ends. What ended a
//! process is remembered beside the state ([`crash_marker`]), so that no supervisor starts the same end for ever.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use super::beside::beside;
use super::bulk_load::BulkLoad;
use super::room::Patience;
use super::sled::Sled;
use super::{Store, StoreError, Trusts, crash_marker, watchdog};

/// So many processes may end while they open a state; the next one quarantines it. One may have been killed for
/// reasons of its own.
const ENDS_MAX: u32 = 2;
/// How long opening may take, whatever the size.
const OPENING_TIME: Duration = Duration::from_secs(60);
/// And a second more for so many bytes: a hundredth of what a slow disk reads.
const BYTES_PER_SECOND: u64 = 1024 * 1024;

/// Opens what lies in `dir`, or makes it; every row is read, and the digest compared.
pub fn open(dir: &Path, log: &str, partitions: u32, trusts: Trusts) -> Result<Store, StoreError> {
    open_patiently(dir, log, partitions, trusts, &Patience::default())
}

/// The same, and waits for room, now and whenever it is written to.
pub fn open_patiently(
    dir: &Path,
    log: &str,
    partitions: u32,
    trusts: Trusts,
    patience: &Patience,
) -> Result<Store, StoreError> {
    patience.wait_to_open(dir, bytes(dir))?;
    let open = |rows: Sled| Store::open(Box::new(BulkLoad::new(rows.with(patience))), log, partitions, trusts);
    open_with(dir, open)
}

/// Opens what lies in `dir` as what it says it is, without knowing any logs; none if it says nothing.
pub fn look(dir: &Path, trusts: Trusts) -> Result<Option<Store>, StoreError> {
    open_with(dir, |rows| match Store::whose(&rows)? {
        Some((log, partitions)) => Store::open(Box::new(rows), &log, partitions, trusts).map(Some),
        None => Ok(None),
    })
}

/// Moves the state out of the way, in place of what was quarantined before; returns where it is.
pub fn quarantine(dir: &Path) -> io::Result<PathBuf> {
    let aside = beside(dir, "quarantine");
    throw_away(&aside)?;
    if dir.exists() {
        fs::rename(dir, &aside)?;
    }
    crash_marker::clear(dir)?;
    Ok(aside)
}

/// Removes a state with all that is in it, if it is there.
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
        // Damage makes sled panic more often than it makes it return an error.
        catch_unwind(AssertUnwindSafe(|| read(Sled::open(dir)?)))
            .unwrap_or_else(|_| Err(StoreError::Damaged("sled panicked while it was opened and read".to_owned())))
    });
    crash_marker::clear(dir).map_err(noted)?;
    opened
}

/// About what the files take.
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

    /// sled's threads keep its files for a moment longer than whoever had them open.
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
                // Now somebody is opening it.
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
