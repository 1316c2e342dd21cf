//! What a state makes of facts that are not what it was folded from, on a log in memory.

use std::collections::BTreeMap;

use bitrix24::Installation;
use domain::{Fact, FactKind, Profile, Revision, Stamp};
use event_log::Record;
use event_log::memory::{MemoryEventLog, MemoryFacts};
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;

use super::*;
use crate::run::inconsistency::What;
use crate::run::publish::{accepted, progress};
use crate::state::Trusts;
use crate::state::memory::{Facts as InMemory, Memory};

const LOG: EventId = EventId::from_u128(1);

#[test]
fn what_was_folded_and_is_there_no_more_makes_the_state_void_unless_compaction_took_it() {
    let store = folded_up_to(5);
    let check = |there| check_checkpoint(&mut facts(0, 9, [there]), &store, 0);
    let is_void = |there| matches!(check(there), Err(Failure::Store(StoreError::Foreign(_))));
    assert!(check((4, progress_to(3))).is_ok(), "it is there");
    assert!(check((4, said_nothing())).is_ok(), "it is no progress record, but there");
    assert!(check((8, progress_to(7))).is_ok(), "a newer progress record has replaced it");
    assert!(is_void((8, said_nothing())), "taken back");
    assert!(is_void((8, progress_to(3))), "written again");
    assert!(is_void((4, progress_to(4))), "another one");
}

#[test]
fn facts_that_begin_behind_what_is_known_are_read_once_a_person_has_accepted_it_and_by_a_new_state_only() {
    let recent_events = RecentEvents::default();
    let read = |log: &mut MemoryEventLog<()>, store: &Store| catch_up(log, store, &recent_events, 0);
    let mut trimmed = facts(7, 9, [(8, progress_to(7))]);
    for known in [0, 5] {
        match read(&mut trimmed, &folded_up_to(known)) {
            Err(Failure::Inconsistent(inconsistency)) => assert_eq!(inconsistency.what, What::FactsTrimmed),
            other => panic!("{other:?}"),
        }
    }
    read(&mut trimmed, &folded_up_to(7)).expect("it knows more than they tell");

    let mut accepted = facts(7, 9, [(7, accepted_begin_of(7)), (8, progress_to(7))]);
    let new = folded_up_to(0);
    read(&mut accepted, &new).expect("accepted");
    assert_eq!((new.checkpoint(0).facts, new.checkpoint(0).begin, new.checkpoint(0).raw), (9, 7, Some(7)));
    for known in [5, 7] {
        let void = read(&mut accepted, &folded_up_to(known));
        assert!(matches!(void, Err(Failure::Store(StoreError::Foreign(_)))), "folded up to {known}: {void:?}");
    }
    let accepted_at = |first| facts(first, 9, [(8, accepted_begin_of(7))]);
    // Deleted once more: no operator accepted that.
    assert!(matches!(read(&mut accepted_at(8), &folded_up_to(0)), Err(Failure::Inconsistent(_))));
    // Put back: then all is there to be read.
    read(&mut accepted_at(0), &folded_up_to(0)).expect("from the first");
}

fn facts<const N: usize>(first: u64, end: u64, there: [(u64, Record); N]) -> MemoryEventLog<()> {
    MemoryEventLog::new(vec![MemoryFacts::of(first, end, there)], true, ())
}

/// Corrections are read while their log is busy: before the state, in the middle of it, and as they come.
#[test]
fn corrections_among_facts_are_folded_as_if_what_they_replace_had_never_been_there() {
    let recent_events = RecentEvents::default();
    let told = |portal: u64, id: u64, revised: bool| {
        let at = Timestamp::from_s(1_700_000_000 + id);
        let fact = Fact {
            installation: Installation::parse("crm-sync", &format!("portal{portal}")).expect("valid"),
            stamp: Stamp::new(Some(at), at, EventId::from_u128(u128::from(id))),
            principal: Fingerprint::of("token"),
            raw: Position { partition: 0, offset: id },
            revision: Revision { correction: u32::from(revised), ..Revision::default() },
            kind: match (revised, id % 3) {
                (true, _) => FactKind::Installed { complete: true, profile: Profile::default() },
                (false, 0) => FactKind::Updated { previous_version: None, profile: Profile::default() },
                (false, _) => FactKind::Uninstalled { clean: None, profile: Profile::default() },
            },
        };
        let key = Some(FactKey::Fact(fact.installation.clone(), fact.stamp.id).to_string());
        Record { key, value: Some(serde_json::to_vec(&fact).expect("JSON").into()), headers: vec![], at }
    };
    // Steps of 5,000: some have corrections, and some correct what is in the same step.
    let corrected = |id: u64| id.is_multiple_of(997) || (3_000..3_010).contains(&id);
    let (count, portals) = (17_000, 40);
    let mut there: Vec<Record> = Vec::new();
    for id in 0..count {
        there.push(told(id % portals, id, false));
        if let Some(before) = id.checked_sub(2_500).filter(|before| corrected(*before)) {
            there.push(told(before % portals, before, true));
        }
    }
    let end = u64::try_from(there.len()).expect("few");
    let there: Vec<(u64, Record)> = (0..).zip(there).collect();
    let log = |there: Vec<(u64, Record)>| MemoryEventLog::new(vec![MemoryFacts::of(0, end, there)], true, ());
    let mut whole = log(there.clone());

    let read = folded_up_to(0);
    catch_up(&mut whole, &read, &recent_events, 0).expect("read");
    assert_eq!(read.checkpoint(0).facts, end);

    let followed = folded_up_to(0);
    for entries in there.chunks(700) {
        let entry = |(offset, record): &(u64, Record)| Entry {
            position: Position { partition: 0, offset: *offset },
            record: record.clone(),
        };
        let entries: Vec<Entry> = entries.iter().map(entry).collect();
        follow(&mut whole, &followed, &recent_events, &entries).expect("followed");
    }
    assert_eq!(followed.digest(0), read.digest(0));

    // As compaction leaves it.
    let last: BTreeMap<Option<String>, u64> =
        there.iter().map(|(offset, record)| (record.key.clone(), *offset)).collect();
    let left: Vec<_> = there.iter().filter(|(offset, record)| last[&record.key] == *offset).cloned().collect();
    assert!(left.len() < there.len());
    let compacted = folded_up_to(0);
    catch_up(&mut log(left), &compacted, &recent_events, 0).expect("read");
    let state = |store: &Store| {
        let installation = |portal| Installation::parse("crm-sync", &format!("portal{portal}")).expect("valid");
        (0..portals).map(|portal| store.installation(&installation(portal)).expect("read")).collect::<Vec<_>>()
    };
    assert_eq!(state(&compacted), state(&read));
    let places = |store: &Store| {
        let installation = |portal| Installation::parse("crm-sync", &format!("portal{portal}")).expect("valid");
        (0..portals).map(|portal| store.places(&installation(portal), None, 1_000).expect("read")).collect::<Vec<_>>()
    };
    assert_eq!(places(&compacted), places(&read));
}

/// A state that has folded so far, the last step up to 3 in `raw`.
fn folded_up_to(facts: u64) -> Store {
    let store = Store::open(Box::new(Memory::default()), "played", 1, Trusts::default()).expect("a store");
    if facts > 0 {
        let progressed = Progressed { raw: 3, log: LOG, last: None };
        store.apply(0, [], Some(progressed), facts, &mut InMemory::default()).expect("applied");
    }
    store
}

fn progress_to(raw: u64) -> Record {
    let written = Progress { raw, log: LOG, folded: vec![], last: None, partitions: None, accepted: None };
    progress(&written, 0, Timestamp::from_s(0)).record
}

fn accepted_begin_of(facts: u64) -> Record {
    let at = Timestamp::from_s(0);
    let written = Accepted { what: What::FactsTrimmed, from: None, to: 3, at, before: None, begin: Some(facts) };
    accepted(&written, EventId::from_u128(2), 0).record
}

fn said_nothing() -> Record {
    Record { key: Some(NOOP.to_owned()), value: None, headers: vec![], at: Timestamp::from_s(0) }
}
