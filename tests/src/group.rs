//! Processors that share one log under a steady stream of events, and what must be true of them in the end.
//!
//! Whatever was done to them, [`Group::is_exact`] compares with a second fold, with `raw`, with each other, and with
//! processors that were never disturbed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Names;
use crate::load::{Acked, Amount, Load, Outcome, send};
use crate::oracle::Oracle;
use crate::process::{Ended, Process, Program, run};
use crate::topics::{self, Found, Isolation};
use crate::verify::{
    CAUGHT_UP_WITHIN, answers_agree, derived_topics_agree, nothing_acked_is_missing, order_per_portal_is_kept, raw_of,
};
use crate::wait::{eventually, report};
use portal_sim::player::Player;

/// What processors publish.
pub const DERIVED: [&str; 6] = ["facts", "events", "unverified", "installations", "permissions", "rejected"];

/// Sessions and transactions end soon, so that a lost member delays the group only briefly.
pub const IMPATIENT: [&str; 3] =
    ["session.timeout.ms=3000", "heartbeat.interval.ms=500", "transaction.timeout.ms=3000"];

/// As [`IMPATIENT`] says: the longest that an owner who is gone can hold up its successor, but for the broker's interval.
pub const IMPATIENT_WAIT: Duration = Duration::from_secs(3);

/// Portals of the stream.
const PORTALS: u64 = 60;
const CONNECTIONS: usize = 4;
/// However long a test takes, so many events are the most that it makes.
const EVENTS_MAX: u32 = 100_000;
/// Between two events of a connection.
const PAUSE: Duration = Duration::from_millis(25);

/// Portals that ask whether all goes on: enough that each partition has some of them.
const PROBES: u64 = 40;
/// By when all goes on after a fault.
const GOES_ON_WITHIN: Duration = Duration::from_secs(120);

/// An ingress and processors.
pub struct Group {
    /// Takes webhooks.
    pub ingress: Process,
    /// May be down, stand still, or have ended by themselves.
    pub processors: Vec<Process>,
    /// Where all lies.
    pub names: Names,
    /// Why processors ended that were not stopped.
    pub ends: Vec<String>,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    probes: Vec<Player>,
    probed: Vec<Acked>,
}

/// An event that was sent, to see whether a processor folds it.
#[derive(Clone, Debug)]
pub struct Probe {
    key: String,
    id: String,
    /// How many processors had ended by themselves when it was sent.
    ends: usize,
}

impl Group {
    /// Starts an ingress and so many processors with these settings of their clients, and waits until they are ready.
    pub fn start(names: Names, processors: usize, settings: &[&str]) -> Self {
        Self::start_with(names, processors, settings, &[])
    }

    /// The same with these variables in the environment of all of them.
    pub fn start_with(names: Names, processors: usize, settings: &[&str], environment: &[(String, String)]) -> Self {
        let ingress = names.start_with(Program::Ingress, "ingress", &[], &borrowed(environment));
        ingress.ready();
        let mut group = Self {
            ingress,
            processors: Vec::new(),
            names,
            ends: Vec::new(),
            settings: settings.iter().flat_map(|set| ["--kafka-set".to_owned(), (*set).to_owned()]).collect(),
            environment: environment.to_vec(),
            probes: (0..PROBES).map(|number| Player::new("crm-sync", PORTALS + number)).collect(),
            probed: Vec::new(),
        };
        for _ in 0..processors {
            group.add();
        }
        group.processors.iter().for_each(Process::ready);
        group
    }

    /// One more processor.
    pub fn add(&mut self) {
        let number = self.processors.len() + 1;
        self.processors.push(self.process(number));
    }

    /// By what a processor's clients are known.
    pub fn client(index: usize) -> String {
        format!("processor-{}", index + 1)
    }

    /// Where a processor's state and identity lie.
    pub fn home(&self, index: usize) -> PathBuf {
        self.names.home(&home(index + 1))
    }

    /// Where its state alone lies.
    pub fn state(&self, index: usize) -> PathBuf {
        self.home(index).join("processor/state")
    }

    /// A stream of events for about so long.
    pub fn stream(&self, lasts: Duration) -> Load {
        let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
        let connections = u32::try_from(CONNECTIONS).expect("few");
        let pause = PAUSE.max(lasts * connections / EVENTS_MAX);
        Load::start(self.ingress.address("webhooks"), portals, CONNECTIONS, Amount { each: usize::MAX, pause })
    }

    /// Sends an event of each of some portals, for all partitions.
    pub fn probe(&mut self) -> Vec<Probe> {
        let mut webhooks = self.ingress.webhooks();
        let mut sent = Vec::new();
        for portal in &mut self.probes {
            let acked = send(&mut webhooks, portal.next_webhook());
            sent.push(Probe { key: portal.key(), id: acked.id.clone(), ends: self.ends.len() });
            self.probed.push(acked);
        }
        sent
    }

    /// Waits until a processor has folded these, as owner or as follower.
    ///
    /// One that has ended is started again. It does not remember what it folded before, so others are sent then.
    pub fn knows(&mut self, index: usize, sent: &[Probe]) {
        let began = Instant::now();
        let mut queries = self.processors[index].queries();
        let mut sent = sent.to_vec();
        while let Some(Probe { key, id, ends }) = sent.last() {
            self.start_who_ended();
            if *ends != self.ends.len() {
                sent = self.probe();
                continue;
            }
            let answer = queries.get(&format!("/v1/installations/{key}?after={id}&wait=1s"));
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                sent.pop();
                continue;
            }
            let answer = answer.map(|answer| answer.text());
            let number = index + 1;
            assert!(began.elapsed() < GOES_ON_WITHIN, "processor {number} does not know {id} of {key}: {answer:?}");
            thread::sleep(Duration::from_millis(25));
        }
    }

    /// All of them fold what is sent now, in all partitions.
    pub fn goes_on(&mut self) {
        let sent = self.probe();
        (0..self.processors.len()).for_each(|index| self.knows(index, &sent));
    }

    /// What a supervisor does.
    pub fn start_who_ended(&mut self) {
        for (index, process) in self.processors.iter_mut().enumerate() {
            if let Some(status) = process.ended() {
                // What ends a process outside of our code is said by that code, not as a line of our log.
                let logs = process.logs();
                let foreign = logs.lines().rfind(|line| !line.starts_with('{')).unwrap_or_default().to_owned();
                let why = process.lines("level", "ERROR").pop().unwrap_or(foreign);
                self.ends.push(format!("processor {} ended with {status}: {why}", index + 1));
                process.kill9();
                process.restart_without_waiting();
            }
        }
    }

    /// Waits until a processor owns so many partitions. Each owner measures its lag now and then.
    pub fn owns(&self, process: &Process, at_least: u32) {
        let owns = |partition: &u32| {
            process.metric("hookledger_processor_lag_events", &format!("partition=\"{partition}\"")).is_some()
        };
        let owned = || (0..self.names.partitions).filter(owns).fold(0, |count, _| count + 1);
        eventually(CAUGHT_UP_WITHIN, &format!("it owns {at_least} partitions"), || (owned() >= at_least).then_some(()));
    }

    /// Ends the stream. Then `facts` and all that follows are what `raw` says, once and in order, and every processor's
    /// state is that of one that was never disturbed, whose making publishes nothing.
    pub fn is_exact(mut self, test: &str, load: Load) {
        let began = Instant::now();
        let outcome = load.stop();
        self.goes_on();
        let raw = self.is_kept(&outcome);
        let oracle = Oracle::of(&raw);
        for processor in &self.processors {
            answers_agree(&mut processor.queries(), &oracle);
        }
        derived_topics_agree(&self.names, &oracle);
        self.progress_ends_at(&ends_of(&raw));
        for topic in DERIVED {
            in_order(topic, &self.names.read(topic, Isolation::Committed));
        }
        let written = self.written();
        let known = self.digests();
        self.none_differs_who_was_never_disturbed(&known);
        assert_eq!(self.written(), written, "{test}: reading facts again has published something");
        let audited = self.command("audit", 1);
        assert!(audited.code == Some(0) && audited.stdout.contains(": 0 differences"), "{audited:?}");
        report(&format!(
            "{test}: {} events of raw, each once and in order in what follows; {} states alike; looked at in {:?}",
            raw.len(),
            self.processors.len() + 2,
            began.elapsed(),
        ));
    }

    /// What was answered 200 lies in `raw`.
    fn is_kept(&self, outcome: &Outcome) -> Vec<Found> {
        assert_eq!(outcome.refused, Vec::<String>::new());
        let acked = [&outcome.acked[..], &self.probed].concat();
        let raw = raw_of(&self.names, &acked);
        nothing_acked_is_missing(&acked, &raw);
        order_per_portal_is_kept(&acked, &raw);
        raw
    }

    /// `K` never goes back, in one log each, and ends where `raw` ends.
    fn progress_ends_at(&self, raw_ends: &BTreeMap<i32, i64>) {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        let mut logs: HashMap<i32, String> = HashMap::new();
        for record in self.names.read("facts", Isolation::Committed) {
            if record.key.as_deref() != Some("progress") {
                continue;
            }
            let told = record.json();
            let (next, log) = (told["raw"].as_i64().expect("a number"), told["log"].to_string());
            let before = ends.insert(record.partition, next).unwrap_or(0);
            assert!(before < next, "K of partition {} goes from {before} to {next}", record.partition);
            let known = logs.entry(record.partition).or_insert_with(|| log.clone());
            assert_eq!(*known, log, "partition {} has two logs", record.partition);
        }
        assert_eq!(&ends, raw_ends, "facts tell of all of raw");
    }

    /// How much lies in each partition of what is published, whatever became of it.
    fn written(&self) -> BTreeMap<&'static str, BTreeMap<i32, (i64, i64)>> {
        DERIVED.iter().map(|topic| (*topic, topics::ends(&self.names.servers, &self.names.topic(topic)))).collect()
    }

    /// Ends all processors. `F` and the digest of each partition, which are the same for all of them.
    fn digests(&mut self) -> Vec<(String, String)> {
        for process in &mut self.processors {
            let status = process.terminate();
            assert!(status.success(), "a processor ended with {status}");
        }
        let mut known = (1..=self.processors.len()).map(|number| self.verified(number));
        let first = known.next().expect("a processor");
        for (number, other) in (2..).zip(known) {
            assert_eq!(first, other, "processors 1 and {number} do not know the same");
        }
        first
    }

    /// The command that reads `facts` from their first record, and a processor that has no state at first.
    fn none_differs_who_was_never_disturbed(&self, known: &[(String, String)]) {
        let (rebuilt, fresh) = (self.processors.len() + 1, self.processors.len() + 2);
        fs::create_dir_all(self.home(rebuilt - 1).join("processor")).expect("a directory without a state");
        let ended = self.command("rebuild", rebuilt);
        assert_eq!(digests(&ended, self.names.partitions), known, "{ended:?}");
        let mut process = self.process(fresh);
        process.ready();
        self.owns(&process, self.names.partitions);
        process.terminate();
        assert_eq!(self.verified(fresh), known, "a processor without a state reads the same");
    }

    fn process(&self, number: usize) -> Process {
        let name = format!("client.id={}", Self::client(number - 1));
        let mut settings: Vec<_> = self.settings.iter().map(String::as_str).collect();
        settings.extend(["--kafka-set", &name]);
        self.names.start_with(Program::Processor, &home(number), &settings, &borrowed(&self.environment))
    }

    fn verified(&self, number: usize) -> Vec<(String, String)> {
        digests(&self.command("verify", number), self.names.partitions)
    }

    /// Runs a command for a processor, with what that was told.
    fn command(&self, command: &str, number: usize) -> Ended {
        let mut arguments = vec![command.to_owned()];
        if command == "verify" {
            let data = self.names.home(&home(number)).display().to_string();
            arguments.extend(["--data-dir".to_owned(), data]);
        } else {
            arguments.extend(self.names.arguments(&home(number)));
        }
        run(Program::Hookledger, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Throws a state away, or some of its files.
pub fn harm_state(directory: &PathBuf, all: bool, random: &mut fastrand::Rng) {
    if all {
        // It may not have been made yet.
        let _ = fs::remove_dir_all(directory);
        return;
    }
    for file in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        if random.bool() && file.path().is_file() {
            fs::remove_file(file.path()).expect("a file that is not in use");
        }
    }
}

fn borrowed(environment: &[(String, String)]) -> Vec<(&str, &str)> {
    environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn home(number: usize) -> String {
    format!("processor-{number}")
}

/// Behind the last record of each partition.
fn ends_of(raw: &[Found]) -> BTreeMap<i32, i64> {
    raw.iter().map(|record| (record.partition, record.offset + 1)).collect()
}

/// What follows from a raw event lies behind what follows from those before it.
fn in_order(topic: &str, found: &[Found]) {
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for record in found {
        let offset = record.header("hl_raw_offset").and_then(|offset| offset.parse().ok()).expect("a raw offset");
        let before = last.insert(record.partition, offset).unwrap_or(0);
        assert!(before <= offset, "{topic}: what follows from {before} lies before {record:?}");
        keys.insert(&record.key);
    }
    assert!(topic != "events" || keys.len() > 1, "{topic}: there is something to compare");
}

/// `F` and the digest of each partition, as the command prints them.
pub fn digests(ended: &Ended, partitions: u32) -> Vec<(String, String)> {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.stdout.lines().skip_while(|line| !line.starts_with("partition")).skip(1);
    let found: Vec<_> = lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .take_while(|cells| cells.len() == 4 && cells[0].parse::<u32>().is_ok())
        .map(|cells| (cells[1].to_owned(), cells[3].to_owned()))
        .collect();
    assert_eq!(found.len(), partitions as usize, "{ended:?}");
    found
}
