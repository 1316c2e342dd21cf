//! What must follow from `raw`: a straight fold of one record after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use bitrix24::Installation;
use domain::fold::{Effect, fold};
use domain::{Change, Event, Fact, HeldEvent, InstallationState, Place, interpret};
use event_log::Record;
use event_log::contract::{Topic, header};
use event_log::{EventId, RawEvent};
use processor::run::publish::Publisher;
use processor::state::Trusts;

pub struct Expected {
    /// By offset.
    pub raw: Vec<Record>,
    pub installations: BTreeMap<Installation, InstallationState>,
    pub history: BTreeMap<Installation, BTreeMap<EventId, Fact>>,
    partition: u32,
    trusts: Trusts,
    outputs: BTreeMap<Topic, Vec<Due>>,
    seen: BTreeSet<EventId>,
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
        let place = Place { partition: self.partition, offset: self.raw.len() as u64 };
        self.raw.push(record.clone());
        let raw = RawEvent::from_record(record);
        let publisher = Publisher::new(record, place);
        let was_seen = id_of(record).is_some_and(|id| !self.seen.insert(id));
        let Ok(Ok(event)) = raw.as_ref().map(|raw| interpret(raw, place)) else {
            let reason = match &raw {
                Ok(raw) => interpret(raw, place).expect_err("it is no event"),
                Err(_) => domain::Reason::NotARawEvent,
            };
            let call = raw.ok().filter(|_| reason == domain::Reason::MissingToken);
            match call.and_then(|raw| domain::unsigned_call(&raw, place)) {
                Some(call) => {
                    let output = publisher.event(Topic::Unverified, &call, place);
                    self.publish(place, None, Topic::Unverified, output.record);
                }
                None => self.publish(place, None, Topic::Rejected, publisher.rejected(reason).record),
            }
            return;
        };
        let history = self.history.entry(event.installation.clone()).or_default();
        let is_known = event.kind.is_some() && history.contains_key(&event.stamp.id);
        if is_known || (was_seen && record.header(header::RESENT) == Some(b"1")) {
            return;
        }
        let state = self.installations.entry(event.installation.clone()).or_default();
        let (raw, partition) = (&self.raw, self.partition);
        let known: BTreeSet<EventId> = self.history[&event.installation].keys().copied().collect();
        let read = |held: &HeldEvent| -> Result<Option<Fact>, Infallible> {
            Ok(event_at(raw, partition, held.offset).fact().filter(|fact| !known.contains(&fact.stamp.id)))
        };
        let Ok((_, effects)) = fold(state, &event, self.trusts.of(&event.installation.app), read);
        for effect in effects {
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

    fn publish(&mut self, place: Place, held: Option<u64>, topic: Topic, record: Record) {
        self.outputs.entry(topic).or_default().push(Due { cause: place.offset, held, record });
    }
}

fn event_at(raw: &[Record], partition: u32, offset: u64) -> Event {
    let raw = RawEvent::from_record(&raw[index(offset)]).expect("it was an event when it came");
    interpret(&raw, Place { partition, offset }).expect("it was an event when it came")
}

fn id_of(record: &Record) -> Option<EventId> {
    EventId::parse_str(std::str::from_utf8(record.header(header::ID)?).ok()?).ok()
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a schedule is short")
}
