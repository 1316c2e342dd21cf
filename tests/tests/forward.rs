//! Forwarding to an older handler: every verified event as it came, in order for each portal, at least once, whatever
//! dies; a portal that the handler does not take holds up no other one, and waits for an operator.
//!
//! `HOOKLEDGER_TEST_FORWARD` says how many events there are in the runs with faults; from 100 000 on they are of 1 000
//! portals.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::cluster::{Names, Standalone};
use tests::handler::{Event, FORM, Handler, Reply};
use tests::http::{Answer, Client};
use tests::kafka;
use tests::ports;
use tests::process::{Process, Program, run};
use tests::random::number;
use tests::wait::{alone, eventually, report};

const APP: &str = "crm-sync";
/// Of these many on, there are more portals, and no pauses.
const MANY: usize = 100_000;
/// In CI.
const EVENTS: usize = 600;
const PORTALS: usize = 30;
const CONNECTIONS: usize = 8;
const WITHIN: Duration = Duration::from_secs(120);
const ALL_WITHIN: Duration = Duration::from_secs(1_800);
/// The portal that the handler does not take.
const SICK: usize = 0;
/// Those that it takes at once: enough that every processor has some.
const OTHERS: [usize; 8] = [100_000, 100_100, 100_200, 100_300, 100_400, 100_500, 100_600, 100_700];

/// Sends events, each portal's in order, until all are sent.
struct Sender {
    acked: Arc<Mutex<BTreeSet<Event>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Sender {
    fn start(address: SocketAddr, portals: usize, each: usize) -> Self {
        let acked: Arc<Mutex<BTreeSet<Event>>> = Arc::default();
        let thread = |first: usize| {
            let acked = Arc::clone(&acked);
            thread::spawn(move || {
                let mut client = Client::new(address);
                for number in 1..=each {
                    for portal in (first..portals).step_by(CONNECTIONS) {
                        let event = Event { portal, number };
                        // While the port is closed, nothing is sent.
                        let answer = loop {
                            match post(&mut client, event) {
                                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                                    thread::sleep(Duration::from_millis(20));
                                }
                                answer => break answer,
                            }
                        };
                        if answer.is_ok_and(|answer| answer.status == 200) {
                            acked.lock().expect("no panic").insert(event);
                        }
                        // So that a small run lasts.
                        if each * portals < MANY {
                            thread::sleep(Duration::from_millis(15));
                        }
                    }
                }
            })
        };
        let threads = (0..CONNECTIONS).map(thread).collect();
        Self { acked, threads }
    }

    fn acked(&self) -> BTreeSet<Event> {
        self.acked.lock().expect("no panic").clone()
    }

    fn count(&self) -> usize {
        self.acked.lock().expect("no panic").len()
    }

    fn goes_on(&self, more: usize) {
        let until = self.count() + more;
        let is_over = || self.threads.iter().all(JoinHandle::is_finished);
        eventually(WITHIN, "events are kept", || (self.count() >= until || is_over()).then_some(()));
    }

    fn finish(self) -> BTreeSet<Event> {
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        self.acked.lock().expect("no panic").clone()
    }
}

fn post(client: &mut Client, event: Event) -> io::Result<Answer> {
    client.post(&format!("/v1/events/{APP}?{}", event.query()), FORM, &event.body())
}

fn is_acked(client: &mut Client, event: Event) -> bool {
    post(client, event).is_ok_and(|answer| answer.status == 200)
}

/// Writes the settings of one app with this handler, and returns the file.
fn settings(directory: &Path, url: &str, more: &str) -> PathBuf {
    let file = directory.join("hookledger.toml");
    let text = format!(
        "forward-networks = ['loopback']\n{more}\n[apps.{APP}]\ntrust = 'first-event'\nforward-to = '{url}'\n[apps.other]\n"
    );
    fs::write(&file, text).expect("written");
    file
}

fn start_standalone(file: &Path) -> Standalone {
    Standalone::start_with(&[("HOOKLEDGER_CONFIG", &file.display().to_string())])
}

/// Fails at random, each event in the same way each time; nothing of the sick portal is taken until it is healed.
fn bad_day(is_healed: &Arc<AtomicBool>) -> Handler {
    let is_healed = Arc::clone(is_healed);
    Handler::start(move |event, attempt| {
        if event.portal == SICK && !is_healed.load(Ordering::Relaxed) {
            return Reply::Status(500);
        }
        match (event.portal * 7 + event.number * 13) % 100 {
            0..=5 if attempt == 1 => Reply::Status(500),
            6 | 7 if attempt <= 2 => Reply::Drop,
            8 if attempt == 1 => Reply::Hang(Duration::from_secs(5)),
            9 if attempt == 1 => Reply::Later,
            10 if attempt == 1 => Reply::Status(302),
            _ => Reply::Accept,
        }
    })
}

/// A large run has longer queues, in which other events must not be parked.
fn impatient() -> String {
    let (portals, each) = size();
    let park_after = if portals * each < MANY { "4s" } else { "30s" };
    format!("forward-timeout = '2s'\nforward-park-after = '{park_after}'")
}

/// How many portals, and events of each.
fn size() -> (usize, usize) {
    let events = number("HOOKLEDGER_TEST_FORWARD").map_or(EVENTS, |events| usize::try_from(events).expect("small"));
    let portals = if events >= MANY { 1_000 } else { PORTALS };
    (portals, events / portals)
}

fn all_but_the_sick_one(acked: &BTreeSet<Event>) -> BTreeSet<Event> {
    acked.iter().filter(|event| event.portal != SICK).copied().collect()
}

fn report_run(handler: &Handler, acked: &BTreeSet<Event>, began: Instant) {
    let (events, requests, took) = (acked.len(), handler.received().len(), began.elapsed());
    report(&format!("forward: {events} events through 3 kills in {took:?}, {requests} requests"));
}

fn waits_for(handler: &Handler, events: &BTreeSet<Event>, within: Duration) {
    let mut rest: Vec<Event> = events.iter().copied().collect();
    eventually(within, "all events are accepted", || {
        while rest.last().is_some_and(|event| handler.has_accepted(*event)) {
            rest.pop();
        }
        rest.is_empty().then_some(())
    });
}

fn list(queries: &mut Client, state: &str) -> Vec<Value> {
    let Ok(answer) = queries.get(&format!("/v1/forward?state={state}")) else { return Vec::new() };
    answer.json()["items"].as_array().cloned().unwrap_or_default()
}

/// The sick portal is parked with its first event, retried in vain, its event skipped, and then healed and retried.
fn an_operator_decides(
    [query, webhooks]: [SocketAddr; 2],
    handler: &Handler,
    is_healed: &AtomicBool,
    acked: &BTreeSet<Event>,
) {
    let (mut queries, mut webhooks) = (Client::new(query), Client::new(webhooks));
    let others = (0..).flat_map(|round| OTHERS.map(|portal| Event { portal, number: 100 * round + 2 }));
    let mut others = others.into_iter();
    let mut parked = |queries: &mut Client| {
        // Nothing is parked unless the handler takes another event meanwhile.
        assert!(is_acked(&mut webhooks, others.next().expect("more")), "an event of another portal is kept");
        let items = list(queries, "parked");
        (items.len() == 1).then(|| items[0].clone())
    };
    let item = eventually(WITHIN, "the sick portal is parked", || parked(&mut queries));
    let member_id = Event { portal: SICK, number: 1 }.member_id();
    assert_eq!(
        (&item["member_id"], &item["status"], &item["reason"]),
        (&json!(member_id), &json!(500), &json!("status"))
    );
    let first = item["id"].as_str().expect("an id").to_owned();
    let tried = |id: &str| handler.received().iter().filter(|received| received.id == id).count();
    let before = tried(&first);

    let url = format!("http://{query}");
    let command =
        |arguments: &[&str]| run(Program::Hookledger, &[&["forward"], arguments, &["--query", &url]].concat());
    let listed = command(&["list"]);
    assert!(listed.code == Some(0) && listed.stdout.contains(&first), "{listed:?}");
    for secret in ["application-token", "key=7", "handler.php"] {
        assert!(!listed.stdout.contains(secret), "{listed:?}");
    }
    let retried = command(&["retry", APP, &member_id]);
    assert_eq!(retried.code, Some(0), "{retried:?}");
    eventually(WITHIN, "it is tried again", || (tried(&first) > before).then_some(()));
    assert_eq!(
        command(&["skip", APP, &member_id, "--id", &item["id"].as_str().expect("an id").replace('7', "8")]).code,
        Some(1)
    );
    eventually(WITHIN, "it is parked again", || parked(&mut queries));
    let skipped = command(&["skip", APP, &member_id, "--id", &first]);
    assert_eq!(skipped.code, Some(0), "{skipped:?}");
    let second = eventually(WITHIN, "the next one is parked", || {
        parked(&mut queries).filter(|item| item["id"].as_str() != Some(&first))
    });
    is_healed.store(true, Ordering::Relaxed);
    let body = json!({ "app": APP, "member_id": member_id, "id": second["id"] }).to_string();
    let answer = queries.post("/v1/forward/retry", "application/json", body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let skipped = Event {
        portal: SICK,
        number: handler.received().iter().find(|received| received.id == first).expect("tried").event.number,
    };
    let rest: BTreeSet<Event> = acked.iter().filter(|event| **event != skipped).copied().collect();
    waits_for(handler, &rest, WITHIN);
    handler.is_whole(&rest);
    eventually(WITHIN, "nothing waits", || list(&mut queries, "parked").is_empty().then_some(()));
}

#[test]
fn standalone_forwards_everything_in_order_through_kills_and_a_bad_handler() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let is_healed = Arc::default();
    let handler = bad_day(&is_healed);
    let mut standalone = start_standalone(&settings(directory.path(), &handler.url(), &impatient()));
    let ((portals, each), began) = (size(), Instant::now());
    let sender = Sender::start(standalone.process.address("webhooks"), portals, each);
    for _ in 0..3 {
        sender.goes_on(portals * each / 6);
        standalone.process.kill9();
        standalone.process.restart();
    }
    let acked = sender.finish();
    waits_for(&handler, &all_but_the_sick_one(&acked), ALL_WITHIN);
    report_run(&handler, &acked, began);
    an_operator_decides(
        ["queries", "webhooks"].map(|what| standalone.process.address(what)),
        &handler,
        &is_healed,
        &acked,
    );
    let logs = standalone.process.logs();
    assert!(!logs.contains("application-token") && !logs.contains("key=7"), "secrets are in no log");
}

#[test]
fn a_group_forwards_everything_in_order_through_take_overs_and_a_killed_broker() {
    let _alone = alone();
    let test = "a_group_forwards_everything_in_order_through_take_overs_and_a_killed_broker";
    let Some(mut broker) = kafka::own(test) else { return };
    let names = Names::new(broker.bootstrap());
    let is_healed = Arc::default();
    let handler = bad_day(&is_healed);
    let file = settings(names.directory.path(), &handler.url(), &impatient()).display().to_string();
    let config = ["--config", &*file];
    let ingress = names.start(Program::Ingress, "ingress", &config);
    let mut processors: Vec<Process> =
        ["processor-1", "processor-2"].map(|home| names.start(Program::Processor, home, &config)).into();
    ingress.ready();
    processors.iter().for_each(Process::ready);
    let ((portals, each), began) = (size(), Instant::now());
    let sender = Sender::start(ingress.address("webhooks"), portals, each);
    let part = portals * each / 6;
    sender.goes_on(part);
    processors[0].kill9();
    sender.goes_on(part);
    waits_for(&handler, &all_but_the_sick_one(&sender.acked()), ALL_WITHIN);
    report(&format!("forward: taken over after {:?}", began.elapsed()));
    processors[0].restart();
    broker.kill();
    broker.restart();
    sender.goes_on(part);
    processors[1].kill9();
    let acked = sender.finish();
    // A transaction whose markers the killed broker has lost is ended by the process that began it.
    processors[1].restart();
    waits_for(&handler, &all_but_the_sick_one(&acked), ALL_WITHIN);
    report_run(&handler, &acked, began);
    an_operator_decides([processors[0].address("queries"), ingress.address("webhooks")], &handler, &is_healed, &acked);
}

/// PHP's own server with the handler of `docs/forward.md`.
struct Php {
    address: SocketAddr,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Php {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let document = include_str!("../../docs/forward.md");
        let (_, code) = document.split_once("```php\n").expect("an example");
        let (code, _) = code.split_once("```").expect("its end");
        fs::write(directory.path().join("handler.php"), code).expect("written");
        let mut php = Self { address: ([127, 0, 0, 1], ports::free()).into(), directory, child: None };
        php.restart();
        php
    }

    fn restart(&mut self) {
        let mut command = Command::new("php");
        command.arg("-S").arg(self.address.to_string()).current_dir(self.directory.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start php");
        self.child = Some(child);
    }

    fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill php");
            child.wait().expect("its end");
        }
    }

    /// What it has written: one event a line.
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("events.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        self.kill9();
    }
}

#[test]
fn a_php_handler_gets_each_event_after_it_was_killed() {
    if Command::new("php").arg("--version").stdout(Stdio::null()).status().is_err() {
        return tests::wait::not_run("a_php_handler_gets_each_event_after_it_was_killed", "needs php");
    }
    let mut php = Php::start();
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("http://{}/handler.php", php.address);
    let standalone = start_standalone(&settings(directory.path(), &url, ""));
    let mut webhooks = standalone.process.webhooks();
    let send = |webhooks: &mut Client, numbers: std::ops::Range<usize>| {
        numbers.for_each(|number| assert!(is_acked(webhooks, Event { portal: 1, number })));
    };
    let has = |php: &Php, number: usize| {
        php.lines().iter().any(|line| line.contains(&format!(" {number} ONCRMDEALADD portal1"))).then_some(())
    };
    send(&mut webhooks, 1..20);
    eventually(WITHIN, "PHP has them", || has(&php, 19));
    php.kill9();
    send(&mut webhooks, 20..40);
    php.restart();
    eventually(WITHIN, "PHP has the others", || has(&php, 39));
    let numbers: Vec<usize> =
        php.lines().iter().map(|line| line.split(' ').nth(1).expect("a number").parse().expect("a number")).collect();
    let mut first = numbers.clone();
    let mut seen = BTreeSet::new();
    first.retain(|number| seen.insert(*number));
    assert_eq!(first, (1..40).collect::<Vec<_>>(), "{numbers:?}");
    // An app without a handler, and a principal that is not trusted.
    let body = Event { portal: 1, number: 99 }.body();
    let stranger = String::from_utf8_lossy(&body).replace("application-token-of", "stolen-token-of");
    assert_eq!(webhooks.post("/v1/events/other", FORM, &body).expect("an answer").status, 200);
    assert_eq!(webhooks.post(&format!("/v1/events/{APP}"), FORM, stranger.as_bytes()).expect("an answer").status, 200);
    send(&mut webhooks, 40..41);
    eventually(WITHIN, "PHP has the last", || has(&php, 40));
    assert_eq!(has(&php, 99), None, "{:?}", php.lines());
    // Those that PHP had when it was killed came twice, perhaps.
    let metric = |labels: &str| standalone.process.metric("hookledger_forward_total", labels).unwrap_or_default();
    eventually(WITHIN, "deliveries are counted", || (metric("outcome=\"delivered\"") >= 40.0).then_some(()));
}
