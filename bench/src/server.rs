//! A server in a process of its own: built, started on free ports, watched, ended.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use tests::guard::{Guard, signal};
use tests::http::Client;
use tests::ports;
use tests::wait::eventually;

use crate::{cpu, footprint};

/// From start to ready. The broker may still be coming up.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// From the signal to the end: state is written meanwhile.
const DOWN_WITHIN: Duration = Duration::from_secs(60);

/// A running server. Dropping it ends it.
pub struct Server {
    child: Child,
    log: PathBuf,
    _guard: Guard,
}

/// Builds ingress and processor as this program was built.
pub fn build() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bins", "-p", "ingress", "-p", "processor", "--target-dir"]).arg(target()?);
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

/// Where all that is built lies.
pub fn target() -> anyhow::Result<PathBuf> {
    Ok(folder()?.parent().context("a target directory")?.to_owned())
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
        let mut server = Self::spawn(program, arguments, log)?;
        let mut client = Client::new(address.parse().context("an address")?);
        let what = format!("{} is ready, see {}", program.display(), log.display());
        eventually(UP_WITHIN, &what, || {
            if let Err(ended) = server.ensure_runs() {
                return Some(Err(ended));
            }
            client.get(path).is_ok_and(|answer| answer.status == 200).then_some(Ok(()))
        })?;
        Ok(server)
    }

    /// The same without waiting.
    pub fn spawn(program: &Path, arguments: &[String], log: &Path) -> anyhow::Result<Self> {
        let log_file = std::fs::File::create(log).context("make a log file")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().context("share the log file")?)
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let guard = Guard::watch(child.id(), None)?;
        Ok(Self { child, log: log.to_owned(), _guard: guard })
    }

    /// What it said is the error when it has ended.
    pub fn ensure_runs(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait().context("look at a program")? {
            bail!("a program ended with {status}:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        Ok(())
    }

    /// Lets it end by itself, so that all it keeps is on the disk.
    pub fn stop(mut self) -> anyhow::Result<()> {
        signal(self.child.id(), "TERM")?;
        eventually(DOWN_WITHIN, &format!("the program ends, see {}", self.log.display()), || {
            self.child.try_wait().is_ok_and(|ended| ended.is_some()).then_some(())
        });
        Ok(())
    }

    /// The CPU that it has taken so far.
    pub fn cpu_us(&self) -> Option<u64> {
        cpu::taken_us(self.child.id())
    }

    /// The most memory that it has had so far.
    pub fn peak_bytes(&self) -> Option<u64> {
        footprint::peak_bytes(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; nothing that it holds outlives the bench.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
