//! A second opinion: the independent oracle of the tests, on the same `raw`.

use std::collections::BTreeSet;

use event_log::RawEvent;
use event_log::Record;
use event_log::contract::{Topic, header};
use serde_json::Value;
use tests::oracle::Oracle;
use tests::topics::Found;

use super::{Judge, text};
use crate::portals::FIRST_EVENT_APP;

impl Judge {
    /// Compares subscribers and states with that oracle, which knows one basis of trust.
    pub(super) fn second_opinion(&self) -> Result<(), String> {
        let raw: Vec<Found> =
            self.raws().filter_map(|(partition, offset, record)| found(partition, offset, record)).collect();
        let oracle = Oracle::of(&raw);
        for expected in &self.expected {
            for (installation, state) in &expected.installations {
                let key = installation.to_string();
                let trust = self.trusts.of(&installation.app);
                if installation.app.as_str() == FIRST_EVENT_APP || !oracle.portals.contains_key(&key) {
                    continue;
                }
                let record = state.record(installation, 0, trust);
                let mut record = serde_json::to_value(record).unwrap_or_default();
                record["position"] = Value::Null;
                let mut should = oracle.installation(&key);
                should["position"] = Value::Null;
                holds(&should, &record).map_err(|wrong| format!("I2: {key}: {wrong}: {record} and {should}"))?;
                let records = state.permissions(trust);
                let should = oracle.permissions(&key);
                if records.len() != should.len() {
                    return Err(format!("I2: {key} has {records:?} and should have {should:?}"));
                }
                for (record, should) in records.iter().zip(&should) {
                    let record = serde_json::to_value(record).unwrap_or_default();
                    holds(should, &record).map_err(|wrong| format!("I2: {key}: {wrong}"))?;
                }
            }
        }
        self.same_ids(Topic::Unverified, &oracle.unverified)?;
        if self.counts.lost == 0 {
            self.same_ids(Topic::Events, &oracle.events)?;
        }
        let rejected: BTreeSet<(i32, i64)> = oracle.rejected;
        let shown = self.shown.get(&Topic::Rejected);
        let shown: BTreeSet<(i32, i64)> =
            shown.into_iter().flatten().map(|(partition, cause, _)| place(*partition, *cause)).collect();
        match rejected.difference(&shown).next() {
            Some(missing) => Err(format!("I6: {missing:?} is not in rejected")),
            None => Ok(()),
        }
    }

    fn raws(&self) -> impl Iterator<Item = (u32, u64, &Record)> {
        let partitions = (0..).zip(&self.expected);
        partitions.flat_map(|(partition, expected)| {
            (0..).zip(&expected.raw).map(move |(offset, record)| (partition, offset, record))
        })
    }

    fn same_ids(&self, topic: Topic, should: &BTreeSet<String>) -> Result<(), String> {
        let judged: BTreeSet<String> = self
            .raws()
            .filter(|(partition, offset, record)| found(*partition, *offset, record).is_some())
            .map(|(_, _, record)| text(record, header::ID))
            .collect();
        let shown = self.shown.get(&topic).into_iter().flatten();
        let shown: BTreeSet<String> = shown.map(|(_, _, id)| id.clone()).filter(|id| judged.contains(id)).collect();
        match shown.symmetric_difference(should).next() {
            Some(id) => Err(format!("I3: {id} is in {} by one word only", topic.name())),
            None => Ok(()),
        }
    }
}

/// A record in the oracle's form; `None` if the oracle does not know its kind.
fn found(partition: u32, offset: u64, record: &Record) -> Option<Found> {
    let raw = RawEvent::from_record(record).ok().filter(|raw| raw.app.as_str() != FIRST_EVENT_APP)?;
    let (partition, offset) = place(partition, offset);
    let headers = record.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value).into_owned())).collect();
    Some(Found { partition, offset, key: raw.key(), value: record.value.as_ref().map(|value| value.to_vec()), headers })
}

fn place(partition: u32, offset: u64) -> (i32, i64) {
    (i32::try_from(partition).unwrap_or(i32::MAX), i64::try_from(offset).unwrap_or(i64::MAX))
}

fn holds(should: &Value, is: &Value) -> Result<(), String> {
    for (name, value) in should.as_object().into_iter().flatten() {
        if is[name] != *value {
            return Err(format!("{name} is {} and should be {value}", is[name]));
        }
    }
    Ok(())
}
