use std::collections::BTreeMap;
use std::convert::Infallible;

use bitrix24::form::Form;
use bitrix24::{AppName, Installation};
use bytes::Bytes;
use event_log::{EventId, RawEvent};
use primitives::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::installation::CLAIMANTS_MAX;
use crate::{Attest, Attestation, Position, ProfileField, RecordStatus, interpret, interpret_command};

/// A line a step: principal, `ts` and what happened.
fn fold_all(trust: Trust, steps: &[(&str, u64, &str)]) -> (Arc<InstallationState>, Vec<(Outcome, Vec<Effect>)>) {
    let event = |(offset, (principal, ts, tells)): (u64, &(&str, u64, &str))| event(offset, principal, *ts, tells);
    let events: Vec<Event> = (0..).zip(steps).map(event).collect();
    let mut state = Arc::default();
    let results = events.iter().map(|event| fold_one(&mut state, &events, event, trust)).collect();
    (state, results)
}

/// Folds one of these events; the others are what `raw` holds.
fn fold_one(state: &mut Arc<InstallationState>, raw: &[Event], event: &Event, trust: Trust) -> (Outcome, Vec<Effect>) {
    let folded = facts_in(state);
    let read = |held: &HeldEvent| -> Result<_, Infallible> { Ok(held_fact(raw, held, &folded)) };
    let Ok(folded) = super::fold(state, event, trust, read);
    folded
}

/// The fact of a held event, unless it is folded.
fn held_fact(raw: &[Event], held: &HeldEvent, folded: &[u64]) -> Option<Fact> {
    let event = raw.iter().find(|event| event.raw.offset == held.offset)?;
    let fact = event.fact().unwrap_or_else(|| event.described());
    (!folded.contains(&held.offset)).then_some(fact)
}

/// The offsets of installs and uninstalls that are facts.
fn facts_in(state: &InstallationState) -> Vec<u64> {
    state.principals.values().flat_map(|known| known.claims.turns.iter().map(|(at, _)| at)).collect()
}

fn trusted(state: &InstallationState, trust: Trust) -> Option<Fingerprint> {
    let verdict = state.verdict(trust);
    assert!(verdict.trusted.len() <= 1, "{verdict:?}");
    verdict.trusted.first().map(|trusted| trusted.principal)
}

fn attest(
    state: &mut Arc<InstallationState>,
    raw: &[Event],
    offset: u64,
    principal: &str,
    attestation: Attestation,
) -> (Outcome, Vec<Effect>) {
    let about = Installation::parse("crm-sync", "a223").expect("valid");
    let attest =
        Attest { principal: Fingerprint::of(principal), attestation, domain: None, version: None, installed_at: None };
    let mut command = attest.into_raw(about, Timestamp::from_s(1_000_000 + offset));
    command.id = EventId::from_u128(offset.into());
    let fact = interpret_command(&command, Position { partition: 0, offset }).expect("understood");
    let folded = facts_in(state);
    let read = |held: &HeldEvent| -> Result<_, Infallible> { Ok(held_fact(raw, held, &folded)) };
    let Ok(folded) = fold_attestation(state, fact, Trust::FirstInstall, read);
    folded
}

fn event(offset: u64, principal: &str, ts: u64, tells: &str) -> Event {
    let tells = match tells {
        "install" => "event=ONAPPINSTALL&data[VERSION]=1",
        "begin to install" => "event=ONAPPINSTALL&data[INSTALLED]=N",
        "uninstall" => "event=ONAPPUNINSTALL&data[CLEAN]=0",
        "grant" => "event=ONAPPMETHODCONFIRM&data[TOKEN]=secret&data[METHOD]=user.get&data[CONFIRMED]=1",
        "deny" => "event=ONAPPMETHODCONFIRM&data[TOKEN]=secret&data[METHOD]=user.get&data[CONFIRMED]=0",
        "forget the version" => "event=ONAPPUPDATE&data[VERSION]=%01",
        _ => "event=ONCRMCONTACTADD&data[FIELDS][ID]=7",
    };
    let body = format!("{tells}&ts={ts}&auth[member_id]=a223&auth[application_token]={principal}");
    let app = AppName::parse("crm-sync").expect("a name");
    let mut raw =
        RawEvent::new(app, Form::parse(body.as_bytes()).head(), Bytes::from(body), Timestamp::from_s(1_000_000));
    raw.id = EventId::from_u128(offset.into());
    interpret(&raw, Position { partition: 0, offset }).expect("understood")
}

fn check(steps: &[(&str, u64, &str)], status: RecordStatus, trusted: Option<&str>) {
    let (state, _) = fold_all(Trust::FirstInstall, steps);
    assert_eq!(state.status(Trust::FirstInstall), status, "{steps:?}");
    assert_eq!(self::trusted(&state, Trust::FirstInstall), trusted.map(Fingerprint::of), "{steps:?}");
}

const INSTALLED: RecordStatus = RecordStatus::Installed;
const UNINSTALLED: RecordStatus = RecordStatus::Uninstalled;

#[test]
fn a_late_install_does_not_revive_an_uninstalled_app() {
    check(&[("t", 1, "install"), ("t", 5, "uninstall"), ("t", 1, "install")], UNINSTALLED, Some("t"));
    check(&[("t", 5, "uninstall"), ("t", 1, "install")], UNINSTALLED, Some("t"));
    check(&[("t", 1, "install"), ("t", 5, "uninstall"), ("t", 6, "install")], INSTALLED, Some("t"));
}

#[test]
fn a_stranger_with_another_token_changes_nothing() {
    check(&[("t", 1, "install"), ("x", 0, "install"), ("x", 9, "uninstall")], INSTALLED, Some("t"));
}

#[test]
fn an_unfinished_install_is_not_trusted() {
    check(&[("t", 1, "begin to install")], RecordStatus::Untrusted, None);
    check(&[("t", 1, "begin to install"), ("t", 2, "install")], INSTALLED, Some("t"));
}

#[test]
fn an_uninstall_opens_the_place_for_whoever_installs_behind_it() {
    check(&[("t", 1, "install"), ("t", 5, "uninstall"), ("x", 6, "install")], INSTALLED, Some("x"));
}

#[test]
fn nobody_can_lie_in_wait_for_an_uninstall() {
    check(&[("t", 1, "install"), ("x", 2, "install"), ("t", 5, "uninstall")], UNINSTALLED, Some("t"));
}

#[test]
fn a_second_copy_of_an_uninstall_does_not_open_the_place_again() {
    let steps = [("t", 1, "install"), ("t", 5, "uninstall"), ("x", 6, "install"), ("t", 5, "uninstall")];
    check(&steps, INSTALLED, Some("x"));
}

#[test]
fn a_former_holder_takes_the_place_back_with_its_next_install() {
    let steps = [("t", 1, "install"), ("t", 5, "uninstall"), ("x", 6, "install"), ("t", 7, "install")];
    check(&steps, INSTALLED, Some("t"));
    let steps = [&steps[..], &[("x", 8, "install")]].concat();
    check(&steps, INSTALLED, Some("t"));
    let steps = [&steps[..], &[("t", 9, "uninstall")]].concat();
    check(&steps, UNINSTALLED, Some("t"));
    let steps = [&steps[..], &[("x", 10, "install")]].concat();
    check(&steps, INSTALLED, Some("x"));
}

#[test]
fn where_the_first_word_counts_any_event_takes_the_place() {
    let (state, results) = fold_all(Trust::FirstEvent, &[("t", 1, "contact"), ("x", 2, "install")]);
    assert_eq!(trusted(&state, Trust::FirstEvent), Some(Fingerprint::of("t")));
    assert_eq!(
        results.iter().map(|(outcome, _)| *outcome).collect::<Vec<_>>(),
        [Outcome::PassedOn, Outcome::Unverified]
    );
}

#[test]
fn a_portal_that_was_held_is_trusted_once_its_app_trusts_first_events() {
    let events = [event(0, "t", 1, "contact"), event(1, "x", 2, "contact"), event(2, "t", 3, "contact")];
    let mut state = Arc::default();
    for event in &events[..2] {
        fold_one(&mut state, &events, event, Trust::FirstInstall);
    }
    let (_, effects) = fold_one(&mut state, &events, &event(3, "x", 4, "contact"), Trust::FirstEvent);
    assert!(effects.iter().all(|effect| !matches!(effect, Effect::Verified(_))), "the place is taken");
    let (_, effects) = fold_one(&mut state, &events, &events[2], Trust::FirstEvent);
    assert_eq!(trusted(&state, Trust::FirstEvent), Some(Fingerprint::of("t")));
    let released = effects.iter().filter(|effect| matches!(effect, Effect::Release(_))).count();
    assert_eq!(released, 1, "{effects:?}");
}

#[test]
fn events_from_before_the_install_are_released_once_in_their_order() {
    let steps = [("t", 1, "contact"), ("x", 1, "contact"), ("t", 2, "grant"), ("t", 3, "install"), ("t", 4, "contact")];
    let (state, results) = fold_all(Trust::FirstInstall, &steps);
    let outcomes: Vec<_> = results.iter().map(|(outcome, _)| *outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Unverified, Outcome::Unverified, Outcome::Unverified, Outcome::Fact, Outcome::PassedOn]
    );
    let shown: Vec<u64> = results
        .iter()
        .enumerate()
        .flat_map(|(step, (_, effects))| {
            effects.iter().filter_map(move |effect| match effect {
                Effect::Release(held) => Some(held.offset),
                Effect::Verified(_) => Some(step as u64),
                Effect::Changed(_)
                | Effect::Unverified(_)
                | Effect::Installation(_)
                | Effect::GaveWay(..)
                | Effect::InstallationGone(_)
                | Effect::Permission(_)
                | Effect::PermissionGone(_) => None,
            })
        })
        .collect();
    assert_eq!(shown, [0, 2, 3, 4]);
    assert_eq!(state.principals[&Fingerprint::of("t")].held.len(), 0);
    assert_eq!(state.principals[&Fingerprint::of("x")].held.len(), 1);
}

#[test]
fn what_waited_for_a_fact_that_was_put_right_is_released_with_the_next_event() {
    let steps = [("t", 1, "contact"), ("t", 2, "begin to install")];
    let (mut state, _) = fold_all(Trust::FirstInstall, &steps);
    // As a state that was folded again with what the second event should have been read for.
    let mut corrected = state.only_held();
    let fact = event(1, "t", 2, "install").fact().expect("a fact");
    corrected.apply(&Change::Fact(Box::new(fact)));
    state = corrected.into();
    let raw = [event(0, "t", 1, "contact"), event(1, "t", 2, "begin to install")];
    let (outcome, effects) = fold_one(&mut state, &raw, &event(2, "t", 3, "contact"), Trust::FirstInstall);
    assert_eq!(outcome, Outcome::PassedOn);
    let released = effects.iter().filter(|effect| matches!(effect, Effect::Release(_))).count();
    assert_eq!(released, 2, "{effects:?}");
    let (_, effects) = fold_one(&mut state, &raw, &event(3, "t", 4, "contact"), Trust::FirstInstall);
    assert!(matches!(effects[..], [Effect::Verified(_)]), "once: {effects:?}");
}

#[test]
fn only_the_last_hundred_places_are_remembered() {
    let steps = vec![("t", 1, "contact"); HELD_MAX + 3];
    let (state, results) = fold_all(Trust::FirstInstall, &steps);
    let held = &state.principals[&Fingerprint::of("t")].held;
    assert_eq!((held.len(), held.keys().nth(1)), (HELD_MAX, Some(&4)));
    let gave_way = |effect: &Effect| if let Effect::GaveWay(held, _) = effect { Some(held.offset) } else { None };
    let gave_way: Vec<u64> = results.iter().flat_map(|(_, effects)| effects.iter().filter_map(gave_way)).collect();
    assert_eq!(gave_way, [1, 2, 3], "each is told once");
    assert_eq!(held.keys().next(), Some(&0), "the first one says who holds the place");
}

#[test]
fn what_waits_for_one_principal_is_limited_in_bytes() {
    let large = |offset: u64| Event { body_bytes: 3 * 1024 * 1024, ..event(offset, "t", 1, "contact") };
    let mut state = Arc::default();
    for offset in 0..5 {
        fold_one(&mut state, &[], &large(offset), Trust::FirstInstall);
    }
    let known = &state.principals[&Fingerprint::of("t")];
    assert_eq!(known.held.keys().copied().collect::<Vec<_>>(), [0, 4]);
    assert!(known.held_bytes() <= HELD_BYTES_MAX);
}

#[test]
fn what_waits_at_one_installation_is_limited_in_bytes_and_the_fullest_gives_way() {
    let mut state = Arc::default();
    fold_one(&mut state, &[], &event(0, "honest", 1, "contact"), Trust::FirstInstall);
    for offset in 1..100 {
        let forger = format!("forger{}", offset % 7);
        let large = Event { body_bytes: 1024 * 1024, ..event(offset, &forger, 1, "contact") };
        fold_one(&mut state, &[], &large, Trust::FirstInstall);
    }
    let all: u64 = state.principals.values().map(Principal::held_bytes).sum();
    assert!((15 * 1024 * 1024..=INSTALLATION_HELD_BYTES_MAX).contains(&all), "{all}");
    assert_eq!(state.principals[&Fingerprint::of("honest")].held.len(), 1);
}

#[test]
fn made_up_tokens_lock_nobody_out_for_longer_than_it_takes_to_attest() {
    for (number, tells) in [(32, "contact"), (32, "install"), (3_200, "contact"), (3_200, "install")] {
        let forgers: Vec<String> = (0..number).map(|number| format!("forger{number}")).collect();
        let mut steps: Vec<_> = forgers.iter().map(|forger| (forger.as_str(), 1, tells)).collect();
        steps.extend([("t", 2, "contact"), ("t", 3, "install"), ("t", 4, "contact")]);
        let events: Vec<Event> =
            (0..).zip(&steps).map(|(offset, (who, ts, tells))| event(offset, who, *ts, tells)).collect();
        let (mut state, _) = fold_all(Trust::FirstInstall, &steps);
        assert!(state.verdict(Trust::FirstInstall).contested, "{number} {tells}");
        assert_ne!(trusted(&state, Trust::FirstInstall), Some(Fingerprint::of("t")));
        let strangers = state.principals.values().filter(|known| !known.has_claims()).count();
        assert!(strangers <= STRANGERS_MAX && state.principals.len() <= STRANGERS_MAX + CLAIMANTS_MAX, "{strangers}");

        let (_, effects) = attest(&mut state, &events, 9_000, "t", Attestation::Operator);
        assert_eq!(trusted(&state, Trust::FirstInstall), Some(Fingerprint::of("t")));
        assert_eq!(state.status(Trust::FirstInstall), INSTALLED, "{number} {tells}");
        let released = effects.iter().filter(|effect| matches!(effect, Effect::Release(_))).count();
        assert_eq!(released, 3, "what was held is passed on, {number} {tells}");
    }
}

#[test]
fn installs_with_made_up_tokens_behind_the_first_change_nothing() {
    let forgers: Vec<String> = (0..100).map(|number| format!("forger{number}")).collect();
    let mut steps = vec![("t", 1, "install"), ("new", 30, "install")];
    steps.extend(forgers.iter().map(|forger| (forger.as_str(), 9, "install")));
    let (state, results) = fold_all(Trust::FirstInstall, &steps);
    assert_eq!(trusted(&state, Trust::FirstInstall), Some(Fingerprint::of("t")));
    assert!(state.verdict(Trust::FirstInstall).contested);
    let claimants = state.principals.values().filter(|known| known.has_claims()).count();
    assert_eq!(claimants, CLAIMANTS_MAX);
    assert!(results[1..].iter().all(|(outcome, _)| *outcome == Outcome::Unverified));
    // The install that occurred behind the uninstall arrived before it, and before the flood.
    steps.push(("t", 20, "uninstall"));
    let (state, _) = fold_all(Trust::FirstInstall, &steps);
    assert_eq!(trusted(&state, Trust::FirstInstall), Some(Fingerprint::of("new")));
}

#[test]
fn a_portal_may_be_installed_anew_any_number_of_times_and_costs_no_more() {
    let tokens: Vec<String> = (0..300).map(|number| format!("token{number}")).collect();
    let lives = (0..).zip(&tokens).flat_map(|(number, token)| {
        let ts = 10 * number + 1;
        [(token.as_str(), ts, "install"), (token, ts + 1, "contact"), (token, ts + 2, "uninstall")]
    });
    let steps: Vec<_> = lives.collect();
    for trust in [Trust::FirstInstall, Trust::FirstEvent] {
        let (state, results) = fold_all(trust, &steps);
        let last = Fingerprint::of("token299");
        assert_eq!(trusted(&state, trust), Some(last));
        assert_eq!(state.status(trust), UNINSTALLED);
        assert!(state.principals.len() <= CLAIMANTS_MAX, "{}", state.principals.len());
        assert!(results.iter().all(|(outcome, _)| *outcome != Outcome::Unverified));
    }
}

#[test]
fn of_very_many_decisions_the_newest_are_known() {
    let decided = |ts: u64| {
        let fact = event(ts, "t", ts, "grant").fact().expect("a fact");
        let method = Method::parse(&format!("method{ts}")).expect("a method");
        let kind = FactKind::MethodDecided {
            method,
            token: Fingerprint::of("secret"),
            decision: crate::Decision::Granted,
            profile: crate::Profile::default(),
        };
        Change::Fact(Box::new(Fact { kind, ..fact }))
    };
    let number = crate::DECISIONS_MAX as u64 + 500;
    let mut changes: Vec<Change> = (1..=number).map(decided).collect();
    let mut states = Vec::new();
    for seed in 0..3 {
        let mut state = InstallationState::default();
        for change in &changes {
            state.apply(change);
        }
        fastrand::Rng::with_seed(seed).shuffle(&mut changes);
        states.push(state);
    }
    let decisions = &states[0].principals[&Fingerprint::of("t")].decisions;
    let known: Vec<u64> = decisions.by_key().values().map(|latest| latest.since.occurred_at.s()).collect();
    assert_eq!((known.len(), known.iter().min()), (crate::DECISIONS_MAX, Some(&501)));
    assert_eq!(states[0], states[1]);
    assert_eq!(states[0], states[2]);
}

#[test]
fn a_decision_that_gives_way_is_shown_to_be_gone() {
    let mut state = Arc::default();
    let mut shown = std::collections::BTreeSet::new();
    let mut take = |event: &Event| {
        for effect in fold_one(&mut state, &[], event, Trust::FirstInstall).1 {
            match effect {
                Effect::Permission(record) => drop(shown.insert((record.method, record.token))),
                Effect::PermissionGone(record) => assert!(shown.remove(&(record.method, record.token))),
                Effect::Changed(_)
                | Effect::Verified(_)
                | Effect::Unverified(_)
                | Effect::Release(_)
                | Effect::Installation(_)
                | Effect::GaveWay(..)
                | Effect::InstallationGone(_) => {}
            }
        }
        let permissions = state.permissions(Trust::FirstInstall);
        assert_eq!(
            permissions
                .into_iter()
                .map(|record| (record.method, record.token))
                .collect::<std::collections::BTreeSet<_>>(),
            shown
        );
    };
    take(&event(0, "t", 1, "install"));
    for number in 1..=crate::DECISIONS_MAX as u64 + 5 {
        let mut decided = event(number, "t", number, "grant");
        if let Some(FactKind::MethodDecided { token, .. }) = &mut decided.kind {
            *token = Fingerprint::of(&number.to_string());
        }
        take(&decided);
    }
    take(&event(9_000, "t", 9_000, "uninstall"));
}

#[test]
fn an_installation_of_which_nothing_is_known_is_forgotten_without_a_trace() {
    let (mut state, results) = fold_all(Trust::FirstInstall, &[("x", 1, "contact"), ("y", 1, "grant")]);
    let mut follower = InstallationState::default();
    let installation = bitrix24::Installation::parse("crm-sync", "a223").expect("valid");
    let effects: Vec<Effect> = results.into_iter().flat_map(|(_, effects)| effects).collect();
    let gone = forget(&mut state, &installation);
    assert!(matches!(gone.last(), Some(Effect::InstallationGone(_))), "{gone:?}");
    for change in changes_of(&effects).iter().chain(&changes_of(&gone)) {
        follower.apply(change);
    }
    assert_eq!((&*state, &follower), (&InstallationState::default(), &InstallationState::default()));
}

#[test]
fn an_older_word_does_not_stand_in_for_one_that_cannot_be_shown() {
    let version = |steps: &[(&str, u64, &str)]| {
        let (state, _) = fold_all(Trust::FirstInstall, steps);
        let installation = Installation::parse("crm-sync", "a223").expect("valid");
        let profile = state.record(&installation, 0, Trust::FirstInstall).profile;
        (profile.version, profile.omitted.contains(&ProfileField::Version))
    };
    let (known, omitted) = ((Some("1".to_owned()), false), (None, true));
    assert_eq!(version(&[("t", 1, "install"), ("t", 2, "forget the version")]), omitted);
    assert_eq!(version(&[("t", 2, "forget the version"), ("t", 1, "install")]), omitted);
    assert_eq!(version(&[("t", 2, "forget the version"), ("t", 3, "install")]), known);
    assert_eq!(version(&[("t", 3, "install"), ("t", 2, "forget the version")]), known);
}

#[test]
fn an_uninstall_takes_every_permission_away() {
    let (_, results) = fold_all(Trust::FirstInstall, &[("t", 1, "install"), ("t", 2, "grant"), ("t", 3, "uninstall")]);
    assert!(matches!(results[1].1[..], [.., Effect::Installation(_), Effect::Permission(_)]));
    assert!(matches!(results[2].1[..], [.., Effect::Installation(_), Effect::PermissionGone(_)]));
    let (state, _) = fold_all(Trust::FirstInstall, &[("t", 1, "install"), ("t", 3, "uninstall"), ("t", 2, "grant")]);
    assert_eq!(state.permissions(Trust::FirstInstall), []);
}

#[test]
fn of_two_decisions_the_later_one_holds_whichever_comes_first() {
    for steps in [["grant", "deny"], ["deny", "grant"]] {
        let ts = |tells| if tells == "deny" { 9 } else { 3 };
        let steps = [("t", 1, "install"), ("t", ts(steps[0]), steps[0]), ("t", ts(steps[1]), steps[1])];
        let (state, _) = fold_all(Trust::FirstInstall, &steps);
        let decisions: Vec<_> = state.permissions(Trust::FirstInstall).iter().map(|record| record.decision).collect();
        assert_eq!(decisions, [crate::Decision::Denied]);
    }
}

/// What a portal may send, as lines of [`event`].
const TELLS: [&str; 6] = ["install", "begin to install", "uninstall", "grant", "deny", "contact"];

prop_compose! {
    fn histories()(steps in prop::collection::vec((0..4_usize, 1..30_u64, 0..TELLS.len()), 0..60)) -> Vec<Event> {
        let principals = ["t", "x", "y", "z"];
        let step = |(offset, (principal, ts, tells)): (u64, &(usize, u64, usize))| {
            event(offset, principals[*principal], *ts, TELLS[*tells])
        };
        (0..).zip(&steps).map(step).collect()
    }
}

fn trusts() -> impl Strategy<Value = Trust> {
    prop_oneof![Just(Trust::FirstInstall), Just(Trust::FirstEvent), Just(Trust::Known)]
}

fn effects_of(state: &mut Arc<InstallationState>, events: &[Event], trust: Trust) -> Vec<Effect> {
    events.iter().flat_map(|event| fold_one(state, events, event, trust).1).collect()
}

fn changes_of(effects: &[Effect]) -> Vec<Change> {
    let change = |effect: &Effect| match effect {
        Effect::Changed(change) => Some(change.clone()),
        Effect::Verified(_)
        | Effect::Unverified(_)
        | Effect::Release(_)
        | Effect::Installation(_)
        | Effect::GaveWay(..)
        | Effect::InstallationGone(_)
        | Effect::Permission(_)
        | Effect::PermissionGone(_) => None,
    };
    effects.iter().filter_map(change).collect()
}

proptest! {
    #[test]
    fn the_same_events_have_the_same_effects((events, trust) in (histories(), trusts())) {
        let (mut one, mut other) = (Arc::default(), Arc::default());
        prop_assert_eq!(effects_of(&mut one, &events, trust), effects_of(&mut other, &events, trust));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn what_is_published_for_facts_is_all_that_a_follower_needs((events, trust) in (histories(), trusts())) {
        let mut owned = Arc::default();
        let effects = effects_of(&mut owned, &events, trust);
        let mut followed = InstallationState::default();
        for change in changes_of(&effects) {
            followed.apply(&change);
            // A record of facts may be read twice.
            followed.apply(&change);
        }
        prop_assert_eq!(&*owned, &followed);
    }

    #[test]
    fn facts_in_any_order_and_number_are_the_same_knowledge(
        (events, trust, seed) in (histories(), trusts(), any::<u64>())
    ) {
        let mut owned = Arc::default();
        let effects = effects_of(&mut owned, &events, trust);
        // An event is held before it is released, and that order is the log's; all else has none.
        let facts: Vec<Change> =
            changes_of(&effects).into_iter().filter(|change| matches!(change, Change::Fact(_))).collect();
        let mut shuffled = [facts.clone(), facts.clone()].concat();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        let (mut one, mut other) = (InstallationState::default(), InstallationState::default());
        for change in &facts {
            one.apply(change);
        }
        for change in &shuffled {
            other.apply(change);
        }
        prop_assert_eq!(&one, &other);
        for change in changes_of(&effects).iter().filter(|change| !matches!(change, Change::Fact(_))) {
            one.apply(change);
        }
        prop_assert_eq!(one.verdict(trust), owned.verdict(trust));
        prop_assert_eq!(one.permissions(trust), owned.permissions(trust));
        prop_assert_eq!(one.status(trust), owned.status(trust));
    }

    #[test]
    fn the_permissions_that_are_published_are_those_that_are_known(
        steps in prop::collection::vec((0..2_usize, 1..12_u64, 0..3_u64, any::<bool>()), 0..30)
    ) {
        let (mut state, mut shown) = (Arc::default(), BTreeMap::new());
        let days = |days: u64| days * 24 * 60 * 60;
        let step = |(offset, (principal, day, token, grants)): (u64, (usize, u64, u64, bool))| {
            let tells = if grants { "grant" } else { "deny" };
            let mut event = event(offset, ["t", "x"][principal], days(day) + offset, tells);
            if let Some(FactKind::MethodDecided { token: decided, .. }) = &mut event.kind {
                *decided = Fingerprint::of(&token.to_string());
            }
            event
        };
        for (offset, principal) in [(0, "t"), (1, "x")] {
            attest(&mut state, &[], offset, principal, Attestation::Operator);
        }
        for event in (2..).zip(steps).map(step) {
            for effect in fold_one(&mut state, &[], &event, Trust::FirstInstall).1 {
                if let Effect::Permission(record) = effect {
                    shown.insert((record.method.clone(), record.token), record);
                } else if let Effect::PermissionGone(record) = effect {
                    prop_assert!(shown.remove(&(record.method, record.token)).is_some());
                }
            }
            prop_assert_eq!(shown.values().cloned().collect::<Vec<_>>(), state.permissions(Trust::FirstInstall));
        }
    }

    #[test]
    fn no_event_is_shown_as_verified_twice((events, trust) in (histories(), trusts())) {
        let mut shown = std::collections::BTreeSet::new();
        for effect in effects_of(&mut Arc::default(), &events, trust) {
            let id = match effect {
                Effect::Verified(public) => public.id,
                Effect::Release(held) => held.id,
                Effect::Changed(_)
                | Effect::Unverified(_)
                | Effect::Installation(_)
                | Effect::GaveWay(..)
                | Effect::InstallationGone(_)
                | Effect::Permission(_)
                | Effect::PermissionGone(_) => continue,
            };
            prop_assert!(shown.insert(id), "{} twice", id);
        }
    }
}
