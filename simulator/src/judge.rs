//! Checks everything that becomes visible against the invariants.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Fact, InstallationState};
use event_log::EventId;
use event_log::Record;
use event_log::contract::{NOOP, Topic, header};
use processor::run::publish::Progress;
use processor::state::{Store, Trusts};
use serde_json::Value;

use crate::broker::{Broker, Log};
use crate::expected::Expected;

mod second;

pub const DERIVED: [Topic; 6] =
    [Topic::Facts, Topic::Events, Topic::Unverified, Topic::Installations, Topic::Permissions, Topic::Rejected];

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub raw: u64,
    pub outputs: u64,
    pub lives: u64,
    pub kills: u64,
    pub stops: u64,
    pub quarantined: u64,
    pub renewed: u64,
    /// Released events that `raw` no longer had.
    pub lost: u64,
    /// Raw records of a simulated ingress.
    pub by_ingress: u64,
    pub hung: u64,
    /// Digests that were compared with another one of the same offset.
    pub digests: u64,
}

/// How far a state was written.
pub struct Checkpoint {
    pub facts: u64,
    pub raw: Option<u64>,
    /// Of all rows.
    pub digest: String,
}

impl Checkpoint {
    /// Parses a row of the store; damaged rows are empty.
    pub fn read(row: &[u8]) -> Self {
        let row: Value = serde_json::from_slice(row).unwrap_or_default();
        Self {
            facts: row["facts"].as_u64().unwrap_or(0),
            raw: row["raw"].as_u64(),
            digest: row["digest"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

pub struct Judge {
    pub counts: Counts,
    expected: Vec<Expected>,
    trusts: Trusts,
    /// A subscriber of each derived topic: its offset, and how many of the expected records it has seen.
    read: BTreeMap<(Topic, u32), (u64, usize)>,
    /// The records that it has seen, by topic: partition, cause and id.
    shown: BTreeMap<Topic, BTreeSet<(u32, u64, String)>>,
    /// `K`, and the log's id, by the progress records.
    progress: BTreeMap<u32, (u64, EventId)>,
    offsets: BTreeMap<u32, u64>,
    digests: BTreeMap<(u32, u64), String>,
    places: BTreeMap<(u32, String), u64>,
}

impl Judge {
    pub fn new(partitions: u32, trusts: Trusts) -> Self {
        Self {
            counts: Counts::default(),
            expected: (0..partitions).map(|partition| Expected::new(partition, trusts.clone())).collect(),
            trusts,
            read: BTreeMap::new(),
            shown: BTreeMap::new(),
            progress: BTreeMap::new(),
            offsets: BTreeMap::new(),
            digests: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// `K` of a partition, by its progress records.
    pub fn read_until(&self, partition: u32) -> u64 {
        self.progress.get(&partition).map_or(0, |(raw, _)| *raw)
    }

    pub fn came(&mut self, partition: u32, record: &Record) {
        self.counts.raw += 1;
        self.expected[partition as usize].take(record);
    }

    pub fn offsets_expired(&mut self) {
        self.offsets.clear();
    }

    /// Reads on as a committed subscriber of everything.
    pub fn subscribe(&mut self, broker: &Broker) -> Result<(), String> {
        for (partition, offset) in &broker.group.offsets {
            let before = self.offsets.insert(*partition, *offset);
            if before.is_some_and(|before| before > *offset) {
                return Err(format!("I4: the group's offset of {partition} went back from {before:?} to {offset}"));
            }
        }
        for partition in 0..broker.partitions() {
            for topic in DERIVED {
                self.read(broker, topic, partition)
                    .map_err(|wrong| format!("{wrong}, in {}/{partition}", topic.name()))?;
            }
        }
        Ok(())
    }

    /// A state was written up to this checkpoint.
    pub fn applied(
        &mut self,
        broker: &Broker,
        partition: u32,
        before: Option<&Checkpoint>,
        after: &Checkpoint,
    ) -> Result<(), String> {
        if let Some(before) = before
            && (before.facts > after.facts || before.raw > after.raw)
        {
            let (from, to) = ((before.facts, before.raw), (after.facts, after.raw));
            return Err(format!("I4: the state of {partition} went back from {from:?} to {to:?}"));
        }
        if after.facts < broker.log(Topic::Facts, partition).cleaned() {
            // In the middle of a compacted range, states differ by the removed records.
            return Ok(());
        }
        let known = self.digests.entry((partition, after.facts)).or_insert_with(|| after.digest.clone());
        if *known != after.digest {
            return Err(format!("I2: two states of {partition} at F={} have different digests", after.facts));
        }
        self.counts.digests += 1;
        let place = *self.places.entry((partition, after.digest.clone())).or_insert(after.facts);
        if place != after.facts {
            return Err(format!("I2: two states of {partition}, at F={place} and {}, have one digest", after.facts));
        }
        Ok(())
    }

    /// Whether a state holds everything in the logs.
    pub fn is_whole(&self, broker: &Broker, store: &Store) -> bool {
        (0..broker.partitions()).all(|partition| {
            let checkpoint = store.checkpoint(partition);
            // An owner does not read noop records of other producers.
            let facts = broker.log(Topic::Facts, partition).ever_committed(0);
            let facts = facts.filter(|slot| slot.record.key.as_deref() != Some(NOOP));
            let facts = facts.last().map_or(0, |slot| slot.offset + 1);
            let raw = broker.log(Topic::Raw, partition).bounds().1;
            checkpoint.facts >= facts && checkpoint.raw.unwrap_or(0) == raw
        })
    }

    /// At rest, everything expected must be there, and all states must be equal.
    pub fn conclude(&mut self, broker: &Broker, stores: &[&Store], is_orderly: bool) -> Result<(), String> {
        self.subscribe(broker)?;
        let mut lost = 0;
        for ((topic, partition), (_, seen)) in &self.read {
            let raw_first = broker.log(Topic::Raw, *partition).bounds().0;
            let due = &self.expected[*partition as usize].due(*topic)[*seen..];
            if let Some(missing) = due.iter().find(|due| due.held.is_none_or(|offset| offset >= raw_first)) {
                return Err(format!("I3: {}/{partition} lacks {}", topic.name(), show(&missing.record)));
            }
            lost += due.len() as u64;
        }
        // Released after `raw` had lost them, with nothing behind them.
        self.counts.lost += lost;
        for store in stores {
            self.compare(broker, store)?;
        }
        for partition in 0..broker.partitions() {
            let mut digests = BTreeMap::new();
            for store in stores {
                let (facts, digest) = (store.checkpoint(partition).facts, store.digest(partition));
                let known = digests.entry(facts).or_insert_with(|| digest.clone());
                if *known != digest {
                    return Err(format!("I2: digests of {partition} at F={facts} differ: {digest} and {known}"));
                }
            }
            self.compacted(broker, partition)?;
        }
        if is_orderly { self.second_opinion() } else { Ok(()) }
    }

    fn read(&mut self, broker: &Broker, topic: Topic, partition: u32) -> Result<(), String> {
        let (mut next, mut seen) = self.read.get(&(topic, partition)).copied().unwrap_or_default();
        let log = broker.log(topic, partition);
        let raw_first = broker.log(Topic::Raw, partition).bounds().0;
        for slot in log.ever_committed(next) {
            next = slot.offset + 1;
            self.counts.outputs += 1;
            let record = &slot.record;
            if record.key.as_deref() == Some(NOOP) {
                continue;
            }
            if topic == Topic::Facts && record.key.as_deref() == Some("progress") {
                self.progressed(partition, seen, record)?;
                continue;
            }
            let due = self.expected[partition as usize].due(topic);
            let lost = |held: Option<u64>| held.is_some_and(|offset| offset < raw_first);
            while due.get(seen).is_some_and(|due| due.record != *record && lost(due.held)) {
                self.counts.lost += 1;
                seen += 1;
            }
            let Some(due) = due.get(seen) else {
                return Err(format!("I3: nothing should be at {}, but {}", slot.offset, show(record)));
            };
            if due.record != *record {
                let (should, is) = (show(&due.record), show(record));
                return Err(format!("I3: at {} should be\n    {should}\n    but there is\n    {is}\n   ", slot.offset));
            }
            seen += 1;
            let id = text(record, header::ID);
            self.shown.entry(topic).or_default().insert((partition, due.cause, id));
        }
        self.read.insert((topic, partition), (next, seen));
        Ok(())
    }

    /// Checks a progress record: `facts` before it must be the interpretation of `raw` before it.
    fn progressed(&mut self, partition: u32, seen: usize, record: &Record) -> Result<(), String> {
        let value = record.value.as_deref().unwrap_or_default();
        let progress: Progress = serde_json::from_slice(value).map_err(|error| format!("progress: {error}"))?;
        let expected = &self.expected[partition as usize];
        let due = expected.due(Topic::Facts);
        let known = self.progress.insert(partition, (progress.raw, progress.log));
        let from = known.map_or(0, |(raw, _)| raw);
        if progress.raw <= from {
            return Err(format!("I4: K goes from {from} to {}", progress.raw));
        }
        if known.is_some_and(|(_, log)| log != progress.log) {
            return Err("I2: the log has another id".to_owned());
        }
        if due.get(seen).is_some_and(|due| due.cause < progress.raw)
            || seen.checked_sub(1).is_some_and(|last| due[last].cause >= progress.raw)
        {
            return Err(format!("I2: facts are not the interpretation of raw below K={}", progress.raw));
        }
        if progress.folded != expected.ids(from, progress.raw) {
            return Err(format!("I2: the progress record does not name the events from {from} to {}", progress.raw));
        }
        Ok(())
    }

    /// Compares a state with the straight fold, and the places that it knows with what lies there.
    fn compare(&self, broker: &Broker, store: &Store) -> Result<(), String> {
        let failed = |error: processor::state::StoreError| format!("the state cannot be read: {error}");
        let mut found = BTreeSet::new();
        while let Some(next) = store.next_installation(found.last()).map_err(failed)? {
            found.insert(next);
        }
        let mut known = BTreeSet::new();
        for (partition, expected) in (0..).zip(&self.expected) {
            for (installation, state) in &expected.installations {
                if **state != InstallationState::default() {
                    known.insert(installation.clone());
                }
                if *store.installation(installation).map_err(failed)? != **state {
                    return Err(format!("I2: the state of {installation} is not what raw means"));
                }
                let places = store.places(installation, None, usize::MAX).map_err(failed)?;
                let log = broker.log(Topic::Facts, partition);
                let facts = places.iter().map(|place| fact_at(log, place.offset));
                if !facts.eq(expected.history[installation].values().cloned().map(Some)) {
                    return Err(format!("I2: the history of {installation} is not what raw means"));
                }
            }
        }
        if found == known { Ok(()) } else { Err(format!("I2: the state has {found:?}, raw has {known:?}")) }
    }

    /// Compares compacted records with the straight fold.
    fn compacted(&self, broker: &Broker, partition: u32) -> Result<(), String> {
        let newest = |topic: Topic| {
            let mut newest: BTreeMap<String, Value> = BTreeMap::new();
            for slot in broker.log(topic, partition).committed(0) {
                let key = slot.record.key.clone().unwrap_or_default();
                match &slot.record.value {
                    Some(value) => newest.insert(key, serde_json::from_slice(value).unwrap_or_default()),
                    None => newest.remove(&key),
                };
            }
            newest
        };
        let (mut installations, mut permissions) = (BTreeMap::new(), BTreeMap::new());
        for (installation, state) in &self.expected[partition as usize].installations {
            let trust = self.trusts.of(&installation.app);
            if !state.principals.is_empty() {
                let record = state.record(installation, partition, trust);
                installations.insert(installation.to_string(), serde_json::to_value(record).unwrap_or_default());
            }
            for record in state.permissions(trust) {
                let key = format!("{installation}/{}/{}", record.method, record.token);
                let mut value = serde_json::to_value(record).unwrap_or_default();
                value["app"] = Value::from(installation.app.as_str());
                value["member_id"] = Value::from(installation.member_id.as_str());
                permissions.insert(key, value);
            }
        }
        for (topic, expected) in [(Topic::Installations, installations), (Topic::Permissions, permissions)] {
            let found = newest(topic);
            if found != expected {
                let name = topic.name();
                return Err(format!("I5: {name}/{partition} hold\n    {found:?}\n    and should\n    {expected:?}"));
            }
        }
        Ok(())
    }
}

/// Also if compaction has removed it.
fn fact_at(log: &Log, offset: u64) -> Option<Fact> {
    let slot = log.ever_committed(offset).next().filter(|slot| slot.offset == offset)?;
    serde_json::from_slice(slot.record.value.as_deref()?).ok()
}

fn text(record: &Record, name: &str) -> String {
    record.header(name).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}

fn show(record: &Record) -> String {
    let value = record.value.as_deref().map(String::from_utf8_lossy);
    let cause = text(record, header::RAW_OFFSET);
    format!("{} = {} because of {cause}", record.key.as_deref().unwrap_or("-"), value.unwrap_or("nothing".into()))
}
