//! What must follow from `raw`: a straight fold of one record after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use bitrix24::Installation;
use domain::fold::{Effect, fold, fold_attestation};
use domain::{
    Change, Event, Fact, HeldDetails, HeldEvent, InstallationState, Reason, Stamp, interpret, interpret_command,
};
use event_log::Record;
use event_log::contract::{Topic, header};
use event_log::{EventId, Position, RawEvent};
use processor::run::publish::Publisher;
use processor::state::Trusts;

pub struct Expected {
    /// By offset.
    pub raw: Vec<Record>,
    pub installations: BTreeMap<Installation, Arc<InstallationState>>,
    pub history: BTreeMap<Installation, BTreeMap<EventId, Fact>>,
    partition: u32,
    trusts: Trusts,
    outputs: BTreeMap<Topic, Vec<Due>>,
    seen: BTreeSet<EventId>,
    held_facts: BTreeMap<HeldEvent, Fact>,
}

/// A record that must be published.
pub struct Due {
    /// The offset of the raw record that it follows from.
    pub cause: u64,
    /// The offset of a released event: it need not be published if `raw` no longer has that.
    pub held: Option<u64>,
    pub record: Record,
}

impl Expected {
    pub fn new(partition: u32, trusts: Trusts) -> Self {
        Self {
            raw: Vec::new(),
            installations: BTreeMap::new(),
            history: BTreeMap::new(),
            partition,
            trusts,
            outputs: BTreeMap::new(),
            seen: BTreeSet::new(),
            held_facts: BTreeMap::new(),
        }
    }

    /// The records of a topic, in order; without progress records.
    pub fn due(&self, topic: Topic) -> &[Due] {
        self.outputs.get(&topic).map_or(&[], Vec::as_slice)
    }

    /// The ids of raw events in a range of `raw`.
    pub fn ids(&self, from: u64, until: u64) -> Vec<EventId> {
        let stretch = self.raw.iter().skip(index(from)).take(index(until.saturating_sub(from)));
        stretch.filter_map(|record| RawEvent::from_record(record).ok()).map(|raw| raw.id).collect()
    }

    pub fn take(&mut self, record: &Record) {
        let place = Position { partition: self.partition, offset: self.raw.len() as u64 };
        self.raw.push(record.clone());
        let raw = RawEvent::from_record(record);
        let publisher = Publisher::new(record, place);
        let was_seen = id_of(record).is_some_and(|id| !self.seen.insert(id));
        let is_resent = record.header(header::RESENT) == Some(b"1");
        let meaning = raw.as_ref().map_err(|_| Reason::NotARawEvent).and_then(|raw| Meaning::of(raw, place));
        let meaning = match meaning {
            Ok(meaning) => meaning,
            Err(reason) => {
                let call = raw.ok().filter(|_| reason == Reason::MissingToken);
                match call.and_then(|raw| domain::unsigned_call(&raw, place)) {
                    Some(_) if was_seen && is_resent => {}
                    Some(call) => {
                        let output = publisher.event(Topic::Unverified, &call, place);
                        self.publish(place, None, Topic::Unverified, output.record);
                    }
                    None => self.publish(place, None, Topic::Rejected, publisher.rejected(reason).record),
                }
                return;
            }
        };
        let (installation, stamp) = meaning.about();
        let history = self.history.entry(installation.clone()).or_default();
        let is_known = history.contains_key(&stamp.id);
        if is_known || (was_seen && is_resent) {
            return;
        }
        let known: BTreeSet<EventId> = history.keys().copied().collect();
        let state = self.installations.entry(installation.clone()).or_default();
        let trust = self.trusts.of(&installation.app);
        let held_facts = &self.held_facts;
        let read = |held: &HeldEvent| -> Result<Option<Fact>, Infallible> {
            Ok(held_facts.get(held).cloned().filter(|fact| !known.contains(&fact.stamp.id)))
        };
        let Ok((_, effects)) = match meaning {
            Meaning::Event(event) => fold(state, &event, trust, read),
            Meaning::Attestation(fact) => fold_attestation(state, *fact, trust, read),
        };
        for effect in effects {
            if let Effect::Changed(Change::Held(held, HeldDetails { fact: Some(fact), .. })) = &effect {
                self.held_facts.insert(held.clone(), Fact::clone(fact));
            }
            if let Effect::Changed(Change::Fact(fact)) = &effect {
                let history = self.history.entry(fact.installation.clone()).or_default();
                history.insert(fact.stamp.id, (**fact).clone());
            }
            if let Effect::Release(held) = &effect {
                let event = event_at(&self.raw, self.partition, held.offset);
                let output = publisher.event(Topic::Events, &event.public, event.raw);
                self.publish(place, Some(held.offset), Topic::Events, output.record);
            } else if let Some(output) = publisher.output(&effect) {
                self.publish(place, None, output.topic, output.record);
            }
        }
    }

    fn publish(&mut self, place: Position, held: Option<u64>, topic: Topic, record: Record) {
        self.outputs.entry(topic).or_default().push(Due { cause: place.offset, held, record });
    }
}

enum Meaning {
    Event(Box<Event>),
    Attestation(Box<Fact>),
}

impl Meaning {
    fn of(raw: &RawEvent, place: Position) -> Result<Self, Reason> {
        if raw.is_command {
            return interpret_command(raw, place).map(|fact| Self::Attestation(Box::new(fact)));
        }
        interpret(raw, place).map(|event| Self::Event(Box::new(event)))
    }

    fn about(&self) -> (Installation, Stamp) {
        match self {
            Self::Event(event) => (event.installation.clone(), event.stamp),
            Self::Attestation(fact) => (fact.installation.clone(), fact.stamp),
        }
    }
}

fn event_at(raw: &[Record], partition: u32, offset: u64) -> Event {
    let raw = RawEvent::from_record(&raw[index(offset)]).expect("it was an event when it came");
    interpret(&raw, Position { partition, offset }).expect("it was an event when it came")
}

fn id_of(record: &Record) -> Option<EventId> {
    EventId::parse_str(std::str::from_utf8(record.header(header::ID)?).ok()?).ok()
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a schedule is short")
}
