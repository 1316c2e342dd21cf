//! Acknowledged events a second: ingress and the handlers that it is compared with, one after another.
//!
//! All servers run during the whole bench; each round gives every one of them its turn, in an order that
//! moves on by one, so that what disturbs the machine disturbs all of them alike.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use tests::topics;

use crate::broker::Kafka;
use crate::cpu::per_event_us;
use crate::load;
use crate::peers::Peers;
use crate::server::{self, Server};
use crate::table::{Cell, markdown};

/// As many as our topics have unless set.
const PARTITIONS: i32 = 6;
/// Before the first round: code and caches become warm, the broker's Java above all.
const WARM_UP: Duration = Duration::from_secs(3);

/// How much is measured.
pub struct Plan {
    /// Turns of each server at each number of connections.
    pub rounds: u32,
    /// How long a turn takes.
    pub seconds: u32,
    /// Connections at a time.
    pub connections: Vec<u32>,
}

/// A server that takes part.
pub struct Contestant {
    name: &'static str,
    pub address: String,
    pub server: Server,
    /// Where what it acknowledged must lie.
    topic: Option<String>,
    acked: u64,
}

/// One cell of the table.
#[derive(Default)]
struct Measured {
    acked_per_s: Cell,
    p50_ms: Cell,
    p99_ms: Cell,
    server_us: Cell,
    broker_us: Cell,
    disk: u64,
    not_kept: u64,
}

/// Measures, and returns the table.
pub fn run(broker: &Kafka, plan: &Plan, peers: &Peers) -> anyhow::Result<String> {
    let directory = TempDir::new().context("make a directory")?;
    let mut contestants = contestants(broker, peers, directory.path())?;
    for contestant in &mut contestants {
        let summary = load::start(&contestant.address, plan.connections.first().copied().unwrap_or(64), None, WARM_UP)?;
        contestant.acked += acked(&summary);
    }
    let mut table: BTreeMap<(usize, u32), Measured> = BTreeMap::new();
    for round in 0..plan.rounds {
        for connections in &plan.connections {
            for turn in 0..contestants.len() {
                let number = (turn + round as usize) % contestants.len();
                eprintln!("round {}, {connections} connections: {}", round + 1, contestants[number].name);
                let cell = table.entry((number, *connections)).or_default();
                measure(broker, &mut contestants[number], *connections, plan.seconds, cell)?;
            }
        }
    }
    contestants.iter().try_for_each(|contestant| check(broker, contestant))?;
    Ok(describe(&contestants, &table, plan))
}

fn contestants(broker: &Kafka, peers: &Peers, directory: &Path) -> anyhow::Result<Vec<Contestant>> {
    let prefix = format!("bench{}.", std::process::id());
    let bench = std::env::current_exe().context("find this program")?;
    let handler = |name: &'static str, more: &[&str], topic: Option<String>| {
        let address = server::address();
        let mut arguments: Vec<String> = ["handler", "--listen", &address].map(str::to_owned).to_vec();
        if let Some(topic) = &topic {
            topics::make(broker.servers(), topic, PARTITIONS, &[]);
            arguments.extend(["--kafka", broker.servers(), "--topic", topic].map(str::to_owned));
        }
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let log = directory.join(format!("{}.log", address.replace(':', "-")));
        let server = Server::start(&bench, &arguments, (&address, "/v1/events/bench"), &log)?;
        Ok::<_, anyhow::Error>(Contestant { name, address, server, topic, acked: 0 })
    };
    let mut contestants = vec![
        ingress(broker, &prefix, directory)?,
        handler("handler that keeps nothing", &[], None)?,
        handler("one FutureProducer, linger 0", &["--linger-ms", "0"], Some(format!("{prefix}afternoon-0")))?,
        handler("one FutureProducer, default linger", &[], Some(format!("{prefix}afternoon-default")))?,
    ];
    let handlers =
        [("axum and rdkafka, linger 0", &peers.axum_rdkafka), ("Go and franz-go, linger 0", &peers.franz_go)];
    for (name, program) in handlers {
        if let Some(program) = program {
            contestants.push(peer(broker, &prefix, name, program, directory)?);
        }
    }
    Ok(contestants)
}

/// A handler from `bench/peers`.
fn peer(
    broker: &Kafka,
    prefix: &str,
    name: &'static str,
    program: &Path,
    directory: &Path,
) -> anyhow::Result<Contestant> {
    let address = server::address();
    let file = program.file_name().context("a program has a name")?.to_string_lossy();
    let topic = format!("{prefix}{file}");
    topics::make(broker.servers(), &topic, PARTITIONS, &[]);
    let arguments = [&address, broker.servers(), &topic].map(str::to_owned);
    let log = directory.join(format!("{file}.log"));
    let server = Server::start(program, &arguments, (&address, "/v1/events/bench"), &log)?;
    Ok(Contestant { name, address, server, topic: Some(topic), acked: 0 })
}

pub fn ingress(broker: &Kafka, prefix: &str, directory: &Path) -> anyhow::Result<Contestant> {
    let (address, admin) = (server::address(), server::address());
    let partitions = PARTITIONS.to_string();
    let data = directory.join("ingress").display().to_string();
    let arguments = server::settings(&[
        ("--kafka", broker.servers()),
        ("--topic-prefix", prefix),
        ("--partitions", &partitions),
        ("--data-dir", &data),
        ("--ingress-listen", &address),
        ("--admin-listen", &admin),
        ("--log-format", "json"),
    ]);
    let log = directory.join("ingress.log");
    let server = Server::start(&server::program("ingress")?, &arguments, (&admin, "/readyz"), &log)?;
    Ok(Contestant { name: "**ingress**", address, server, topic: Some(format!("{prefix}raw")), acked: 0 })
}

fn measure(
    broker: &Kafka,
    contestant: &mut Contestant,
    connections: u32,
    seconds: u32,
    cell: &mut Measured,
) -> anyhow::Result<()> {
    let before = (contestant.server.cpu_us(), broker.cpu_us());
    let summary = load::start(&contestant.address, connections, None, Duration::from_secs(seconds.into()))?;
    let after = (contestant.server.cpu_us(), broker.cpu_us());
    let acked = acked(&summary);
    ensure!(acked > 0, "{} acknowledged nothing: {summary}", contestant.name);
    contestant.acked += acked;
    cell.acked_per_s.add(summary["acked_per_s"].as_f64());
    cell.p50_ms.add(summary["latency_ms"]["p50"].as_f64());
    cell.p99_ms.add(summary["latency_ms"]["p99"].as_f64());
    cell.server_us.add(per_event_us(before.0, after.0, acked));
    cell.broker_us.add(per_event_us(before.1, after.1, acked));
    cell.disk += summary["kept"]["disk"].as_u64().unwrap_or_default();
    cell.not_kept += summary["sent"].as_u64().unwrap_or_default().saturating_sub(acked);
    Ok(())
}

pub fn acked(summary: &Value) -> u64 {
    ["kafka", "disk"].iter().filter_map(|kept| summary["kept"][kept].as_u64()).sum()
}

/// A handler that acknowledged without keeping is not measured, but disqualified.
fn check(broker: &Kafka, contestant: &Contestant) -> anyhow::Result<()> {
    let Some(topic) = &contestant.topic else {
        return Ok(());
    };
    let ends = topics::ends(broker.servers(), topic);
    let lie_there: i64 = ends.values().map(|(first, next)| next - first).sum();
    let lie_there = u64::try_from(lie_there).unwrap_or_default();
    let (name, acked) = (contestant.name, contestant.acked);
    ensure!(lie_there >= acked, "{name} acknowledged {acked} events, but {lie_there} lie in {topic}");
    Ok(())
}

fn describe(contestants: &[Contestant], table: &BTreeMap<(usize, u32), Measured>, plan: &Plan) -> String {
    let mut text = format!(
        "### Keeping: {} rounds of {} s, median (min–max)\n\nCPU in µs per acknowledged event. {PARTITIONS} partitions, \
         acks=all, idempotent, {} bytes a body, keep-alive.\n",
        plan.rounds,
        plan.seconds,
        load::body_bytes(),
    );
    for connections in &plan.connections {
        let head = ["handler", "acked/s", "of ingress", "p50 ms", "p99 ms", "CPU server", "CPU broker"];
        let mut rows: Vec<Vec<String>> =
            vec![head.into_iter().chain(["kept on disk", "not kept"]).map(str::to_owned).collect()];
        // Ingress is the first of the contestants.
        let ingress = table.get(&(0, *connections));
        for (number, contestant) in contestants.iter().enumerate() {
            let Some(cell) = table.get(&(number, *connections)) else { continue };
            rows.push(vec![
                contestant.name.to_owned(),
                cell.acked_per_s.shown(0),
                ingress.map(|ingress| cell.acked_per_s.ratio(&ingress.acked_per_s)).unwrap_or_default(),
                cell.p50_ms.shown(1),
                cell.p99_ms.shown(1),
                cell.server_us.shown(1),
                cell.broker_us.shown(1),
                cell.disk.to_string(),
                cell.not_kept.to_string(),
            ]);
        }
        let _ = write!(text, "\n{connections} connections\n\n{}", markdown(&rows));
    }
    text
}
