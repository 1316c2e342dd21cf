//! Folded events a second: an empty directory before a topic that is full already.
//!
//! Our processor and, with `--peers`, Kafka Streams fold the same topic one after the other; which of them begins
//! changes from round to round.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use tests::topics;

use crate::broker::Kafka;
use crate::cpu::per_event_us;
use crate::footprint::{disk_bytes, mb};
use crate::table::{Cell, markdown};

pub mod contestants;
pub mod preload;

use contestants::Folding;
use preload::PARTITIONS;

/// How often a program is asked how far it is.
const POLL: Duration = Duration::from_millis(20);
/// A program that stalls for this long is broken.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How much is folded.
pub struct Plan {
    /// Times that each program folds each of the workloads.
    pub rounds: u32,
    /// Events of each workload.
    pub events: u64,
}

/// What one program needs for one of the workloads.
#[derive(Default)]
struct Measured {
    events_per_s: Cell,
    cpu_us: Cell,
    broker_us: Cell,
    memory_mb: Cell,
    disk_mb: Cell,
    first_s: Cell,
    end_s: Cell,
}

/// Measures, and returns the table. The peer is its class path.
pub fn run(broker: &Kafka, plan: &Plan, peer: Option<&str>) -> anyhow::Result<String> {
    let mut rows = vec![
        ["events", "program", "events/s", "CPU program", "CPU broker", "peak memory, MB", "state on disk, MB"]
            .into_iter()
            .chain(["start to first event, s", "start to end, s"])
            .map(str::to_owned)
            .collect(),
    ];
    for (number, (name, bodies)) in preload::workloads(plan.events).iter().enumerate() {
        let (mut ours, mut theirs) = (Measured::default(), Measured::default());
        for round in 0..plan.rounds {
            let prefix = format!("fold{}-{number}-{round}.", std::process::id());
            eprintln!("round {}, {} events: {name}", round + 1, plan.events);
            preload::fill(broker, &format!("{prefix}raw"), plan.events, bodies)?;
            for turn in 0..2 {
                match peer {
                    _ if (turn + round).is_multiple_of(2) => {
                        eprintln!("folding: processor");
                        let start = |data: &Path, log: &Path| contestants::processor(broker, &prefix, data, log);
                        measure(broker, plan.events, start, &mut ours)?;
                    }
                    Some(peer) => {
                        eprintln!("folding: Kafka Streams");
                        let start =
                            |data: &Path, log: &Path| contestants::kafka_streams(broker, peer, &prefix, data, log);
                        measure(broker, plan.events, start, &mut theirs)?;
                        check(broker, &contestants::peer_events(&prefix), plan.events)?;
                    }
                    None => {}
                }
            }
        }
        rows.push(ours.row(name, "**processor**"));
        if peer.is_some() {
            rows.push(theirs.row(name, "Kafka Streams"));
            rows.push(ours.ratios(&theirs, name));
        }
    }
    let (rounds, events) = (plan.rounds, plan.events);
    let title = format!("### Folding: {events} events of up to {} portals, rounds: {rounds}", preload::PORTALS);
    Ok(format!(
        "{title}\n\nPreloaded, an empty data directory, {PARTITIONS} partitions. CPU in µs per event. Disk after a clean \
         stop.\n\n{}",
        markdown(&rows)
    ))
}

/// Starts a program, waits until it has folded all, and stops it.
fn measure(
    broker: &Kafka,
    count: u64,
    start: impl FnOnce(&Path, &Path) -> anyhow::Result<Folding>,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let directory = TempDir::new().context("make a directory")?;
    let data = directory.path().join("data");
    let broker_before = broker.cpu_us();
    let started = Instant::now();
    let mut folding = start(&data, &directory.path().join("log"))?;

    let mut first: Option<(Instant, u64)> = None;
    let (mut folded, mut moved) = (0, Instant::now());
    while folded < count {
        let now = (folding.folded)().context("ask how far it is")?;
        if now > folded {
            (folded, moved) = (now, Instant::now());
            first.get_or_insert((moved, folded));
        }
        folding.server.ensure_runs()?;
        ensure!(moved.elapsed() < STALL_MAX, "it stalls at {folded} of {count}");
        std::thread::sleep(POLL);
    }
    let (began, had) = first.context("it folded nothing")?;
    measured.events_per_s.add(per_s(count - had, moved - began));
    measured.cpu_us.add(per_event_us(Some(0), folding.server.cpu_us(), count));
    measured.broker_us.add(per_event_us(broker_before, broker.cpu_us(), count));
    measured.memory_mb.add(folding.server.peak_bytes().map(mb));
    measured.first_s.add((began - started).as_secs_f64());
    measured.end_s.add((moved - started).as_secs_f64());
    folding.server.stop()?;
    measured.disk_mb.add(mb(disk_bytes(&data).context("look at its state")?));
    Ok(())
}

/// A program that skips events is not measured, but disqualified.
fn check(broker: &Kafka, topic: &str, count: u64) -> anyhow::Result<()> {
    let ends = topics::ends(broker.servers(), topic);
    let lie_there: i64 = ends.values().map(|(first, next)| next - first).sum();
    let lie_there = u64::try_from(lie_there).unwrap_or_default();
    ensure!(lie_there >= count, "the peer read {count} events, but {lie_there} lie in {topic}");
    Ok(())
}

impl Measured {
    fn row(&self, events: &str, program: &str) -> Vec<String> {
        let cells = self.cells().map(|(cell, decimals)| cell.shown(decimals));
        [events.to_owned(), program.to_owned()].into_iter().chain(cells).collect()
    }

    /// Ours, as a multiple of theirs.
    fn ratios(&self, theirs: &Self, events: &str) -> Vec<String> {
        let both = self.cells().into_iter().zip(theirs.cells());
        let ratios = both.map(|((ours, _), (theirs, _))| ours.ratio(theirs));
        [events.to_owned(), "processor ÷ Kafka Streams".to_owned()].into_iter().chain(ratios).collect()
    }

    /// With the decimals that they are shown with.
    fn cells(&self) -> [(&Cell, usize); 7] {
        [
            (&self.events_per_s, 0),
            (&self.cpu_us, 1),
            (&self.broker_us, 1),
            (&self.memory_mb, 0),
            (&self.disk_mb, 1),
            (&self.first_s, 1),
            (&self.end_s, 1),
        ]
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_s(events: u64, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64().max(f64::EPSILON)
}
