//! Exclusive access for a command that publishes: the only member of its group, and owner of every partition.
//!
//! Commands have the same protection as a processor. Their transactions name the generation in which they owned
//! everything, so those fail if a processor starts meanwhile. Therefore each publication must commit offsets of the
//! partitions that it touches, even if those have not moved.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use event_log::{EventLog, EventLogError, LogEvent};
use kafka_log::KafkaEventLog;
use runtime::lifecycle::Stop;
use runtime::settings::KafkaSettings;

const ASSIGN_WAIT_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Opens the logs in Kafka once every partition is assigned, without a processor's checks. Refuses while a processor of
/// the group runs; waits for the sessions of those that have ended.
///
/// [`EventLog::committed`] of a partition returns once no transaction of a former owner is open: call it before `facts`
/// are read. The membership lasts until the event log is dropped.
pub fn open(kafka: &KafkaSettings, group: &str, stop: &Stop) -> Result<KafkaEventLog, EventLogError> {
    let mut event_log = KafkaEventLog::open_alone(kafka, group, stop.clone())?;
    await_assignment(&mut event_log, ASSIGN_WAIT_MAX, stop)?;
    Ok(event_log)
}

fn await_assignment(event_log: &mut dyn EventLog, most: Duration, stop: &Stop) -> Result<(), EventLogError> {
    let began = Instant::now();
    let mut missing: BTreeSet<u32> = (0..event_log.partitions()).collect();
    while !missing.is_empty() {
        match event_log.next(POLL)? {
            LogEvent::Assigned(assigned) => missing.retain(|partition| !assigned.contains(partition)),
            LogEvent::Revoked(revoked) => missing.extend(revoked),
            LogEvent::Raw(_) | LogEvent::Facts(_) | LogEvent::Quiet => {}
        }
        if stop.requested() {
            return Err(EventLogError::Reopen("asked to stop".into()));
        }
        if began.elapsed() >= most {
            return Err(EventLogError::Fatal(format!(
                "the group did not assign the partitions {missing:?} in {} s: was a processor started meanwhile?",
                most.as_secs()
            )));
        }
    }
    Ok(())
}
