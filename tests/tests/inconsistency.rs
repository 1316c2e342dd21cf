//! Each kind of inconsistency between logs and state, on a real Kafka: what goes on by itself does; what needs an
//! operator halts, says so, answers as before, and goes on after the command that it names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use portal_sim::player::Player;
use tests::cluster::{Names, PARTITIONS, Standalone};
use tests::group::digests;
use tests::kafka::{self, Broker};
use tests::load::{Acked, send};
use tests::oracle::Oracle;
use tests::process::{Ended, Process, Program, run};
use tests::topics::{self, Found, Isolation};
use tests::verify::{CAUGHT_UP_WITHIN, answers_agree, derived_topics_agree, raw_of};
use tests::wait::{eventually, eventually_ok, not_run};

/// Enough that each partition has some.
const PORTALS: u64 = 24;
/// A session runs out, the group gives away what was ours, and a halted processor checks again.
const STANDS_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn raw_that_was_trimmed_before_it_was_read_stops_until_somebody_accepts_it() {
    let test = "raw_that_was_trimmed_before_it_was_read_stops_until_somebody_accepts_it";
    let Some(mut world) = World::start(test) else { return };
    let known = world.folded(3);
    world.processor.terminate();
    let unread = world.ends("raw");
    let lost = world.send(2);
    for (partition, (_, end)) in world.ends("raw") {
        topics::trim(&world.names.servers, &world.names.topic("raw"), partition, end);
    }
    let kept = world.send(1);

    world.processor.restart();
    world.stands_still("raw_trimmed", "raw no longer reaches back");
    answers_agree(&mut world.processor.queries(), &known);
    let facts = world.ends("facts");
    let shown = world.resume(&[]);
    assert_eq!(shown.code, Some(3), "{shown:?}");
    assert_eq!(numbers(&shown.stdout, "events are gone"), lost.len(), "{shown:?}");
    assert_eq!(world.ends("facts"), facts, "it only shows");

    let accepted = world.resume(&["--accept"]);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    world.goes_on();
    assert_eq!(world.resume(&[]).code, Some(0), "nothing is in the way any more");
    let events = world.shown(&kept);
    let doubled = events.values().filter(|times| **times > 1).count();
    assert_eq!(doubled, 0, "nothing was published twice");
    assert!(lost.iter().all(|lost| !events.contains_key(&lost.id)), "what is gone is gone");

    // The log tells for ever what was skipped.
    let skipped = world.accepted();
    let sum: u64 = skipped.iter().map(|(_, to, from)| to - from.expect("it was read up to there")).sum();
    assert_eq!(usize::try_from(sum).expect("few"), lost.len(), "{skipped:?}");
    assert!(
        skipped.iter().all(|(partition, _, from)| {
            from.and_then(|from| i64::try_from(from).ok()) == Some(unread[partition].1)
        })
    );
}

#[test]
fn facts_that_were_made_anew_stop_until_somebody_accepts_it_and_are_folded_again_from_raw() {
    let test = "facts_that_were_made_anew_stop_until_somebody_accepts_it_and_are_folded_again_from_raw";
    let Some(mut world) = World::start(test) else { return };
    let known = world.folded(3);
    world.processor.terminate();
    topics::delete(&world.names.servers, &world.names.topic("facts"));
    world.processor.restart();
    world.stands_still("facts_lost", "facts were lost");
    answers_agree(&mut world.processor.queries(), &known);
    let shown = world.resume(&[]);
    assert_eq!(shown.code, Some(3), "{shown:?}");
    assert!(shown.stdout.contains("facts were lost or recreated"), "{shown:?}");
    assert!(shown.stdout.contains("published a second time"), "{shown:?}");

    let accepted = world.resume(&["--accept"]);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    world.goes_on();
    world.send(1);
    answers_agree(&mut world.processor.queries(), &world.oracle());
    assert!(world.metric("hookledger_processor_state_quarantined_total", "") >= 1.0, "its state was of the lost facts");
}

#[test]
fn facts_that_lost_their_tail_stop_until_somebody_accepts_it_and_go_back_to_what_is_left() {
    let test = "facts_that_lost_their_tail_stop_until_somebody_accepts_it_and_go_back_to_what_is_left";
    let Some(mut broker) = second(test) else { return };
    let broker = broker.as_mut().expect("it was started");
    let mut world = World::on(broker.bootstrap());
    world.folded(2);
    world.processor.terminate();
    broker.kill();
    let copy = broker.copy_of_data();
    broker.restart();
    world.processor.restart();
    let known = world.folded(2);
    world.processor.terminate();
    // As a broker that led these partitions without having been in sync.
    broker.kill();
    for partition in 0..PARTITIONS {
        let part = format!("data/{}-{partition}", world.names.topic("facts"));
        put_back(&copy.path().join(&part), &broker.directory().join(&part));
    }
    broker.restart();

    world.processor.restart();
    world.stands_still("facts_lost", "facts were lost");
    answers_agree(&mut world.processor.queries(), &known);
    let shown = world.resume(&[]);
    assert_eq!(shown.code, Some(3), "{shown:?}");
    assert!(shown.stdout.contains("record raw up to"), "{shown:?}");
    assert_eq!(world.resume(&["--accept"]).code, Some(0));
    world.goes_on();
    world.send(1);
    answers_agree(&mut world.processor.queries(), &world.oracle());
    let back = world.accepted();
    assert!(!back.is_empty() && back.iter().all(|(_, to, from)| from.is_some_and(|from| from > *to)), "{back:?}");
}

#[test]
fn facts_that_were_deleted_stop_whoever_misses_them_until_somebody_accepts_it() {
    let test = "facts_that_were_deleted_stop_whoever_misses_them_until_somebody_accepts_it";
    let Some(mut world) = World::start(test) else { return };
    world.folded(2);
    world.processor.terminate();
    let (before, facts) = (world.ends("facts"), world.names.topic("facts"));
    world.processor.restart();
    let known = world.folded(2);
    world.processor.terminate();
    // As a topic does that had another policy for a while.
    topics::set_policy(&world.names.servers, &facts, "compact,delete");
    for (partition, (_, end)) in &before {
        topics::trim(&world.names.servers, &facts, *partition, *end);
    }
    topics::set_policy(&world.names.servers, &facts, "compact");

    // Who has folded them goes on, and a processor without a state, which has not, is halted.
    world.processor.restart();
    world.goes_on();
    answers_agree(&mut world.processor.queries(), &known);
    world.processor.terminate();
    let fresh = world.begin("fresh.log", &world.arguments("fresh", &[]));
    stands_still(&fresh, "facts_trimmed", "facts begin behind what the state knows");
    let shown = world.resume(&[]);
    assert_eq!(shown.code, Some(3), "{shown:?}");
    assert!(shown.stdout.contains("forgotten by every state"), "{shown:?}");
    let accepted = world.resume(&["--accept"]);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    fresh.ready();
    assert_eq!(world.resume(&[]).code, Some(0), "nothing is in the way any more");

    // Also a state that held more is rebuilt from what is left: all know the same.
    world.processor.restart();
    world.processor.ready();
    assert!(world.metric("hookledger_processor_state_quarantined_total", "") >= 1.0, "its state was of more facts");
    let mut fresh = fresh;
    for process in [&mut world.processor, &mut fresh] {
        let status = process.terminate();
        assert!(status.success(), "it ended with {status}");
    }
    let [one, other] = ["processor", "fresh"].map(|home| {
        let directory = world.names.home(home).display().to_string();
        digests(&run(Program::Hookledger, &["verify", "--data-dir", &directory]), PARTITIONS)
    });
    assert_eq!(one, other);
    let mut rebuild = vec!["rebuild".to_owned()];
    rebuild.extend(world.arguments("fresh", &[]));
    assert_eq!(digests(&run(Program::Hookledger, &words(&rebuild)), PARTITIONS), one);
}

#[test]
fn state_of_another_cluster_is_set_aside_by_itself() {
    let test = "state_of_another_cluster_is_set_aside_by_itself";
    let Some(mut world) = World::start(test) else { return };
    let Some(broker) = second(test) else { return };
    world.folded(2);
    world.processor.terminate();

    let servers = broker.as_ref().expect("it was started").bootstrap().to_owned();
    let mut other = World::on(&servers);
    other.processor.terminate();
    let here = world.names.home("processor");
    fs::remove_dir_all(other.names.home("processor")).expect("removed");
    copy(&here, &other.names.home("processor"));
    other.processor.restart();
    other.goes_on();
    other.folded(2);
    derived_topics_agree(&other.names, &other.oracle());
    assert!(other.metric("hookledger_processor_state_quarantined_total", "") >= 1.0);
}

#[test]
fn raw_that_was_made_anew_is_noticed_also_where_new_events_lie_where_old_ones_lay() {
    let test = "raw_that_was_made_anew_is_noticed_also_where_new_events_lie_where_old_ones_lay";
    let Some(mut world) = World::start(test) else { return };
    let known = world.folded(2);
    world.processor.terminate();
    world.ingress.terminate();
    let raw = world.names.topic("raw");
    topics::delete(&world.names.servers, &raw);
    // Ingress makes it again.
    world.ingress.restart();
    world.ingress.ready();
    world.acked.clear();
    let few = world.send(1);
    raw_of(&world.names, &few);
    let shown = world.resume(&[]);
    assert_eq!(shown.code, Some(3), "{shown:?}");
    assert!(shown.stdout.contains("lost its tail"), "{shown:?}");

    let mut fresh = few;
    fresh.extend(world.send(2));
    raw_of(&world.names, &fresh);
    world.processor.restart();
    world.stands_still("raw_other_events", "raw holds other events");
    answers_agree(&mut world.processor.queries(), &known);
    let shown = world.resume(&[]);
    assert_eq!(shown.code, Some(3), "{shown:?}");
    assert!(shown.stdout.contains("holds another event"), "{shown:?}");
    assert_eq!(world.resume(&["--accept"]).code, Some(0));
    world.goes_on();
    let events = world.shown(&fresh);
    assert!(events.values().all(|times| *times == 1), "nothing of the new raw was folded before");
}

#[test]
fn partitions_that_changed_are_noticed_whatever_changed() {
    let test = "partitions_that_changed_are_noticed_whatever_changed";
    let Some(mut world) = World::start(test) else { return };
    world.folded(2);
    // Only the setting.
    let more = (PARTITIONS + 1).to_string();
    world.processor.terminate();
    let arguments = world.arguments("processor", &[("--partitions", &more)]);
    let mut changed = world.begin("changed.log", &arguments);
    stands_still(&changed, "partitions", "numbers of partitions");
    changed.terminate();
    // One topic, while a processor runs.
    world.processor.restart();
    world.goes_on();
    topics::add_partitions(&world.names.servers, &world.names.topic("raw"), PARTITIONS as usize + 1);
    world.processor.terminate();
    world.processor.restart();
    world.stands_still("partitions", "numbers of partitions");
    world.processor.terminate();
    // All topics and the setting: the keys would move.
    for topic in ["facts", "events", "unverified", "installations", "permissions", "rejected", "vault", "forward"] {
        topics::add_partitions(&world.names.servers, &world.names.topic(topic), PARTITIONS as usize + 1);
    }
    changed.restart();
    stands_still(&changed, "partitions", "numbers of partitions");
    let logs = changed.logs();
    assert!(logs.contains("when there were 4 partitions, and now there are 5"), "it says what moved");
    let mut asked = vec!["resume".to_owned()];
    asked.extend(arguments);
    let shown = run(Program::Hookledger, &words(&asked));
    assert_eq!(shown.code, Some(3), "{shown:?}");
    assert!(shown.stdout.contains("This cannot be accepted"), "{shown:?}");
}

#[test]
fn a_group_that_was_deleted_changes_nothing() {
    let test = "a_group_that_was_deleted_changes_nothing";
    let Some(mut world) = World::start(test) else { return };
    world.folded(3);
    world.processor.terminate();
    topics::delete_group(&world.names.servers, &world.group());
    world.send(1);
    world.processor.restart();
    world.goes_on();
    world.send(1);
    answers_agree(&mut world.processor.queries(), &world.oracle());
    derived_topics_agree(&world.names, &world.oracle());
    assert!(world.processor.logs().contains("offsets of partition"), "it says that they are gone");
}

#[test]
fn prefixes_do_not_mix_in_one_group_nor_in_one_directory() {
    let test = "prefixes_do_not_mix_in_one_group_nor_in_one_directory";
    let Some(mut one) = World::start(test) else { return };
    let Some(mut other) = World::start(test) else { return };
    other.processor.terminate();
    let group = [("--group", one.group())];
    let group = group.iter().map(|(name, value)| (*name, &**value)).collect::<Vec<_>>();
    let arguments = other.arguments("processor", &group);
    other.processor = other.begin("same-group.log", &arguments);
    for world in [&mut one, &mut other] {
        world.folded(2);
        derived_topics_agree(&world.names, &world.oracle());
    }
    one.processor.terminate();
    other.processor.terminate();
    // The state of the one, with the other's topics.
    let mut arguments = other.arguments("processor", &group);
    let directory = one.names.home("processor").display().to_string();
    replace(&mut arguments, "--data-dir", &directory);
    other.processor = other.begin("other-directory.log", &arguments);
    other.processor.ready();
    answers_agree(&mut other.processor.queries(), &other.oracle());
    assert!(other.metric("hookledger_processor_state_quarantined_total", "") >= 1.0);
    derived_topics_agree(&other.names, &other.oracle());
}

#[test]
fn the_state_of_a_standalone_is_set_aside_by_a_processor() {
    let test = "the_state_of_a_standalone_is_set_aside_by_a_processor";
    let Some(mut world) = World::start(test) else { return };
    world.folded(2);
    world.processor.terminate();
    let mut standalone = Standalone::start();
    let mut webhooks = standalone.process.webhooks();
    let sent: Vec<_> = (0..4).map(|number| send(&mut webhooks, Player::new("else", number).next_webhook())).collect();
    answers_agree(&mut standalone.process.queries(), &Oracle::of_acked(&sent));
    standalone.process.terminate();

    let state = world.names.home("processor").join("processor/state");
    fs::remove_dir_all(&state).expect("removed");
    copy(&standalone.data().join("processor/state"), &state);
    world.processor.restart();
    world.goes_on();
    answers_agree(&mut world.processor.queries(), &world.oracle());
    derived_topics_agree(&world.names, &world.oracle());
    assert!(world.metric("hookledger_processor_state_quarantined_total", "") >= 1.0);
    let stranger = world.processor.queries().get("/v1/installations?app=else").expect("an answer").json();
    assert_eq!(stranger["items"].as_array().map(Vec::len), Some(0), "nothing of it is left: {stranger}");
}

#[test]
fn of_two_with_one_directory_the_second_ends_and_of_two_with_one_name_the_first() {
    let test = "of_two_with_one_directory_the_second_ends_and_of_two_with_one_name_the_first";
    let Some(mut world) = World::start(test) else { return };
    world.folded(2);
    let mut arguments = world.arguments("processor", &[]);
    let listeners = ["--query-listen", "--admin-listen"];
    arguments.extend(listeners.iter().flat_map(|listener| [(*listener).to_owned(), "127.0.0.1:0".to_owned()]));
    let second = run(Program::Processor, &words(&arguments));
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another processor uses"), "{second:?}");
    let reopens = world.processor.metric("hookledger_processor_reopens_total", "");
    assert_eq!(reopens, Some(0.0), "the first is not disturbed");
    world.folded(1);

    // A copy, with the name in it.
    copy(&world.names.home("processor"), &world.names.home("twin"));
    let twin = world.begin("twin.log", &world.arguments("twin", &[]));
    let status = eventually(STANDS_WITHIN, "the first ends", || {
        // It notices when it publishes, or by its next heartbeat.
        world.processor.ended()
    });
    assert_eq!(status.code(), Some(1));
    assert!(world.processor.logs().contains("another process has taken our identity"), "it says why");
    world.processor = twin;
    world.processor.ready();
    world.folded(2);
    derived_topics_agree(&world.names, &world.oracle());
}

/// An ingress, a processor, and what was sent to them.
struct World {
    ingress: Process,
    processor: Process,
    portals: Vec<Player>,
    acked: Vec<Acked>,
    /// The last to go: the logs lie in its directory.
    names: Names,
}

impl World {
    fn start(test: &str) -> Option<Self> {
        Some(Self::on(kafka::shared(test)?))
    }

    fn on(servers: &str) -> Self {
        let names = Names::new(servers);
        let ingress = names.start(Program::Ingress, "ingress", &[]);
        ingress.ready();
        let processor = names.start(Program::Processor, "processor", &[]);
        processor.ready();
        let portals = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
        Self { ingress, processor, portals, acked: Vec::new(), names }
    }

    fn group(&self) -> String {
        format!("{}processor", self.names.prefix)
    }

    /// So many webhooks of each portal.
    fn send(&mut self, each: usize) -> Vec<Acked> {
        let mut webhooks = self.ingress.webhooks();
        let mut sent = Vec::new();
        for _ in 0..each {
            sent.extend(self.portals.iter_mut().map(|portal| send(&mut webhooks, portal.next_webhook())));
        }
        self.acked.extend(sent.iter().cloned());
        sent
    }

    /// Sends and waits until everything is answered as it must be.
    fn folded(&mut self, each: usize) -> Oracle {
        self.send(each);
        let oracle = self.oracle();
        answers_agree(&mut self.processor.queries(), &oracle);
        // What is no fact is behind the facts.
        self.shown(&self.acked);
        oracle
    }

    fn oracle(&self) -> Oracle {
        Oracle::of(&raw_of(&self.names, &self.acked))
    }

    fn ends(&self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        topics::ends(&self.names.servers, &self.names.topic(topic))
    }

    /// Waits until all of these have become something that subscribers see; how often each of all did.
    fn shown(&self, acked: &[Acked]) -> BTreeMap<String, usize> {
        eventually_ok(CAUGHT_UP_WITHIN, "all are folded", || {
            let read = |topic: &str| self.names.read(topic, Isolation::Committed);
            let rejected = read("rejected").len();
            let mut times = BTreeMap::new();
            let id = |record: &Found| record.header("ce_id").expect("an id").to_owned();
            // What waited is in events too, once it was released.
            let unverified: Vec<String> = read("unverified").iter().map(id).collect();
            for id in read("events").iter().map(id) {
                *times.entry(id).or_insert(0) += 1;
            }
            for id in unverified {
                times.entry(id).or_insert(1);
            }
            let missing = acked.iter().filter(|acked| !times.contains_key(&acked.id)).count();
            ensure!(missing <= rejected, "{missing} of {} are missing", acked.len());
            Ok(times)
        })
    }

    /// Partition, where raw goes on, and where it was read to before: what was accepted, as facts tell it.
    fn accepted(&self) -> Vec<(i32, u64, Option<u64>)> {
        let facts = self.names.read("facts", Isolation::Committed);
        let lasting = facts.iter().filter(|fact| fact.key.as_deref().is_some_and(|key| key.starts_with("accepted/")));
        lasting
            .map(|fact| (fact.partition, fact.json()["to"].as_u64().expect("a place"), fact.json()["from"].as_u64()))
            .collect()
    }

    fn resume(&self, more: &[&str]) -> Ended {
        let mut arguments = vec!["resume".to_owned()];
        arguments.extend(self.arguments("nothing-of-ours", &[]));
        arguments.extend(more.iter().map(|&more| more.to_owned()));
        run(Program::Hookledger, &words(&arguments))
    }

    fn stands_still(&self, what: &str, in_the_way: &str) {
        stands_still(&self.processor, what, in_the_way);
    }

    fn goes_on(&self) {
        self.processor.ready();
        eventually(STANDS_WITHIN, "it is no longer halted, and owns all", || {
            let owned = |partition: u32| {
                self.processor
                    .metric("hookledger_processor_lag_events", &format!("partition=\"{partition}\""))
                    .is_some()
            };
            let goes = self.processor.metric("hookledger_processor_halted", "") == Some(0.0);
            (goes && (0..PARTITIONS).all(owned)).then_some(())
        });
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        self.processor.metric(name, label).expect("a metric")
    }

    /// The settings of a processor, some of them changed.
    fn arguments(&self, home: &str, changes: &[(&str, &str)]) -> Vec<String> {
        let mut arguments = self.names.arguments(home);
        arguments.extend(["--group".to_owned(), self.group()]);
        for (name, value) in changes {
            replace(&mut arguments, name, value);
        }
        arguments
    }

    fn begin(&self, log: &str, arguments: &[String]) -> Process {
        Process::start(Program::Processor, &words(arguments), &[], &self.names.directory.path().join(log))
    }
}

/// Alive, not ready, with the reason, a metric, and one line in the log that names the command or what else to do.
fn stands_still(processor: &Process, what: &str, in_the_way: &str) {
    eventually(STANDS_WITHIN, &format!("it is halted: {what}"), || {
        let label = format!("what=\"{what}\"");
        (processor.metric("hookledger_processor_halted", &label) == Some(1.0)).then_some(())
    });
    let answer = processor.admin().get("/readyz").expect("an answer");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains(in_the_way), "{}", answer.text());
    let counted = processor.metric("hookledger_processor_inconsistencies_total", &format!("what=\"{what}\""));
    let said = processor.lines("what", what).into_iter().filter(|line| line.contains("halted")).count();
    assert!(counted >= Some(1.0) && said >= 1, "{counted:?} times, said {said} times");
    let helps = processor.logs().contains("hookledger resume --accept") || what == "partitions";
    assert!(helps, "it names the command");
}

/// The sum of the numbers before these words, one in each line that has them.
fn numbers(text: &str, words: &str) -> usize {
    let before = text.lines().filter_map(|line| line.split_once(words)).map(|(before, _)| before.trim_end());
    before
        .map(|before| before.rsplit(' ').next().and_then(|number| number.parse::<usize>().ok()).expect("a number"))
        .sum()
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn replace(arguments: &mut [String], name: &str, value: &str) {
    let at = arguments.iter().position(|argument| argument == name).expect("it is set");
    value.clone_into(&mut arguments[at + 1]);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("start cp");
    assert!(copied.success(), "copy {}", from.display());
}

fn put_back(from: &Path, to: &Path) {
    fs::remove_dir_all(to).expect("removed");
    copy(from, to);
}

/// Another cluster, for one test at a time.
fn second(test: &str) -> Option<MutexGuard<'static, Option<Broker>>> {
    static SECOND: OnceLock<Mutex<Option<Broker>>> = OnceLock::new();
    let second = SECOND.get_or_init(|| Mutex::new(kafka::own(test)));
    let second = second.lock().unwrap_or_else(PoisonError::into_inner);
    if second.is_none() {
        not_run(test, "there is no second broker");
        return None;
    }
    Some(second)
}
