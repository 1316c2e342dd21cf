//! Metrics that are read at collection: the disk log, the state of Kafka, the source lists.

use std::sync::Arc;
use std::time::{Duration, Instant};

use disk_log::DiskLog;
use kafka_log::Fault;
use primitives::time::Timestamp;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use runtime::telemetry::{register_refreshed, valid};

use crate::admission::source_list::Known;
use crate::delivery::dispatcher::Dispatcher;

/// The size and the free room of a disk log.
pub fn register_disk_log(registry: &Registry, log: DiskLog) {
    let bytes = valid(IntGauge::new("disk_log_bytes", "Bytes of the disk log."));
    let about = "Bytes that the disk log can still take, by its limit and its disk.";
    let room = valid(IntGauge::new("disk_log_room_bytes", about));
    let up = valid(IntGauge::new("disk_log_up", "Whether events can be written to the disk log."));
    register_refreshed(
        registry,
        vec![Box::new(bytes.clone()), Box::new(room.clone()), Box::new(up.clone())],
        move || {
            bytes.set(whole(log.bytes()));
            room.set(whole(log.room().unwrap_or(0)));
            up.set(i64::from(log.fault().is_none()));
        },
    );
}

/// The disk log, and the state of Kafka.
pub(crate) fn register_delivery(registry: &Registry, dispatcher: Arc<Dispatcher>) {
    register_disk_log(registry, dispatcher.log().clone());
    let about = "Events in the disk log that Kafka has not acknowledged.";
    let events = valid(IntGauge::new("disk_log_events", about));
    let about = "Age of the oldest event that is on disk only, or 0.";
    let oldest_age = valid(Gauge::new("disk_log_oldest_age_seconds", about));
    let kafka_up = valid(IntGauge::new("kafka_up", "Whether Kafka acknowledges records."));
    let about = "Events that Kafka refuses because they are too large for its topic. They are on disk.";
    let refused = valid(IntGauge::new("ingress_refused_by_kafka_events", about));
    let about = "Kafka producers that had to be replaced.";
    let renewed = valid(IntCounter::new("ingress_producers_renewed_total", about));
    let about = Opts::new("kafka_errors_total", "Faults that Kafka or its client reported, by kind.");
    let faults = valid(IntCounterVec::new(about, &["kind"]));
    let metrics: Vec<Box<dyn prometheus::core::Collector>> = vec![
        Box::new(events.clone()),
        Box::new(oldest_age.clone()),
        Box::new(kafka_up.clone()),
        Box::new(refused.clone()),
        Box::new(renewed.clone()),
        Box::new(faults.clone()),
    ];
    register_refreshed(registry, metrics, move || {
        events.set(whole(dispatcher.delivered().undelivered()));
        oldest_age.set(age_of_oldest(&dispatcher).as_secs_f64());
        let status = dispatcher.status();
        kafka_up.set(i64::from(status.kafka_up));
        refused.set(whole(status.parked as u64));
        raise(&renewed, status.renewed);
        for kind in Fault::ALL {
            raise(&faults.with_label_values(&[kind.label()]), dispatcher.fault_reports().count(kind));
        }
    });
}

fn age_of_oldest(dispatcher: &Dispatcher) -> Duration {
    let first = dispatcher.delivered().watermark();
    let oldest = dispatcher.log().reader(first).and_then(|mut reader| reader.next());
    match oldest {
        Ok(Some((_, record))) => Timestamp::now().since(record.at),
        Ok(None) | Err(_) => Duration::ZERO,
    }
}

/// The age of the source lists.
pub(crate) fn register_source_lists(registry: &Registry, known: Arc<Known>) {
    let about = "How long ago the oldest source list was read, or the start where one never was.";
    let age = valid(Gauge::new("source_list_age_seconds", about));
    let addresses = valid(IntGauge::new("source_list_addresses", "Addresses and networks in the source lists."));
    register_refreshed(registry, vec![Box::new(age.clone()), Box::new(addresses.clone())], move || {
        age.set(known.age(Instant::now()).as_secs_f64());
        addresses.set(i64::try_from(known.entries()).unwrap_or(i64::MAX));
    });
}

/// Raises a counter to a value that was counted elsewhere.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
