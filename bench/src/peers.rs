//! What others would write, from `bench/peers`: built with their own tools, below the target directory.
//!
//! A peer whose tools are missing, or that does not build, is left out, and the output says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use ::tests::cache::{runs, succeeds};

use crate::server;

/// Where their sources lie.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// The peers that take part; none unless asked for.
#[derive(Default)]
pub struct Peers {
    /// Jars and classes of the fold on Kafka Streams, as Java's class path.
    pub kafka_streams: Option<String>,
    /// The handler with axum and rdkafka.
    pub axum_rdkafka: Option<PathBuf>,
    /// The handler in Go with franz-go.
    pub franz_go: Option<PathBuf>,
    /// What is missing; why was said when it was found out.
    pub left_out: Vec<&'static str>,
}

impl Peers {
    /// Builds all that can be built here.
    pub fn build() -> anyhow::Result<Self> {
        let target = server::target()?.join("peers");
        let mut peers = Self::default();
        peers.kafka_streams = peers.built("kafka-streams", &target, kafka_streams);
        peers.axum_rdkafka = peers.built("axum-rdkafka", &target, axum_rdkafka);
        peers.franz_go = peers.built("franz-go", &target, franz_go);
        Ok(peers)
    }

    fn built<T>(
        &mut self,
        name: &'static str,
        target: &Path,
        build: impl FnOnce(&Path, &Path) -> anyhow::Result<T>,
    ) -> Option<T> {
        eprintln!("building the peer {name}");
        let target = target.join(name);
        let made = fs::create_dir_all(&target).context("make its directory");
        match made.and_then(|()| build(&Path::new(SOURCES).join(name), &target)) {
            Ok(built) => Some(built),
            Err(error) => {
                eprintln!("bench: LEFT OUT: the peer {name}: {error:#}");
                self.left_out.push(name);
                None
            }
        }
    }
}

fn kafka_streams(source: &Path, target: &Path) -> anyhow::Result<String> {
    for (tool, argument) in [("java", "-version"), ("javac", "-version"), ("mvn", "-version")] {
        ensure!(runs(tool, argument), "needs {tool}");
    }
    let pom = source.join("pom.xml");
    let libs = target.join("libs");
    // Of an older version, perhaps.
    if libs.is_dir() {
        fs::remove_dir_all(&libs).context("remove its jars")?;
    }
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"]).arg(pom);
    succeeds(maven.arg(format!("-DoutputDirectory={}", libs.display())))?;
    let libs = format!("{}/*", libs.display());
    let mut compiler = Command::new("javac");
    compiler.args(["-cp", &libs, "-d"]).arg(target).arg(source.join("Peer.java"));
    succeeds(&mut compiler)?;
    Ok(format!("{}:{libs}", target.display()))
}

fn axum_rdkafka(source: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--release", "--locked", "--target-dir"]).arg(target);
    succeeds(cargo.current_dir(source))?;
    Ok(target.join("release/axum-rdkafka"))
}

fn franz_go(source: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    ensure!(runs("go", "version"), "needs go");
    let program = target.join("franz-go");
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-o"]).arg(&program).arg(".");
    succeeds(go.current_dir(source))?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    #[test]
    fn kafka_streams_is_of_the_brokers_version() {
        let pom = include_str!("../peers/kafka-streams/pom.xml");
        let version = tests::kafka::VERSION;
        assert!(pom.contains(&format!("<artifactId>kafka-streams</artifactId><version>{version}</version>")));
    }
}
