//! No connection is refused by a restart: while ingress is restarted again and again under load, every request is
//! answered 200, and every event lies in `raw` once, in its order.
//!
//! `HOOKLEDGER_TEST_RESTARTS=100` restarts so often, with the timeout for idle connections that is the default;
//! without it there are 20 restarts with a shorter one.

use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use tests::cluster::Names;
use tests::guard::signal;
use tests::http::FORM;
use tests::kafka;
use tests::process::{Process, Program, UP_WITHIN, path};
use tests::random::number;
use tests::visitors::{Manner, Visitors, Visits, all_are_in_raw, each_is_in_raw_once};
use tests::wait::{eventually, report};

const RESTARTS: u64 = 20;
const IDLE: Duration = Duration::from_millis(1500);
/// Unless set.
const IDLE_DEFAULT: Duration = Duration::from_secs(5);
/// Answers between two restarts.
const BETWEEN: u64 = 500;
/// An orderly end: retiring, Kafka's last reports. And the start of the next.
const RESTARTED_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_server_behind_its_own_parent_is_restarted_and_nobody_is_refused() {
    let Some(servers) = kafka::shared("a_server_behind_its_own_parent_is_restarted_and_nobody_is_refused") else {
        return;
    };
    let scale = Scale::read();
    let names = Names::new(servers);
    let ingress = names.start(Program::Ingress, "ingress", &scale.arguments(&["--hold"]));
    let house = House::open(&ingress, &scale);
    for number in 1..=scale.restarts {
        restart(&ingress);
        house.goes_on(number);
    }
    house.close("ingress --hold, SIGHUP", &names);
}

#[test]
fn a_server_whose_socket_is_held_as_systemd_does_is_restarted_and_nobody_is_refused() {
    let test = "a_server_whose_socket_is_held_as_systemd_does_is_restarted_and_nobody_is_refused";
    let Some(servers) = kafka::shared(test) else { return };
    let scale = Scale::read();
    let names = Names::new(servers);
    let mut ingress = names.start(Program::Ingress, "ingress", &scale.arguments(&[]));
    ingress.terminate();
    ingress.hold(TcpListener::bind("127.0.0.1:0").expect("a socket"));
    ingress.restart();
    let house = House::open(&ingress, &scale);
    for restart in 1..=scale.restarts {
        assert!(ingress.terminate().success(), "an orderly end");
        ingress.restart();
        house.goes_on(restart);
    }
    house.close("LISTEN_FDS, SIGTERM and a new start", &names);
}

#[test]
fn a_server_that_is_killed_gets_a_successor_and_nobody_is_refused() {
    let Some(servers) = kafka::shared("a_server_that_is_killed_gets_a_successor_and_nobody_is_refused") else {
        return;
    };
    let kills = Scale::read().restarts / 4;
    let names = Names::new(servers);
    let ingress = names.start(Program::Ingress, "ingress", &["--hold"]);
    ingress.ready();
    let visitors = Visitors::start(ingress.address("webhooks"), 0, 16, &Manner::Reconnecting { pause: Duration::ZERO });
    for _ in 0..kills {
        visitors.go_on(BETWEEN, UP_WITHIN);
        let before = ingress.times_listening("webhooks");
        signal(server(&ingress), "KILL").expect("kill the server");
        eventually(RESTARTED_WITHIN, "another server listens", || {
            (ingress.times_listening("webhooks") > before).then_some(())
        });
    }
    visitors.go_on(BETWEEN, UP_WITHIN);
    let visits = visitors.finish();
    let (answered, slowest) = (visits.acked.len(), visits.slowest);
    report(&format!(
        "restarts: {kills} × kill -9 below --hold: {answered} answered, slowest {slowest:.2?}, {:?}",
        visits.faults
    ));
    assert!(!visits.faults.contains_key(&ErrorKind::ConnectionRefused), "no client is refused: {:?}", visits.faults);
    assert!(!visits.faults.contains_key(&ErrorKind::PermissionDenied), "no client is turned away: {:?}", visits.faults);
    all_are_in_raw(&names, &visits.acked);
}

#[test]
fn a_restart_takes_the_program_and_the_settings_that_are_there_now_unless_they_are_wrong() {
    let test = "a_restart_takes_the_program_and_the_settings_that_are_there_now_unless_they_are_wrong";
    let Some(servers) = kafka::shared(test) else { return };
    let names = Names::new(servers);
    let (program, file) = (names.directory.path().join("program"), names.directory.path().join("settings.toml"));
    fs::copy(path(Program::Ingress), &program).expect("a copy of the program");
    fs::write(&file, "apps = [\"one\"]\n").expect("settings");
    let mut ingress = names.start(Program::Ingress, "ingress", &["--hold", "--config", &file.display().to_string()]);
    ingress.terminate();
    ingress.run_from(&program);
    ingress.restart();
    let status = |app: &str| {
        let answer = ingress.webhooks().post(&format!("/v1/events/{app}"), FORM, b"event=ONAPPTEST&member_id=m");
        answer.expect("an answer").status
    };
    assert_eq!((status("one"), status("two")), (200, 404));

    fs::write(&file, "apps = [\"two\"\n").expect("broken settings");
    let before = server(&ingress);
    signal(ingress.pid(), "HUP").expect("send SIGHUP");
    eventually(RESTARTED_WITHIN, "the restart is refused", || {
        ingress.logs().contains("not restarted, the server goes on").then_some(())
    });
    assert_eq!((server(&ingress), status("one"), status("two")), (before, 200, 404));

    fs::write(&file, "apps = [\"two\"]\n").expect("settings");
    let newer = names.directory.path().join("newer");
    fs::copy(path(Program::Ingress), &newer).expect("another copy");
    fs::rename(&newer, &program).expect("an upgrade");
    let runs = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).expect("its program");
    assert_ne!(runs(before), program, "the old one's program is deleted");
    restart(&ingress);
    assert_eq!(runs(server(&ingress)), program, "the new one's is what lies there now");
    assert_eq!((status("one"), status("two")), (404, 200));
}

#[test]
fn a_standalone_is_restarted_behind_its_own_parent_as_well() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data").display().to_string();
    let arguments = ["standalone", "--hold", "--idle-timeout", "1s", "--data-dir", &data];
    let standalone = Process::start(Program::Hookledger, &arguments, &[], &directory.path().join("log"));
    standalone.ready();
    let visitors =
        Visitors::start(standalone.address("webhooks"), 0, 8, &Manner::Reconnecting { pause: Duration::ZERO });
    for _ in 0..3 {
        visitors.go_on(BETWEEN, UP_WITHIN);
        restart(&standalone);
    }
    visitors.go_on(BETWEEN, UP_WITHIN);
    let visits = visitors.finish();
    assert!(visits.faults.is_empty(), "no client is refused: {:?}", visits.faults);
}

#[test]
fn parent_and_server_end_together_however_the_end_begins() {
    let Some(servers) = kafka::shared("parent_and_server_end_together_however_the_end_begins") else { return };
    let names = Names::new(servers);
    let mut ingress = names.start(Program::Ingress, "ingress", &["--hold", "--idle-timeout", "1s"]);
    let first = server(&ingress);
    assert!(ingress.terminate().success(), "an orderly end");
    assert!(!runs(first), "the server ended before its parent");
    assert!(ingress.webhooks().send("GET", "/").is_err(), "the port is closed");

    ingress.restart();
    let second = server(&ingress);
    ingress.kill9();
    eventually(RESTARTED_WITHIN, "a server whose parent is gone ends", || (!runs(second)).then_some(()));
    ingress.restart();
    assert!(ingress.terminate().success(), "an orderly end");
}

/// Has the parent take another server, and waits until that one listens.
fn restart(process: &Process) {
    let before = process.times_listening("webhooks");
    signal(process.pid(), "HUP").expect("send SIGHUP");
    eventually(RESTARTED_WITHIN, "another server listens", || {
        (process.times_listening("webhooks") > before).then_some(())
    });
}

/// The process behind the parent, as the parent's log tells.
fn server(ingress: &Process) -> u32 {
    let logs = ingress.logs();
    let line = logs.lines().rfind(|line| line.contains("the server is started")).expect("a server");
    let line: serde_json::Value = serde_json::from_str(line).expect("a line of the log");
    line["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a process")
}

fn runs(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).expect("look at a process")
}

/// How much is done.
struct Scale {
    restarts: u64,
    idle: Duration,
    idle_setting: Vec<String>,
}

impl Scale {
    fn read() -> Self {
        match number("HOOKLEDGER_TEST_RESTARTS") {
            Some(restarts) => Self { restarts, idle: IDLE_DEFAULT, idle_setting: Vec::new() },
            None => Self {
                restarts: RESTARTS,
                idle: IDLE,
                idle_setting: vec!["--idle-timeout".into(), format!("{}ms", IDLE.as_millis())],
            },
        }
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.idle_setting.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }
}

/// An ingress and those who visit it.
struct House {
    started: Instant,
    restarts: u64,
    again: Visitors,
    busy: Visitors,
    thoughtful: Visitors,
}

impl House {
    fn open(ingress: &Process, scale: &Scale) -> Self {
        ingress.ready();
        let address = ingress.address("webhooks");
        let ms = Duration::from_millis;
        // A server measures idle time in half seconds. A client that waits just as long as connections may idle writes
        // while it closes them, restart or not: HTTP has no cure for that, so no client here does.
        let kept = scale.idle.saturating_sub(ms(600));
        let busy = Manner::Stay { think: vec![ms(2)..ms(14)], kept };
        let long = vec![ms(500)..kept, scale.idle + ms(200)..scale.idle + ms(1000)];
        let thoughtful = Manner::Stay { think: long, kept };
        Self {
            started: Instant::now(),
            restarts: scale.restarts,
            again: Visitors::start(address, 0, 12, &Manner::Reconnecting { pause: ms(2) }),
            busy: Visitors::start(address, 100, 8, &busy),
            thoughtful: Visitors::start(address, 200, 32, &thoughtful),
        }
    }

    fn goes_on(&self, restart: u64) {
        self.again.go_on(BETWEEN, UP_WITHIN);
        self.busy.go_on(1, UP_WITHIN);
        if restart.is_multiple_of(10) && self.restarts > RESTARTS {
            report(&format!("restarts: {restart} of {}, {:?}", self.restarts, self.started.elapsed()));
        }
    }

    /// No client was refused, and all is in `raw`.
    fn close(self, what: &str, names: &Names) {
        let Self { restarts, .. } = self;
        let mut all = Visits::default();
        let mut line = format!("restarts: {what}, {restarts} times");
        for (who, visitors) in
            [("again", self.again), ("kept alive, thinking 2-14 ms", self.busy), ("thinking long", self.thoughtful)]
        {
            let visits = visitors.finish();
            let (answered, retired, slowest) = (visits.acked.len(), visits.retired, visits.slowest);
            let told = write!(line, "; {who}: {answered} answered, slowest {slowest:.2?}, {retired} idle ones closed");
            told.expect("a String takes all");
            all.add(visits);
        }
        report(&format!("{line}; faults: {:?}", all.faults));
        assert!(all.faults.is_empty(), "no client is refused, broken off or left without an answer: {:?}", all.faults);
        assert!(all.retired > 0, "some thought for longer than connections may idle");
        each_is_in_raw_once(names, &all.acked);
    }
}
