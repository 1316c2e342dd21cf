//! Compares each level with the one that it is made from: facts with `raw`, as far as that reaches, and the records in
//! the compacted topics with what facts come to. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use common::contract::Topic;
use common::event::{EventId, Installation, RawEvent};
use common::lifecycle::Stop;
use common::log::{Entry, Ledger, Position};
use common::secret::Fingerprint;
use common::time::Timestamp;
use serde_json::Value;

use crate::domain::{DECISIONS_KEPT, Event, Fact, FactKey, Place, Told, interpret};
use crate::fold::TELLERS_MAX;
use crate::processor::Failure;
use crate::publish::{permission_key, permission_value};
use crate::rebuild::{Progress, read_all};
use crate::store::{Store, StoreError, Trusts, opening};

/// More differences than these are counted and not named.
const NAMED_MAX: usize = 1_000;

/// What was compared, and what differs.
#[derive(Debug, Default)]
pub struct Audit {
    /// Events of `raw` that were interpreted again.
    pub events: u64,
    /// Facts that were compared with them; older ones have outlived their raw event.
    pub facts: u64,
    /// Records of the compacted topics that were compared with the state.
    pub records: u64,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// How many there are in all.
    pub found: u64,
    /// Somebody published meanwhile: what differs may only have been on its way.
    pub has_moved: bool,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// `raw` tells something that is not among the facts.
    NoFact(Place, Installation, EventId),
    /// A fact says something else than its raw event.
    OtherFact(Place, Installation, EventId),
    /// A fact names a place in `raw` that does not tell it.
    NoEvent(Place, Installation, EventId),
    /// The state has a record that the topic does not have.
    NoRecord(Topic, String),
    /// The topic has another record than the state.
    OtherRecord(Topic, String),
    /// The topic has a record of which the state knows nothing.
    SurplusRecord(Topic, String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |place: &Place| format!("raw {}/{}", place.partition, place.offset);
        match self {
            Self::NoFact(at, about, id) => write!(f, "{} tells of {about} in event {id}: no fact says so", place(at)),
            Self::OtherFact(at, about, id) => {
                write!(f, "the fact {about}/{id} says something else than {}", place(at))
            }
            Self::NoEvent(at, about, id) => write!(f, "the fact {about}/{id} is not what {} tells", place(at)),
            Self::NoRecord(topic, key) => write!(f, "{} has no record {key}", topic.name()),
            Self::OtherRecord(topic, key) => write!(f, "{} has another record {key} than facts come to", topic.name()),
            Self::SurplusRecord(topic, key) => {
                write!(f, "{} has a record {key} of which facts know nothing", topic.name())
            }
        }
    }
}

impl Audit {
    /// Compares all of it. `scratch` is a directory for a state that is folded for this and thrown away.
    pub fn of(
        ledger: &mut dyn Ledger,
        scratch: &Path,
        trusts: Trusts,
        now: Timestamp,
        stop: &Stop,
        told: &mut dyn FnMut(Progress),
    ) -> Result<Self, Failure> {
        let before = ends(ledger)?;
        let store = opening::open(scratch, ledger.identity(), ledger.partitions(), trusts)?;
        read_all(ledger, &store, stop, told)?;
        let mut audit = Self::default();
        for partition in 0..ledger.partitions() {
            audit.facts(ledger, &store, partition)?;
        }
        // Without a broker nobody subscribes, and there are no compacted topics.
        if ledger.tells_progress() {
            audit.records(ledger, &store, now)?;
        }
        audit.has_moved = ends(ledger)? != before;
        Ok(audit)
    }

    fn add(&mut self, difference: Difference) {
        self.found += 1;
        if self.differences.len() < NAMED_MAX {
            self.differences.push(difference);
        }
    }

    /// Facts of a partition with what `raw` says, in both directions.
    fn facts(&mut self, ledger: &mut dyn Ledger, store: &Store, partition: u32) -> Result<(), Failure> {
        let (first, end) = ledger.bounds(Topic::Raw, partition)?;
        let mut read = store.marks(partition).raw;
        if !ledger.tells_progress() {
            read = read.max(ledger.committed(partition)?);
        }
        let read = read.unwrap_or(first).min(end);
        let (mut told, mut failed) = (BTreeSet::new(), Ok(()));
        let from = Position { partition, offset: first };
        ledger.read(Topic::Raw, from, read, &mut |entry| {
            self.events += 1;
            failed = self.event(store, &entry, &mut told);
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed?;

        let (first_fact, end) = ledger.bounds(Topic::Facts, partition)?;
        let end = end.min(store.marks(partition).facts);
        let from = Position { partition, offset: first_fact };
        ledger.read(Topic::Facts, from, end, &mut |entry| {
            if let Some(fact) = fact(&entry)
                && (first..read).contains(&fact.raw.offset)
            {
                self.facts += 1;
                if !told.contains(&(fact.raw.offset, fact.stamp.id)) {
                    self.add(Difference::NoEvent(fact.raw, fact.installation, fact.stamp.id));
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// One event of `raw`; `told` learns which facts it explains.
    fn event(&mut self, store: &Store, entry: &Entry, told: &mut BTreeSet<(u64, EventId)>) -> Result<(), StoreError> {
        let place = Place { partition: entry.position.partition, offset: entry.position.offset };
        let Ok(raw) = RawEvent::from_record(&entry.record) else { return Ok(()) };
        let Ok(event) = interpret(&raw, place) else { return Ok(()) };
        let (about, id) = (event.installation.clone(), event.stamp.id);
        match store.fact(&about, id)? {
            None if event.told.is_some() && !is_refused(store, &event)? => {
                self.add(Difference::NoFact(place, about, id));
            }
            // A second copy of the event in `raw` adds nothing.
            Some(known) if known.raw.offset < place.offset => {}
            Some(known) => {
                told.insert((place.offset, id));
                let expected = event.fact().unwrap_or_else(|| event.fact_of(Told::Spoke));
                if known != expected {
                    self.add(Difference::OtherFact(place, about, id));
                }
            }
            None => {}
        }
        Ok(())
    }

    /// The last record of each key in the compacted topics with what the state would publish.
    fn records(&mut self, ledger: &mut dyn Ledger, store: &Store, now: Timestamp) -> Result<(), Failure> {
        let mut expected: BTreeMap<(Topic, String), Shown> = BTreeMap::new();
        let mut last = None;
        while let Some(about) = store.next_installation(last.as_ref())? {
            let (portal, trust) = (store.portal(&about)?, store.trust(&about.app));
            let record = portal.record(&about, about.partition(store.partitions()), trust);
            let value = serde_json::to_value(&record).expect("our own types have a JSON form");
            expected.insert((Topic::Installations, about.to_string()), Shown::of(&value, false));
            for record in portal.permissions(trust) {
                let may_be_gone = record.decided_at < now.minus(DECISIONS_KEPT);
                let shown = Shown::of(&permission_value(&about, &record), may_be_gone);
                expected.insert((Topic::Permissions, permission_key(&about, &record)), shown);
            }
            last = Some(about);
        }
        let mut found: BTreeMap<(Topic, String), Option<Shown>> = BTreeMap::new();
        for topic in [Topic::Installations, Topic::Permissions] {
            for partition in 0..ledger.partitions() {
                let (first, end) = ledger.bounds(topic, partition)?;
                ledger.read(topic, Position { partition, offset: first }, end, &mut |entry| {
                    let key = entry.record.key.unwrap_or_default();
                    let value = entry.record.value.as_deref();
                    let value = value.map(|value| serde_json::from_slice(value).unwrap_or(Value::Null));
                    found.insert((topic, key), value.map(|value| Shown::of(&value, false)));
                    ControlFlow::Continue(())
                })?;
            }
        }
        for ((topic, key), shown) in &expected {
            self.records += 1;
            match found.remove(&(*topic, key.clone())).flatten() {
                None if shown.may_be_gone => {}
                None => self.add(Difference::NoRecord(*topic, key.clone())),
                Some(there) if there.hash != shown.hash => self.add(Difference::OtherRecord(*topic, key.clone())),
                Some(_) => {}
            }
        }
        for ((topic, key), shown) in found {
            if shown.is_some() {
                self.records += 1;
                self.add(Difference::SurplusRecord(topic, key));
            }
        }
        Ok(())
    }
}

/// What is remembered of a record: enough to compare it.
struct Shown {
    hash: Fingerprint,
    /// The topic forgets by age.
    may_be_gone: bool,
}

impl Shown {
    /// A JSON value's own text has its keys in order.
    fn of(value: &Value, may_be_gone: bool) -> Self {
        Self { hash: Fingerprint::of(&value.to_string()), may_be_gone }
    }
}

/// Whether the event was set aside because too many had spoken for its installation.
fn is_refused(store: &Store, event: &Event) -> Result<bool, StoreError> {
    let tellers = store.portal(&event.installation)?.tellers;
    Ok(tellers.len() >= TELLERS_MAX && !tellers.contains_key(&event.teller))
}

fn fact(entry: &Entry) -> Option<Fact> {
    match FactKey::parse(entry.record.key.as_deref()?)? {
        FactKey::Fact(..) => serde_json::from_slice(entry.record.value.as_deref()?).ok(),
        FactKey::Waiting(_) | FactKey::Progress | FactKey::Accepted(_) => None,
    }
}

fn ends(ledger: &mut dyn Ledger) -> Result<Vec<u64>, Failure> {
    (0..ledger.partitions()).map(|partition| Ok(ledger.bounds(Topic::Facts, partition)?.1)).collect()
}
