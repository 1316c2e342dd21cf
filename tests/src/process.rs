//! One of our programs, running: started, killed, started again on the same ports and data.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use command_fds::{CommandFdExt, FdMapping};
use serde_json::Value;
use tempfile::TempDir;

use crate::guard::{Guard, signal};
use crate::http::Client;
use crate::ports;
use crate::wait::{eventually, eventually_ok};

/// From start to listening. Two cores are shared with a broker, and a broker may still be coming up.
pub const UP_WITHIN: Duration = Duration::from_secs(60);

/// From SIGTERM to the end.
pub const DOWN_WITHIN: Duration = Duration::from_secs(30);

/// From the start of a command to its end.
const DONE_WITHIN: Duration = Duration::from_secs(180);

/// Names a folder of programs that were built before, such as those of a release.
const GIVEN: &str = "HOOKLEDGER_TEST_PROGRAMS";

/// A binary of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Takes webhooks.
    Ingress,
    /// Folds and answers.
    Processor,
    /// All in one, and the operator's commands.
    Hookledger,
}

impl Program {
    fn file(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Processor => "processor",
            Self::Hookledger => "hookledger",
        }
    }

    /// What it listens for, by the word in its log, and the setting of the address.
    fn listeners(self) -> &'static [(&'static str, &'static str)] {
        const WEBHOOKS: (&str, &str) = ("webhooks", "--ingress-listen");
        const QUERIES: (&str, &str) = ("queries", "--query-listen");
        const ADMIN: (&str, &str) = ("admin", "--admin-listen");
        match self {
            Self::Ingress => &[WEBHOOKS, ADMIN],
            Self::Processor => &[QUERIES, ADMIN],
            Self::Hookledger => &[WEBHOOKS, QUERIES, ADMIN],
        }
    }
}

/// A server of ours. Dropping it ends it.
pub struct Process {
    program: Program,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Words that the command is put behind.
    entrance: Vec<String>,
    ports: BTreeMap<&'static str, u16>,
    log: PathBuf,
    held: Option<TcpListener>,
    file: Option<PathBuf>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    _guard: Guard,
}

impl Process {
    /// Starts a server, with its log in `log`, and waits until it listens. Its ports stay the same for its life.
    pub fn start(program: Program, arguments: &[&str], environment: &[(&str, &str)], log: &Path) -> Self {
        Self::start_inside(&[], program, arguments, environment, log)
    }

    /// The same behind other words of a command line, which lead it into surroundings of its own and then become it.
    pub fn start_inside(
        entrance: &[String],
        program: Program,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut process = Self {
            program,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: environment.iter().map(owned).collect(),
            entrance: entrance.to_vec(),
            ports: program.listeners().iter().map(|(what, _)| (*what, ports::free())).collect(),
            log: log.to_owned(),
            held: None,
            file: None,
            running: None,
        };
        process.restart();
        process
    }

    /// From now on hands it the socket for webhooks when it is started, as systemd does, and keeps that open.
    pub fn hold(&mut self, listener: TcpListener) {
        self.ports.insert("webhooks", listener.local_addr().expect("an address").port());
        self.held = Some(listener);
    }

    /// From now on starts it from another file.
    pub fn run_from(&mut self, file: &Path) {
        self.file = Some(file.to_owned());
    }

    /// Starts it again with the same settings, and waits until it listens.
    pub fn restart(&mut self) {
        let before = self.logs().len();
        self.restart_without_waiting();
        let what = format!("{:?} listens", self.program);
        eventually(UP_WITHIN, &what, || {
            if let Some(status) = self.ended() {
                panic!("{:?} ended with {status}:\n{}", self.program, tail(&self.logs()[before..]));
            }
            let lines = self.logs();
            let heard = listening(&lines[before..]);
            self.ports.keys().all(|what| heard.contains_key(*what)).then_some(())
        });
    }

    /// Starts it again without waiting.
    pub fn restart_without_waiting(&mut self) {
        assert!(self.running.is_none(), "{:?} runs already", self.program);
        let log = File::options().create(true).append(true).open(&self.log).expect("open the log");
        let file = self.file.clone().unwrap_or_else(|| path(self.program));
        let command = match &self.held {
            Some(listener) => activated(&file, listener),
            None => Command::new(file),
        };
        let mut command = inside(&self.entrance, command);
        command
            .args(&self.arguments)
            .args(["--log-format", "json"])
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().cloned());
        for (what, flag) in self.program.listeners() {
            command.arg(flag).arg(format!("127.0.0.1:{}", self.ports[what]));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("share the log")).stderr(log);
        let child = command.spawn().expect("start a program");
        let guard = Guard::watch(child.id(), None).expect("watch it");
        self.running = Some(Running { child, _guard: guard });
    }

    /// Gives it another value of a variable, from its next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").child.id()
    }

    /// Waits until `/readyz` says so.
    pub fn ready(&self) {
        let mut admin = self.admin();
        eventually_ok(UP_WITHIN, &format!("{:?} is ready", self.program), || {
            let answer = admin.get("/readyz")?;
            ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
            Ok(())
        });
    }

    /// Ends it at once: `kill -9`.
    pub fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.child.kill().expect("kill a program");
            running.child.wait().expect("wait for its end");
        }
    }

    /// Asks it to end and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.running.as_ref().expect("it runs").child.id();
        signal(pid, "TERM").expect("send SIGTERM");
        let what = format!("{:?} ends", self.program);
        let status = eventually(DOWN_WITHIN, &what, || self.ended());
        self.running = None;
        status
    }

    /// How often it has said that it listens for webhooks or whatever `what` is.
    pub fn times_listening(&self, what: &str) -> usize {
        let (listens, what) = ("\"message\":\"listening\"", format!("\"what\":\"{what}\""));
        self.logs().lines().filter(|line| line.contains(listens) && line.contains(&what)).count()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.running.as_mut().and_then(|running| running.child.try_wait().expect("look at a program"))
    }

    /// Where it listens for what: `webhooks`, `queries` or `admin`.
    pub fn address(&self, what: &str) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[what]).into()
    }

    /// A client of its webhooks.
    pub fn webhooks(&self) -> Client {
        Client::new(self.address("webhooks"))
    }

    /// A client of its answers.
    pub fn queries(&self) -> Client {
        Client::new(self.address("queries"))
    }

    /// A client of its health and metrics.
    pub fn admin(&self) -> Client {
        Client::new(self.address("admin"))
    }

    /// All that it ever logged.
    pub fn logs(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The lines of its log with a field of that value, or of that level: `fault` and `dns`, `level` and `ERROR`.
    pub fn lines(&self, field: &str, value: &str) -> Vec<String> {
        let logs = self.logs();
        let has = |line: &&str| {
            let Ok(line) = serde_json::from_str::<Value>(line) else { return false };
            line["fields"][field].as_str().or(line[field].as_str()) == Some(value)
        };
        logs.lines().filter(has).map(str::to_owned).collect()
    }

    /// The bound below which so large a part of a histogram's values lie, in seconds; none if it has none.
    pub fn quantile(&self, name: &str, part: f64) -> Option<f64> {
        let text = self.admin().get("/metrics").ok()?.text();
        let prefix = format!("{name}_bucket{{le=\"");
        let buckets = text.lines().filter_map(|line| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            Some((bound.parse::<f64>().ok()?, count.parse::<f64>().ok()?))
        });
        let buckets: Vec<_> = buckets.collect();
        let (_, all) = buckets.last().filter(|(_, all)| *all > 0.0)?;
        buckets.iter().find(|(_, count)| *count >= all * part).map(|(bound, _)| *bound)
    }

    /// The sum of a metric over all its labels that contain `label`; none if there is no such metric.
    pub fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let text = self.admin().get("/metrics").ok()?.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let whole = labels.is_empty() || labels.starts_with('{');
            (whole && labels.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        values.reduce(|sum, value| sum + value)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("---- last words of {:?}, {}:\n{}", self.program, self.log.display(), tail(&self.logs()));
        }
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs a command that ends by itself.
pub fn run(program: Program, arguments: &[&str]) -> Ended {
    Job::start(program, arguments).wait()
}

/// A command that ends by itself, while it runs. Dropping it ends it.
pub struct Job {
    what: String,
    child: Child,
    directory: TempDir,
    _guard: Guard,
}

impl Job {
    /// Starts a command.
    pub fn start(program: Program, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| File::create(directory.path().join(name)).expect("a file");
        let child = Command::new(path(program))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .expect("start a program");
        let guard = Guard::watch(child.id(), None).expect("watch it");
        Self { what: format!("{program:?} {arguments:?}"), child, directory, _guard: guard }
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("look at a program") {
                return Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr() };
            }
            let in_time = start.elapsed() < DONE_WITHIN;
            assert!(in_time, "{} does not end:\n{}{}", self.what, self.stdout(), self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it at once: `kill -9`. What it had said by then.
    pub fn kill9(mut self) -> Ended {
        self.child.kill().expect("kill a program");
        self.wait()
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name).expect("send a signal");
    }

    /// What it wrote to stdout so far.
    pub fn stdout(&self) -> String {
        self.written("out")
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.written("err")
    }

    fn written(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // One that has ended needs no ending.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program lies that has been built.
pub fn path(program: Program) -> PathBuf {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    match folder {
        Ok(folder) => folder.join(program.file()),
        Err(error) => panic!("{error}"),
    }
}

/// Puts a command behind other words.
fn inside(entrance: &[String], command: Command) -> Command {
    let Some((first, words)) = entrance.split_first() else { return command };
    let mut whole = Command::new(first);
    whole.args(words).arg(command.get_program());
    whole
}

/// Builds the programs as this test was built, unless they are given; returns where they lie.
fn build() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os(GIVEN) {
        return Ok(folder.into());
    }
    let test = std::env::current_exe().context("find this test")?;
    let profile = test.ancestors().nth(2).context("this test lies in deps")?.to_owned();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .args(["build", "--quiet", "--bins", "-p", "ingress", "-p", "processor", "-p", "cli", "--target-dir"])
        .arg(profile.parent().context("a target directory")?)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    if cfg!(feature = "tls") {
        cargo.args(["--features", "ingress/tls,processor/tls,cli/tls"]);
    }
    let built = cargo.output().context("start cargo")?;
    ensure!(built.status.success(), "the programs do not build:\n{}", String::from_utf8_lossy(&built.stderr));
    Ok(profile)
}

/// The same program with a socket as systemd hands it over: descriptor 3, and the process' own id beside it.
fn activated(program: &Path, listener: &TcpListener) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(program);
    shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "hookledger-ingress.socket");
    let socket = listener.try_clone().expect("another descriptor");
    let mapped = shell.fd_mappings(vec![FdMapping { parent_fd: socket.into(), child_fd: 3 }]);
    mapped.expect("one descriptor");
    shell
}

/// Which addresses a log says that its program listens on.
fn listening(log: &str) -> BTreeMap<String, String> {
    let heard = log.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let field = |name: &str| line["fields"][name].as_str().or(line[name].as_str()).map(str::to_owned);
        (field("message")? == "listening").then(|| Some((field("what")?, field("address")?)))?
    });
    heard.collect()
}

fn tail(log: &str) -> String {
    let chatter = |line: &&str| line.contains("\"level\":\"TRACE\"") || line.contains("\"level\":\"DEBUG\"");
    let lines: Vec<_> = log.lines().filter(|line| !chatter(line)).collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
