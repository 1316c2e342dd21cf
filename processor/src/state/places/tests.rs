use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use event_log::Position;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use proptest::prelude::*;

use super::super::memory::{Facts, Memory};
use super::super::{Row, Rows, StoreError, Trusts};
use super::*;
use domain::{Change, Decision, FactKind, InstallationState, Method, Profile, RecordStatus, Stamp};

fn installation() -> Installation {
    Installation::parse("crm-sync", "a223").expect("valid")
}

fn open(rows: impl Rows + 'static) -> Result<Store, StoreError> {
    Store::open(Box::new(rows), "log", 1, Trusts::default())
}

fn fact(id: u64, correction: u32, kind: FactKind) -> Fact {
    let at = Timestamp::from_s(1_700_000_000 + id);
    Fact {
        installation: installation(),
        stamp: Stamp::new(Some(at), at, EventId::from_u128(id.into())),
        principal: Fingerprint::of("token"),
        raw: Position { partition: 0, offset: id },
        revision: Revision { correction, ..Revision::default() },
        kind,
    }
}

fn described(id: u64) -> Fact {
    fact(id, 0, FactKind::Described { profile: Profile::default() })
}

/// Applies facts that lie at these offsets, in one step.
fn apply<L: FactLog>(store: &Store, facts: &[(u64, Fact)], log: &mut L) -> Result<(), L::Error> {
    let changes: Vec<(Change, u64)> =
        facts.iter().map(|(offset, fact)| (Change::Fact(Box::new(fact.clone())), *offset)).collect();
    let end = facts.iter().map(|(offset, _)| offset + 1).max().unwrap_or(0);
    store.apply(0, changes.iter().map(|(change, offset)| (change, *offset)), None, end, log)
}

fn ids(places: &[Place]) -> Vec<u128> {
    places.iter().map(|place| place.id.as_u128()).collect()
}

fn state(store: &Store) -> InstallationState {
    InstallationState::clone(&*store.installation(&installation()).expect("read"))
}

/// Event ids that mostly grow, as those of a portal do; some are released or redriven late.
fn arrivals() -> impl Strategy<Value = Vec<u64>> {
    let ids: Vec<u64> = (0..400).map(|number| number * 3 + 1).collect();
    (Just(ids), prop::collection::vec((0..400_usize, 0..400_usize), 0..60)).prop_map(|(mut ids, moves)| {
        for (from, to) in moves {
            let id = ids.remove(from);
            ids.insert(to, id);
        }
        ids
    })
}

fn cut(facts: &[(u64, Fact)], sizes: &[usize], store: &Store) {
    let (mut rest, mut sizes) = (facts, sizes.iter().cycle());
    while !rest.is_empty() {
        let (step, later) = rest.split_at((*sizes.next().expect("some")).min(rest.len()));
        apply(store, step, &mut Facts::default()).expect("applied");
        rest = later;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn places_are_found_in_any_order_of_arrival_and_the_digest_does_not_depend_on_rows(
        (arrived, sizes, limit) in (arrivals(), prop::collection::vec(1..90_usize, 1..6), 1..150_usize)
    ) {
        let facts: Vec<(u64, Fact)> = (0..).zip(arrived.iter().map(|id| described(*id))).collect();
        let (rows, at_once) = (Memory::default(), open(Memory::default()).expect("open"));
        let store = open(rows.clone()).expect("open");
        cut(&facts, &sizes, &store);
        apply(&at_once, &facts, &mut Facts::default()).expect("applied");
        prop_assert_eq!(store.digest(0), at_once.digest(0));
        let again = open(rows).expect("rows and digest agree");
        prop_assert_eq!(again.digest(0), at_once.digest(0));

        let offsets: BTreeMap<u64, u64> = arrived.iter().copied().zip(0..).collect();
        let known = |id: u64| again.place(&installation(), EventId::from_u128(id.into())).expect("read");
        for id in 0..1_202 {
            prop_assert_eq!(known(id).map(|place| place.offset), offsets.get(&id).copied());
        }
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = again.places(&installation(), after, limit).expect("read");
            prop_assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            all.extend(page);
        }
        let expected: Vec<(u128, u64)> = offsets.iter().map(|(id, offset)| (u128::from(*id), *offset)).collect();
        prop_assert_eq!(all.iter().map(|place| (place.id.as_u128(), place.offset)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_place_is_read_as_it_was_written(places in prop::collection::btree_map(any::<u128>(), (any::<u64>(), any::<(u32, u32)>()), 1..70)) {
        let place = |(id, (offset, (interpretation, correction))): (u128, (u64, (u32, u32)))| {
            Place { id: EventId::from_u128(id), offset, revision: Revision { interpretation, correction } }
        };
        let places: Vec<Place> = places.into_iter().map(place).collect();
        let row = encode(&places);
        prop_assert_eq!(decode(&row).expect("its own"), places);
        for cut in 0..row.len() {
            prop_assert!(decode(&row[..cut]).map_or(true, |places| encode(&places) == row[..cut]), "a part is no row");
        }
    }
}

/// Rows that count what is asked of them.
#[derive(Clone, Default)]
struct Counted {
    rows: Memory,
    read: Arc<AtomicUsize>,
    written: Arc<Mutex<Vec<usize>>>,
}

impl Rows for Counted {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.rows.get(key)
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let count = |_: &Result<Row, StoreError>| {
            self.read.fetch_add(1, Ordering::Relaxed);
        };
        Box::new(self.rows.scan(prefix, from).inspect(count))
    }

    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let bytes = rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
        self.written.lock().expect("no panic").push(bytes);
        self.rows.write(rows)
    }

    fn bytes(&self) -> u64 {
        self.rows.bytes()
    }
}

#[test]
fn a_fact_costs_the_same_however_many_an_installation_has() {
    let rows = Counted::default();
    let store = open(rows.clone()).expect("open");
    let costs = |ids: RangeInclusive<u64>| {
        rows.written.lock().expect("no panic").clear();
        let before = rows.read.load(Ordering::Relaxed);
        for id in ids.clone() {
            // Every tenth comes late, into the middle of older ones.
            let id = if id % 10 == 0 { id * 1_000 - 7_777 } else { id * 1_000 };
            apply(&store, &[(id, described(id))], &mut Facts::default()).expect("applied");
        }
        let written = rows.written.lock().expect("no panic").iter().sum::<usize>();
        (rows.read.load(Ordering::Relaxed) - before, written)
    };
    costs(10..=200);
    let few = costs(201..=400);
    costs(401..=3_800);
    let many = costs(3_801..=4_000);
    assert!(many.0 <= few.0 + 20 && many.1 <= few.1 * 5 / 4, "{few:?}, and among many {many:?}");
    let largest = rows.rows.scan(b"p", b"p").map(|row| row.expect("read").1.len()).max();
    assert!(largest <= Some(PLACES_MAX * 24), "{largest:?}");
    let most = rows.rows.scan(b"p", b"p").count();
    assert!(most <= 4_000 / (PLACES_MAX / 3), "{most} rows");
}

#[test]
fn the_state_of_an_installation_is_read_without_its_places() {
    let rows = Counted::default();
    let store = open(rows.clone()).expect("open");
    let facts: Vec<(u64, Fact)> = (1..2_000).map(|id| (id, described(id))).collect();
    apply(&store, &facts, &mut Facts::default()).expect("applied");
    drop(store);
    let store = open(rows.clone()).expect("open again");
    let before = rows.read.load(Ordering::Relaxed);
    state(&store);
    assert!(rows.read.load(Ordering::Relaxed) - before <= 2, "claims, and the first row of places");
}

#[test]
fn rows_of_places_that_are_not_as_they_were_written_are_damage() {
    let facts: Vec<(u64, Fact)> = (1..=300).map(|id| (id, described(id))).collect();
    let damage = |damage: fn(&mut Vec<Row>)| {
        let rows = Memory::default();
        let store = open(rows.clone()).expect("open");
        apply(&store, &facts, &mut Facts::default()).expect("applied");
        let prefix = keys::installation_rows(&installation());
        let from = keys::first_places(&installation());
        let before: Vec<Row> = rows.scan(&prefix, &from).map(|row| row.expect("read")).collect();
        assert!(before.len() > 4, "{} rows", before.len());
        let mut after = before.clone();
        damage(&mut after);
        rows.write(before.into_iter().map(|(key, _)| (key, None)).collect()).expect("written");
        rows.write(after.into_iter().map(|(key, value)| (key, Some(value))).collect()).expect("written");
        matches!(open(rows), Err(StoreError::Damaged(_)))
    };
    assert!(!damage(|_| {}), "nothing was changed");
    assert!(damage(|rows| drop(rows.remove(1))), "a row is gone");
    assert!(damage(|rows| drop(rows.pop())), "the newest is gone");
    assert!(damage(|rows| rows[0].1[16] ^= 1), "another offset");
    assert!(damage(|rows| rows[1].0 = rows[0].0[..rows[0].0.len() - 1].to_vec()), "a key is too short");
    assert!(damage(|rows| rows[0].1.clear()), "a row without places");
    assert!(damage(|rows| rows.last_mut().expect("rows").1.truncate(20)), "a place of the newest row is cut");
    let swap = |rows: &mut Vec<Row>| {
        let (one, other) = (rows[0].1.clone(), rows[1].1.clone());
        (rows[0].1, rows[1].1) = (other, one);
    };
    assert!(damage(swap), "a row under the name of another");
    // The same places, in rows whose names do not tell what is in them: no lookup would find them.
    let moved = |rows: &mut Vec<Row>| {
        let all = [&rows[0].1[..], &rows[1].1].concat();
        rows[0].1 = all;
        rows.remove(1);
    };
    assert!(damage(moved), "a row that holds more than its name says");
}

/// Facts that are read at most as often as the test expects, and which of them.
struct Watched {
    facts: Facts,
    reads: Vec<BTreeSet<u64>>,
    is_away: bool,
}

#[derive(Debug)]
enum Failed {
    Away,
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl FactLog for Watched {
    type Error = Failed;

    fn read(&mut self, partition: u32, offsets: &BTreeSet<u64>) -> Result<BTreeMap<u64, Fact>, Failed> {
        if self.is_away {
            return Err(Failed::Away);
        }
        self.reads.push(offsets.clone());
        Ok(self.facts.read(partition, offsets)?)
    }
}

fn decided(id: u64, correction: u32) -> Fact {
    let (method, token) = (Method::parse("user.get").expect("a method"), Fingerprint::of(&id.to_string()));
    fact(
        id,
        correction,
        FactKind::MethodDecided { method, token, decision: Decision::Granted, profile: Profile::default() },
    )
}

fn installed(id: u64, correction: u32) -> Fact {
    fact(id, correction, FactKind::Installed { complete: true, profile: Profile::default() })
}

/// An installation of 100 facts at offsets 100 to 199, the first of which was read as an uninstall.
fn world() -> (Store, Watched, Memory) {
    let rows = Memory::default();
    let store = open(rows.clone()).expect("open");
    let uninstalled = fact(0, 0, FactKind::Uninstalled { clean: None, profile: Profile::default() });
    let facts: Vec<(u64, Fact)> =
        [(100, uninstalled)].into_iter().chain((1..100).map(|id| (100 + id, decided(id, 0)))).collect();
    let mut log = Watched { facts: Facts(facts.iter().cloned().collect()), reads: Vec::new(), is_away: false };
    apply(&store, &facts, &mut log).expect("applied");
    assert!(log.reads.is_empty(), "new facts need no other");
    (store, log, rows)
}

#[test]
fn where_a_fact_is_corrected_the_others_are_read_once() {
    let (store, mut log, rows) = world();
    let later = [(200, installed(0, 1)), (201, decided(7, 1)), (202, decided(100, 0))];
    apply(&store, &later, &mut log).expect("applied");
    let others: BTreeSet<u64> = (101..200).filter(|offset| *offset != 107).collect();
    assert_eq!(log.reads, [others], "in one pass, without what is replaced");
    assert_eq!(state(&store).status(bitrix24::Trust::FirstInstall), RecordStatus::Installed);

    // As if the replaced ones had never been there.
    let fresh = open(Memory::default()).expect("open");
    let current = (1..100).filter(|id| *id != 7).map(|id| (100 + id, decided(id, 0)));
    apply(&fresh, &current.chain(later.clone()).collect::<Vec<_>>(), &mut Facts::default()).expect("applied");
    assert_eq!((state(&store), store.digest(0)), (state(&fresh), fresh.digest(0)));
    assert_eq!(open(rows).expect("the digest agrees").digest(0), fresh.digest(0));
    let place = |id: u64| store.place(&installation(), EventId::from_u128(id.into())).expect("read").expect("known");
    assert_eq!([place(0).offset, place(7).offset, place(8).offset], [200, 201, 108]);
    assert_eq!(place(0).revision.correction, 1);
}

#[test]
fn a_lower_revision_is_ignored_and_needs_no_other_fact() {
    let (store, mut log, _) = world();
    apply(&store, &[(200, installed(0, 1))], &mut log).expect("applied");
    log.reads.clear();
    let before = (state(&store), store.places(&installation(), None, 1_000).expect("read"));
    apply(&store, &[(201, fact(0, 0, FactKind::Described { profile: Profile::default() }))], &mut log)
        .expect("applied");
    assert_eq!((state(&store), store.places(&installation(), None, 1_000).expect("read")), before);
    assert!(log.reads.is_empty());
}

#[test]
fn of_two_copies_the_later_one_is_known_since_compaction_removes_the_other() {
    let (store, mut log, _) = world();
    let before = state(&store);
    apply(&store, &[(200, decided(5, 0))], &mut log).expect("applied");
    let place = store.place(&installation(), EventId::from_u128(5)).expect("read").expect("known");
    assert_eq!((place.offset, state(&store)), (200, before));
}

#[test]
fn while_the_log_is_away_a_correction_fails_and_changes_nothing() {
    let (store, mut log, rows) = world();
    let before = (state(&store), store.digest(0), store.checkpoint(0));
    log.is_away = true;
    let correction = [(200, installed(0, 1))];
    assert!(matches!(apply(&store, &correction, &mut log), Err(Failed::Away)));
    assert_eq!((state(&store), store.digest(0), store.checkpoint(0)), before);
    assert_eq!(open(rows).expect("whole").digest(0), before.1);
    log.is_away = false;
    apply(&store, &correction, &mut log).expect("applied");
    assert_eq!(state(&store).status(bitrix24::Trust::FirstInstall), RecordStatus::Installed);
}

#[test]
fn a_fact_that_was_erased_is_left_out_and_another_in_its_place_is_damage() {
    let (store, mut log, _) = world();
    log.facts.0.remove(&150);
    apply(&store, &[(200, installed(0, 1))], &mut log).expect("applied");
    let decisions = state(&store).permissions(bitrix24::Trust::FirstInstall);
    assert_eq!(decisions.len(), 98, "of 99");

    let (store, mut log, _) = world();
    log.facts.0.insert(150, decided(51, 0));
    let applied = apply(&store, &[(200, installed(0, 1))], &mut log);
    assert!(matches!(applied, Err(Failed::Store(StoreError::Damaged(_)))), "{applied:?}");
}

#[test]
fn pages_of_places_begin_behind_an_id() {
    let (store, _, _) = world();
    let page = |after: Option<u64>, limit| {
        let after = after.map(|after| EventId::from_u128(after.into()));
        ids(&store.places(&installation(), after, limit).expect("read"))
    };
    assert_eq!(page(None, 3), [0, 1, 2]);
    // The last of a row, and the first of the next.
    assert_eq!((page(Some(46), 3), page(Some(47), 3)), (vec![47, 48, 49], vec![48, 49, 50]));
    assert_eq!((page(Some(98), 9), page(Some(99), 9)), (vec![99], vec![]));
    let other = Installation::parse("crm-sync", "a22").expect("valid");
    assert_eq!(store.places(&other, None, 9).expect("read"), []);
}
