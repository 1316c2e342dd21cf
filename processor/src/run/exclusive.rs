//! The logs for a command that publishes: the only member of its group, and owner of every partition.
//!
//! What a processor's own life protects protects a command too. Its transactions name the generation of the group in
//! which it owned everything, so that a processor that is started meanwhile makes them fail, not doubled. For that
//! each publication has to say how far `raw` was read in the partitions that it touches, also where that has not moved.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use event_log::{EventLog, EventLogError, LogEvent};
use kafka_log::KafkaEventLog;
use runtime::lifecycle::Stop;
use runtime::settings::KafkaSettings;

/// How long the group may take to give us everything.
const GAIN_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long one turn may take.
const POLL: Duration = Duration::from_millis(100);

/// Opens the logs in Kafka once every partition is ours, without any of a processor's checks. Refuses while a
/// processor of the group runs; waits for the sessions of those that have ended.
///
/// [`EventLog::committed`] of a partition answers once no transaction of a former owner is open: ask it before `facts`
/// are read. The group has a place for us until the event log is dropped.
pub fn open(kafka: &KafkaSettings, group: &str, stop: &Stop) -> Result<KafkaEventLog, EventLogError> {
    let mut event_log = KafkaEventLog::open_alone(kafka, group, stop.clone())?;
    await_assignment(&mut event_log, GAIN_WAIT_MAX, stop)?;
    Ok(event_log)
}

/// Takes turns until nothing is anybody else's.
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
                "the group did not give us the partitions {missing:?} in {} s: was a processor started meanwhile?",
                most.as_secs()
            )));
        }
    }
    Ok(())
}
