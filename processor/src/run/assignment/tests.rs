//! What a state makes of facts that are not what it was folded from, on a log in memory.

use event_log::{LogReader, Record, Visit};
use primitives::time::Timestamp;

use super::*;
use crate::run::inconsistency::What;
use crate::run::publish::{accepted, progress};
use crate::state::Trusts;
use crate::state::memory::Memory;

const LOG: EventId = EventId::from_u128(1);

#[test]
fn what_was_folded_and_is_there_no_more_makes_the_state_void_unless_compaction_took_it() {
    let store = folded_up_to(5);
    let mut facts = Facts { first: 0, end: 9, there: vec![(4, progress_to(3))] };
    assert!(check_checkpoint(&mut facts, &store, 0).is_ok(), "it is there");
    facts.there = vec![(4, said_nothing())];
    assert!(check_checkpoint(&mut facts, &store, 0).is_ok(), "it is no progress record, but there");
    facts.there = vec![(8, progress_to(7))];
    assert!(check_checkpoint(&mut facts, &store, 0).is_ok(), "a newer progress record has replaced it");
    facts.there = vec![(8, said_nothing())];
    assert!(
        matches!(check_checkpoint(&mut facts, &store, 0), Err(Failure::Store(StoreError::Foreign(_)))),
        "taken back"
    );
    facts.there = vec![(8, progress_to(3))];
    assert!(
        matches!(check_checkpoint(&mut facts, &store, 0), Err(Failure::Store(StoreError::Foreign(_)))),
        "written again"
    );
    facts.there = vec![(4, progress_to(4))];
    assert!(
        matches!(check_checkpoint(&mut facts, &store, 0), Err(Failure::Store(StoreError::Foreign(_)))),
        "another one"
    );
}

#[test]
fn facts_that_begin_behind_what_is_known_are_read_once_a_person_has_accepted_it_and_by_a_new_state_only() {
    let mut facts = Facts { first: 7, end: 9, there: vec![(8, progress_to(7))] };
    let recent_events = RecentEvents::default();
    for known in [0, 5] {
        match catch_up(&mut facts, &folded_up_to(known), &recent_events, 0) {
            Err(Failure::Inconsistent(inconsistency)) => assert_eq!(inconsistency.what, What::FactsTrimmed),
            other => panic!("{other:?}"),
        }
    }
    catch_up(&mut facts, &folded_up_to(7), &recent_events, 0).expect("it knows more than they tell");

    facts.there.insert(0, (7, accepted_begin_of(7)));
    let new = folded_up_to(0);
    catch_up(&mut facts, &new, &recent_events, 0).expect("accepted");
    assert_eq!((new.checkpoint(0).facts, new.checkpoint(0).begin, new.checkpoint(0).raw), (9, 7, Some(7)));
    for known in [5, 7] {
        let void = catch_up(&mut facts, &folded_up_to(known), &recent_events, 0);
        assert!(matches!(void, Err(Failure::Store(StoreError::Foreign(_)))), "folded up to {known}: {void:?}");
    }
    // Deleted once more: no operator accepted that.
    (facts.first, facts.there) = (8, vec![(8, accepted_begin_of(7))]);
    assert!(matches!(catch_up(&mut facts, &folded_up_to(0), &recent_events, 0), Err(Failure::Inconsistent(_))));
    // Put back: then all is there to be read.
    facts.first = 0;
    catch_up(&mut facts, &folded_up_to(0), &recent_events, 0).expect("from the first");
}

/// A state that has folded so far, the last step up to 3 in `raw`.
fn folded_up_to(facts: u64) -> Store {
    let store = Store::open(Box::new(Memory::default()), "played", 1, Trusts::default()).expect("a store");
    if facts > 0 {
        store.apply(0, &[], Some(Progressed { raw: 3, log: LOG, last: None }), facts).expect("applied");
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

/// One partition of facts.
struct Facts {
    first: u64,
    end: u64,
    there: Vec<(u64, Record)>,
}

impl LogReader for Facts {
    fn identity(&self) -> &'static str {
        "played"
    }

    fn partitions(&self) -> u32 {
        1
    }

    fn tells_progress(&self) -> bool {
        true
    }

    fn committed(&mut self, _: u32) -> Result<Option<u64>, EventLogError> {
        Ok(None)
    }

    fn bounds(&mut self, _: Topic, _: u32) -> Result<(u64, u64), EventLogError> {
        Ok((self.first, self.end))
    }

    fn read(&mut self, _: Topic, from: Position, until: u64, visit: Visit<'_>) -> Result<(), EventLogError> {
        for (offset, record) in self.there.iter().filter(|(offset, _)| (from.offset..until).contains(offset)) {
            let entry = Entry { position: Position { partition: 0, offset: *offset }, record: record.clone() };
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn offset_at(&mut self, _: u32, _: Timestamp) -> Result<u64, EventLogError> {
        Ok(0)
    }
}
