//! A small file system that only one program sees: to be filled without harm to other programs.
//!
//! It lies in a mount namespace of its own, held by a shell that does nothing else. A user that may not mount there
//! may do so as root of a user namespace, where the system allows these.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// Mounts, says so, and waits for its end.
const SCRIPT: &str = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && echo mounted && while read -r _; do :; done";

/// Asked for one after the other: mounts of our own as root, else as root of a user namespace of our own.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];

/// A file system of a few MiB. Dropping it takes it away.
pub struct Tmpfs {
    holder: Child,
    way: &'static [&'static str],
    directory: TempDir,
}

impl Tmpfs {
    /// Mounts one of so many bytes; an error says why that cannot be.
    pub fn mount(bytes: u64) -> anyhow::Result<Self> {
        let mut errors = Vec::new();
        for way in WAYS {
            match Self::mount_by(way, bytes) {
                Ok(mounted) => return Ok(mounted),
                Err(error) => errors.push(format!("{error:#}")),
            }
        }
        anyhow::bail!("no small file system can be mounted: {}", errors.join("; "))
    }

    fn mount_by(way: &'static [&'static str], bytes: u64) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("hookledger-test-small-").tempdir().context("a directory")?;
        let mut holder = Command::new("unshare")
            .args(way)
            .args(["sh", "-c", SCRIPT, "holder", &bytes.to_string()])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start unshare")?;
        let mut said = String::new();
        let stdout = holder.stdout.take().context("its stdout")?;
        BufReader::new(stdout).read_line(&mut said).context("listen to it")?;
        if said != "mounted\n" {
            let output = holder.wait_with_output().context("wait for it")?;
            let why = String::from_utf8_lossy(&output.stderr);
            anyhow::bail!("unshare {}: {}", way.join(" "), why.trim_end());
        }
        Ok(Self { holder, way, directory })
    }

    /// Where a program finds it that was started by way of [`Self::entrance`].
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What a command is put behind to see it.
    pub fn entrance(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        let mut words = vec!["nsenter", "--target", &target, "--mount"];
        if self.way.contains(&"--user") {
            words.extend(["--user", "--preserve-credentials"]);
        }
        words.push("--");
        words.into_iter().map(str::to_owned).collect()
    }

    /// Puts a file of so many bytes there, which takes their room away from others.
    pub fn take_room(&self, bytes: usize) -> anyhow::Result<()> {
        let mut file = File::create(self.ballast()).context("make a file")?;
        file.write_all(&vec![1; bytes]).context("fill it")
    }

    /// Puts a file there that takes all the room that is left.
    pub fn take_all_room(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.ballast()).context("make a file")?;
        loop {
            match file.write(&[1; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("fill it"),
            }
        }
    }

    /// Takes that file away.
    pub fn make_room(&self) -> anyhow::Result<()> {
        fs::remove_file(self.ballast()).context("remove the file")
    }

    /// As seen from outside.
    pub fn from_outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let inside = self.path().strip_prefix("/").expect("a temporary directory has an absolute path");
        root.join(inside)
    }

    fn ballast(&self) -> PathBuf {
        self.from_outside().join("ballast")
    }

    /// Bytes that are free.
    pub fn free(&self) -> anyhow::Result<u64> {
        let entrance = self.entrance();
        let output = Command::new(&entrance[0])
            .args(&entrance[1..])
            .args(["stat", "--file-system", "--format=%a %S"])
            .arg(self.path())
            .output()
            .context("start stat")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout);
        let (blocks, size) = said.trim_end().split_once(' ').context("two numbers")?;
        Ok(blocks.parse::<u64>()? * size.parse::<u64>()?)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Its mounts go with the last process that sees them.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
