//! A clock that a test sets for its programs, days ahead or back, while that of the machine stays as it is.
//!
//! A library that is loaded before all others answers in place of the system's clock, and when a thread waits for a
//! time of day. Time that passes (`CLOCK_MONOTONIC`) is left alone, as it is when a clock is set.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use tempfile::TempDir;

const LIBRARY: &str = include_str!("clock/clock.c");

/// A clock for those who are started with its [`Self::environment`].
pub struct Clock {
    ahead: File,
    directory: TempDir,
}

impl Clock {
    /// One that is right at first. It takes a C compiler, and programs that use the C library as it is on this machine.
    pub fn make() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("hookledger-test-clock-").tempdir().context("a directory")?;
        let source = directory.path().join("clock.c");
        fs::write(&source, LIBRARY).context("write its source")?;
        let ahead = File::create(directory.path().join("ahead")).context("make its file")?;
        let clock = Self { ahead, directory };
        clock.set(0);
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-shared", "-fPIC", "-o"]).arg(clock.library()).arg(&source).arg("-ldl");
        let compiled = cc.output().context("start cc")?;
        ensure!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
        clock.works()?;
        Ok(clock)
    }

    /// Sets it so many seconds ahead of the right time, or back.
    pub fn set(&self, ahead_s: i64) {
        self.ahead.write_all_at(&ahead_s.to_ne_bytes(), 0).expect("write eight bytes");
    }

    /// What a program is told, so that it goes by this clock.
    pub fn environment(&self) -> [(String, String); 2] {
        let path = |path: PathBuf| path.display().to_string();
        let ahead = path(self.directory.path().join("ahead"));
        [("LD_PRELOAD".to_owned(), path(self.library())), ("HOOKLEDGER_TEST_CLOCK".to_owned(), ahead)]
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("clock.so")
    }

    /// Whether programs of this machine go by it.
    fn works(&self) -> anyhow::Result<()> {
        let now = || -> anyhow::Result<i64> {
            let said = Command::new("date").arg("+%s").envs(self.environment()).output().context("start date")?;
            Ok(String::from_utf8_lossy(&said.stdout).trim().parse()?)
        };
        let before = now()?;
        self.set(86_400);
        let after = now()?;
        self.set(0);
        ensure!((86_400..90_000).contains(&(after - before)), "a program still goes by the machine's clock");
        Ok(())
    }
}
