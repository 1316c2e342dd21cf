//! What tests fetch from registries, once, and keep in the user's cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use fs4::fs_std::FileExt;

/// The folder of this name, which `fill` fills if it is not there. Processes that ask at the same time wait for each other.
pub fn folder(name: &str, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
    let cache = cache()?;
    fs::create_dir_all(&cache).context("make the cache")?;
    let lock = File::create(cache.join(format!("{name}.lock"))).context("open the cache's lock")?;
    lock.lock_exclusive().context("lock the cache")?;
    let folder = cache.join(name);
    if !folder.is_dir() {
        let fresh = tempfile::tempdir_in(&cache).context("make a folder")?;
        fill(fresh.path()).with_context(|| format!("fetch {name}"))?;
        // All of it or nothing: a rename cannot be interrupted.
        fs::rename(fresh.keep(), &folder).context("put the folder into the cache")?;
    }
    Ok(folder)
}

/// Whether nothing needs to be fetched.
pub fn has(name: &str) -> bool {
    cache().is_ok_and(|cache| cache.join(name).is_dir())
}

/// Whether a command is there.
pub fn runs(command: &str, argument: &str) -> bool {
    let quiet = Command::new(command).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Copies a Maven project's dependencies to the folder `libs` beside its `pom.xml`.
pub fn maven(folder: &Path, pom: &str) -> anyhow::Result<()> {
    fs::write(folder.join("pom.xml"), pom).context("write pom.xml")?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs"]);
    succeeds(maven.current_dir(folder))
}

/// Runs a command to its end; its words are the error.
pub fn succeeds(command: &mut Command) -> anyhow::Result<()> {
    let ended = command.output().with_context(|| format!("start {command:?}"))?;
    let said = [ended.stdout, ended.stderr].concat();
    ensure!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
    Ok(())
}

fn cache() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(cache.join("hookledger-test"))
}
