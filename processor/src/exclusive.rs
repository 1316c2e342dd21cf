//! The logs for a command that publishes: the only member of its group, and owner of every partition.
//!
//! What a processor's own life protects protects a command too. Its transactions name the generation of the group in
//! which it owned everything, so that a processor that is started meanwhile makes them fail, not doubled. For that
//! each publication has to say how far `raw` was read in the partitions that it touches, also where that has not moved.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::lifecycle::Stop;
use common::log::kafka::{KafkaLedger, KafkaSettings};
use common::log::{Ledger, LedgerError, Turn};

/// How long the group may take to give us everything.
const GAIN_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long one turn may take.
const POLL: Duration = Duration::from_millis(100);

/// Opens the logs in Kafka once every partition is ours, without any of a processor's checks. Refuses while a
/// processor of the group runs; waits for the sessions of those that have ended.
///
/// [`Ledger::committed`] of a partition answers once no transaction of a former owner is open: ask it before `facts`
/// are read. The group has a place for us until the ledger is dropped.
pub fn open(kafka: &KafkaSettings, group: &str, stop: &Stop) -> Result<KafkaLedger, LedgerError> {
    let mut ledger = KafkaLedger::open_alone(kafka, group, stop.clone())?;
    await_assignment(&mut ledger, GAIN_WAIT_MAX, stop)?;
    Ok(ledger)
}

/// Takes turns until nothing is anybody else's.
fn await_assignment(ledger: &mut dyn Ledger, most: Duration, stop: &Stop) -> Result<(), LedgerError> {
    let began = Instant::now();
    let mut missing: BTreeSet<u32> = (0..ledger.partitions()).collect();
    while !missing.is_empty() {
        match ledger.next(POLL)? {
            Turn::Assigned(assigned) => missing.retain(|partition| !assigned.contains(partition)),
            Turn::Revoked(revoked) => missing.extend(revoked),
            Turn::Raw(_) | Turn::Facts(_) | Turn::Quiet => {}
        }
        if stop.requested() {
            return Err(LedgerError::StartOver("asked to stop".into()));
        }
        if began.elapsed() >= most {
            return Err(LedgerError::Broken(format!(
                "the group did not give us the partitions {missing:?} in {} s: was a processor started meanwhile?",
                most.as_secs()
            )));
        }
    }
    Ok(())
}
