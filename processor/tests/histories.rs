//! The table of histories through the processor: steps of any size, and copies that ingress marked as resent, change no record.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitrix24::form::Form;
use bitrix24::{AppName, Installation, Trust};
use bytes::Bytes;
use disk_log::{DiskEventLog, DiskLog, Options};
use domain::parse_command;
use event_log::contract::Retention;
use event_log::{EventLogError, RawEvent};
use portal_sim::history::{Cast, History, Message, Seen};
use primitives::time::Timestamp;
use processor::metrics::Metrics;
use processor::run::limits::Limits;
use processor::run::recent_events::RecentEvents;
use processor::run::session::{Processor, Timings};
use processor::run::shared::Shared;
use processor::state::{Store, Trusts};
use runtime::lifecycle::{Readiness, Stop};

const TRUSTS: [Trust; 3] = [Trust::FirstInstall, Trust::FirstEvent, Trust::Known];

#[test]
fn steps_of_any_size_and_resent_copies_end_as_the_table_says() {
    let table = History::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/histories"));
    let is_small = |history: &History| history.steps.iter().all(|step| step.times == 1 && step.principals < 100);
    let table: Vec<History> = table.into_iter().filter(is_small).collect();
    assert!(table.len() >= 200, "{}", table.len());
    for (step_records, is_resent) in [(1, false), (2, true), (7, true), (usize::MAX, false), (usize::MAX, true)] {
        let now = Timestamp::now();
        let dir = tempfile::tempdir().expect("a directory");
        let raw = DiskLog::open(&dir.path().join("raw"), Options::log()).expect("a log");
        let casts: Vec<Cast> = (0..).zip(&table).map(|(number, history)| cast(number, history, now)).collect();
        let mut received_at = now;
        let messages = table.iter().zip(&casts).flat_map(|(history, cast)| {
            let messages = history.steps.iter().flat_map(|step| cast.messages(step));
            messages.map(|message| (cast.app.clone(), message)).collect::<Vec<_>>()
        });
        let events = messages.map(|(app, message)| {
            received_at = received_at.plus(Duration::from_millis(1));
            raw_event(&app, &message, received_at)
        });
        let copies = |event: RawEvent| {
            let copy = RawEvent { resent: true, ..event.clone() };
            [Some(event), is_resent.then_some(copy)].into_iter().flatten()
        };
        raw.append_blocking(events.flat_map(copies).map(RawEvent::into_record).collect()).expect("kept");

        let store = run(dir.path(), &raw, Limits { step_records, ..Limits::default() });
        let differences = table.iter().zip(&casts).filter_map(|(history, cast)| {
            let differences = history.expected.differences(cast, &seen(&store, cast));
            (!differences.is_empty()).then(|| format!("{}\n    {}", history.name, differences.join("\n    ")))
        });
        let differences: Vec<String> = differences.collect();
        assert!(differences.is_empty(), "steps of {step_records}, resent {is_resent}:\n{}", differences.join("\n"));
    }
}

/// An installation for each history, of the app with its setting.
fn cast(number: u64, history: &History, now: Timestamp) -> Cast {
    Cast { app: history.trust.clone(), member_id: format!("{number:032x}"), now_s: now.s() }
}

fn raw_event(app: &str, message: &Message, received_at: Timestamp) -> RawEvent {
    match message {
        Message::Webhook { body } => {
            let (_, body) = Message::webhook(body, false);
            let head = Form::scan(&body).head();
            RawEvent::new(AppName::parse(app).expect("a name"), head, Bytes::from(body), received_at)
        }
        Message::Command(line) => {
            let (installation, attest) = parse_command(line).expect("a command");
            attest.into_raw(installation, received_at)
        }
    }
}

/// Folds all of it, and ends.
fn run(dir: &Path, raw: &DiskLog, limits: Limits) -> Arc<Store> {
    let (shared, stop) = (Shared::default(), Stop::default());
    let trust = |trust: Trust| (AppName::parse(trust.name()).expect("a name"), trust);
    let processor = Processor {
        vouching: None,
        vault: None,
        forwarding: None,
        state_dir: Box::new(dir.join("state")),
        timings: Timings::default(),
        limits,
        trusts: Trusts::new(TRUSTS.map(trust)),
        shared: shared.clone(),
        recent_events: RecentEvents::default(),
        metrics: Metrics::new(&runtime::telemetry::registry()),
        stop: stop.clone(),
    };
    let (logs, log) = (dir.join("logs"), raw.clone());
    let open = move || {
        DiskEventLog::open(&logs, log.clone(), Retention::default())
            .map_err(|error| EventLogError::Fatal(format!("{error:#}")))
    };
    let thread = std::thread::spawn(move || processor.run(open, Readiness::default().pending("facts")));
    let end = raw.bounds().1;
    let store = loop {
        assert!(!thread.is_finished(), "the processor ended");
        if let Some(store) = shared.get().filter(|store| store.checkpoint(0).raw == Some(end)) {
            break store;
        }
        std::thread::yield_now();
    };
    stop.request();
    thread.join().expect("no panic").expect("an orderly end");
    store
}

fn seen(store: &Store, cast: &Cast) -> Seen {
    let installation = Installation::parse(&cast.app, &cast.member_id).expect("valid");
    let state = store.installation(&installation).expect("read");
    let trust = TRUSTS.into_iter().find(|trust| trust.name() == cast.app).expect("a setting");
    let record = serde_json::to_value(state.record(&installation, 0, trust)).expect("JSON");
    let permissions = state.permissions(trust);
    let methods = permissions.iter().map(|record| serde_json::to_value(record).expect("JSON")).collect();
    Seen { record, methods, answers: Vec::new() }
}
