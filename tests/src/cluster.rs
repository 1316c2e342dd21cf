//! Ingress, processors and the topics between them, each cluster with names of its own on the same broker.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::process::{Process, Program};
use crate::topics::{self, Found, Isolation};

/// How many partitions each topic has: few enough to be quick, enough that two processors share.
pub const PARTITIONS: u32 = 4;

/// The programs in their cluster form.
pub struct Cluster {
    /// Takes webhooks.
    pub ingress: Process,
    /// Fold and answer.
    pub processors: Vec<Process>,
    names: Names,
}

/// Settings with which programs find each other and no others.
pub struct Names {
    /// Bootstrap servers.
    pub servers: String,
    /// Before the name of each topic.
    pub prefix: String,
    /// How many partitions each topic has.
    pub partitions: u32,
    /// Where data and logs lie.
    pub directory: TempDir,
}

impl Names {
    /// New ones, which nothing uses yet.
    pub fn new(servers: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::Builder::new().prefix("hookledger-test-").tempdir().expect("a directory");
        let prefix = format!("t{}-{count}.", std::process::id());
        Self { servers: servers.to_owned(), prefix, partitions: PARTITIONS, directory }
    }

    /// The whole name of a topic.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The settings of an ingress or processor whose data lie in `home`.
    pub fn arguments(&self, home: &str) -> Vec<String> {
        self.arguments_in(&self.home(home))
    }

    /// The same with their data in any directory.
    pub fn arguments_in(&self, data: &Path) -> Vec<String> {
        let data = data.display().to_string();
        let partitions = self.partitions.to_string();
        let pairs = [
            ("--kafka", &*self.servers),
            ("--topic-prefix", &self.prefix),
            ("--partitions", &partitions),
            ("--data-dir", &data),
        ];
        pairs.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
    }

    /// Where the data of an ingress or a processor lie.
    pub fn home(&self, home: &str) -> PathBuf {
        self.directory.path().join(home)
    }

    /// Starts an ingress or a processor with its data in `home`.
    pub fn start(&self, program: Program, home: &str, more: &[&str]) -> Process {
        self.start_with(program, home, more, &[])
    }

    /// As [`Names::start`], with these variables in its environment.
    pub fn start_with(&self, program: Program, home: &str, more: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut arguments = self.arguments(home);
        if program == Program::Processor {
            arguments.extend(["--group".to_owned(), format!("{}processor", self.prefix)]);
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let log = self.directory.path().join(format!("{home}.log"));
        Process::start(program, &arguments, environment, &log)
    }

    /// What lies in a topic.
    pub fn read(&self, topic: &str, isolation: Isolation) -> Vec<Found> {
        topics::read(&self.servers, &self.topic(topic), isolation)
    }
}

/// The form without a broker: all in one process, with its data in a directory of its own.
pub struct Standalone {
    /// The process.
    pub process: Process,
    directory: TempDir,
}

impl Standalone {
    /// Starts it and waits until it is ready.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Standalone::start`], with these variables in its environment.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("hookledger-test-").tempdir().expect("a directory");
        let data = directory.path().join("data").display().to_string();
        let log = directory.path().join("log");
        let process = Process::start(Program::Hookledger, &["standalone", "--data-dir", &data], environment, &log);
        process.ready();
        Self { process, directory }
    }

    /// Where its data lie.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

impl Cluster {
    /// Starts an ingress and so many processors, and waits until they are ready.
    pub fn start(servers: &str, processors: usize) -> Self {
        Self::start_with(servers, processors, &[])
    }

    /// As [`Cluster::start`], with these variables in their environment.
    pub fn start_with(servers: &str, processors: usize, environment: &[(&str, &str)]) -> Self {
        let names = Names::new(servers);
        let ingress = names.start_with(Program::Ingress, "ingress", &[], environment);
        ingress.ready();
        let processor = |number| names.start_with(Program::Processor, &format!("processor-{number}"), &[], environment);
        let processors = (1..=processors).map(processor);
        let cluster = Self { ingress, processors: processors.collect(), names };
        cluster.processors.iter().for_each(Process::ready);
        cluster
    }

    /// What the programs were told.
    pub fn names(&self) -> &Names {
        &self.names
    }
}
