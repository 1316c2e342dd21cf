//! Folded events a second: a processor with an empty directory before a topic that is full already.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tempfile::TempDir;

use bitrix24::AppName;
use bitrix24::form::Form;
use event_log::RawEvent;
use event_log::Record;
use portal_sim::load::events;
use portal_sim::portal::{Encoding, Event, FORM, Portal, now_s};
use primitives::time::Timestamp;
use tests::http::Client;
use tests::topics;

use crate::broker::Kafka;
use crate::cpu::per_event_us;
use crate::server::{self, Server};
use crate::table::markdown;

/// As many as our topics have unless set.
const PARTITIONS: i32 = 6;
/// Portals that play.
const PORTALS: u64 = 10_000;
/// How often the processor is asked how far it is.
const POLL: Duration = Duration::from_millis(20);
/// How long the broker may take for what the client still holds.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);
/// A processor that stalls for this long is broken.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Measures, and returns the table.
pub fn run(broker: &Kafka, count: u64) -> anyhow::Result<String> {
    let mixed = events::of_portals("bench".to_owned(), PORTALS, 1, Encoding::Form);
    let kinds: [(&str, Bodies); 2] =
        [("mostly CRM events", Box::new(move |nth| mixed(0, nth))), ("facts only", Box::new(fact))];
    let head = ["events", "events/s", "CPU processor", "CPU broker", "start to first event, s", "start to end, s"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (number, (name, bodies)) in kinds.iter().enumerate() {
        let prefix = format!("fold{}-{number}.", std::process::id());
        eprintln!("folding {count} events: {name}");
        fill(broker, &format!("{prefix}raw"), count, bodies)?;
        rows.push(fold(broker, &prefix, name, count)?);
    }
    let title = format!("### Folding: {count} events of up to {PORTALS} portals, preloaded, an empty data directory");
    Ok(format!("{title}\n\nCPU in µs per event. {PARTITIONS} partitions.\n\n{}", markdown(&rows)))
}

/// The body of the n-th event.
type Bodies = Box<dyn Fn(u64) -> Bytes>;

/// An install of each portal first, then answers of administrators and updates.
fn fact(nth: u64) -> Bytes {
    let portal = Portal::nth("bench", nth % PORTALS);
    let round = nth / PORTALS;
    let event = match round {
        0 => Event::Install { version: "1".to_owned() },
        _ if round.is_multiple_of(2) => {
            Event::Update { version: round.to_string(), previous_version: (round - 1).to_string() }
        }
        _ => Event::MethodConfirm {
            method: format!("voximplant.method{}.get", round % 10),
            token: portal.access_token.clone(),
            confirmed: true,
        },
    };
    portal.body(&event, now_s(), Encoding::Form)
}

/// Puts so many events into a new topic, as ingress would.
fn fill(broker: &Kafka, topic: &str, count: u64, bodies: &Bodies) -> anyhow::Result<()> {
    topics::make(broker.servers(), topic, PARTITIONS, &[("cleanup.policy", "delete")]);
    let mut config = topics::client(broker.servers());
    let producer: BaseProducer = config.set("linger.ms", "5").set("acks", "all").create().context("make a producer")?;
    let app = AppName::parse("bench").context("an app's name")?;
    for nth in 0..count {
        let body = bodies(nth);
        let mut event = RawEvent::new(app.clone(), Form::parse(&body).head(), body, Timestamp::now());
        event.content_type = Some(FORM.to_owned());
        let partition = event.partition(PARTITIONS.unsigned_abs());
        produce(&producer, topic, i32::try_from(partition)?, &event.into_record())?;
    }
    producer.flush(FLUSH_WITHIN).context("flush")?;
    let ends = topics::ends(broker.servers(), topic);
    let lie_there: i64 = ends.values().map(|(first, next)| next - first).sum();
    ensure!(u64::try_from(lie_there) == Ok(count), "{lie_there} of {count} events lie in {topic}");
    Ok(())
}

fn produce(producer: &BaseProducer, topic: &str, partition: i32, event: &Record) -> anyhow::Result<()> {
    let mut headers = OwnedHeaders::new_with_capacity(event.headers.len());
    for (key, value) in &event.headers {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let key = event.key.as_deref().context("an event of a portal has a key")?;
    let value = event.value.as_deref().context("an event has a body")?;
    let mut record = BaseRecord::to(topic)
        .partition(partition)
        .key(key)
        .payload(value)
        .headers(headers)
        .timestamp(i64::try_from(event.at.ms())?);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => {
                record = unsent;
                producer.flush(FLUSH_WITHIN).context("flush")?;
            }
            Err((error, _)) => return Err(error).context("produce an event"),
        }
    }
}

/// Starts a processor and waits until it has folded all.
fn fold(broker: &Kafka, prefix: &str, name: &str, count: u64) -> anyhow::Result<Vec<String>> {
    let directory = TempDir::new().context("make a directory")?;
    let broker_before = broker.cpu_us();
    let started = Instant::now();
    let (processor, admin) = start(broker, prefix, directory.path())?;
    let mut metrics = Client::new(admin.parse().context("an address")?);

    let mut first: Option<(Instant, u64)> = None;
    let (mut folded, mut moved) = (0, Instant::now());
    while folded < count {
        let now = events_folded(&mut metrics).context("ask the processor how far it is")?;
        if now > folded {
            (folded, moved) = (now, Instant::now());
            first.get_or_insert((moved, folded));
        }
        ensure!(moved.elapsed() < STALL_MAX, "the processor stalls at {folded} of {count}");
        std::thread::sleep(POLL);
    }
    let (began, had) = first.context("the processor folded nothing")?;
    let cpu = (per_event_us(Some(0), processor.cpu_us(), count), per_event_us(broker_before, broker.cpu_us(), count));
    let shown = |us: Option<f64>| us.map_or_else(|| "–".to_owned(), |us| format!("{us:.1}"));
    Ok(vec![
        name.to_owned(),
        format!("{:.0}", per_s(count - had, moved - began)),
        shown(cpu.0),
        shown(cpu.1),
        format!("{:.1}", (began - started).as_secs_f64()),
        format!("{:.1}", (moved - started).as_secs_f64()),
    ])
}

fn start(broker: &Kafka, prefix: &str, directory: &Path) -> anyhow::Result<(Server, String)> {
    let (queries, admin) = (server::address(), server::address());
    let partitions = PARTITIONS.to_string();
    let data = directory.join("processor").display().to_string();
    let group = format!("{prefix}processor");
    let arguments = server::settings(&[
        ("--kafka", broker.servers()),
        ("--topic-prefix", prefix),
        ("--partitions", &partitions),
        ("--data-dir", &data),
        ("--group", &group),
        ("--query-listen", &queries),
        ("--admin-listen", &admin),
        ("--log-format", "json"),
    ]);
    let log = directory.join("processor.log");
    let processor = Server::start(&server::program("processor")?, &arguments, (&admin, "/livez"), &log)?;
    Ok((processor, admin))
}

/// The sum over all outcomes.
fn events_folded(metrics: &mut Client) -> anyhow::Result<u64> {
    let text = metrics.get("/metrics")?.text();
    let values = text.lines().filter_map(|line| {
        let (_, value) = line.strip_prefix("hookledger_processor_events_total{")?.rsplit_once(' ')?;
        value.parse::<u64>().ok()
    });
    Ok(values.sum())
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_s(events: u64, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64().max(f64::EPSILON)
}
