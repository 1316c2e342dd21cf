//! Compares each level with its source: facts with `raw`, as far back as that reaches, and the compacted topics with
//! the fold of facts. Changes nothing, unless corrections are requested.
//!
//! Works partition by partition: everything about an installation is in one partition, so memory holds the keys of one
//! partition only.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use bitrix24::Installation;
use event_log::contract::{Topic, partition_of_installation};
use event_log::{Entry, EventId, EventLog, EventLogError, LogReader, Position};
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use runtime::lifecycle::Stop;
use serde_json::Value;

use crate::maintenance::rebuild::{RebuildProgress, read_all};
use crate::maintenance::repair::{Because, CORRECTIONS_MAX, Correction, Repairs};
use crate::run::assignment::read_facts;
use crate::run::facts::fact;
use crate::run::failure::Failure;
use crate::run::publish::{permission_key, permission_value};
use crate::run::recent_events::RecentEvents;
use crate::state::{Store, Trusts, opening};
use domain::DECISIONS_KEPT;
use facts::{Current, Facts, event};

mod facts;

/// Further differences are counted but not listed.
const NAMED_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub struct Audit {
    /// Events of `raw` that were interpreted again.
    pub events: u64,
    /// Facts compared with their raw event; older facts have outlived it.
    pub facts: u64,
    /// Records of the compacted topics compared with the state.
    pub records: u64,
    /// The first [`NAMED_MAX`] differences.
    pub differences: Vec<Difference>,
    /// The number of all differences.
    pub found: u64,
    pub repaired: u64,
    /// Another process published during the audit: differences may be transient.
    pub has_moved: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// `raw` has an event whose fact is missing.
    NoFact(Position, Installation, EventId),
    /// A fact differs from the interpretation of its raw event.
    OtherFact(Position, Installation, EventId),
    /// The same, where a newer version of Hookledger wrote the fact.
    NewerFact(Position, Installation, EventId),
    /// A fact names a position in `raw` that holds another record.
    NoEvent(Position, Installation, EventId),
    /// The topic lacks a record that follows from the state.
    NoRecord(Topic, String),
    /// The record in the topic differs from the state.
    OtherRecord(Topic, String),
    /// The topic has a record that does not follow from the state.
    SurplusRecord(Topic, String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |place: &Position| format!("raw {}/{}", place.partition, place.offset);
        match self {
            Self::NoFact(at, about, id) => write!(f, "{} tells of {about} in event {id}: no fact says so", place(at)),
            Self::OtherFact(at, about, id) => {
                write!(f, "the fact {about}/{id} says something else than {}", place(at))
            }
            Self::NewerFact(at, about, id) => write!(
                f,
                "the fact {about}/{id} says something else than {} says to this version: a newer one wrote it",
                place(at)
            ),
            Self::NoEvent(at, about, id) => write!(f, "the fact {about}/{id} is not what {} tells", place(at)),
            Self::NoRecord(topic, key) => write!(f, "{} has no record {key}", topic.name()),
            Self::OtherRecord(topic, key) => write!(f, "{} has another record {key} than facts come to", topic.name()),
            Self::SurplusRecord(topic, key) => {
                write!(f, "{} has a record {key} that does not follow from facts", topic.name())
            }
        }
    }
}

/// What an audit needs besides the logs.
pub struct Auditing<'a> {
    /// A directory for a temporary state.
    pub scratch: &'a Path,
    pub trusts: Trusts,
    pub now: Timestamp,
    pub stop: &'a Stop,
    pub report: &'a mut dyn FnMut(RebuildProgress),
}

impl Auditing<'_> {
    /// Compares everything.
    pub fn compare(self, logs: &mut dyn LogReader) -> Result<Audit, Failure> {
        self.run(Logs::Compared(logs))
    }

    /// Compares everything and publishes corrections: facts first, then the records that follow from them. The caller
    /// must be the only owner of all partitions until the event log is dropped.
    pub fn repair(self, event_log: &mut dyn EventLog) -> Result<Audit, Failure> {
        self.run(Logs::Repaired(event_log, Repairs::default()))
    }

    fn run(self, mut logs: Logs<'_>) -> Result<Audit, Failure> {
        let Self { scratch, trusts, now, stop, report } = self;
        let mut committed = Vec::new();
        if logs.are_repaired() {
            // Before facts are read: the answer means that no transaction of a former owner is open.
            for partition in 0..logs.reader().partitions() {
                committed.push(logs.reader().committed(partition)?);
            }
        }
        let before = ends(logs.reader())?;
        let reader = logs.reader();
        let store = opening::open(scratch, reader.identity(), reader.partitions(), trusts)?;
        store.begin_bulk_load();
        read_all(reader, &store, stop, report)?;
        store.finish_bulk_load()?;
        let audit = Audit { has_moved: ends(reader)? != before, ..Audit::default() };
        let mut auditor = Auditor { logs, store, now, audit };
        for partition in 0..auditor.logs.reader().partitions() {
            if stop.requested() {
                return Err(EventLogError::Reopen("asked to stop".to_owned()).into());
            }
            let committed = committed.get(partition as usize).copied().flatten();
            auditor.facts(partition)?;
            auditor.repair(partition, committed)?;
            // Without a broker there are no subscribers and no compacted topics.
            if auditor.logs.reader().tells_progress() {
                auditor.records(partition)?;
                auditor.repair(partition, committed)?;
            }
        }
        let Auditor { mut logs, mut audit, .. } = auditor;
        // Own corrections do not count.
        audit.has_moved |= !logs.are_repaired() && ends(logs.reader())? != before;
        Ok(audit)
    }
}

enum Logs<'a> {
    Compared(&'a mut dyn LogReader),
    /// With the corrections to be published.
    Repaired(&'a mut dyn EventLog, Repairs),
}

impl Logs<'_> {
    fn reader(&mut self) -> &mut dyn LogReader {
        match self {
            Self::Compared(logs) => *logs,
            Self::Repaired(logs, _) => *logs,
        }
    }

    fn are_repaired(&self) -> bool {
        matches!(self, Self::Repaired(..))
    }
}

struct Auditor<'a> {
    logs: Logs<'a>,
    store: Store,
    now: Timestamp,
    audit: Audit,
}

impl Auditor<'_> {
    fn add(&mut self, difference: Difference, correction: Option<Correction>) {
        self.audit.found += 1;
        if self.audit.differences.len() < NAMED_MAX {
            self.audit.differences.push(difference);
        }
        if let (Logs::Repaired(_, repairs), Some(correction)) = (&mut self.logs, correction) {
            repairs.add(correction);
        }
    }

    /// Publishes the corrections of a partition, and reads the facts among them.
    fn repair(&mut self, partition: u32, committed: Option<u64>) -> Result<(), Failure> {
        let Logs::Repaired(event_log, repairs) = &mut self.logs else { return Ok(()) };
        let progressed = self.store.checkpoint(partition).raw;
        if event_log.tells_progress() && committed.is_some_and(|committed| Some(committed) != progressed) {
            return Err(EventLogError::Fatal(format!(
                "facts of partition {partition} record raw up to {progressed:?}, but the group has committed \
                 {committed:?}: a processor explains that at its start"
            ))
            .into());
        }
        let Some(read) = committed.or(progressed) else { return Ok(()) };
        self.audit.repaired += repairs.publish(*event_log, Position { partition, offset: read }, self.now)?;
        let from = Position { partition, offset: self.store.checkpoint(partition).facts };
        let end = event_log.bounds(Topic::Facts, partition)?.1;
        read_facts(*event_log, &self.store, &RecentEvents::default(), from, end)
    }

    /// Compares facts of a partition with `raw`, in both directions.
    fn facts(&mut self, partition: u32) -> Result<(), Failure> {
        let (first, end) = self.logs.reader().bounds(Topic::Raw, partition)?;
        let mut read = self.store.checkpoint(partition).raw;
        if !self.logs.reader().tells_progress() {
            read = read.max(self.logs.reader().committed(partition)?);
        }
        let read = read.unwrap_or(first).min(end);
        let mut facts = self.current_facts(partition, first)?;
        self.audit.facts += facts.values().filter(|fact| fact.raw < read).count() as u64;
        let (mut found, mut failed) = (Found::of(self.logs.are_repaired()), Ok(()));
        let from = Position { partition, offset: first };
        let (store, events) = (&self.store, &mut self.audit.events);
        self.logs.reader().read(Topic::Raw, from, read, &mut |entry| {
            *events += 1;
            match event(store, &entry, &mut facts) {
                Ok(different) => different.into_iter().for_each(|(what, correction)| found.add(what, correction)),
                Err(error) => failed = Err(error),
            }
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed?;
        for ((about, id), fact) in facts {
            if fact.raw < read && !fact.is_explained {
                let place = Position { partition, offset: fact.raw };
                found.add(Difference::NoEvent(place, about, id), None);
            }
        }
        self.audit.found += found.more;
        for (difference, correction) in found.some {
            self.add(difference, correction);
        }
        Ok(())
    }

    /// The facts of a partition that follow from `raw` at `from` or behind it, without those that were corrected.
    fn current_facts(&mut self, partition: u32, from: u64) -> Result<Facts, Failure> {
        let (first, end) = self.logs.reader().bounds(Topic::Facts, partition)?;
        let end = end.min(self.store.checkpoint(partition).facts);
        let (mut facts, mut failed) = (Facts::new(), Ok(()));
        let store = &self.store;
        let mut take = |entry: &Entry| -> Result<(), Failure> {
            let Some(fact) = fact(entry)?.filter(|fact| fact.raw.offset >= from) else { return Ok(()) };
            let place = store.place(&fact.installation, fact.stamp.id)?;
            if place.is_some_and(|place| place.offset == entry.position.offset) {
                facts.insert((fact.installation.clone(), fact.stamp.id), Current::new(fact));
            }
            Ok(())
        };
        self.logs.reader().read(Topic::Facts, Position { partition, offset: first }, end, &mut |entry| {
            failed = take(&entry);
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed?;
        Ok(facts)
    }

    /// Compares the last record of each key in the compacted topics with the state.
    fn records(&mut self, partition: u32) -> Result<(), Failure> {
        let mut expected = self.expected(partition)?;
        for topic in [Topic::Installations, Topic::Permissions] {
            let mut found = self.found(topic, partition)?;
            for (key, shown) in expected.remove(&topic).unwrap_or_default() {
                self.audit.records += 1;
                let difference = match found.remove(&key) {
                    None if shown.may_be_gone => continue,
                    Some(there) if there == shown.hash => continue,
                    None => (Difference::NoRecord(topic, key), Because::Missing),
                    Some(_) => (Difference::OtherRecord(topic, key), Because::Other),
                };
                let correction = self.correction_of(topic, partition, &shown, difference.1)?;
                self.add(difference.0, correction);
            }
            for (key, _) in found {
                self.audit.records += 1;
                let correction = Correction::NoRecord(topic, partition, key.clone());
                self.add(Difference::SurplusRecord(topic, key), Some(correction));
            }
        }
        Ok(())
    }

    fn expected(&self, partition: u32) -> Result<BTreeMap<Topic, BTreeMap<String, ExpectedRecord>>, Failure> {
        let mut expected: BTreeMap<Topic, BTreeMap<String, ExpectedRecord>> = BTreeMap::new();
        let mut last = None;
        while let Some(about) = self.store.next_installation(last.as_ref())? {
            last = Some(about.clone());
            if partition_of_installation(&about, self.store.partitions()) != partition {
                continue;
            }
            let (state, trust) = (self.store.installation(&about)?, self.store.trust(&about.app));
            for record in state.permissions(trust) {
                let may_be_gone = record.decided_at < self.now.minus(DECISIONS_KEPT);
                let hash = hash(&permission_value(&about, &record));
                let shown = ExpectedRecord { hash, may_be_gone, about: about.clone() };
                expected.entry(Topic::Permissions).or_default().insert(permission_key(&about, &record), shown);
            }
            let record = state.record(&about, partition, self.store.rules(&about.app));
            let hash = hash(&serde_json::to_value(&record).expect("our own types have a JSON form"));
            let shown = ExpectedRecord { hash, may_be_gone: false, about: about.clone() };
            expected.entry(Topic::Installations).or_default().insert(about.to_string(), shown);
        }
        Ok(expected)
    }

    /// The hash of the last record of each key; keys that end in a tombstone are left out.
    fn found(&mut self, topic: Topic, partition: u32) -> Result<BTreeMap<String, Fingerprint>, Failure> {
        let mut found: BTreeMap<String, Fingerprint> = BTreeMap::new();
        let (first, end) = self.logs.reader().bounds(topic, partition)?;
        self.logs.reader().read(topic, Position { partition, offset: first }, end, &mut |entry| {
            let key = entry.record.key.unwrap_or_default();
            match entry.record.value.as_deref() {
                Some(value) => found.insert(key, hash(&serde_json::from_slice(value).unwrap_or(Value::Null))),
                None => found.remove(&key),
            };
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn correction_of(
        &self,
        topic: Topic,
        partition: u32,
        shown: &ExpectedRecord,
        because: Because,
    ) -> Result<Option<Correction>, Failure> {
        if !self.logs.are_repaired() {
            return Ok(None);
        }
        let (about, trust) = (&shown.about, self.store.trust(&shown.about.app));
        let state = self.store.installation(about)?;
        if topic == Topic::Installations {
            let record = state.record(about, partition, self.store.rules(&about.app));
            return Ok(Some(Correction::Installation(Box::new(record), partition, because)));
        }
        let records = state.permissions(trust);
        let mut same = records.into_iter().filter(|record| hash(&permission_value(about, record)) == shown.hash);
        Ok(same.next().map(|record| Correction::Permission(about.clone(), Box::new(record), partition, because)))
    }
}

/// Facts of a partition that differ: up to [`CORRECTIONS_MAX`], and the number of further ones.
struct Found {
    repairs: bool,
    some: Vec<(Difference, Option<Correction>)>,
    more: u64,
}

impl Found {
    fn of(repairs: bool) -> Self {
        Self { repairs, some: Vec::new(), more: 0 }
    }

    fn add(&mut self, difference: Difference, correction: Option<Correction>) {
        let most = if self.repairs { CORRECTIONS_MAX } else { NAMED_MAX };
        if self.some.len() < most {
            self.some.push((difference, correction.filter(|_| self.repairs)));
        } else {
            self.more += 1;
        }
    }
}

/// An expected record: enough to compare it, and to build it again.
struct ExpectedRecord {
    hash: Fingerprint,
    /// The topic deletes by age.
    may_be_gone: bool,
    about: Installation,
}

/// The text of a JSON value has sorted keys.
fn hash(value: &Value) -> Fingerprint {
    Fingerprint::of(&value.to_string())
}

fn ends(logs: &mut dyn LogReader) -> Result<Vec<u64>, Failure> {
    (0..logs.partitions()).map(|partition| Ok(logs.bounds(Topic::Facts, partition)?.1)).collect()
}
