//! Files and directories with secrets: only their owner reads them, under any umask.
//!
//! Bodies with tokens lie in disk logs, so new files are `0600` in directories of `0700`. The modes of an older version
//! are tightened at the start ([`tighten`]). A file that an operator made is never changed: if others can read it, a
//! warning is logged ([`exposed`]), since mounted secrets may be meant so.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tracing::{info, warn};

pub const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;
/// Our directories in `data-dir`, and the one that file systems create.
const OURS: [&str; 4] = ["ingress", "logs", "processor", "lost+found"];

/// Creates a missing file. No link is followed at the path's end.
pub fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(FILE_MODE).custom_flags(no_follow());
    options
}

/// Creates a missing file. A link in its place is an error: the lock would lie somewhere else, in a file that is not
/// ours.
pub fn lock_file(path: &Path) -> io::Result<File> {
    file().truncate(false).open(path)
}

/// For reading; fails for a link.
pub fn open_no_follow(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(no_follow()).open(path)
}

pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    use io::Write;
    file().truncate(true).open(path)?.write_all(bytes.as_ref())
}

/// Creates missing parents, too.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).expect("flags fit into an int")
}

/// Makes all new files of this process private, those of libraries included. Existing ones are closed to others:
/// `data_dir` and our directories below it.
///
/// `data_dir` itself is changed only if nothing else lies in it: it may be shared, and our directories in it are closed
/// all the same.
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
    // A link's target is not ours.
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

/// A warning, with the remedy, for a secret file that others may read.
///
/// Never an error: Docker and Kubernetes mount secrets as root's, `0444` or `0640`, into a container with one user.
pub(crate) fn exposed(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    let mode = found.mode() & 0o7777;
    let shown = path.display();
    (found.is_file() && mode & OTHERS != 0)
        .then(|| format!("{shown} holds a secret, and others may read it (mode {mode:04o}): `chmod 600 {shown}`"))
}

#[cfg(test)]
mod tests;
