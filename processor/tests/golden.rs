//! What was written once can always be read: every kind of record and row, as the version that first had it wrote it.
//!
//! `golden/` has a file for each kind and version. Files are added, never changed: a kind whose form changes gets the
//! next version, and all older ones must still be understood. `HOOKLEDGER_TEST_GOLDEN=write` makes those that are
//! missing.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use bitrix24::Installation;
use bitrix24::Trust;
use domain::{
    Attestation, Call, Change, Claims, Decision, Fact, FactKey, FactKind, HeldEvent, InstallationRecord,
    InstallationState, Json, Latest, Method, Part, PermissionRecord, Profile, ProfileField, Public, Revision, Stamp,
    VaultEntry, VaultKey, VaultKind,
};
use event_log::contract::NOOP;
use event_log::{EventId, Position};
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use processor::run::inconsistency::What;
use processor::run::publish::{Accepted, HeardRecord, Progress};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The readings of older versions.
const FIRST: Revision = Revision { interpretation: 1, correction: 0 };
const SECOND: Revision = Revision { interpretation: 2, correction: 0 };

#[test]
fn every_fact_of_every_version_is_read_as_what_it_was() {
    for kind in every_kind() {
        let fact = fact(kind);
        let name = format!("fact-{}", fact.kind.name().to_ascii_lowercase());
        if first_version(&fact.kind) == 1 {
            understand(&name, 1, &Fact { revision: FIRST, ..fact.clone() });
            understand(&name, 2, &Fact { revision: SECOND, ..fact.clone() });
        }
        check(&name, 3, &fact);
    }
}

/// How a fact says what it cannot tell.
#[test]
fn a_fact_and_a_record_name_what_is_omitted() {
    let fact = fact(FactKind::Installed { complete: true, profile: omitting() });
    understand("fact-omitting", 1, &Fact { revision: SECOND, ..fact.clone() });
    check("fact-omitting", 2, &fact);
    let mut state = InstallationState::default();
    state.apply(&Change::Fact(Box::new(fact)));
    check("installation-omitting", 2, &state.record(&installation(), 3, Trust::FirstInstall));
    let raw = Some(Position { partition: 3, offset: 42 });
    both("event-omitting", &Public { data: Json::null(), omitted: vec![Part::Data], raw, ..public() });
}

/// What the first version never wrote, and every later one reads.
#[test]
fn a_fact_that_was_read_otherwise_or_put_right_says_so() {
    let revision = Revision { interpretation: 2, correction: 1 };
    both("fact-revised", &Fact { revision, ..fact(FactKind::Described { profile: profile() }) });
}

#[test]
fn every_record_and_row_of_every_version_is_read_as_what_it_was() {
    let state = state();
    let principal = &state.principals[&Fingerprint::of("application token")];
    let mut before = Claims::clone(&principal.claims);
    before.first_heard_at = None;
    understand("row-claims", 3, &before);
    check::<Claims>("row-claims", 4, &principal.claims);
    both::<Latest<Decision>>("row-decision", principal.decisions.by_key().values().next().expect("a decision"));
    check::<InstallationRecord>("installation", 2, &state.record(&installation(), 3, Trust::FirstInstall));
    check::<InstallationRecord>("installation-uninstalled", 2, &gone().record(&installation(), 3, Trust::FirstInstall));
    check::<InstallationRecord>(
        "installation-untrusted",
        2,
        &InstallationState::default().record(&installation(), 3, Trust::FirstInstall),
    );
    both::<PermissionRecord>("permission", &state.permissions(Trust::FirstInstall)[0]);
    check("progress", 1, &Progress { last: None, partitions: None, accepted: None, ..progress() });
    check("progress", 2, &Progress { accepted: None, ..progress() });
    both("progress-accepted", &progress());
    understand("accepted", 1, &accepted());
    let trimmed = Accepted { what: What::FactsTrimmed, before: None, begin: Some(12), ..accepted() };
    understand("accepted", 2, &trimmed);
    check("accepted", 3, &accepted());
    check("accepted", 4, &trimmed);
    both("event", &public());
    check("event", 3, &full());
    check("heard", 1, &HeardRecord { heard_at: Timestamp::from_s(1_696_527_000) });
    let stamp = Stamp::new(None, Timestamp::from_s(1_696_527_000), EventId::from_u128(7));
    check("vault-entry", 1, &VaultEntry { stamp, is_lifecycle: true, key: "0123456789abcdef".into() });
}

#[test]
fn every_key_of_every_version_is_read_as_what_it_was() {
    for key in every_key() {
        let (name, text) = match &key {
            FactKey::Fact(..) => ("key-fact", key.to_string()),
            FactKey::Held(_) => ("key-held", key.to_string()),
            FactKey::Heard(_) => ("key-heard", key.to_string()),
            FactKey::Vault(_) => ("key-vault", key.to_string()),
            FactKey::Progress => ("key-progress", key.to_string()),
            FactKey::Accepted(_) => ("key-accepted", key.to_string()),
        };
        let golden = golden(name, 1, &json!(text));
        assert_eq!(golden.as_str().and_then(FactKey::parse), Some(key), "{name}");
    }
    assert_eq!(golden("key-noop", 1, &json!(NOOP)).as_str(), Some(NOOP));
}

#[test]
fn no_golden_file_is_left_unread() {
    let fact = |kind: &FactKind, version| format!("fact-{}.v{version}.json", kind.name().to_ascii_lowercase());
    let versions = |kind: &FactKind| (first_version(kind)..=3).map(|version| fact(kind, version)).collect::<Vec<_>>();
    let mut known: BTreeSet<String> = every_kind().iter().flat_map(versions).collect();
    let others = [
        "fact-revised",
        "fact-omitting",
        "event-omitting",
        "row-decision",
        "heard",
        "permission",
        "progress",
        "progress-accepted",
        "accepted",
        "event",
        "key-fact",
        "key-held",
        "key-heard",
        "key-vault",
        "vault-entry",
        "key-progress",
        "key-accepted",
        "key-noop",
    ];
    known.extend(others.map(|name| format!("{name}.v1.json")));
    let again = others.into_iter().filter(|name| !name.starts_with("key-") && !["heard", "vault-entry"].contains(name));
    known.extend(again.map(|name| format!("{name}.v2.json")));
    let others = ["accepted.v3", "accepted.v4", "event.v3", "row-claims.v3", "row-claims.v4"];
    known.extend(others.map(|name| format!("{name}.json")));
    let installations = ["installation", "installation-uninstalled", "installation-untrusted", "installation-omitting"];
    known.extend(installations.map(|name| format!("{name}.v2.json")));
    let there = fs::read_dir(directory()).expect("the golden files").map(|file| file.expect("a file").file_name());
    let there: BTreeSet<String> = there.map(|name| name.to_string_lossy().into_owned()).collect();
    assert_eq!(there, known);
}

/// Two versions of the same: times had no milliseconds once.
fn both<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, expected: &T) {
    understand(name, 1, expected);
    check(name, 2, expected);
}

/// Reads the file, and compares: the value that it means, and the form that we write today.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, version: u32, expected: &T) {
    let golden = understand(name, version, expected);
    assert_eq!(
        golden,
        serde_json::to_value(expected).expect("JSON"),
        "{name} is written in another form now: that is the next version, with a file of its own"
    );
}

fn understand<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, version: u32, expected: &T) -> Value {
    let golden = golden(name, version, &serde_json::to_value(expected).expect("JSON"));
    let read: T = serde_json::from_value(golden.clone())
        .unwrap_or_else(|error| panic!("{name} of version {version} cannot be read any more: {error}"));
    assert_eq!(&read, expected, "{name} of version {version} means something else now");
    golden
}

fn golden(name: &str, version: u32, written: &Value) -> Value {
    let path = directory().join(format!("{name}.v{version}.json"));
    if !path.exists() && std::env::var("HOOKLEDGER_TEST_GOLDEN").is_ok_and(|order| order == "write") {
        fs::create_dir_all(directory()).expect("a directory");
        fs::write(&path, format!("{written:#}\n")).expect("written");
    }
    let text = fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}: make it with HOOKLEDGER_TEST_GOLDEN=write, and commit it", path.display())
    });
    serde_json::from_slice(&text).expect("JSON")
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// One of each kind. A new kind is asked for its place here by the compiler.
fn every_kind() -> Vec<FactKind> {
    let mut all = vec![FactKind::Installed { complete: true, profile: profile() }];
    while let Some(next) = all.last().and_then(kind_after) {
        all.push(next);
    }
    all
}

fn kind_after(kind: &FactKind) -> Option<FactKind> {
    let profile = profile();
    match kind {
        FactKind::Installed { .. } => Some(FactKind::Updated { previous_version: Some("1".into()), profile }),
        FactKind::Updated { .. } => Some(FactKind::Uninstalled { clean: Some(true), profile }),
        FactKind::Uninstalled { .. } => {
            Some(FactKind::Paid { code: Some("app.code".into()), days: Some(30), expired: Some(false), profile })
        }
        FactKind::Paid { .. } => Some(decided()),
        FactKind::MethodDecided { .. } => {
            Some(FactKind::UserReady { user_id: Some("1".into()), client_id: Some("app.1".into()), profile })
        }
        FactKind::UserReady { .. } => Some(FactKind::Described { profile }),
        FactKind::Described { .. } => {
            let (attestation, installed_at) = (Attestation::Imported, Some(Timestamp::from_s(1_696_527_000)));
            Some(FactKind::Attested { attestation, installed_at, profile })
        }
        FactKind::Attested { .. } => None,
    }
}

/// The version that first had this kind.
fn first_version(kind: &FactKind) -> u32 {
    if matches!(kind, FactKind::Described { .. } | FactKind::Attested { .. }) { 3 } else { 1 }
}

fn every_key() -> Vec<FactKey> {
    let (id, principal) = (EventId::from_u128(7), Fingerprint::of("application token"));
    let held = HeldEvent { installation: installation(), id, principal, offset: 42 };
    vec![
        FactKey::Fact(installation(), id),
        FactKey::Held(held),
        FactKey::Heard(installation()),
        FactKey::Vault(VaultKey { installation: installation(), kind: VaultKind::Tokens, principal }),
        FactKey::Progress,
        FactKey::Accepted(id),
    ]
}

fn installation() -> Installation {
    Installation::parse("crm-sync", "a223c6b3710f85df22e9377d6c4f7553").expect("valid")
}

fn profile() -> Profile {
    Profile {
        domain: Some("some-domain.bitrix24.com".into()),
        client_endpoint: Some("https://some-domain.bitrix24.com/rest/".into()),
        server_endpoint: Some("https://oauth.bitrix.info/rest/".into()),
        version: Some("1".into()),
        licence: Some("F".into()),
        language: Some("de".into()),
        scope: Some(vec!["crm".into(), "user".into()]),
        omitted: BTreeSet::new(),
    }
}

fn omitting() -> Profile {
    Profile { scope: None, omitted: [ProfileField::Scope].into(), ..profile() }
}

fn decided() -> FactKind {
    let method = Method::parse("user.get").expect("a method");
    FactKind::MethodDecided {
        method,
        token: Fingerprint::of("token"),
        decision: Decision::Granted,
        profile: Profile::default(),
    }
}

fn fact(kind: FactKind) -> Fact {
    Fact {
        installation: installation(),
        stamp: stamp(),
        principal: Fingerprint::of("application token"),
        raw: Position { partition: 3, offset: 42 },
        revision: Revision::default(),
        kind,
    }
}

fn stamp() -> Stamp {
    Stamp::new(Some(Timestamp::from_s(1_696_527_000)), Timestamp::from_ms(1_696_527_001_234), EventId::from_u128(7))
}

fn state() -> InstallationState {
    let mut state = InstallationState::default();
    for kind in [FactKind::Installed { complete: true, profile: profile() }, decided()] {
        state.apply(&Change::Fact(Box::new(fact(kind))));
    }
    state
}

/// Installed first, then not any more.
fn gone() -> InstallationState {
    let mut state = InstallationState::default();
    state.apply(&Change::Fact(Box::new(fact(FactKind::Installed { complete: true, profile: profile() }))));
    let mut last = fact(FactKind::Uninstalled { clean: Some(true), profile: Profile::default() });
    last.raw.offset += 1;
    last.stamp =
        Stamp::new(Some(Timestamp::from_s(1_696_528_000)), Timestamp::from_s(1_696_528_001), EventId::from_u128(8));
    state.apply(&Change::Fact(Box::new(last)));
    state
}

fn progress() -> Progress {
    Progress {
        raw: 43,
        log: EventId::from_u128(9),
        folded: vec![EventId::from_u128(7)],
        last: Some(EventId::from_u128(7)),
        partitions: Some(6),
        accepted: Some(accepted()),
    }
}

fn accepted() -> Accepted {
    let at = Timestamp::from_s(1_696_527_000);
    Accepted { what: What::FactsLost, from: Some(40), to: 43, at, before: Some(EventId::from_u128(8)), begin: None }
}

fn public() -> Public {
    let Stamp { occurred_at, received_at, id } = stamp();
    Public {
        id,
        event: Some("ONCRMCONTACTADD".into()),
        call: None,
        event_handler_id: None,
        installation: installation(),
        occurred_at,
        received_at,
        principal: Some(Fingerprint::of("application token")),
        data: Json::new(r#"{"FIELDS":{"ID":"7"}}"#.to_owned()).expect("JSON"),
        auth: Json::new(r#"{"domain":"some-domain.bitrix24.com"}"#.to_owned()).expect("JSON"),
        fields: None,
        query: None,
        omitted: Vec::new(),
        raw: None,
    }
}

/// With everything that an event may have.
fn full() -> Public {
    let json = |text: &str| Some(Json::new(text.to_owned()).expect("JSON"));
    Public {
        event: None,
        call: Some(Call::Robot),
        event_handler_id: Some("563".into()),
        fields: json(r#"{"document_id":["crm","CCrmDocumentDeal","DEAL_42"]}"#),
        query: json(r#"{"deal_id":"42"}"#),
        raw: Some(Position { partition: 3, offset: 42 }),
        ..public()
    }
}
