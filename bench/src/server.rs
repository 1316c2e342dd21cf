//! A server in a process of its own: built, started on free ports, watched, ended.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use tests::guard::Guard;
use tests::http::Client;
use tests::ports;
use tests::wait::eventually;

use crate::cpu;

/// From start to ready. The broker may still be coming up.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// A running server. Dropping it ends it.
pub struct Server {
    child: Child,
    _guard: Guard,
}

/// Builds ingress and processor as this program was built.
pub fn build() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let folder = folder()?;
    let target = folder.parent().context("a target directory")?;
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bins", "-p", "ingress", "-p", "processor", "--target-dir"]).arg(target);
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    ensure!(build.status().context("start cargo")?.success(), "ingress and processor do not build");
    Ok(())
}

/// Where our programs lie: beside this one.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    Ok(folder()?.join(name))
}

fn folder() -> anyhow::Result<PathBuf> {
    let bench = std::env::current_exe().context("find this program")?;
    Ok(bench.parent().context("this program lies in a folder")?.to_owned())
}

/// A free address.
pub fn address() -> String {
    format!("127.0.0.1:{}", ports::free())
}

/// Flags and their values as arguments.
pub fn settings(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
}

impl Server {
    /// Starts `program` and waits until `path` at `address` answers 200; what it says goes into `log`.
    pub fn start(
        program: &Path,
        arguments: &[String],
        (address, path): (&str, &str),
        log: &Path,
    ) -> anyhow::Result<Self> {
        let log_file = std::fs::File::create(log).context("make a log file")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("share the log file")?)
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let guard = Guard::watch(child.id(), None)?;
        let mut server = Self { child, _guard: guard };
        let mut client = Client::new(address.parse().context("an address")?);
        let what = format!("{} is ready, see {}", program.display(), log.display());
        let came_up = eventually(UP_WITHIN, &what, || {
            if server.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Some(false);
            }
            client.get(path).is_ok_and(|answer| answer.status == 200).then_some(true)
        });
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        ensure!(came_up, "{} ended:\n{}", program.display(), said());
        Ok(server)
    }

    /// The CPU that it has taken so far.
    pub fn cpu_us(&self) -> Option<u64> {
        cpu::taken_us(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; nothing that it holds outlives the bench.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
