//! The topic that is full before anything is folded.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use bitrix24::AppName;
use bitrix24::form::Form;
use event_log::RawEvent;
use event_log::Record;
use portal_sim::load::events;
use portal_sim::portal::{Encoding, Event, FORM, Portal, now_s};
use primitives::time::Timestamp;
use tests::topics;

use crate::broker::Kafka;

/// As many as our topics have unless set.
pub const PARTITIONS: i32 = 6;
/// Portals that play.
pub const PORTALS: u64 = 10_000;
/// How long the broker may take for what the client still holds.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);

/// The body of the n-th event.
pub type Bodies = Box<dyn Fn(u64) -> Bytes>;

/// What is folded: names, and bodies.
pub fn workloads(count: u64) -> [(&'static str, Bodies); 3] {
    let mixed = events::of_portals("bench".to_owned(), PORTALS, 1, Encoding::Form);
    [
        ("99 % CRM events", Box::new(move |nth| one_fact(nth, (count / 100).max(1)))),
        ("mostly CRM events", Box::new(move |nth| mixed(0, nth))),
        ("facts only", Box::new(|nth| fact(nth, PORTALS))),
    ]
}

/// An install of each portal, and then nothing but events that are passed on.
fn one_fact(nth: u64, portals: u64) -> Bytes {
    let portal = Portal::nth("bench", nth % portals);
    let event = match nth / portals {
        0 => Event::Install { version: "1".to_owned() },
        id => Event::Crm { name: "ONCRMCONTACTADD", id },
    };
    portal.body(&event, now_s(), Encoding::Form)
}

/// An install of each portal first, then answers of administrators and updates.
pub fn fact(nth: u64, portals: u64) -> Bytes {
    let portal = Portal::nth("bench", nth % portals);
    let round = nth / portals;
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
pub fn fill(broker: &Kafka, topic: &str, count: u64, bodies: &Bodies) -> anyhow::Result<()> {
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
