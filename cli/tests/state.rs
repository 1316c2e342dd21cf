//! The commands that look after a processor's state, on disk logs: what they say, and what they leave.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bitrix24::AppName;
use bitrix24::form::Form;
use bytes::Bytes;
use disk_log::{DiskEventLog, DiskLog, Options};
use event_log::EventLogError;
use event_log::RawEvent;
use event_log::contract::{Retention, Topic};
use primitives::time::Timestamp;
use processor::metrics::Metrics;
use processor::run::identity::Identity;
use processor::run::limits::Limits;
use processor::run::recent_events::RecentEvents;
use processor::run::session::{Processor, Timings};
use processor::run::shared::Shared;
use processor::state::sled::Sled;
use processor::state::{Rows, Trusts};
use runtime::lifecycle::{Readiness, Stop};
use tempfile::TempDir;

const INSTALL: &str = "event=ONAPPINSTALL&data[VERSION]=1";
const CONTACT: &str = "event=ONCRMCONTACTADD&data[FIELDS][ID]=1";
const FOLDED_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_sound_state_is_verified_and_a_damaged_one_is_told_and_rebuilt() {
    let data = Data::folded(&[INSTALL, CONTACT, "event=ONAPPUNINSTALL&data[CLEAN]=1", INSTALL]);
    let sound = data.run("verify");
    assert_eq!(sound.code, 0, "{sound:?}");
    assert!(sound.stdout.contains("1 installations") && sound.stdout.contains("is what was folded"), "{sound:?}");

    data.change_a_row();
    let damaged = data.run("verify");
    assert_eq!(damaged.code, 3, "{damaged:?}");
    assert!(damaged.stdout.contains("is not what was folded: the state is damaged"), "{damaged:?}");

    let published = data.published();
    let rebuilt = data.run("rebuild");
    assert_eq!(rebuilt.code, 0, "{rebuilt:?}");
    assert!(rebuilt.stdout.contains("places of facts are read in"), "{rebuilt:?}");
    assert!(data.state().with_extension("quarantine").is_dir(), "the old state is kept");
    assert!(!data.state().with_extension("rebuilding").exists(), "nothing half done is left");
    assert_eq!(data.published(), published, "nothing is published by a rebuild");
    let again = data.run("verify");
    assert_eq!((again.code, again.digest()), (0, sound.digest()), "{again:?}");
}

#[test]
fn a_state_that_was_deleted_is_rebuilt_and_gone_on_with() {
    let data = Data::folded(&[INSTALL, CONTACT]);
    let before = data.run("verify");
    fs::remove_dir_all(data.state()).expect("thrown away");
    assert_eq!(data.run("verify").code, 2, "there is none");
    let rebuilt = data.run("rebuild");
    assert_eq!((rebuilt.code, rebuilt.digest()), (0, before.digest()), "{rebuilt:?}");
    let published = data.published();
    data.fold(&[CONTACT]);
    let [events, facts] = data.published();
    assert_eq!([events, facts], [published[0] + 1, published[1]], "what came before is published no second time");
}

#[test]
fn a_rebuild_that_cannot_read_facts_leaves_the_old_state_alone() {
    let data = Data::folded(&[INSTALL, CONTACT]);
    let before = data.run("verify");
    let facts = data.path().join("logs/facts");
    let whole: Vec<(PathBuf, Vec<u8>)> = files_of(&facts);
    let (_, longest) =
        whole.iter().max_by_key(|(_, bytes)| bytes.iter().filter(|byte| **byte != 0).count()).expect("files");
    let named = whole.iter().find(|(_, bytes)| bytes == longest).map(|(path, _)| path.clone()).expect("a file");
    // The records are there by their marks, and no longer what they were.
    let mut harmed = longest.clone();
    let at = harmed.windows(12).position(|bytes| bytes == b"ONAPPINSTALL").expect("a fact");
    harmed[at] ^= 1;
    fs::write(&named, harmed).expect("harmed");
    let failed = data.run("rebuild");
    assert_ne!(failed.code, 0, "{failed:?}");
    let after = data.run("verify");
    assert_eq!((after.code, after.digest()), (0, before.digest()), "{after:?}");
}

#[test]
fn facts_are_compared_with_raw_and_what_raw_does_not_tell_is_named() {
    let data = Data::folded(&[INSTALL, CONTACT, INSTALL]);
    let agreed = data.run("audit");
    assert_eq!(agreed.code, 0, "{agreed:?}");
    assert!(agreed.stdout.contains("3 events of raw, 2 facts and 0 published records"), "{agreed:?}");
    // Another raw, in which the same places tell of something else.
    fs::remove_dir_all(data.path().join("logs/raw")).expect("removed");
    let raw = DiskLog::open(&data.path().join("logs/raw"), Options::log()).expect("a log");
    for tells in [INSTALL, CONTACT, CONTACT] {
        send(&raw, tells);
    }
    drop(raw);
    let differs = data.run("audit");
    assert_eq!(differs.code, 3, "{differs:?}");
    assert!(differs.stdout.contains("no fact says so") && differs.stdout.contains("3 differences"), "{differs:?}");
    let left = fs::read_dir(data.path()).expect("read").map(|entry| entry.expect("an entry").file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("audit")), "nothing is left behind");
}

#[test]
fn who_has_the_state_is_not_disturbed_and_what_is_not_there_is_not_made() {
    let data = Data::folded(&[INSTALL]);
    let processor = Identity::take(&data.path().join("processor"), None).expect("taken");
    for command in ["verify", "rebuild", "audit"] {
        let refused = data.run(command);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("another processor uses"), "{refused:?}");
    }
    drop(processor);
    let missing = data.path().join("missing");
    for command in ["verify", "rebuild", "audit"] {
        assert_eq!(run(command, &missing).code, 2);
    }
    assert!(!missing.exists());
    fs::remove_dir_all(data.path().join("logs")).expect("removed");
    let refused = data.run("rebuild");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("kafka is not set"), "{refused:?}");
}

#[test]
fn raw_that_was_trimmed_before_it_was_read_is_accepted_by_resume_alone() {
    let data = Data::folded(&[INSTALL]);
    assert_eq!(data.run("resume").code, 0, "nothing is in the way");
    let raw = DiskLog::open(&data.path().join("logs/raw"), Options::log()).expect("a log");
    for _ in 0..3 {
        send(&raw, CONTACT);
    }
    raw.delete_older_than(Timestamp::from_s(4_000_000_000)).expect("trimmed");
    drop(raw);
    let published = data.published();
    let shown = data.run("resume");
    assert_eq!(shown.code, 3, "{shown:?}");
    assert!(shown.stdout.contains("3 events are gone that were never folded"), "{shown:?}");
    assert_eq!(data.published(), published, "it only shows");

    let accepted = data.run("resume --accept");
    assert_eq!(accepted.code, 0, "{accepted:?}");
    let [events, facts] = published;
    assert_eq!(data.published(), [events, facts + 2], "what was accepted, and the place");
    assert_eq!(data.run("resume").code, 0);
    data.fold(&[CONTACT]);
    assert_eq!(data.published()[0], events + 1, "it goes on behind what is gone");
    assert_eq!(data.run("audit").code, 0);
}

/// The data directory of a standalone that has ended.
struct Data(TempDir);

impl Data {
    fn folded(bodies: &[&str]) -> Self {
        let data = Self(tempfile::tempdir().expect("a directory"));
        data.fold(bodies);
        data
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn state(&self) -> PathBuf {
        self.path().join("processor/state")
    }

    fn run(&self, command: &str) -> Ended {
        run(command, self.path())
    }

    /// Takes events and folds them, as a standalone does, until all are folded.
    fn fold(&self, bodies: &[&str]) {
        let logs = self.path().join("logs");
        let raw = DiskLog::open(&logs.join("raw"), Options::log()).expect("a log");
        let ids: Vec<_> = bodies.iter().map(|tells| send(&raw, tells)).collect();
        let (recent_events, stop) = (RecentEvents::default(), Stop::default());
        let processor = Processor {
            vouching: None,
            forwarding: None,
            state_dir: Box::new(self.state()),
            timings: Timings::default(),
            limits: Limits::default(),
            trusts: Trusts::default(),
            shared: Shared::default(),
            recent_events: recent_events.clone(),
            metrics: Metrics::new(&runtime::telemetry::registry()),
            stop: stop.clone(),
        };
        let open = move || {
            let event_log = DiskEventLog::open(&logs, raw.clone(), Retention::default());
            event_log.map_err(|error| EventLogError::Fatal(format!("{error:#}")))
        };
        let (ended, end) = mpsc::channel();
        thread::spawn(move || ended.send(processor.run(open, Readiness::default().pending("facts"))));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        for id in ids {
            assert!(runtime.block_on(recent_events.wait(id, FOLDED_WITHIN)), "{id} was not folded");
        }
        stop.request();
        end.recv().expect("no panic").expect("an orderly end");
    }

    /// How many records events and facts have.
    fn published(&self) -> [u64; 2] {
        [Topic::Events, Topic::Facts].map(|topic| {
            let log = DiskLog::open(&self.path().join("logs").join(topic.name()), Options::log()).expect("a log");
            log.bounds().1
        })
    }

    /// As something that changes the state and knows nothing of digests.
    fn change_a_row(&self) {
        let rows = Sled::open(&self.state()).expect("open");
        let (key, mut value) = rows.scan(b"p", b"p").next().expect("a row").expect("read");
        *value.last_mut().expect("not empty") ^= 1;
        rows.write(vec![(key, Some(value))]).expect("written");
    }
}

fn send(raw: &DiskLog, tells: &str) -> event_log::EventId {
    let body = format!("{tells}&ts=1696527000&auth[member_id]=a223&auth[application_token]=token");
    let app = AppName::parse("crm-sync").expect("a name");
    let event = RawEvent::new(app, Form::parse(body.as_bytes()).head(), Bytes::from(body), Timestamp::now());
    let id = event.id;
    raw.append_blocking(vec![event.into_record()]).expect("kept");
    id
}

#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// `F` and the digest of the only partition.
    fn digest(&self) -> (String, String) {
        let line = self.stdout.lines().skip_while(|line| !line.starts_with("partition")).nth(1).expect("a partition");
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells.len(), 4, "{line}");
        (cells[1].to_owned(), cells[3].to_owned())
    }
}

fn run(command: &str, data: &Path) -> Ended {
    let output =
        Command::new(env!("CARGO_BIN_EXE_hookledger")).args(command.split(' ')).arg("--data-dir").arg(data).output();
    let output = output.expect("started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code().expect("a code"), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

fn files_of(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).expect("read"))).collect()
}
