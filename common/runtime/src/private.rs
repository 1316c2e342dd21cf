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
/// Deeper than any of our directories.
const DEPTH_MAX: usize = 8;
/// What is ours in `data-dir`, and the directory that file systems create.
const OURS: [&str; 5] = ["ingress", "logs", "processor", "vault.key", "lost+found"];

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

/// Makes all new files of this process private, those of libraries included.
pub fn only_private_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// As [`only_private_files`]. Existing files are closed to others, too: `data_dir`, our directories below it, and all
/// that lies in them.
///
/// `data_dir` itself is changed only if nothing else lies in it: it may be shared, and our directories in it are closed
/// all the same.
pub fn tighten(data_dir: &Path) {
    only_private_files();
    if holds_only_ours(data_dir).unwrap_or(false) {
        let mut found = Lax::default();
        found.tighten(data_dir);
        found.report();
    }
    for ours in ["ingress", "logs", "processor", "vault.key"] {
        let mut found = Lax::default();
        found.tighten_all(&data_dir.join(ours), DEPTH_MAX);
        found.report();
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

/// Entries that were open to others, by what became of them.
#[derive(Default)]
struct Lax {
    tightened: Entries,
    of_others: Entries,
    failed: Entries,
}

/// The first one, for the log, and the number of further ones.
#[derive(Default)]
struct Entries {
    first: Option<String>,
    more: usize,
}

impl Entries {
    fn add(&mut self, path: &Path, mode: u32) {
        match self.first {
            None => self.first = Some(format!("{} was open to others (mode {mode:04o})", path.display())),
            Some(_) => self.more += 1,
        }
    }

    fn shown(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(if self.more == 0 { first.clone() } else { format!("{first}, as were {} more below", self.more) })
    }
}

impl Lax {
    /// A directory before what lies in it: once it is closed, no other user can put a link there.
    fn tighten_all(&mut self, path: &Path, depth: usize) {
        if !self.tighten(path) || depth == 0 {
            return;
        }
        for entry in path.read_dir().into_iter().flatten().flatten() {
            self.tighten_all(&entry.path(), depth - 1);
        }
    }

    /// Whether it is a directory of ours.
    fn tighten(&mut self, path: &Path) -> bool {
        // A link's target is not ours.
        let Ok(found) = fs::symlink_metadata(path) else { return false };
        if !found.is_dir() && !found.is_file() {
            return false;
        }
        let mode = found.mode() & 0o7777;
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        if mode & OTHERS != 0 {
            let entries = if !is_ours {
                &mut self.of_others
            } else if fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)).is_ok() {
                &mut self.tightened
            } else {
                &mut self.failed
            };
            entries.add(path, mode);
        }
        found.is_dir() && is_ours
    }

    fn report(&self) {
        if let Some(shown) = self.tightened.shown() {
            info!("{shown}, and may hold secrets: now only the owner may read it");
        }
        if let Some(shown) = self.of_others.shown() {
            warn!("{shown}, may hold secrets, and belongs to another user: `chmod -R go= PATH` as that user");
        }
        if let Some(shown) = self.failed.shown() {
            warn!("{shown}, may hold secrets, and its mode cannot be changed: `chmod -R go= PATH`");
        }
    }
}

/// A warning, with the remedy, for a secret file that others may read.
///
/// Never an error: Docker and Kubernetes mount secrets as root's, `0444` or `0640`, into a container with one user. Where
/// the mount is read-only there is no warning either.
pub(crate) fn exposed(path: &Path) -> Option<String> {
    let found = fs::metadata(path).ok()?;
    if rustix::fs::statvfs(path).is_ok_and(|mount| mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY)) {
        return None;
    }
    let mode = found.mode() & 0o7777;
    let shown = path.display();
    (found.is_file() && mode & OTHERS != 0)
        .then(|| format!("{shown} holds a secret, and others may read it (mode {mode:04o}): `chmod 600 {shown}`"))
}

#[cfg(test)]
mod tests;
