//! Facts beside the events of `raw` that they follow from.

use std::collections::BTreeMap;

use bitrix24::Installation;
use event_log::{Entry, EventId, RawEvent, Record};
use primitives::secret::Fingerprint;

use super::Difference;
use crate::maintenance::repair::{Because, Correction};
use crate::state::{Store, StoreError};
use domain::{Event, Fact, INTERPRETATION, Revision, interpret, interpret_command};

/// A fact, without what memory need not hold.
pub struct Current {
    /// The offset of its event.
    pub raw: u64,
    revision: Revision,
    meaning: Fingerprint,
    /// An event of `raw` has it.
    pub is_explained: bool,
}

impl Current {
    pub fn new(fact: Fact) -> Self {
        let (raw, revision) = (fact.raw.offset, fact.revision);
        Self { raw, revision, meaning: meaning(fact), is_explained: false }
    }
}

pub type Facts = BTreeMap<(Installation, EventId), Current>;

/// The hash of a fact, whatever its revision.
fn meaning(fact: Fact) -> Fingerprint {
    let fact = Fact { revision: Revision::default(), ..fact };
    Fingerprint::of(&serde_json::to_string(&fact).expect("our own types have a JSON form"))
}

/// Checks one event of `raw`, and marks the fact that it explains.
pub fn event(
    store: &Store,
    entry: &Entry,
    facts: &mut Facts,
) -> Result<Option<(Difference, Option<Correction>)>, StoreError> {
    let place = entry.position;
    let Ok(raw) = RawEvent::from_record(&entry.record) else { return Ok(None) };
    if raw.is_command {
        if let Ok(fact) = interpret_command(&raw, place)
            && let Some(known) = facts.get_mut(&(fact.installation, fact.stamp.id))
        {
            known.is_explained |= known.raw == place.offset;
        }
        return Ok(None);
    }
    let Ok(event) = interpret(&raw, place) else { return Ok(None) };
    let (about, id) = (event.installation.clone(), event.stamp.id);
    let correction = |fact, because| {
        // Without the body, which a fact does not need.
        let Record { headers, at, .. } = &entry.record;
        let raw = Record { key: None, value: None, headers: headers.clone(), at: *at };
        Some(Correction::Fact(Box::new(fact), Box::new(raw), because))
    };
    let Some(known) = facts.get_mut(&(about.clone(), id)) else {
        let is_missing = !store.has_fact(&about, id)?;
        return Ok(match event.fact() {
            Some(fact) if is_missing && is_due(store, &event)? => {
                Some((Difference::NoFact(place, about, id), correction(fact, Because::Missing)))
            }
            // A second copy of an event that `raw` no longer has adds nothing.
            Some(_) | None => None,
        });
    };
    if known.raw < place.offset {
        // Nor does one of an event that it has.
        return Ok(None);
    }
    known.is_explained |= known.raw == place.offset;
    let expected = event.fact().unwrap_or_else(|| event.described());
    Ok(if known.meaning == meaning(expected.clone()) {
        None
    } else if known.revision.interpretation > INTERPRETATION {
        Some((Difference::NewerFact(place, about, id), None))
    } else {
        let fact = Fact { revision: behind(known.revision), ..expected };
        Some((Difference::OtherFact(place, about, id), correction(fact, Because::Other)))
    })
}

/// The revision of a correction to a fact of this revision.
fn behind(known: Revision) -> Revision {
    let today = Revision::default();
    if known < today { today } else { Revision { correction: known.correction.saturating_add(1), ..known } }
}

/// Whether the fact of an event must exist: all facts of a trusted principal since it is trusted. Other events are
/// held, or gave way.
fn is_due(store: &Store, event: &Event) -> Result<bool, StoreError> {
    let state = store.installation(&event.installation)?;
    let Some(known) = state.principals.get(&event.principal) else { return Ok(false) };
    let since = state.trusted_from(event.principal, store.trust(&event.installation.app));
    Ok(since.is_some_and(|since| since <= event.raw.offset) && !known.held.contains_key(&event.raw.offset))
}
