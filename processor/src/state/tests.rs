use event_log::contract::partition_of;
use event_log::contract::partition_of_installation;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::memory::{Facts, Memory};
use super::sled::Sled;
use super::*;
use domain::{Decision, Fact, FactKind, HeldDetails, HeldEvent, Method, Profile, ProfileField, Revision, Stamp};
use event_log::Position;

const PARTITIONS: u32 = 3;

fn installation(number: u8) -> Installation {
    Installation::parse("crm-sync", &format!("member{number}")).expect("valid")
}

fn fact(installation: Installation, principal: u8, at: u64, offset: u64, kind: FactKind) -> Change {
    let id = EventId::from_u128(u128::from(offset) << 8 | u128::from(principal));
    let stamp = Stamp::new(Some(Timestamp::from_s(at)), Timestamp::from_s(at), id);
    let partition = partition_of(&installation.to_string(), PARTITIONS);
    let (principal, revision) = (Fingerprint::of(&principal.to_string()), Revision::default());
    Change::Fact(Box::new(Fact { installation, stamp, principal, raw: Position { partition, offset }, revision, kind }))
}

fn kind() -> impl Strategy<Value = FactKind> {
    let profile = Profile::default();
    let language = Profile { language: Some("de".into()), ..Profile::default() };
    let omitting = Profile { omitted: [ProfileField::Language].into(), ..Profile::default() };
    let decided = |granted| FactKind::MethodDecided {
        method: Method::parse("user.get").expect("a method"),
        token: Fingerprint::of("token"),
        decision: if granted { Decision::Granted } else { Decision::Denied },
        profile: Profile::default(),
    };
    prop_oneof![
        Just(FactKind::Installed { complete: true, profile: profile.clone() }),
        Just(FactKind::Installed { complete: false, profile: language }),
        Just(FactKind::Updated { previous_version: None, profile: omitting }),
        any::<Option<bool>>().prop_map(move |clean| FactKind::Uninstalled { clean, profile: profile.clone() }),
        any::<bool>().prop_map(decided),
    ]
}

prop_compose! {
    fn changes()(kind in prop::collection::vec((0..4_u8, 0..3_u8, 0..2_000_000_u64, kind(), any::<bool>()), 0..40)) -> Vec<Change> {
        let change = |(offset, (member, principal, at, kind, is_held)): (usize, (u8, u8, u64, FactKind, bool))| {
            let offset = u64::try_from(offset).expect("small");
            let installation = installation(member);
            if is_held {
                let principal = Fingerprint::of(&principal.to_string());
                let Change::Fact(fact) = fact(installation.clone(), 0, at, offset, kind) else { unreachable!() };
                let details = HeldDetails { raw: fact.raw, bytes: 7, fact: (at % 2 == 0).then_some(fact) };
                Change::Held(HeldEvent { installation, id: EventId::from_u128(offset.into()), principal, offset }, details)
            } else {
                fact(installation, principal, at, offset, kind)
            }
        };
        kind.into_iter().enumerate().map(change).collect()
    }
}

fn open(rows: impl Rows + 'static) -> Result<Store, StoreError> {
    Store::open(Box::new(rows), "log", PARTITIONS, Trusts::default())
}

/// Where a change lies in `facts`: each in a place of its own, a copy where the first one lies.
fn offset(change: &Change) -> u64 {
    let Change::Fact(fact) = change else { return 0 };
    let text = serde_json::to_string(fact).expect("JSON");
    u64::from_be_bytes(Fingerprint::of(&text).as_bytes()[..8].try_into().expect("8 bytes")) >> 16
}

fn facts(changes: &[Change]) -> Facts {
    let fact = |change: &Change| match change {
        Change::Fact(fact) => Some((offset(change), Fact::clone(fact))),
        Change::Held(..) | Change::NoLongerHeld(_) | Change::Heard(..) | Change::Vault(..) => None,
    };
    Facts(changes.iter().filter_map(fact).collect())
}

/// Applies changes in steps of `size`, each partition by itself.
fn apply(store: &Store, changes: &[Change], size: usize) {
    let mut log = facts(changes);
    for partition in 0..PARTITIONS {
        let ours = |change: &&Change| match change {
            Change::Fact(fact) => fact.raw.partition == partition,
            Change::Held(held, _) | Change::NoLongerHeld(held) => {
                partition_of_installation(&held.installation, PARTITIONS) == partition
            }
            Change::Vault(key, _) => partition_of_installation(&key.installation, PARTITIONS) == partition,
            Change::Heard(installation, _) => partition_of_installation(installation, PARTITIONS) == partition,
        };
        let ours: Vec<Change> = changes.iter().filter(ours).cloned().collect();
        let mut end = 0;
        for step in ours.chunks(size) {
            end += step.len() as u64;
            let progressed = Progressed { raw: end, log: EventId::nil(), last: None };
            let step = step.iter().map(|change| (change, offset(change)));
            store.apply(partition, step, Some(progressed), end, &mut log).expect("applied");
        }
    }
}

/// Every row but those that say how far.
fn rows(rows: &Memory) -> Vec<Row> {
    let rows = rows.scan(b"", b"").map(|row| row.expect("read"));
    rows.filter(|(key, _)| !keys::is_checkpoint(key, PARTITIONS)).collect()
}

/// What a change is about: one fact, or one held event.
fn key(change: &Change) -> (Installation, EventId, bool) {
    match change {
        Change::Fact(fact) => (fact.installation.clone(), fact.stamp.id, true),
        Change::Held(held, _) | Change::NoLongerHeld(held) => (held.installation.clone(), held.id, false),
        Change::Heard(installation, _) => (installation.clone(), EventId::nil(), false),
        Change::Vault(key, _) => (key.installation.clone(), EventId::nil(), false),
    }
}

/// Changes in any order, with facts that were read otherwise later, or put right.
fn readings() -> impl Strategy<Value = Vec<Change>> {
    let other = (any::<prop::sample::Index>(), 0..3_u8, kind(), 1..4_u32, 0..3_u32);
    (changes(), prop::collection::vec(other, 0..30)).prop_flat_map(|(changes, others)| {
        let others = others.iter().filter_map(|other| read_otherwise(&changes, other)).collect();
        Just([changes, others].concat()).prop_shuffle()
    })
}

fn read_otherwise(
    changes: &[Change],
    (which, principal, kind, interpretation, correction): &(prop::sample::Index, u8, FactKind, u32, u32),
) -> Option<Change> {
    let (false, Change::Fact(fact)) = (changes.is_empty(), changes.get(which.index(changes.len().max(1)))?) else {
        return None;
    };
    let revision = Revision { interpretation: *interpretation, correction: *correction };
    let principal = Fingerprint::of(&principal.to_string());
    Some(Change::Fact(Box::new(Fact { principal, revision, kind: kind.clone(), ..(**fact).clone() })))
}

fn digests(store: &Store) -> Vec<String> {
    (0..PARTITIONS).map(|partition| store.digest(partition)).collect()
}

fn states(store: &Store) -> Vec<InstallationState> {
    (0..4).map(|member| InstallationState::clone(&*store.installation(&installation(member)).expect("read"))).collect()
}

proptest! {
    #[test]
    fn how_changes_are_cut_into_steps_makes_no_difference((changes, size) in (changes(), 1..9_usize)) {
        let (whole, cut) = (open(Memory::default()).expect("open"), open(Memory::default()).expect("open"));
        apply(&whole, &changes, usize::MAX);
        apply(&cut, &changes, size);
        prop_assert_eq!(digests(&whole), digests(&cut));
        prop_assert_eq!(whole.counts(), cut.counts());
    }

    #[test]
    fn deliveries_in_any_order_and_number_make_the_same_records((changes, shuffled) in changes().prop_flat_map(|changes| {
        let twice = [changes.clone(), changes.clone()].concat();
        (Just(changes), Just(twice).prop_shuffle())
    })) {
        let (one, other) = (open(Memory::default()).expect("open"), open(Memory::default()).expect("open"));
        apply(&one, &changes, 7);
        apply(&other, &shuffled, 5);
        prop_assert_eq!(states(&one), states(&other));
    }

    #[test]
    fn the_same_changes_in_any_order_have_the_same_digest((changes, shuffled) in changes().prop_flat_map(|changes| {
        (Just(changes.clone()), Just(changes).prop_shuffle())
    })) {
        let (one, other) = (open(Memory::default()).expect("open"), open(Memory::default()).expect("open"));
        apply(&one, &changes, 7);
        apply(&other, &shuffled, 5);
        prop_assert_eq!(digests(&one), digests(&other));
        prop_assert_eq!(one.counts(), other.counts());
    }

    #[test]
    fn of_facts_with_one_key_the_latest_reading_holds_whichever_comes_first((readings, size) in (readings(), 1..9_usize)) {
        let mut latest: Vec<Change> = Vec::new();
        for change in &readings {
            match (latest.iter_mut().find(|known| key(known) == key(change)), change) {
                (Some(Change::Fact(known)), Change::Fact(fact)) if fact.replaces(known) => *known = fact.clone(),
                (Some(_), _) => {}
                (None, _) => latest.push(change.clone()),
            }
        }
        let (one, other) = (Memory::default(), Memory::default());
        apply(&open(one.clone()).expect("open"), &latest, usize::MAX);
        let store = open(other.clone()).expect("open");
        apply(&store, &readings, size);
        prop_assert_eq!(rows(&one), rows(&other));
        prop_assert_eq!(store.counts(), open(one).expect("the digest agrees").counts());
        prop_assert_eq!(store.counts(), open(other).expect("the digest agrees").counts());
    }

    #[test]
    fn what_is_applied_a_second_time_changes_no_row(changes in changes()) {
        let (once, twice) = (Memory::default(), Memory::default());
        apply(&open(once.clone()).expect("open"), &changes, 7);
        let store = open(twice.clone()).expect("open");
        apply(&store, &changes, 7);
        apply(&store, &changes, 4);
        prop_assert_eq!(rows(&once), rows(&twice));
    }

    #[test]
    fn the_digest_that_grew_is_the_digest_of_a_full_scan(changes in changes()) {
        let rows = Memory::default();
        let store = open(rows.clone()).expect("open");
        apply(&store, &changes, 3);
        let again = open(rows).expect("the digest agrees");
        prop_assert_eq!(digests(&store), digests(&again));
        prop_assert_eq!(store.counts(), again.counts());
        prop_assert_eq!(store.checkpoint(0), again.checkpoint(0));
    }
}

#[test]
fn sled_holds_what_the_model_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let changes: Vec<Change> =
        (0..20).flat_map(|_| changes().new_tree(&mut runner).expect("changes").current()).collect();
    let model = open(Memory::default()).expect("open");
    apply(&model, &changes, 7);
    let store = open(Sled::open(dir.path()).expect("open")).expect("open");
    apply(&store, &changes, 7);
    assert_eq!(digests(&store), digests(&model));
    drop(store);
    let again = open(Sled::open(dir.path()).expect("open again")).expect("the digest agrees");
    assert_eq!(states(&again), states(&model));
}

#[test]
fn a_row_that_was_changed_behind_our_back_is_damage() {
    let rows = Memory::default();
    let store = open(rows.clone()).expect("open");
    let kind = FactKind::Installed { complete: true, profile: Profile::default() };
    apply(&store, &[fact(installation(1), 1, 5, 0, kind)], 1);
    let prefix = keys::installation_rows(&installation(1));
    let (key, value) = rows.scan(&prefix, &prefix).next().expect("a row").expect("read");
    let mut claims = Codec::Compact.claims(&value).expect("claims");
    claims.first_word = Some((7, Timestamp::from_s(7)));
    rows.write(vec![(key, Some(Codec::Compact.encode(&claims)))]).expect("written");
    assert!(matches!(open(rows), Err(StoreError::Damaged(_))));
}

#[test]
fn rows_without_the_one_that_says_whose_they_are_are_damage() {
    let rows = Memory::default();
    apply(
        &open(rows.clone()).expect("open"),
        &[fact(installation(1), 1, 5, 0, FactKind::Described { profile: Profile::default() })],
        1,
    );
    rows.write(vec![(keys::OWNER.to_vec(), None)]).expect("written");
    assert!(matches!(open(rows), Err(StoreError::Damaged(_))));
}

#[test]
fn a_row_that_nobody_writes_is_damage() {
    for key in [&b"zebra"[..], b"p", b"m\0\0\0\x03", b"m", b"hcrm-sync\0a223"] {
        let rows = Memory::default();
        drop(open(rows.clone()).expect("open"));
        rows.write(vec![(key.to_vec(), Some(b"{}".to_vec()))]).expect("written");
        assert!(matches!(open(rows), Err(StoreError::Damaged(_))), "{key:?}");
    }
}

#[test]
fn the_state_of_an_older_fold_answers_and_takes_no_changes() {
    let rows = Memory::default();
    let open_as = |version, rows: Memory| Store::open_as(version, Box::new(rows), "log", PARTITIONS, Trusts::default());
    let kind = || FactKind::Installed { complete: true, profile: Profile::default() };
    let older = open_as(1, rows.clone()).expect("open");
    apply(&older, &[fact(installation(1), 1, 5, 0, kind())], 1);
    let prefix = keys::installation_rows(&installation(1));
    let (_, claims) = rows.scan(&prefix, &prefix).next().expect("a row").expect("read");
    assert!(claims.starts_with(b"{"), "rows of the first version are JSON");

    let store = open(rows.clone()).expect("it can be read");
    assert!(store.is_outdated() && !open_as(1, rows.clone()).expect("open").is_outdated());
    assert_eq!(states(&store), states(&older));
    assert_eq!(store.counts(), older.counts());
    let change = [fact(installation(1), 1, 6, 1, kind())];
    let applied = store.apply(0, change.iter().zip(1..), None, 2, &mut Facts::default());
    assert!(matches!(applied, Err(StoreError::Foreign(_))));

    let rows = Memory::default();
    drop(open_as(FOLD_VERSION + 1, rows.clone()).expect("open"));
    assert!(matches!(open(rows), Err(StoreError::Foreign(_))), "nobody knows what a newer one wrote");
}

/// Version 4 had a row for each fact.
#[test]
fn the_state_of_the_version_before_places_answers() {
    let rows = Memory::default();
    let open_as = |version| Store::open_as(version, Box::new(rows.clone()), "log", PARTITIONS, Trusts::default());
    let kind = FactKind::Installed { complete: true, profile: Profile::default() };
    let change = fact(installation(1), 1, 5, 0, kind);
    let older = open_as(4).expect("open");
    apply(&older, std::slice::from_ref(&change), 1);
    let Change::Fact(fact) = change else { unreachable!() };
    let partition = partition_of_installation(&installation(1), PARTITIONS);

    let (checkpoint, mut digest) = older.known(partition);
    let place = older.place(&installation(1), fact.stamp.id).expect("read").expect("known");
    let old_key = [&keys::facts_once(&installation(1))[..], fact.stamp.id.as_bytes()].concat();
    let old_row = Codec::CompactOnce.encode_fact(&fact);
    digest.replace(&keys::places(&installation(1), fact.stamp.id), Some(&place.encode()), None);
    digest.replace(&old_key, None, Some(&old_row));
    let checkpoint = StoredCheckpoint::row(partition, &checkpoint, digest);
    rows.write(vec![(old_key, Some(old_row)), (keys::newest_places(&installation(1)), None), checkpoint])
        .expect("written");

    let store = open_as(FOLD_VERSION).expect("it can be read");
    assert!(store.is_outdated());
    let mut expected = states(&older);
    for known in expected.iter_mut().flat_map(|state| state.principals.values_mut()) {
        assert!(known.claims.first_heard_at.take().is_some());
    }
    assert_eq!(states(&store), expected);
    assert_eq!(store.places(&installation(1), None, 9).expect("read"), []);
}

#[test]
fn the_state_of_another_log_is_none_of_ours() {
    let rows = Memory::default();
    open(rows.clone()).expect("open");
    let other = Store::open(Box::new(rows), "another log", PARTITIONS, Trusts::default());
    assert!(matches!(other, Err(StoreError::Foreign(_))));
}

#[test]
fn installations_are_listed_one_after_the_other() {
    let store = open(Memory::default()).expect("open");
    let kind = || FactKind::Installed { complete: true, profile: Profile::default() };
    let changes: Vec<Change> = (0..4).map(|member| fact(installation(member), 1, 5, 0, kind())).collect();
    apply(&store, &changes, 1);
    let mut listed = Vec::new();
    while let Some(next) = store.next_installation(listed.last()).expect("read") {
        listed.push(next);
    }
    assert_eq!(listed, (0..4).map(installation).collect::<Vec<_>>());
}

#[test]
fn installations_of_an_app_are_listed_without_those_of_others() {
    let store = open(Memory::default()).expect("open");
    let kind = || FactKind::Installed { complete: true, profile: Profile::default() };
    let of = |app: &str, member: u8| Installation::parse(app, &format!("a{member}")).expect("valid");
    let all = ["crm", "crm-sync", "tasks"].into_iter().flat_map(|app| (0..3).map(move |member| of(app, member)));
    let changes: Vec<Change> = all.map(|installation| fact(installation, 1, 5, 0, kind())).collect();
    apply(&store, &changes, 1);
    for (app, expected) in [("crm", 3), ("crm-sync", 3), ("tasks", 3), ("task", 0), ("a", 0)] {
        let app = AppName::parse(app).expect("a name");
        // A cursor of another app says nothing about this one.
        let mut listed = vec![of("crm", 1)];
        while let Some(next) = store.next_of_app(&app, listed.last()).expect("read") {
            listed.push(next);
        }
        let begun = usize::from(app.as_str() == "crm") * 2;
        assert_eq!(listed.len() - 1, expected - begun.min(expected), "{app}");
        assert!(listed[1..].iter().all(|installation| installation.app == app), "{listed:?}");
    }
}
