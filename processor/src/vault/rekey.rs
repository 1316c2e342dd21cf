//! `hookledger vault rekey`: seals every entry to the first key.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use domain::{VaultEntry, VaultKey};
use event_log::contract::{Topic, header};
use event_log::{EventLog, EventLogError, Output, Position, Record};

use super::{Vault, entry_of};

/// In one transaction, which has to end in time.
const PUBLISHED_MAX: usize = 500;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rekeyed {
    pub sealed: u64,
    pub unchanged: u64,
    /// Entries that could not be opened, by the reason. They stay as they are.
    pub unopened: BTreeMap<String, u64>,
}

/// The caller must be the only owner of all partitions until the event log is dropped.
pub fn rekey(event_log: &mut dyn EventLog, vault: &Vault) -> Result<Rekeyed, EventLogError> {
    let mut done = Rekeyed::default();
    for partition in 0..event_log.partitions() {
        let committed = event_log.committed(partition)?;
        let (first, end) = event_log.bounds(Topic::Vault, partition)?;
        let mut newest: BTreeMap<String, Record> = BTreeMap::new();
        event_log.read(Topic::Vault, Position { partition, offset: first }, end, &mut |entry| {
            match entry.record.key.clone() {
                Some(key) if entry.record.value.is_some() => drop(newest.insert(key, entry.record)),
                Some(key) => drop(newest.remove(&key)),
                None => {}
            }
            ControlFlow::Continue(())
        })?;
        let records: Vec<Record> = newest.into_values().filter_map(|record| vault.rekeyed(record, &mut done)).collect();
        // Without an offset of the group there was no step, and so no entry.
        let Some(read) = committed else { continue };
        for some in records.chunks(PUBLISHED_MAX) {
            let output = |record: &Record| Output { topic: Topic::Vault, partition, record: record.clone() };
            event_log.publish(some.iter().map(output).collect(), &[Position { partition, offset: read }])?;
            done.sealed += some.len() as u64;
        }
    }
    Ok(done)
}

impl Vault {
    /// The record, sealed to the first key; none if it is already, or cannot be opened.
    pub(super) fn rekeyed(&self, record: Record, done: &mut Rekeyed) -> Option<Record> {
        let (key, value) = (VaultKey::parse(record.key.as_deref()?)?, record.value.as_deref()?);
        let first = &self.keys().ids()[0];
        if entry_of(value).is_some_and(|entry| entry.key == *first) {
            done.unchanged += 1;
            return None;
        }
        let (entry, text) = match self.open_text(&key, value) {
            Ok(opened) => opened,
            Err(error) => {
                *done.unopened.entry(error.to_string()).or_default() += 1;
                return None;
            }
        };
        let sealed = self.seal_text(&key, &VaultEntry { key: first.clone(), ..entry }, &text)?;
        let mut record = Record { value: Some(sealed), ..record };
        // It follows from no new event.
        record.headers.retain(|(name, _)| name != header::CORRECTION);
        record.headers.push((header::CORRECTION.into(), b"other".to_vec()));
        Some(record)
    }
}
