//! Load: many connections that post one event after another, and the results.
//!
//! Each connection is a closed loop: its next event is sent after the last answer. With a rate,
//! events are due at even distances; the latency of a delayed event counts from its due time, so that a
//! server that stalls cannot hide behind events that were not sent. Memory does not grow with the number of events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{Client, ClientError, UrlError};

pub use latency::Latencies;
pub use summary::LoadSummary;

pub mod events;
mod latency;
mod summary;

/// The pause of a connection after a failure: a server that is down is not flooded.
const FAILURE_WAIT: Duration = Duration::from_millis(100);

pub type Bodies = Arc<dyn Fn(usize, u64) -> Bytes + Send + Sync>;

#[derive(Clone)]
pub struct LoadPlan {
    pub url: String,
    pub path: String,
    pub content_type: &'static str,
    pub connections: usize,
    /// Events a second, over all connections; none is as fast as the answers allow.
    pub rate: Option<u32>,
    pub duration: Duration,
    pub events: Option<u64>,
    pub bodies: Bodies,
}

/// The progress of a load, and a way to end it early.
#[derive(Debug, Default)]
pub struct Watch {
    taken: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
}

impl Watch {
    /// Events that have been answered or have failed.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends the load: requests in flight are awaited, no new one is sent.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub async fn run(plan: LoadPlan, watch: Arc<Watch>) -> Result<LoadSummary, UrlError> {
    let clients: Result<Vec<Client>, UrlError> = (0..plan.connections).map(|_| Client::new(&plan.url)).collect();
    let plan = Arc::new(plan);
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for (number, client) in clients?.into_iter().enumerate() {
        let connection = Connection { number, client, started, plan: plan.clone(), watch: watch.clone() };
        connections.spawn(connection.run());
    }
    let mut summary = LoadSummary::default();
    while let Some(tally) = connections.join_next().await {
        summary.add(tally.expect("a connection neither panics nor is cancelled"));
    }
    summary.elapsed = started.elapsed();
    Ok(summary)
}

struct Connection {
    number: usize,
    client: Client,
    started: Instant,
    plan: Arc<LoadPlan>,
    watch: Arc<Watch>,
}

impl Connection {
    async fn run(mut self) -> LoadSummary {
        let mut tally = LoadSummary::default();
        let end = self.started + self.plan.duration;
        for nth in 0.. {
            let mut begun = Instant::now();
            if let Some(due) = self.due(nth) {
                if due > begun && due < end {
                    sleep_until(due).await;
                    begun = Instant::now();
                } else {
                    begun = due;
                }
            }
            if begun >= end || Instant::now() >= end || self.watch.stop.load(Ordering::Relaxed) || !self.take() {
                break;
            }
            let body = (self.plan.bodies)(self.number, nth);
            let answer = self.client.post(&self.plan.path, self.plan.content_type, body).await;
            let failed = answer.is_err();
            tally.count(answer.map(|answer| (answer.status, kept(answer.status, &answer.body))), begun.elapsed());
            self.watch.answered.fetch_add(1, Ordering::Relaxed);
            if failed {
                sleep(FAILURE_WAIT).await;
            }
        }
        tally
    }

    /// The due time of the connection's n-th event, with a rate.
    fn due(&self, nth: u64) -> Option<Instant> {
        let rate = u64::from(self.plan.rate?.max(1));
        let place = nth * self.plan.connections as u64 + self.number as u64;
        // Whole seconds apart, so that nothing overflows in a long run.
        let since = Duration::from_secs(place / rate) + Duration::from_nanos(place % rate * 1_000_000_000 / rate);
        Some(self.started + since)
    }

    /// Reserves one more event. Returns whether there is one left.
    fn take(&self) -> bool {
        self.plan.events.is_none_or(|events| self.watch.taken.fetch_add(1, Ordering::Relaxed) < events)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    Kafka,
    Disk,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Promise {
    pub id: uuid::Uuid,
    pub kept: Kept,
}

impl Kept {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Disk => "disk",
        }
    }
}

impl Promise {
    /// Only a 200 with an id and a place is a promise.
    pub fn read(status: u16, body: &[u8]) -> Option<Self> {
        (status == 200).then(|| serde_json::from_slice(body).ok()).flatten()
    }
}

fn kept(status: u16, body: &[u8]) -> Option<Kept> {
    Promise::read(status, body).map(|promise| promise.kept)
}

impl LoadSummary {
    fn count(&mut self, answer: Result<(u16, Option<Kept>), ClientError>, took: Duration) {
        self.sent += 1;
        match answer {
            Ok((_, Some(kept))) => {
                match kept {
                    Kept::Kafka => self.kept_kafka += 1,
                    Kept::Disk => self.kept_disk += 1,
                }
                self.latencies.record(took);
            }
            Ok((status, None)) => *self.other.entry(status).or_default() += 1,
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.kept_kafka += other.kept_kafka;
        self.kept_disk += other.kept_disk;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        merge(&mut self.other, other.other);
        self.latencies.merge(&other.latencies);
    }
}

fn merge(all: &mut BTreeMap<u16, u64>, some: BTreeMap<u16, u64>) {
    for (status, count) in some {
        *all.entry(status).or_default() += count;
    }
}
