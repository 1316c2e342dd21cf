//! What bends as load and state grow: connections, a fixed rate, installations, events of one installation.
//!
//! `bench growth` prints Markdown tables, and writes a plot for each into a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};
use tempfile::TempDir;

use portal_sim::portal::Portal;
use tests::http::Client;

use crate::arguments::number;
use crate::broker::Kafka;
use crate::cpu::per_event_us;
use crate::fold::contestants::{self, Folding};
use crate::fold::preload;
use crate::footprint::{disk_bytes, mb};
use crate::plot::Plot;
use crate::{ack, load, server, table};

const CONNECTIONS: [u32; 6] = [1, 4, 16, 64, 256, 1_024];
/// Events a second that are due, over this many connections.
const RATES: [u32; 4] = [1_000, 5_000, 10_000, 20_000];
const RATE_CONNECTIONS: u32 = 256;
const WARM_UP: Duration = Duration::from_secs(3);
const INSTALLATIONS: [u64; 3] = [10_000, 100_000, 1_000_000];
const EVENTS_OF_EACH: [u64; 3] = [1, 10, 100];
/// Queries of one row.
const QUERIES: u64 = 2_000;
const POLL: Duration = Duration::from_millis(50);
/// For the largest row, on a slow machine.
const WITHIN: Duration = Duration::from_secs(900);

pub fn command() -> Command {
    Command::new("growth")
        .about("Measures ingress and processor as load and state grow, and draws it")
        .arg(number("seconds", "Seconds for each number of connections and each rate", "5"))
        .arg(number("installations-max", "Leave out rows with more installations", "1000000"))
        .arg(number("broker-pid", "The process of a running broker", ""))
        .arg(
            Arg::new("plots")
                .long("plots")
                .value_name("DIRECTORY")
                .default_value("docs/performance")
                .value_parser(value_parser!(PathBuf)),
        )
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<()> {
    let number = |name: &str| arguments.get_one::<u32>(name).copied().unwrap_or_default();
    let plots = arguments.get_one::<PathBuf>("plots").context("a directory")?;
    fs::create_dir_all(plots).context("make the directory of the plots")?;
    server::build()?;
    let broker = Kafka::find(arguments.get_one::<u32>("broker-pid").copied())?;
    let seconds = Duration::from_secs(number("seconds").max(1).into());
    println!("{}", keeping(&broker, seconds, plots)?);
    println!("{}", folding(&broker, number("installations-max").into(), plots)?);
    Ok(())
}

fn keeping(broker: &Kafka, seconds: Duration, plots: &Path) -> anyhow::Result<String> {
    let directory = TempDir::new().context("make a directory")?;
    let ingress = ack::ingress(broker, &format!("growth{}.", std::process::id()), directory.path())?;
    load::start(&ingress.address, RATE_CONNECTIONS, None, WARM_UP)?;
    let measure = |connections, rate| -> anyhow::Result<[f64; 4]> {
        eprintln!("{connections} connections, rate {rate:?}");
        let before = (ingress.server.cpu_us(), broker.cpu_us());
        let summary = load::start(&ingress.address, connections, rate, seconds)?;
        let acked = ack::acked(&summary);
        ensure!(summary["sent"].as_u64() == Some(acked), "not all was acknowledged: {summary}");
        let cpu = per_event_us(before.0, ingress.server.cpu_us(), acked).unwrap_or_default();
        let of = |what: &str| summary["latency_ms"][what].as_f64().unwrap_or_default();
        Ok([summary["acked_per_s"].as_f64().unwrap_or_default(), of("p50"), of("p99"), cpu])
    };
    let head = |first: &str| [first, "acked/s", "p50 ms", "p99 ms", "CPU ingress"].map(str::to_owned).to_vec();
    let row = |first: u32, [acked, p50, p99, cpu]: [f64; 4]| {
        vec![first.to_string(), format!("{acked:.0}"), format!("{p50:.1}"), format!("{p99:.1}"), format!("{cpu:.1}")]
    };
    let (mut rows, mut acked, mut p99) = (vec![head("connections")], Vec::new(), Vec::new());
    for connections in CONNECTIONS {
        let measured = measure(connections, None)?;
        rows.push(row(connections, measured));
        acked.push((connections.into(), measured[0]));
    }
    let grown = table::markdown(&rows);
    draw(plots, "connections", "Acknowledged events a second", "connections", &[("ingress", acked)])?;

    rows = vec![head("due/s")];
    for rate in RATES {
        let measured = measure(RATE_CONNECTIONS, Some(rate))?;
        rows.push(row(rate, measured));
        p99.push((rate.into(), measured[2]));
    }
    draw(plots, "rate", "p99 of the answer, ms, from when an event was due", "events a second", &[("ingress", p99)])?;
    Ok(format!(
        "### Keeping, as connections grow\n\n{grown}\n### Keeping at a fixed rate, latency from when an event was due\n\n{}",
        table::markdown(&rows)
    ))
}

/// One row of folding.
struct Folded {
    installations: u64,
    each: u64,
    events_per_s: f64,
    cpu_us: Option<f64>,
    memory_mb: f64,
    disk_mb: f64,
    again_s: f64,
    p99_ms: f64,
}

fn folding(broker: &Kafka, most: u64, plots: &Path) -> anyhow::Result<String> {
    let grown = INSTALLATIONS.map(|installations| (installations, 1));
    let fuller = EVENTS_OF_EACH.map(|each| (INSTALLATIONS[0], each));
    let fold = |cells: &[(u64, u64)]| -> anyhow::Result<Vec<Folded>> {
        let cells = cells.iter().filter(|(installations, _)| *installations <= most);
        cells.map(|(installations, each)| fold(broker, *installations, *each)).collect()
    };
    let (grown, fuller) = (fold(&grown)?, fold(&fuller[1..])?);
    let head = ["installations", "facts of each", "events/s", "CPU processor", "peak memory, MB", "state on disk, MB"];
    let mut rows: Vec<Vec<String>> =
        vec![head.into_iter().chain(["read again, s", "query p99, ms"]).map(str::to_owned).collect()];
    rows.extend(grown.iter().chain(&fuller).map(Folded::row));
    #[expect(clippy::cast_precision_loss, reason = "places in a plot")]
    let points = |value: fn(&Folded) -> f64| grown.iter().map(|row| (row.installations as f64, value(row))).collect();
    let axis = "installations";
    draw(plots, "fold", "Folded installs a second", axis, &[("processor", points(|row| row.events_per_s))])?;
    draw(
        plots,
        "state",
        "Memory and disk, MB",
        axis,
        &[("memory", points(|row| row.memory_mb)), ("disk", points(|row| row.disk_mb))],
    )?;
    Ok(format!("### Folding facts, as the state grows\n\n{}", table::markdown(&rows)))
}

/// Folds so many facts of each installation, asks about some, and starts again without a state.
fn fold(broker: &Kafka, installations: u64, each: u64) -> anyhow::Result<Folded> {
    let (count, prefix) = (installations * each, format!("growth{}-{installations}-{each}.", std::process::id()));
    eprintln!("{installations} installations, {each} facts of each");
    let bodies: preload::Bodies = Box::new(move |nth| preload::fact(nth, installations));
    preload::fill(broker, &format!("{prefix}raw"), count, &bodies)?;
    let directory = TempDir::new().context("make a directory")?;
    let (data, log) = (directory.path().join("data"), directory.path().join("log"));

    let began = Instant::now();
    let mut folding = contestants::processor(broker, &prefix, &data, &log)?;
    wait(&mut folding, |folding| Ok((folding.folded)()? >= count))?;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let events_per_s = count as f64 / began.elapsed().as_secs_f64();
    let cpu_us = per_event_us(Some(0), folding.server.cpu_us(), count);
    // What is published is applied a moment later.
    let mut client = Client::new(folding.queries.parse().context("an address")?);
    let last = path(installations - 1);
    wait(&mut folding, |_| Ok(client.get(&last)?.status == 200))?;
    let p99_ms = query_p99_ms(&folding, installations)?;
    let memory_mb = folding.server.peak_bytes().map_or(0.0, mb);
    folding.server.stop()?;
    let disk_mb = mb(disk_bytes(&data).context("look at its state")?);

    fs::remove_dir_all(data.join("processor").join("state")).context("delete the state")?;
    let began = Instant::now();
    let mut folding = contestants::processor(broker, &prefix, &data, &log)?;
    let mut admin = Client::new(folding.admin.parse().context("an address")?);
    wait(&mut folding, |_| Ok(admin.get("/readyz").is_ok_and(|answer| answer.status == 200)))?;
    let again_s = began.elapsed().as_secs_f64();
    query_p99_ms(&folding, installations)?;
    folding.server.stop()?;
    Ok(Folded { installations, each, events_per_s, cpu_us, memory_mb, disk_mb, again_s, p99_ms })
}

fn wait(folding: &mut Folding, mut is_done: impl FnMut(&mut Folding) -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !is_done(folding)? {
        folding.server.ensure_runs()?;
        ensure!(began.elapsed() < WITHIN, "it takes more than {} s", WITHIN.as_secs());
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Asks about installations all over the state, one after the other.
fn query_p99_ms(folding: &Folding, installations: u64) -> anyhow::Result<f64> {
    let mut client = Client::new(folding.queries.parse().context("an address")?);
    let mut took = Vec::new();
    for nth in 0..QUERIES {
        // Coprime to any number of installations here, so that no two are alike.
        let path = path(nth * 7_919 % installations);
        let began = Instant::now();
        let answer = client.get(&path)?;
        took.push(began.elapsed());
        ensure!(answer.status == 200, "{path}: {}", answer.text());
    }
    took.sort_unstable();
    Ok(took[took.len() * 99 / 100].as_secs_f64() * 1_000.0)
}

fn path(installation: u64) -> String {
    format!("/v1/installations/bench/{}", Portal::nth("bench", installation).member_id)
}

impl Folded {
    fn row(&self) -> Vec<String> {
        vec![
            self.installations.to_string(),
            self.each.to_string(),
            format!("{:.0}", self.events_per_s),
            self.cpu_us.map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.1}")),
            format!("{:.0}", self.memory_mb),
            format!("{:.1}", self.disk_mb),
            format!("{:.1}", self.again_s),
            format!("{:.2}", self.p99_ms),
        ]
    }
}

fn draw(plots: &Path, name: &str, title: &str, axis: &str, series: &[(&str, Vec<(f64, f64)>)]) -> anyhow::Result<()> {
    let path = plots.join(format!("{name}.svg"));
    fs::write(&path, Plot { title, axis, series }.svg()).with_context(|| format!("write {}", path.display()))
}
