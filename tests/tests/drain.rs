//! The events of an ingress that is gone: brought from its disk to Kafka by hand or by another ingress, none lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portal_sim::player::Player;
use tests::cluster::{Names, Standalone};
use tests::kafka::{self, Broker};
use tests::load::{Acked, Amount, Load, send};
use tests::process::{Ended, Job, Process, Program, run};
use tests::random::number;
use tests::topics::{self, Found, Isolation};
use tests::verify::{nothing_acked_is_missing, order_per_portal_is_kept};
use tests::wait::{eventually, in_pairs, report};

/// Where the ingress that is gone has its data.
const HOME: &str = "ingress";
const CONNECTIONS: usize = 32;
const EACH: usize = 5;

/// How many events lie on the disk: enough that a slow drain takes some seconds.
const EVENTS: u64 = 1_600;
const EVENTS_VARIABLE: &str = "HOOKLEDGER_TEST_DRAIN_EVENTS";

/// A client that takes few records at a time, and waits for more, is slow enough to be met in the middle.
const SLOW: [&str; 4] = ["--kafka-set", "queue.buffering.max.messages=10", "--kafka-set", "linger.ms=50"];

const BACK_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn what_a_killed_ingress_left_is_brought_to_raw_once_flagged_and_byte_for_byte() {
    let _place = in_pairs();
    let test = "what_a_killed_ingress_left_is_brought_to_raw_once_flagged_and_byte_for_byte";
    let Some(mut scene) = Scene::set_without_kafka(test) else { return };
    let before = files_of(&scene.home());
    let looked = run(Program::Hookledger, &["drain", "--dry-run", "--dir", &scene.home().display().to_string()]);
    assert_eq!(looked.code, Some(0), "{looked:?}");
    assert!(looked.stdout.contains(&format!("holds {} events", scene.acked.len())), "{looked:?}");
    assert_eq!(files_of(&scene.home()), before, "a dry run changes nothing");

    scene.broker.restart();
    let drained = scene.drain(&[]);
    assert_eq!(drained.code, Some(0), "{drained:?}");
    assert!(drained.stdout.contains("it may be deleted"), "{drained:?}");
    scene.each_is_in_raw_once_and_flagged();

    let again = scene.drain(&[]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("no event that Kafka does not have"), "{again:?}");
    scene.its_ingress_comes_back_to_nothing();
}

#[test]
fn a_drain_that_is_killed_over_and_over_loses_nothing_and_goes_on_where_it_was() {
    let _place = in_pairs();
    let test = "a_drain_that_is_killed_over_and_over_loses_nothing_and_goes_on_where_it_was";
    let Some(scene) = Scene::set(test) else { return };
    let sent = scene.acked.len() as u64;
    for round in 1..=3_u64 {
        let job = scene.start_drain(&SLOW);
        // Longer than a second's worth, so that some of it was noted.
        scene.more_are_brought(sent / 4);
        let killed = job.kill9();
        assert_eq!(killed.code, None, "round {round}: it was still at it: {killed:?}");
    }
    let last = scene.drain(&[]);
    assert_eq!(last.code, Some(0), "{last:?}");
    let left = left_at_the_start(&last);
    assert!(left < sent, "what was brought and noted is not brought again: {left}");

    let doubled = scene.all_is_in_raw();
    report(&format!("drain: killed 3 times, {sent} events, {doubled} of them twice, {left} left for the last"));
}

#[test]
fn a_drain_that_is_interrupted_notes_all_that_kafka_has_and_doubles_nothing() {
    let _place = in_pairs();
    let test = "a_drain_that_is_interrupted_notes_all_that_kafka_has_and_doubles_nothing";
    let Some(scene) = Scene::set(test) else { return };
    let job = scene.drain_in_the_middle();
    job.signal("TERM");
    let stopped = job.wait();
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    assert!(stopped.stdout.contains("The same command goes on"), "{stopped:?}");
    let brought = count(&scene.names);
    let rest = scene.drain(&[]);
    assert_eq!((rest.code, left_at_the_start(&rest)), (Some(0), scene.acked.len() as u64 - brought), "{rest:?}");
    scene.each_is_in_raw_once();
}

#[test]
fn a_broker_that_dies_in_the_middle_of_a_drain_is_waited_for() {
    let _place = in_pairs();
    let test = "a_broker_that_dies_in_the_middle_of_a_drain_is_waited_for";
    let Some(mut scene) = Scene::set(test) else { return };
    let job = scene.drain_in_the_middle();
    scene.broker.kill();
    eventually(BACK_WITHIN, "it says that it waits", || job.stderr().contains("Kafka takes no events").then_some(()));
    scene.broker.restart();
    let drained = job.wait();
    assert_eq!(drained.code, Some(0), "{drained:?}");
    assert!(drained.stderr.contains("Kafka takes events again"), "{drained:?}");
    scene.each_is_in_raw_once();
}

#[test]
fn a_producer_that_is_done_for_is_replaced_in_the_middle_of_a_drain() {
    let _place = in_pairs();
    let test = "a_producer_that_is_done_for_is_replaced_in_the_middle_of_a_drain";
    let Some(mut scene) = Scene::set(test) else { return };
    let job = scene.drain_in_the_middle();
    scene.broker.kill();
    let copy = scene.broker.copy_of_data();
    scene.broker.restart();
    scene.more_are_brought(100);
    scene.broker.kill();
    // It has lost what it acknowledged since the copy: what comes next is out of order, which ends the producer.
    scene.broker.put_back(&copy);
    scene.broker.restart();
    let drained = job.wait();
    assert_eq!(drained.code, Some(0), "{drained:?}");
    assert!(drained.stderr.contains("is replaced"), "{drained:?}");
    let (there, lost) = scene.there_and_lost();
    assert!(lost > 0, "the broker lost nothing, so this test shows nothing");
    assert!(lost < there.len(), "only what this broker had acknowledged: {lost} of {}", scene.acked.len());
}

#[test]
fn what_kafka_refuses_for_its_size_is_left_and_said_and_all_else_is_brought() {
    let _place = in_pairs();
    let test = "what_kafka_refuses_for_its_size_is_left_and_said_and_all_else_is_brought";
    let Some(mut broker) = kafka::own(test) else { return };
    let names = Names::new(broker.bootstrap());
    let partitions = i32::try_from(tests::cluster::PARTITIONS).expect("few");
    let limit = [("max.message.bytes", "4096"), ("cleanup.policy", "delete"), ("message.timestamp.type", "CreateTime")];
    topics::make(broker.bootstrap(), &names.topic("raw"), partitions, &limit);
    let mut ingress = names.start(Program::Ingress, "ingress", &[]);
    ingress.ready();
    broker.kill();
    let mut webhooks = ingress.webhooks();
    let mut portals: Vec<_> = (0..20).map(|number| Player::new("crm-sync", number)).collect();
    let mut acked = Vec::new();
    for (number, portal) in portals.iter_mut().enumerate() {
        acked.push(send(&mut webhooks, portal.next_webhook()));
        if number % 10 == 5 {
            let body = format!("event=ONCRMDEALUPDATE&auth[member_id]=large{number}&data[x]={}", "x".repeat(10_000));
            let answer = webhooks.post("/v1/events/crm-sync", "application/x-www-form-urlencoded", body.as_bytes());
            assert_eq!(answer.expect("an answer").status, 200, "ingress keeps it all the same");
        }
    }
    ingress.kill9();
    broker.restart();

    let drained = drain(&names, &names.home("ingress"), &[]);
    assert_eq!(drained.code, Some(1), "{drained:?}");
    assert!(drained.stdout.contains("2 events are left"), "{drained:?}");
    assert!(drained.stdout.contains("max.message.bytes"), "what to do: {drained:?}");
    let raw = raw(&names);
    assert_eq!(raw.len(), acked.len(), "each of the others once");
    nothing_acked_is_missing(&acked, &raw);
    assert_eq!(left_at_the_start(&drain(&names, &names.home("ingress"), &["--dry-run"])), 2, "they are still there");
}

#[test]
fn a_damaged_log_is_refused_with_the_way_on_and_what_can_be_read_is_brought_then() {
    let _place = in_pairs();
    let test = "a_damaged_log_is_refused_with_the_way_on_and_what_can_be_read_is_brought_then";
    let Some(scene) = Scene::set(test) else { return };
    let log = scene.home().join("ingress");
    damage_in_the_middle(&log);
    let before = files_of(&log);
    let refused = scene.drain(&[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("hookledger salvage --dir"), "the way on is said: {refused:?}");
    assert_eq!((files_of(&log), count(&scene.names)), (before, 0), "nothing is changed, nothing is brought");

    let salvaged = run(Program::Hookledger, &["salvage", "--dir", &log.display().to_string()]);
    assert_eq!(salvaged.code, Some(0), "{salvaged:?}");
    let drained = scene.drain(&[]);
    assert_eq!(drained.code, Some(0), "{drained:?}");
    let (there, lost) = scene.there_and_lost();
    assert_eq!(count(&scene.names), there.len() as u64, "each once");
    order_per_portal_is_kept(&there, &raw(&scene.names));
    assert!(lost > 0, "a byte of a record was changed");
    assert_eq!(offsets_lost(&salvaged.stdout), lost, "it says how many are lost: {salvaged:?}");
}

#[test]
fn a_drain_of_what_is_in_use_or_no_ingress_log_is_refused_and_changes_nothing() {
    let test = "a_drain_of_what_is_in_use_or_no_ingress_log_is_refused_and_changes_nothing";
    let Some(servers) = kafka::shared(test) else { return };
    let names = Names::new(servers);
    let ingress = names.start(Program::Ingress, "ingress", &[]);
    ingress.ready();
    let refused = drain(&names, &names.home("ingress"), &[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("in use"), "{refused:?}");
    let mut portal = Player::new("crm-sync", 1);
    send(&mut ingress.webhooks(), portal.next_webhook());

    let missing = drain(&names, &names.home("missing"), &[]);
    assert_eq!(missing.code, Some(2), "{missing:?}");
    assert!(!names.home("missing").exists(), "nothing is made");
    fs::create_dir(names.home("empty")).expect("a directory");
    let empty = drain(&names, &names.home("empty"), &[]);
    assert_eq!(empty.code, Some(2), "{empty:?}");
    assert_eq!(fs::read_dir(names.home("empty")).expect("a directory").count(), 0, "nothing is made");

    let mut standalone = Standalone::start();
    send(&mut standalone.process.webhooks(), portal.next_webhook());
    standalone.process.kill9();
    let before = files_of(&standalone.data());
    for dir in [standalone.data(), standalone.data().join("logs/raw")] {
        let refused = drain(&names, &dir, &[]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("standalone"), "{refused:?}");
    }
    assert_eq!(files_of(&standalone.data()), before, "nothing is changed");
}

#[test]
fn an_ingress_that_stays_away_is_adopted_by_another_and_may_come_back_afterwards() {
    let _place = in_pairs();
    let test = "an_ingress_that_stays_away_is_adopted_by_another_and_may_come_back_afterwards";
    let Some(mut scene) = Scene::set(test) else { return };
    let other = scene.start_neighbour(&[]);
    eventually(BACK_WITHIN, "all is adopted", || {
        let adopted = other.metric("hookledger_ingress_adopted_events_total", "")?;
        (adopted >= f64::from(u32::try_from(scene.acked.len()).expect("few"))).then_some(())
    });
    eventually(BACK_WITHIN, "it is let go", || other.logs().contains("are in Kafka").then_some(()));
    scene.each_is_in_raw_once_and_flagged();
    scene.its_ingress_comes_back_to_nothing();
}

#[test]
fn an_ingress_that_comes_back_while_it_is_adopted_is_given_its_directory() {
    let _place = in_pairs();
    let test = "an_ingress_that_comes_back_while_it_is_adopted_is_given_its_directory";
    let Some(mut scene) = Scene::set(test) else { return };
    let other = scene.start_neighbour(&SLOW);
    scene.more_are_brought(100);
    scene.ingress.restart();
    scene.ingress.ready();
    assert!(scene.ingress.logs().contains("asked it to let go"), "{}", scene.ingress.logs());
    eventually(BACK_WITHIN, "it is let go", || other.logs().contains("its ingress has returned").then_some(()));
    let adopted = other.metric("hookledger_ingress_adopted_events_total", "").expect("a metric");
    report(&format!("drain: {adopted} of {} events were adopted when their ingress came back", scene.acked.len()));

    scene.acked.push(send(&mut scene.ingress.webhooks(), Player::new("crm-sync", 1_000_000).next_webhook()));
    eventually(BACK_WITHIN, "all is in raw", || (scene.there_and_lost().1 == 0).then_some(()));
    scene.all_is_in_raw();
}

/// An ingress whose Kafka went away took events to its disk, and was killed.
struct Scene {
    broker: Broker,
    names: Names,
    ingress: Process,
    /// Events that lie on its disk alone.
    acked: Vec<Acked>,
}

impl Scene {
    /// Kafka is back; none where a test may not have a broker of its own, which is said.
    fn set(test: &str) -> Option<Self> {
        let mut scene = Self::set_without_kafka(test)?;
        scene.broker.restart();
        Some(scene)
    }

    /// The same, Kafka still away.
    fn set_without_kafka(test: &str) -> Option<Self> {
        let mut broker = kafka::own(test)?;
        let names = Names::new(broker.bootstrap());
        let mut ingress = names.start(Program::Ingress, HOME, &[]);
        ingress.ready();
        broker.kill();
        let events = number(EVENTS_VARIABLE).unwrap_or(EVENTS);
        let portals = (0..events / EACH as u64).map(|number| Player::new("crm-sync", number)).collect();
        let amount = Amount { each: EACH, pause: Duration::ZERO };
        let outcome = Load::start(ingress.address("webhooks"), portals, CONNECTIONS, amount).finish();
        assert_eq!(outcome.refused, Vec::<String>::new());
        assert!(outcome.acked.iter().all(|acked| acked.kept == "disk"), "there is no Kafka to keep anything");
        ingress.kill9();
        Some(Self { broker, names, ingress, acked: outcome.acked })
    }

    fn home(&self) -> PathBuf {
        self.names.home(HOME)
    }

    fn drain(&self, more: &[&str]) -> Ended {
        drain(&self.names, &self.home(), more)
    }

    fn start_drain(&self, more: &[&str]) -> Job {
        start_drain(&self.names, &self.home(), more)
    }

    /// A drain that has brought some events, and has most of them before it.
    fn drain_in_the_middle(&self) -> Job {
        let job = self.start_drain(&SLOW);
        self.more_are_brought(100);
        job
    }

    fn more_are_brought(&self, more: u64) {
        let until = count(&self.names) + more;
        eventually(BACK_WITHIN, "events are brought", || (count(&self.names) >= until).then_some(()));
    }

    /// Another ingress that adopts the directory.
    fn start_neighbour(&self, more: &[&str]) -> Process {
        let home = self.home().display().to_string();
        let adopting = ["--adopt-dirs", &home, "--adopt-after", "1s"];
        self.names.start(Program::Ingress, "other", &[&adopting[..], more].concat())
    }

    /// All that was acknowledged, byte for byte and in order; how many were doubled.
    fn all_is_in_raw(&self) -> usize {
        let raw = raw(&self.names);
        order_per_portal_is_kept(&self.acked, &raw);
        nothing_acked_is_missing(&self.acked, &raw)
    }

    fn each_is_in_raw_once(&self) {
        assert_eq!(self.all_is_in_raw(), 0, "nothing is there twice");
        assert_eq!(count(&self.names), self.acked.len() as u64, "nothing else is there");
    }

    fn each_is_in_raw_once_and_flagged(&self) {
        self.each_is_in_raw_once();
        let flagged = |record: &Found| record.header("hl_resent") == Some("1");
        assert!(raw(&self.names).iter().all(flagged), "each may be a second copy");
    }

    /// What was acknowledged and is in raw, byte for byte, and how many are not there.
    fn there_and_lost(&self) -> (Vec<Acked>, usize) {
        let raw = raw(&self.names);
        let is_there = |acked: &&Acked| raw.iter().any(|record| record.header("ce_id") == Some(&acked.id));
        let there: Vec<Acked> = self.acked.iter().filter(is_there).cloned().collect();
        nothing_acked_is_missing(&there, &raw);
        let lost = self.acked.len() - there.len();
        (there, lost)
    }

    /// Its ingress, should it come back after all, brings new events and nothing else.
    fn its_ingress_comes_back_to_nothing(&mut self) {
        self.ingress.restart();
        self.ingress.ready();
        let one = send(&mut self.ingress.webhooks(), Player::new("crm-sync", 1_000_000).next_webhook());
        self.acked.push(one);
        let all = self.acked.len() as u64;
        eventually(BACK_WITHIN, "the new event is in raw", || (count(&self.names) == all).then_some(()));
        self.each_is_in_raw_once();
    }
}

/// Runs `hookledger drain` to its end.
fn drain(names: &Names, home: &Path, more: &[&str]) -> Ended {
    start_drain(names, home, more).wait()
}

fn start_drain(names: &Names, home: &Path, more: &[&str]) -> Job {
    let partitions = tests::cluster::PARTITIONS.to_string();
    let home = home.display().to_string();
    let own = ["drain", "--dir", &home, "--kafka", &names.servers];
    let topics = ["--topic-prefix", &names.prefix, "--partitions", &partitions];
    Job::start(Program::Hookledger, &[&own[..], &topics, more].concat())
}

/// How many events a drain found.
fn left_at_the_start(drained: &Ended) -> u64 {
    let number = drained.stdout.split("holds ").nth(1).and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number: {drained:?}"))
}

fn raw(names: &Names) -> Vec<Found> {
    names.read("raw", Isolation::Uncommitted)
}

/// How many records raw holds.
fn count(names: &Names) -> u64 {
    let ends = topics::ends(&names.servers, &names.topic("raw"));
    ends.values().map(|(low, high)| u64::try_from(high - low).expect("in order")).sum()
}

/// How many offsets a salvage said were lost.
fn offsets_lost(told: &str) -> usize {
    let stretches = told.lines().filter_map(|line| line.strip_prefix("lost: offsets ")?.split(", in").next());
    let length = |stretch: &str| {
        let (first, last) = stretch.split_once(" to ").expect("a stretch");
        last.parse::<usize>().expect("an offset") + 1 - first.parse::<usize>().expect("an offset")
    };
    stretches.map(length).sum()
}

/// Changes a byte in the middle of what the log's newest segment holds.
fn damage_in_the_middle(log: &Path) {
    let is_segment = |(path, _): &(PathBuf, _)| path.extension().is_some_and(|name| name == "segment");
    let (path, mut bytes) = files_of(log).into_iter().rfind(is_segment).expect("a segment");
    let held = bytes.iter().rposition(|byte| *byte != 0).expect("it holds something");
    bytes[held / 2] ^= 0x55;
    fs::write(path, bytes).expect("write a segment");
}

/// Every file below a directory with its bytes.
fn files_of(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        match fs::read(&path) {
            Ok(bytes) => files.push((path, bytes)),
            Err(_) => files.extend(files_of(&path)),
        }
    }
    files.sort();
    files
}
