use std::sync::Arc;

use bitrix24::AppName;
use bitrix24::form::Form;
use event_log::{EventId, RawEvent};
use primitives::time::Timestamp;

use super::*;
use crate::{Attestation, Change, Event, Fact, FactKind, Position, Profile, Revision, interpret};

/// An event: the name, the second it occurred, its id, and whether it has a pair.
fn event(name: &str, at: u64, id: u128, has_pair: bool) -> Event {
    event_of("app-token", name, at, id, has_pair)
}

fn event_of(principal: &str, name: &str, at: u64, id: u128, has_pair: bool) -> Event {
    let app = AppName::parse("crm-sync").expect("a name");
    let pair = if has_pair { "&auth[access_token]=a&auth[refresh_token]=r" } else { "" };
    let body = format!("event={name}&ts={at}&auth[member_id]=a223&auth[application_token]={principal}{pair}");
    let head = Form::parse(body.as_bytes()).head();
    let mut raw = RawEvent::new(app, head, body.into(), Timestamp::from_s(at));
    raw.id = EventId::from_u128(id);
    interpret(&raw, Position { partition: 0, offset: 0 }).expect("an event")
}

fn take(state: &mut InstallationState, event: &Event, keys: &[&str]) -> usize {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let taken = state.vault_takes(event, &keys);
    let number = taken.len();
    for (key, entry) in taken {
        state.apply(&Change::Vault(key, Some(entry)));
    }
    number
}

fn newest(state: &InstallationState) -> Option<u128> {
    let principal = Fingerprint::of("app-token");
    state.vault.get(&(principal, VaultKind::Tokens)).map(|entry| entry.stamp.id.as_u128())
}

#[test]
fn any_order_and_number_of_events_keeps_the_same_pair() {
    const P: u64 = 30 * 60;
    let events = [
        event("ONAPPINSTALL", 10 * P, 1, true),
        event("ONAPPUPDATE", 10 * P + 60, 2, true),
        event("ONOFFLINEEVENT", 10 * P + 90, 3, true),
        event("ONAPPUPDATE", 10 * P + 60, 4, false),
        event("ONOFFLINEEVENT", 11 * P + 5, 5, true),
        event("ONOFFLINEEVENT", 11 * P + 50, 6, true),
        event("ONX", 12 * P, 7, false),
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let mut order: Vec<&Event> = events.iter().chain(&events).collect();
        random.shuffle(&mut order);
        let mut state = InstallationState::default();
        for event in order {
            take(&mut state, event, &["one"]);
        }
        assert_eq!(newest(&state), Some(5), "the first of the last period");
        assert_eq!(state.vault.len(), 2);
    }
}

#[test]
fn lifecycle_events_come_before_calls_of_their_period_and_the_last_one_holds() {
    let mut state = InstallationState::default();
    take(&mut state, &event("ONOFFLINEEVENT", 1_000, 1, true), &["one"]);
    take(&mut state, &event("ONAPPINSTALL", 900, 2, true), &["one"]);
    assert_eq!(newest(&state), Some(2));
    take(&mut state, &event("ONAPPUPDATE", 950, 3, true), &["one"]);
    assert_eq!(newest(&state), Some(3));
    take(&mut state, &event("ONAPPINSTALL", 900, 4, true), &["one"]);
    assert_eq!(newest(&state), Some(3));
}

#[test]
fn an_event_that_brings_nothing_new_takes_nothing() {
    let mut state = InstallationState::default();
    assert_eq!(take(&mut state, &event("ONX", 1_000, 1, false), &["one"]), 1, "the application_token");
    assert_eq!(take(&mut state, &event("ONX", 9_000, 2, false), &["one"]), 0);
    assert_eq!(take(&mut state, &event("ONOFFLINEEVENT", 9_000, 3, true), &["one"]), 1);
    assert_eq!(take(&mut state, &event("ONOFFLINEEVENT", 9_001, 4, true), &["one"]), 0, "of the same period");
    assert_eq!(take(&mut state, &event("ONOFFLINEEVENT", 9_000, 3, true), &["one"]), 0, "a second copy");
    assert_eq!(take(&mut state, &event("ONX", 9_000, 5, false), &[]), 0, "there is no key");
}

#[test]
fn what_was_sealed_to_a_key_that_is_gone_is_sealed_again() {
    let mut state = InstallationState::default();
    take(&mut state, &event("ONAPPINSTALL", 1_000, 1, true), &["old"]);
    assert_eq!(take(&mut state, &event("ONX", 1_100, 2, false), &["new", "old"]), 0, "both are at hand");
    assert_eq!(take(&mut state, &event("ONX", 1_200, 3, false), &["new"]), 1);
    assert_eq!(take(&mut state, &event("ONAPPINSTALL", 900, 4, true), &["new"]), 1, "the newest that can be opened");
    assert!(state.vault.values().all(|entry| entry.key == "new"));
}

#[test]
fn tokens_of_principals_that_are_not_trusted_are_surplus_and_not_handed_out() {
    let mut state = InstallationState::default();
    let installation = event("ONX", 1, 1, false).installation;
    let attest = |principal: &str, attestation, offset| Fact {
        installation: installation.clone(),
        stamp: Stamp::new(None, Timestamp::from_s(offset), EventId::from_u128(u128::from(offset))),
        principal: Fingerprint::of(principal),
        raw: Position { partition: 0, offset },
        revision: Revision::default(),
        kind: FactKind::Attested { attestation, installed_at: None, profile: Profile::default() },
    };
    for (principal, at) in [("app-token", 1_000), ("other", 9_000)] {
        state.apply(&Change::Fact(Box::new(attest(principal, Attestation::Operator, at))));
        take(&mut state, &event_of(principal, "ONAPPINSTALL", at, at.into(), true), &["one"]);
    }
    let trust = bitrix24::Trust::FirstInstall;
    assert_eq!(state.vault_newest(&state.verdict(trust)), Some(Fingerprint::of("other")));
    assert_eq!(state.vault_surplus(&installation, &state.verdict(trust)), []);
    let mut revoked = Arc::new(state);
    let state = Arc::make_mut(&mut revoked);
    state.apply(&Change::Fact(Box::new(attest("other", Attestation::Revoked, 10_000))));
    let verdict = state.verdict(trust);
    assert_eq!(state.vault_newest(&verdict), Some(Fingerprint::of("app-token")));
    let surplus = state.vault_surplus(&installation, &verdict);
    assert_eq!(surplus.len(), 2);
    for key in surplus {
        assert_eq!(key.principal, Fingerprint::of("other"));
        assert_eq!(VaultKey::parse(&key.to_string()), Some(key.clone()));
        state.apply(&Change::Vault(key, None));
    }
    assert_eq!(state.vault.len(), 2);
}
