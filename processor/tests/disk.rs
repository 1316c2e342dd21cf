//! The whole fold on disk logs: what comes out of `raw`, and what remains when things are thrown away.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitrix24::Trust;
use bitrix24::form::Form;
use bitrix24::{AppName, Installation};
use bytes::Bytes;
use disk_log::{DiskEventLog, DiskLog, Options};
use domain::{Answer, Fact, FactKind, Method, Profile, RecordStatus, permits};
use event_log::contract::{Retention, Topic};
use event_log::{EventId, RawEvent};
use event_log::{EventLog, EventLogError, Output, Position, Record};
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use processor::maintenance::audit::{Audit, Auditing, Difference};
use processor::metrics::Metrics;
use processor::run::limits::Limits;
use processor::run::recent_events::RecentEvents;
use processor::run::session::{Processor, Timings};
use processor::run::shared::Shared;
use processor::state::sled::Sled;
use processor::state::{Rows, Store, Trusts};
use runtime::lifecycle::{Readiness, Stop};

/// A processor on disk logs, in a thread.
struct Running {
    shared: Shared,
    recent_events: RecentEvents,
    stop: Stop,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(dir: &Path, raw: &DiskLog) -> Self {
        let (shared, recent_events, stop) = (Shared::default(), RecentEvents::default(), Stop::default());
        let processor = Processor {
            vouching: None,
            vault: None,
            forwarding: None,
            state_dir: Box::new(dir.join("state")),
            timings: Timings::default(),
            limits: Limits::default(),
            trusts: Trusts::default(),
            shared: shared.clone(),
            recent_events: recent_events.clone(),
            metrics: Metrics::new(&runtime::telemetry::registry()),
            stop: stop.clone(),
        };
        let (logs, raw) = (dir.join("logs"), raw.clone());
        let open = move || {
            let event_log = DiskEventLog::open(&logs, raw.clone(), Retention::default());
            event_log.map_err(|error| EventLogError::Fatal(format!("{error:#}")))
        };
        let caught_up = Readiness::default().pending("facts");
        let thread = std::thread::spawn(move || processor.run(open, caught_up));
        Self { shared, recent_events, stop, thread }
    }

    fn wait_for(&self, id: EventId) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.recent_events.has(id) {
            assert!(!self.thread.is_finished(), "the processor ended");
            assert!(Instant::now() < deadline, "the event was not folded");
            std::thread::yield_now();
        }
    }

    fn end(self) {
        self.stop.request();
        self.thread.join().expect("no panic").expect("an orderly end");
    }
}

fn send(raw: &DiskLog, body: &str) -> EventId {
    let app = AppName::parse("crm-sync").expect("a name");
    let head = Form::parse(body.as_bytes()).head();
    let event = RawEvent::new(app, head, Bytes::copy_from_slice(body.as_bytes()), Timestamp::now());
    let id = event.id;
    raw.append_blocking(vec![event.into_record()]).expect("kept");
    id
}

fn body(token: &str, tells: &str) -> String {
    let ts = Timestamp::now().s();
    format!("{tells}&ts={ts}&auth[member_id]=a223&auth[application_token]={token}&auth[domain]=some.bitrix24.com")
}

/// What every log holds, by topic.
fn published(dir: &Path, raw: &DiskLog) -> BTreeMap<Topic, Vec<Record>> {
    let event_log = DiskEventLog::open(&dir.join("logs"), raw.clone(), Retention::default()).expect("opened");
    let topics = [Topic::Facts, Topic::Events, Topic::Unverified, Topic::Rejected];
    topics.into_iter().map(|topic| (topic, records(event_log.log(topic).expect("a log")))).collect()
}

fn records(log: &DiskLog) -> Vec<Record> {
    let mut reader = log.reader(0).expect("a reader");
    std::iter::from_fn(|| reader.next().expect("read").map(|(_, record)| record)).collect()
}

fn digest(store: &Store) -> String {
    store.digest(0)
}

const GRANT: &str = "event=ONAPPMETHODCONFIRM&data[TOKEN]=fkp963yuv1ggkfbs&data[METHOD]=user.get&data[CONFIRMED]=1";

#[test]
fn a_portals_life_ends_as_the_right_records_and_survives_the_loss_of_the_state() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = DiskLog::open(&dir.path().join("raw"), Options::log()).expect("a log");
    let running = Running::start(dir.path(), &raw);

    // Early birds, junk, a forger, and in between a portal's life.
    send(&raw, &body("genuine-token", "event=ONCRMCONTACTADD&data[FIELDS][ID]=1"));
    send(&raw, "hello=world");
    send(&raw, &body("genuine-token", GRANT));
    send(&raw, &body("genuine-token", "event=ONAPPINSTALL&data[VERSION]=1"));
    send(&raw, &body("forged-token", "event=ONAPPUNINSTALL&data[CLEAN]=1"));
    let last = send(
        &raw,
        &body("genuine-token", "event=ONCRMCONTACTADD&data[FIELDS][ID]=2&auth[access_token]=s6p6eclrvim6da22"),
    );
    running.wait_for(last);

    let store = running.shared.get().expect("open");
    let installation = Installation::parse("crm-sync", "a223").expect("valid");
    let state = store.installation(&installation).expect("read");
    assert_eq!(state.status(Trust::FirstInstall), RecordStatus::Installed);
    let (method, token) = (Method::parse("user.get").expect("a method"), Fingerprint::of("fkp963yuv1ggkfbs"));
    let answer = permits(&state, Trust::FirstInstall, &method, token, Timestamp::now());
    assert!(matches!(answer, Answer::Granted { .. }), "{answer:?}");
    let known = digest(&store);
    drop(store);
    running.end();

    let before = published(dir.path(), &raw);
    let events = |topic: Topic| -> Vec<String> {
        let text = |record: &Record| String::from_utf8_lossy(record.header("ce_type").unwrap_or_default()).into_owned();
        before[&topic].iter().map(text).collect()
    };
    let (contact, grant) = ("com.bitrix24.oncrmcontactadd", "com.bitrix24.onappmethodconfirm");
    assert_eq!(events(Topic::Events), [contact, grant, "com.bitrix24.onappinstall", contact]);
    assert_eq!(events(Topic::Unverified), [contact, grant, "com.bitrix24.onappuninstall"]);
    assert_eq!(events(Topic::Rejected), ["com.hookledger.rejected"]);
    let shown = format!("{before:?}");
    for secret in ["genuine-token", "forged-token", "fkp963yuv1ggkfbs", "s6p6eclrvim6da22"] {
        assert!(!shown.contains(secret), "{secret} was published");
    }

    std::fs::remove_dir_all(dir.path().join("state")).expect("thrown away");
    let running = Running::start(dir.path(), &raw);
    let one_more = send(&raw, "hello=again");
    running.wait_for(one_more);
    let store = running.shared.get().expect("open");
    assert_eq!(store.installation(&installation).expect("read"), state);
    drop(store);
    running.end();
    let after = published(dir.path(), &raw);
    assert_eq!(after[&Topic::Events], before[&Topic::Events], "nothing is published again");
    assert_eq!(after[&Topic::Facts], before[&Topic::Facts], "nothing is published again");
    assert_eq!(after[&Topic::Rejected].len(), before[&Topic::Rejected].len() + 1);
    assert!(!known.is_empty());
}

#[test]
fn damaged_state_is_quarantined_and_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = DiskLog::open(&dir.path().join("raw"), Options::log()).expect("a log");
    let running = Running::start(dir.path(), &raw);
    let last = send(&raw, &body("genuine-token", "event=ONAPPINSTALL&data[VERSION]=1"));
    running.wait_for(last);
    running.end();

    // A row that is not what was folded, as a torn write leaves it; sled itself sees nothing wrong.
    let rows = Sled::open(&dir.path().join("state")).expect("open");
    let (key, mut value) = rows.scan(b"p", b"p").next().expect("a row").expect("read");
    *value.last_mut().expect("not empty") ^= 1;
    rows.write(vec![(key, Some(value))]).expect("written");
    drop(rows);
    let running = Running::start(dir.path(), &raw);
    let one_more = send(&raw, "hello=again");
    running.wait_for(one_more);
    let store = running.shared.get().expect("open");
    let installation = Installation::parse("crm-sync", "a223").expect("valid");
    let state = store.installation(&installation).expect("read");
    assert_eq!(state.status(Trust::FirstInstall), RecordStatus::Installed);
    drop(store);
    running.end();
    assert!(dir.path().join("state.quarantine").exists());
}

/// Without a broker: facts, and whatever follows from them.
#[test]
fn what_differs_from_raw_is_found_and_put_right_as_what_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = DiskLog::open(&dir.path().join("raw"), Options::log()).expect("a log");
    let running = Running::start(dir.path(), &raw);
    let last = send(&raw, &body("genuine-token", "event=ONAPPINSTALL&data[VERSION]=1"));
    running.wait_for(last);
    running.end();
    let right = &published(dir.path(), &raw)[&Topic::Facts][0];

    // A fact that is not what its raw event says, as if a version before had read it so, and an event that was passed.
    let mut wrong = right.clone();
    let mut fact: Fact = serde_json::from_slice(wrong.value.as_deref().expect("a value")).expect("a fact");
    let installation = fact.installation.clone();
    fact.kind = FactKind::Uninstalled { clean: Some(true), profile: Profile::default() };
    fact.revision.correction = 1;
    wrong.value = Some(serde_json::to_vec(&fact).expect("JSON").into());
    wrong.headers.push(("hl_correction".into(), b"other".to_vec()));
    send(&raw, &body("genuine-token", GRANT));
    let read = [Position { partition: 0, offset: raw.bounds().1 }];
    let mut event_log =
        DiskEventLog::open(&dir.path().join("logs"), raw.clone(), Retention::default()).expect("opened");
    event_log.publish(vec![Output { topic: Topic::Facts, partition: 0, record: wrong }], &read).expect("published");
    drop(event_log);
    let running = Running::start(dir.path(), &raw);
    running.wait_for(send(&raw, "hello=world"));
    let status = |running: &Running| {
        let store = running.shared.get().expect("open");
        store.installation(&installation).expect("read").status(Trust::FirstInstall)
    };
    assert_eq!(status(&running), RecordStatus::Untrusted, "the wrong fact holds");
    running.end();

    let found = audit(dir.path(), &raw, false);
    let named: Vec<String> = found.differences.iter().map(ToString::to_string).collect();
    assert!(matches!(&found.differences[..], [Difference::OtherFact(..)]), "{named:?}");
    assert_eq!((found.found, found.repaired), (1, 0));
    assert_eq!(audit(dir.path(), &raw, false).found, 1, "looking changes nothing");
    let corrected = audit(dir.path(), &raw, true);
    assert_eq!((corrected.found, corrected.repaired), (1, 1));
    // With the right fact the principal is trusted, and the event behind it is missed.
    let corrected = audit(dir.path(), &raw, true);
    assert!(matches!(&corrected.differences[..], [Difference::NoFact(..)]), "{:?}", corrected.differences);
    assert_eq!((corrected.found, corrected.repaired), (1, 1));
    assert_eq!(audit(dir.path(), &raw, false).found, 0);

    let facts = &published(dir.path(), &raw)[&Topic::Facts];
    let said = |record: &Record| record.header("hl_correction").map(|why| String::from_utf8_lossy(why).into_owned());
    assert_eq!(
        facts[facts.len() - 2..].iter().map(said).collect::<Vec<_>>(),
        [Some("other".into()), Some("missing".into())]
    );
    let running = Running::start(dir.path(), &raw);
    running.wait_for(send(&raw, "hello=again"));
    assert_eq!(status(&running), RecordStatus::Installed, "what the wrong fact said is gone");
    let followed = digest(&running.shared.get().expect("open"));
    running.end();
    std::fs::remove_dir_all(dir.path().join("state")).expect("thrown away");
    let running = Running::start(dir.path(), &raw);
    running.wait_for(send(&raw, "hello=again"));
    assert_eq!(digest(&running.shared.get().expect("open")), followed, "as if it had never been there");
    running.end();
}

fn audit(dir: &Path, raw: &DiskLog, repairs: bool) -> Audit {
    let mut event_log = DiskEventLog::open(&dir.join("logs"), raw.clone(), Retention::default()).expect("opened");
    let scratch = tempfile::tempdir().expect("a directory");
    let scratch = &scratch.path().join("state");
    let (stop, now, report) = (&Stop::default(), Timestamp::now(), &mut |_| {});
    let auditing = Auditing { scratch, trusts: Trusts::default(), now, stop, report };
    let audit = if repairs { auditing.repair(&mut event_log) } else { auditing.compare(&mut event_log) };
    audit.expect("compared")
}
