//! Nothing that a test starts outlives it, whatever ends the test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// Waits beside a process; when this test process is gone, ends that one and removes its directory.
///
/// A shell that reads a pipe from us: the pipe closes however we end, `kill -9` and statics included.
pub struct Guard(Child);

const SCRIPT: &str = "trap '' INT TERM; while read -r _; do :; done; kill -9 \"$1\"; test -z \"$2\" || rm -rf \"$2\"";

impl Guard {
    /// Watches a process and perhaps a directory of it.
    pub fn watch(pid: u32, directory: Option<&Path>) -> anyhow::Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "guard", &pid.to_string()])
            .arg(directory.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start a shell")?;
        Ok(Self(shell))
    }
}

impl Drop for Guard {
    /// What was watched has been ended properly.
    fn drop(&mut self) {
        // A shell that is gone already needs no ending.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal, by its name.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "kill", name, &pid.to_string()]).status();
    anyhow::ensure!(status.context("start a shell")?.success(), "could not send {name} to {pid}");
    Ok(())
}
