//! What a stranger may send costs a bounded amount: of memory in one step, of time for each event, of rows in the state.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitrix24::Trust;
use bitrix24::form::Form;
use bitrix24::{AppName, Installation};
use bytes::Bytes;
use disk_log::{DiskEventLog, DiskLog, Options};
use domain::{Attest, Attestation, DECISIONS_MAX, HELD_BYTES_MAX, RecordStatus};
use event_log::contract::{Retention, Topic};
use event_log::{
    Applied, EventId, EventLog, EventLogError, FactOffsets, LogEvent, LogReader, Output, Position, RawEvent, Visit,
    redrive_id,
};
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use processor::metrics::Metrics;
use processor::run::limits::Limits;
use processor::run::recent_events::RecentEvents;
use processor::run::session::{Processor, Timings};
use processor::run::shared::Shared;
use processor::state::{Store, Trusts};
use runtime::lifecycle::{Readiness, Stop};

const MIB: usize = 1024 * 1024;

#[test]
fn what_waited_is_released_in_steps_of_a_bounded_size_and_read_in_few_passes() {
    let (portals, held, bytes) = (12, 60, 50_000);
    let world = World::new();
    let text = "x".repeat(bytes);
    for number in 0..held {
        let bodies = (0..portals).map(|portal| {
            body(portal, "t", &format!("event=ONCRMLEADADD&data[FIELDS][ID]={number}&data[text]={text}"))
        });
        world.send(bodies);
    }
    let limits = Limits { step_bytes: MIB, ..Limits::default() };
    // The processor is started again before the installs come: it keeps none of the events then.
    drop(world.run(limits));
    world.send((0..portals).map(|portal| body(portal, "t", "event=ONAPPINSTALL&data[VERSION]=1")));
    let (store, seen) = world.run(limits);

    let largest = seen.published.iter().map(|step| step.bytes).max().expect("some steps");
    assert!(largest <= MIB + usize::try_from(HELD_BYTES_MAX).expect("small"), "{largest} bytes in one step");
    let released = seen.published.iter().map(|step| step.events).sum::<usize>();
    assert_eq!(released, portals * (held + 1), "each portal's events, and its install");
    // All of a portal's events are near each other or in one pass, not one by one.
    assert!((1..=2 * portals).contains(&seen.reads), "raw was read {} times", seen.reads);
    for portal in 0..portals {
        assert_eq!(status(&store, portal), RecordStatus::Installed);
    }
}

#[test]
fn an_import_reads_what_it_releases_in_few_passes() {
    let portals = 400;
    let world = World::new();
    world.send((0..2 * portals).map(|number| body(number % portals, "t", "event=ONCRMLEADADD")));
    // The processor keeps none of the events.
    drop(world.run(Limits::default()));
    let imported = |portal| {
        let principal = Fingerprint::of("t");
        let attest =
            Attest { principal, attestation: Attestation::Imported, domain: None, version: None, installed_at: None };
        attest.into_raw(installation(portal), Timestamp::now())
    };
    // In another order than that of the events.
    world.keep((0..portals).rev().map(imported));
    let (store, seen) = world.run(Limits::default());
    assert_eq!(seen.published.iter().map(|step| step.events).sum::<usize>(), 2 * portals);
    assert!((1..=portals / 20).contains(&seen.reads), "raw was read {} times", seen.reads);
    assert_eq!(status(&store, 0), RecordStatus::Trusted);
}

#[test]
fn an_event_costs_the_same_however_many_decisions_are_known() {
    // From where on the newest decisions take the place of the oldest.
    let few = DECISIONS_MAX * 2;
    let per_event = |number: usize| {
        let world = World::new();
        world.send([body(0, "t", "event=ONAPPINSTALL&data[VERSION]=1")]);
        world.send((0..number).map(|number| {
            let tells =
                format!("event=ONAPPMETHODCONFIRM&data[METHOD]=user.get&data[CONFIRMED]=1&data[TOKEN]=token{number}");
            body(0, "t", &tells)
        }));
        let began = Instant::now();
        let (store, _) = world.run(Limits::default());
        let took = began.elapsed();
        let known = store.installation(&installation(0)).expect("read").permissions(Trust::FirstInstall).len();
        assert_eq!(known, DECISIONS_MAX);
        took.as_secs_f64() / f64::from(u32::try_from(number).expect("small"))
    };
    let (first, second) = (per_event(few), per_event(5 * few));
    // Machines are shared. What compared each with each took five times as long for five times as many.
    assert!(second < first * 2.5, "{first} s each among {few}, {second} s each among five times as many");
}

#[test]
fn a_batch_that_takes_long_is_given_back_and_nothing_is_folded_twice() {
    let world = World::new();
    let events = 40;
    world.send([body(0, "t", "event=ONAPPINSTALL&data[VERSION]=1")]);
    world.send((1..events).map(|number| body(0, "t", &format!("event=ONCRMLEADADD&data[FIELDS][ID]={number}"))));
    let (_, seen) = world.run(Limits { step_records: 3, batch_time: Duration::ZERO, ..Limits::default() });
    assert!(seen.starts > 5, "given back {} times", seen.starts);
    let shown: Vec<&EventId> = seen.published.iter().flat_map(|step| &step.ids).collect();
    assert_eq!(shown.len(), events);
    assert_eq!(shown.iter().collect::<BTreeSet<_>>().len(), events, "each once");
}

#[test]
fn installations_of_which_nothing_is_known_make_room_for_others() {
    let world = World::new();
    world.send([body(0, "t", "event=ONAPPINSTALL&data[VERSION]=1")]);
    for made_up in 1..200 {
        world.send([
            body(made_up, "forged", "event=ONCRMLEADADD"),
            body(made_up, "forged", "event=ONAPPUPDATE&data[VERSION]=9"),
        ]);
    }
    let limits = Limits { untrusted: 20, step_records: 50, ..Limits::default() };
    let (store, _) = world.run(limits);
    let mut known = BTreeSet::new();
    while let Some(next) = store.next_installation(known.last()).expect("read") {
        known.insert(next);
    }
    // Room is made at the beginning of a step for those that came in the step before.
    assert!((20..60).contains(&known.len()), "{} are known", known.len());
    assert_eq!(status(&store, 0), RecordStatus::Installed);
    assert!(known.contains(&installation(199)), "the newest is known");
    // What is left is what facts say: a state that is read from them is the same.
    let digest = store.digest(0);
    drop(store);
    std::fs::remove_dir_all(world.dir.path().join("state")).expect("thrown away");
    assert_eq!(world.run(limits).0.digest(0), digest);
}

#[test]
fn a_record_that_a_topic_refuses_for_its_size_is_shown_without_its_data() {
    let world = World::new();
    let text = "x".repeat(60_000);
    world.send([
        body(0, "t", "event=ONAPPINSTALL&data[VERSION]=1"),
        body(0, "t", &format!("event=ONCRMLEADADD&data[text]={text}")),
        body(0, "t", "event=ONCRMLEADADD&data[FIELDS][ID]=7"),
    ]);
    let world = World { takes: 20_000, ..world };
    let (_, seen) = world.run(Limits { event_bytes: 100_000, ..Limits::default() });
    let shown: Vec<&EventId> = seen.published.iter().flat_map(|step| &step.ids).collect();
    assert_eq!(shown.len(), 3, "the partition goes on, and each is there once");
    assert!(seen.opened > 1, "the logs were opened again for it");
}

#[test]
fn a_redriven_event_is_folded_once_however_often_it_is_redriven() {
    let world = World::new();
    let event = |tells: &str| {
        let body = body(0, "t", tells);
        let app = AppName::parse("crm-sync").expect("a name");
        RawEvent::new(app, Form::parse(body.as_bytes()).head(), Bytes::from(body), Timestamp::now())
    };
    let redrive = |event: &RawEvent| {
        let again = event.clone().redriven(Timestamp::now()).into_record();
        world.raw.append_blocking(vec![again]).expect("kept");
    };
    // Of a principal that is not trusted yet, and then of one that is: with a fact of its own, and without.
    let (held, installed, passed_on) =
        (event("event=ONCRMLEADADD"), event("event=ONAPPINSTALL"), event("event=ONCRMLEADUPDATE"));
    let redriven: Vec<&RawEvent> =
        vec![&held, &held, &installed, &held, &installed, &passed_on, &passed_on, &passed_on];
    redriven.into_iter().for_each(redrive);
    let (store, seen) = world.run(Limits { step_records: 1, ..Limits::default() });
    let shown: Vec<EventId> = seen.published.iter().flat_map(|step| step.ids.clone()).collect();
    assert_eq!(shown, [&held, &installed, &passed_on].map(|event| redrive_id(event.id)), "each once");
    assert_eq!(store.places(&installation(0), None, 100).expect("read").len(), 3, "by its fact a copy is recognised");
    // Also by a processor that remembers nothing.
    drop(store);
    redrive(&held);
    redrive(&passed_on);
    let (_, seen) = world.run(Limits::default());
    assert_eq!(seen.published.iter().map(|step| step.events).sum::<usize>(), 0);
}

/// A log `raw`, and a processor on it.
struct World {
    dir: tempfile::TempDir,
    raw: DiskLog,
    /// Larger records are refused.
    takes: usize,
}

/// What an event log was asked for.
#[derive(Clone, Default)]
struct Seen {
    opened: usize,
    starts: usize,
    /// How often `raw` was read from a place.
    reads: usize,
    published: Vec<Step>,
}

/// What was published at once.
#[derive(Clone, Default)]
struct Step {
    bytes: usize,
    events: usize,
    /// Of events that are shown as verified.
    ids: Vec<EventId>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let raw = DiskLog::open(&dir.path().join("raw"), Options::log()).expect("a log");
        Self { dir, raw, takes: usize::MAX }
    }

    fn send(&self, bodies: impl IntoIterator<Item = String>) {
        self.keep(bodies.into_iter().map(|body| {
            let app = AppName::parse("crm-sync").expect("a name");
            let head = Form::parse(body.as_bytes()).head();
            RawEvent::new(app, head, Bytes::from(body), Timestamp::now())
        }));
    }

    fn keep(&self, events: impl IntoIterator<Item = RawEvent>) {
        self.raw.append_blocking(events.into_iter().map(RawEvent::into_record).collect()).expect("kept");
    }

    /// Folds all of it, and ends.
    fn run(&self, limits: Limits) -> (Arc<Store>, Seen) {
        let (shared, recent_events, stop) = (Shared::default(), RecentEvents::default(), Stop::default());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let processor = Processor {
            vouching: None,
            vault: None,
            forwarding: None,
            state_dir: Box::new(self.dir.path().join("state")),
            timings: Timings::default(),
            limits,
            trusts: Trusts::default(),
            shared: shared.clone(),
            recent_events,
            metrics: Metrics::new(&runtime::telemetry::registry()),
            stop: stop.clone(),
        };
        let (logs, raw, spy, takes) = (self.dir.path().join("logs"), self.raw.clone(), seen.clone(), self.takes);
        let open = move || {
            spy.lock().expect("no panic").opened += 1;
            open(&logs, &raw).map(|event_log| Spy { event_log, seen: spy.clone(), takes })
        };
        let thread = std::thread::spawn(move || processor.run(open, Readiness::default().pending("facts")));
        let end = self.raw.bounds().1;
        let store = loop {
            assert!(!thread.is_finished(), "the processor ended");
            if let Some(store) = shared.get().filter(|store| store.checkpoint(0).raw == Some(end)) {
                break store;
            }
            std::thread::yield_now();
        };
        stop.request();
        thread.join().expect("no panic").expect("an orderly end");
        let seen = seen.lock().expect("no panic").clone();
        (store, seen)
    }
}

fn open(logs: &Path, raw: &DiskLog) -> Result<DiskEventLog, EventLogError> {
    DiskEventLog::open(logs, raw.clone(), Retention::default())
        .map_err(|error| EventLogError::Fatal(format!("{error:#}")))
}

fn installation(portal: usize) -> Installation {
    Installation::parse("crm-sync", &format!("portal{portal}")).expect("valid")
}

fn status(store: &Store, portal: usize) -> RecordStatus {
    store.installation(&installation(portal)).expect("read").status(Trust::FirstInstall)
}

fn body(portal: usize, token: &str, tells: &str) -> String {
    let ts = Timestamp::now().s();
    format!("{tells}&ts={ts}&auth[member_id]=portal{portal}&auth[application_token]={token}")
}

/// Disk logs, and what they were asked for.
struct Spy {
    event_log: DiskEventLog,
    seen: Arc<Mutex<Seen>>,
    takes: usize,
}

impl LogReader for Spy {
    fn identity(&self) -> &str {
        self.event_log.identity()
    }

    fn partitions(&self) -> u32 {
        self.event_log.partitions()
    }

    fn tells_progress(&self) -> bool {
        self.event_log.tells_progress()
    }

    fn committed(&mut self, partition: u32) -> Result<Option<u64>, EventLogError> {
        self.event_log.committed(partition)
    }

    fn bounds(&mut self, topic: Topic, partition: u32) -> Result<(u64, u64), EventLogError> {
        self.event_log.bounds(topic, partition)
    }

    fn read(&mut self, topic: Topic, from: Position, until: u64, visit: Visit<'_>) -> Result<(), EventLogError> {
        self.seen.lock().expect("no panic").reads += usize::from(topic == Topic::Raw);
        self.event_log.read(topic, from, until, visit)
    }

    fn offset_at(&mut self, partition: u32, at: Timestamp) -> Result<u64, EventLogError> {
        self.event_log.offset_at(partition, at)
    }
}

impl EventLog for Spy {
    fn recover(&mut self, _: &[Applied]) -> Result<(), EventLogError> {
        Ok(())
    }

    fn join(&mut self) -> Result<(), EventLogError> {
        Ok(())
    }

    fn next(&mut self, wait: Duration) -> Result<LogEvent, EventLogError> {
        self.event_log.next(wait)
    }

    fn start(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        self.seen.lock().expect("no panic").starts += 1;
        self.event_log.start(starts)
    }

    fn follow(&mut self, starts: &[Position]) -> Result<(), EventLogError> {
        self.event_log.follow(starts)
    }

    fn unowned(&mut self) -> Option<usize> {
        self.event_log.unowned()
    }

    fn lost_a_broker(&mut self) -> bool {
        false
    }

    fn undecided(&mut self) -> Result<Vec<(Topic, Position)>, EventLogError> {
        Ok(Vec::new())
    }

    fn begin_publication(&mut self, outputs: Vec<Output>, read: &[Position]) -> Result<(), EventLogError> {
        if let Some(large) = outputs.iter().find(|output| output.record.size() > self.takes) {
            return Err(EventLogError::TooLarge(format!("{} bytes", large.record.size())));
        }
        let events: Vec<&Output> = outputs.iter().filter(|output| output.topic == Topic::Events).collect();
        let id = |output: &&Output| {
            let id = output.record.header("ce_id").expect("an id");
            EventId::parse_str(std::str::from_utf8(id).expect("text")).expect("an id")
        };
        let step = Step {
            bytes: outputs.iter().map(|output| output.record.size()).sum(),
            events: events.len(),
            ids: events.iter().map(id).collect(),
        };
        self.seen.lock().expect("no panic").published.push(step);
        self.event_log.begin_publication(outputs, read)
    }

    fn end_publication(&mut self) -> Result<FactOffsets, EventLogError> {
        self.event_log.end_publication()
    }
}
