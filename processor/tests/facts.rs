//! How fast `facts` are read again, and that four times as many take four times as long.
//!
//! Facts are made on the way, so that memory holds what the processor needs and nothing else.

use std::time::{Duration, Instant};

use bitrix24::Installation;
use domain::{Decision, Fact, FactKey, FactKind, Method, Profile, Revision, Stamp};
use event_log::memory::{IDENTITY, MemoryEventLog, MemoryFacts};
use event_log::{EventId, Position, Record};
use fastrand::Rng;
use mimalloc::MiMalloc;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use processor::maintenance::rebuild::{RebuildProgress, rebuild};
use processor::state::{Trusts, opening};
use runtime::lifecycle::Stop;

/// As the programs have it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How many facts are read by default; the figure is a million.
const FACTS: u64 = 8_000;
/// So many facts has an installation.
const FACTS_OF_ONE: u64 = 20;
/// A fact may take up to so many times as long when there are four times as many: trees grow deeper, machines are
/// shared. Something quadratic would take four times as long at least, and more at a million.
const SLOWER_MAX: f64 = 3.0;

#[test]
fn four_times_as_many_facts_take_four_times_as_long() {
    let facts =
        std::env::var("HOOKLEDGER_TEST_FACTS").map_or(FACTS, |text| text.replace('_', "").parse().expect("a number"));
    let (quarter, whole) = (read(facts / 4), read(facts));
    let per_fact = |took: Duration, facts: u64| took.as_secs_f64() / f64::from(u32::try_from(facts).expect("few"));
    let slower = per_fact(whole, facts) / per_fact(quarter, facts / 4);
    let rate = 1.0 / per_fact(whole, facts);
    eprintln!(
        "facts read again: {facts} in {:.2} s, {rate:.0} a second; a quarter of them in {:.2} s; each took {slower:.2} \
         times as long among all as among a quarter",
        whole.as_secs_f64(),
        quarter.as_secs_f64(),
    );
    assert!(slower < SLOWER_MAX, "{slower}");
}

/// As the command does it, to a state that was verified and put in its place.
fn read(facts: u64) -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let one = MemoryFacts::made(0, facts, move |offset| Some(record(facts, offset)));
    let mut event_log = MemoryEventLog::new(vec![one], true, ());
    let (began, mut reported) = (Instant::now(), RebuildProgress::default());
    let mut said = began;
    let mut tell = |progress: RebuildProgress| {
        reported = progress;
        if said.elapsed() >= Duration::from_secs(5) {
            said = Instant::now();
            eprintln!("facts read again: {} of {}", progress.read, progress.all);
        }
    };
    rebuild(&mut event_log, &state, Trusts::default(), &Stop::default(), &mut tell).expect("rebuilt");
    let took = began.elapsed();
    assert_eq!(reported, RebuildProgress { read: facts, all: facts });
    let store = opening::open(&state, IDENTITY, 1, Trusts::default()).expect("open");
    assert_eq!(store.checkpoint(0).facts, facts);
    eprintln!("facts read again: {facts} take {} KiB of state", store.bytes() / 1_024);
    assert_eq!(store.counts().installations.values().sum::<i64>(), i64::try_from(facts / FACTS_OF_ONE).expect("few"));
    took
}

/// An install of each installation first, then what administrators and updates tell.
fn record(facts: u64, offset: u64) -> Record {
    let mut random = Rng::with_seed(offset);
    let number = offset % (facts / FACTS_OF_ONE);
    let installation = Installation::parse("crm-sync", &format!("member{number:010}")).expect("valid");
    let at = Timestamp::from_s(1_700_000_000 + offset);
    let profile = Profile { domain: Some(format!("portal{number}.bitrix24.com")), ..Profile::default() };
    let kind = match offset / (facts / FACTS_OF_ONE) {
        0 => FactKind::Installed { complete: true, profile },
        round if round.is_multiple_of(2) => FactKind::Updated { previous_version: Some(round.to_string()), profile },
        round => FactKind::MethodDecided {
            method: Method::parse(&format!("voximplant.method{round}.get")).expect("a method"),
            token: Fingerprint::of(&number.to_string()),
            decision: if random.bool() { Decision::Granted } else { Decision::Denied },
            profile,
        },
    };
    let stamp = Stamp::new(Some(at), at, EventId::from_u128(random.u128(..)));
    let principal = Fingerprint::of(&number.to_string());
    let fact = Fact {
        installation,
        stamp,
        principal,
        raw: Position { partition: 0, offset },
        revision: Revision::default(),
        kind,
    };
    let key = Some(FactKey::Fact(fact.installation.clone(), fact.stamp.id).to_string());
    let value = Some(serde_json::to_vec(&fact).expect("JSON").into());
    Record { key, value, headers: vec![], at }
}
