//! One broker: a single node with its own ports and data.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use super::jars;
use crate::guard::{Guard, signal};
use crate::ports;

/// From start to the first answer. Two cores are shared with compilers at times.
const UP_WITHIN: Duration = Duration::from_secs(90);

/// Up soon rather than fast later, and small.
pub const QUICK: &[&str] = &["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// Its data, within its directory.
const DATA: &str = "data";

/// For a broker that takes millions of records: up later, and cheaper once it runs.
pub(super) const STEADY: &[&str] = &["-Xmx768m", "-XX:+UseSerialGC"];

/// How often other ports are tried.
pub(super) const STARTS_MAX: usize = 5;

/// Where a broker is, for who changes its settings.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its number in its cluster.
    pub id: u32,
    /// The port for clients.
    pub clients: u16,
    /// The port for controllers.
    pub controller: u16,
    /// Where its settings, data and log lie.
    pub directory: PathBuf,
}

/// A broker that listens on 127.0.0.1. Dropping it ends it and removes its data.
pub struct Broker {
    bootstrap: String,
    /// Where those are served who are told to come back elsewhere.
    back: Option<SocketAddr>,
    jars: PathBuf,
    options: &'static [&'static str],
    directory: TempDir,
    running: Option<Running>,
}

struct Running {
    java: Child,
    _guard: Guard,
}

impl Broker {
    /// Starts a new one on free ports and waits until it answers.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(QUICK)
    }

    /// The same with other options for Java, for who measures.
    pub fn start_with(options: &'static [&'static str]) -> anyhow::Result<Self> {
        Self::start_as(options, &|_| String::new())
    }

    /// The same with a second listener, [`Self::back`]. Clients of that one are sent back to `front`,
    /// a port of 127.0.0.1, where a proxy can be.
    pub fn start_behind(front: u16, options: &'static [&'static str]) -> anyhow::Result<Self> {
        let back = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let mut broker = Self::start_as(options, &|place| behind(place, front, back))?;
        broker.back = Some(back);
        Ok(broker)
    }

    /// The same with lines of its settings that come last and win.
    pub fn start_as(options: &'static [&'static str], more: &dyn Fn(&Place) -> String) -> anyhow::Result<Self> {
        let jars = jars::fetch().context("fetch Kafka")?;
        for _ in 0..STARTS_MAX {
            let ports = (ports::free(), ports::free());
            let mut broker = Self::prepare(jars.clone(), options, 1, ports, more)?;
            broker.format(&["--standalone", "-t", &cluster_id()])?;
            broker.launch()?;
            match broker.answers() {
                Ok(()) => return Ok(broker),
                // Another process took a port between our check and its start.
                Err(_) if broker.log().contains("Address already in use") => {}
                Err(error) => return Err(error),
            }
        }
        bail!("no free ports in {STARTS_MAX} attempts")
    }

    /// Where clients begin.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The second listener.
    pub fn back(&self) -> SocketAddr {
        self.back.expect("it was started behind something")
    }

    /// Ends it as a power cut would, but for the page cache.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.java.kill().expect("kill the broker");
            running.java.wait().expect("wait for the broker's end");
        }
    }

    /// Starts it again, on the same ports and data, and waits until it answers.
    pub fn restart(&mut self) {
        self.kill();
        self.launch().expect("start the broker again");
        self.answers().expect("the broker is back");
    }

    /// Starts it again without waiting.
    pub fn restart_without_waiting(&mut self) {
        self.kill();
        self.launch().expect("start the broker again");
    }

    /// Waits until it answers again.
    pub fn is_back(&mut self) {
        self.answers().expect("the broker is back");
    }

    /// Lets it stand still: connections stay open, nothing is answered.
    pub fn freeze(&self) {
        signal(self.pid(), "STOP").expect("freeze the broker");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal(self.pid(), "CONT").expect("thaw the broker");
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the broker runs").java.id()
    }

    /// A copy of its data, taken while it is down.
    pub fn copy_of_data(&self) -> TempDir {
        assert!(self.running.is_none(), "its data change while it runs");
        let copy = tempfile::tempdir().expect("a directory");
        self.copy_data(&self.data(), &copy.path().join(DATA));
        copy
    }

    /// Gives it the data of a copy, as if all since then had been lost.
    pub fn put_back(&self, copy: &TempDir) {
        assert!(self.running.is_none(), "its data change while it runs");
        fs::remove_dir_all(self.data()).expect("remove its data");
        self.copy_data(&copy.path().join(DATA), &self.data());
    }

    /// A copy of some topics' partitions, taken while it is down.
    pub fn copy_of_topics(&self, topics: &[&str]) -> TempDir {
        assert!(self.running.is_none(), "its data change while it runs");
        let copy = tempfile::tempdir().expect("a directory");
        for partition in fs::read_dir(self.data()).expect("its data").map(|entry| entry.expect("an entry")) {
            let name = partition.file_name().into_string().expect("a name");
            if name.rsplit_once('-').is_some_and(|(topic, _)| topics.contains(&topic)) {
                self.copy_data(&partition.path(), &copy.path().join(name));
            }
        }
        copy
    }

    /// Gives it the partitions of such a copy, as if these alone had lost what came since.
    pub fn put_back_topics(&self, copy: &TempDir) {
        assert!(self.running.is_none(), "its data change while it runs");
        for partition in fs::read_dir(copy.path()).expect("the copy").map(|entry| entry.expect("an entry")) {
            let place = self.data().join(partition.file_name());
            fs::remove_dir_all(&place).expect("remove a partition");
            self.copy_data(&partition.path(), &place);
        }
    }

    /// Runs one of Kafka's tools and returns what it said; it must end well.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let ran = self.java(class).args(["--bootstrap-server", &self.bootstrap]).args(arguments).output();
        let ran = ran.expect("start java");
        let said = [&ran.stdout, &ran.stderr].map(|said| String::from_utf8_lossy(said)).concat();
        assert!(ran.status.success(), "{class} {arguments:?}: {said}");
        said
    }

    /// Where its settings, data and log lie.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join(DATA)
    }

    fn copy_data(&self, from: &Path, to: &Path) {
        let status = Command::new("cp").arg("-a").args([from, to]).status().expect("start cp");
        assert!(status.success(), "copy the data of {}", self.bootstrap);
    }

    pub(super) fn prepare(
        jars: PathBuf,
        options: &'static [&'static str],
        id: u32,
        (clients, controller): (u16, u16),
        more: &dyn Fn(&Place) -> String,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("hookledger-kafka-").tempdir().context("make a directory")?;
        let bootstrap = format!("127.0.0.1:{clients}");
        let data = directory.path().join(DATA);
        let mut settings = settings(&bootstrap, controller, &data.display().to_string());
        settings.push_str(&more(&Place { id, clients, controller, directory: directory.path().to_owned() }));
        fs::write(directory.path().join("server.properties"), settings).context("write server.properties")?;
        Ok(Self { bootstrap, back: None, jars, options, directory, running: None })
    }

    pub(super) fn format(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let format = self
            .java("kafka.tools.StorageTool")
            .args(["format", "-c", "server.properties"])
            .args(arguments)
            .output()
            .context("start java")?;
        let said = String::from_utf8_lossy(&format.stderr);
        anyhow::ensure!(format.status.success(), "Kafka could not format its directory: {said}");
        Ok(())
    }

    pub(super) fn launch(&mut self) -> anyhow::Result<()> {
        let log =
            File::options().create(true).append(true).open(self.directory.path().join("log")).context("open log")?;
        let java = self
            .java("kafka.Kafka")
            .arg("server.properties")
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .context("start java")?;
        let guard = Guard::watch(java.id(), Some(self.directory.path()))?;
        self.running = Some(Running { java, _guard: guard });
        Ok(())
    }

    fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(self.options)
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(class)
            .current_dir(self.directory.path())
            .stdin(std::process::Stdio::null());
        java
    }

    /// Waits until metadata come, or the process ends.
    pub(super) fn answers(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            // A new one each time: one that was told of a name that does not resolve may never come here again.
            let client: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &self.bootstrap)
                .set("log_level", "0")
                .set("reconnect.backoff.max.ms", "200")
                .create()
                .context("make a client")?;
            let answer = client.fetch_metadata(None, Duration::from_secs(1));
            if answer.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
                return Ok(());
            }
            let running = self.running.as_mut().context("the broker was not started")?;
            if let Some(status) = running.java.try_wait().context("look at the broker")? {
                bail!("the broker ended with {status}: {}", self.log());
            }
            if start.elapsed() > UP_WITHIN {
                bail!("the broker does not answer after {UP_WITHIN:?}: {}", self.log());
            }
        }
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a test wants: one node, and everything that waits waits briefly.
fn settings(clients: &str, controller: u16, data: &str) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://{clients},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{clients}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.min.isr=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=2000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
"
    )
}

/// Of two settings of one name, the later one holds.
fn behind(place: &Place, front: u16, back: SocketAddr) -> String {
    let Place { clients, controller, .. } = place;
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller},BACK://{back}
advertised.listeners=PLAINTEXT://127.0.0.1:{clients},BACK://127.0.0.1:{front}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,BACK:PLAINTEXT
"
    )
}

/// 16 random bytes as Kafka writes them: 22 characters of which the last has two bits.
pub(super) fn cluster_id() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = [(); 2].map(|()| RandomState::new().build_hasher().finish());
    let mut id = String::new();
    for at in 0..21 {
        let half = &mut random[at % 2];
        id.push(char::from(LETTERS[usize::try_from(*half % 32).expect("below 32")]));
        *half /= 32;
    }
    id.push('A');
    id
}
