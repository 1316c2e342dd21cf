//! Files and directories that hold secrets: nobody but their owner reads them, whatever the umask is.
//!
//! Bodies with tokens lie in disk logs, so what we make is `0600` in directories of `0700`. What an older version made
//! wider is tightened at the start ([`tighten`]). A file that a person made is never changed: if others can read it,
//! that is warned about ([`exposed`]), since it may be meant so where a secret is mounted.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tracing::{info, warn};

/// Of directories that are made.
pub const DIR_MODE: u32 = 0o700;
/// Of files that are made.
pub const FILE_MODE: u32 = 0o600;
/// What the group and others may do.
const OTHERS: u32 = 0o077;
/// What `data-dir` holds of ours, each in a directory of its own, and what file systems put there.
const OURS: [&str; 4] = ["ingress", "logs", "processor", "lost+found"];

/// Opens a file to write it, and makes it if it is not there. No link is followed at the path's end.
pub fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(FILE_MODE).custom_flags(no_follow());
    options
}

/// Opens the file of a lock, and makes it if it is not there. A link in its place is an error: the lock would be
/// somewhere else, and what lies there is not ours to touch.
pub fn lock_file(path: &Path) -> io::Result<File> {
    file().truncate(false).open(path)
}

/// Opens a file to be read, unless it is a link.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(no_follow()).open(path)
}

/// Writes a small file whole.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    use io::Write;
    file().truncate(true).open(path)?.write_all(bytes.as_ref())
}

/// Makes a directory and what is missing above it.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).expect("flags fit into an int")
}

/// From now on all that this process makes is its owner's alone, also what libraries make. What is there already is
/// closed to others: `data_dir` and the directories of ours below it.
///
/// Only what is ours is changed. `data_dir` itself is changed only if nothing else lies in it: it may be a directory
/// that is shared with others, and what it holds of ours is closed all the same.
pub fn tighten(data_dir: &Path) {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    if holds_only_ours(data_dir).unwrap_or(false) {
        tighten_dir(data_dir);
    }
    for ours in ["ingress", "logs", "processor"] {
        tighten_dir(&data_dir.join(ours));
    }
}

fn holds_only_ours(data_dir: &Path) -> io::Result<bool> {
    let ours = BTreeSet::from(OURS);
    for entry in data_dir.read_dir()? {
        if !entry?.file_name().to_str().is_some_and(|name| ours.contains(name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn tighten_dir(dir: &Path) {
    // A link's target is somebody else's choice.
    let Ok(found) = fs::symlink_metadata(dir) else { return };
    let mode = found.mode() & 0o7777;
    if !found.is_dir() || mode & OTHERS == 0 {
        return;
    }
    let shown = dir.display();
    if found.uid() != rustix::process::geteuid().as_raw() {
        warn!(
            "{shown} holds secrets, is open to others (mode {mode:04o}), and belongs to another user: `chmod 700 {shown}`"
        );
        return;
    }
    match fs::set_permissions(dir, Permissions::from_mode(mode & !OTHERS)) {
        Ok(()) => {
            info!("{shown} was open to others (mode {mode:04o}) and holds secrets: now only its owner may read it");
        }
        Err(error) => warn!(%error, "{shown} is open to others (mode {mode:04o}): `chmod 700 {shown}`: {error}"),
    }
}

/// What is wrong with who may read a file that holds a secret, with the remedy; none if nothing is.
///
/// It is never refused: Docker and Kubernetes mount secrets as root's, `0444` or `0640`, into a container with one user.
pub fn exposed(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let mode = found.mode() & 0o7777;
    let shown = path.display();
    (found.is_file() && mode & OTHERS != 0)
        .then(|| format!("{shown} holds a secret, and others may read it (mode {mode:04o}): `chmod 600 {shown}`"))
}

#[cfg(test)]
mod tests;
