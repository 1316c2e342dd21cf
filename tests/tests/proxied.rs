//! Two ingresses behind a proxy, with the configuration that we recommend: they are restarted in turn, as containers
//! are replaced, with no process to hold their ports. No client is refused, and every event lies in `raw` once.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::cluster::Names;
use tests::guard::Guard;
use tests::process::{Process, Program, UP_WITHIN};
use tests::random::number;
use tests::visitors::{Manner, Visitors, Visits, each_is_in_raw_once};
use tests::wait::{eventually, not_run, report};
use tests::{kafka, ports};

const RESTARTS: u64 = 10;
/// Answers between two restarts.
const BETWEEN: u64 = 300;

#[test]
fn two_ingresses_behind_haproxy_are_restarted_in_turn_and_nobody_is_refused() {
    let test = "two_ingresses_behind_haproxy_are_restarted_in_turn_and_nobody_is_refused";
    let found = Command::new("haproxy").arg("-v").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return not_run(test, "needs haproxy");
    }
    let Some(servers) = kafka::shared(test) else { return };
    let restarts = number("HOOKLEDGER_TEST_RESTARTS").unwrap_or(RESTARTS);
    let names = Names::new(servers);
    let start = |home| names.start(Program::Ingress, home, &["--stop-notice", "2s"]);
    let mut pair = [start("one"), start("two")];
    pair.iter().for_each(Process::ready);
    let proxy = Proxy::start(&names, &pair);

    let ms = Duration::from_millis;
    let again = Visitors::start(proxy.address, 0, 12, &Manner::Reconnecting { pause: ms(2) });
    // Shorter than the proxy lets its clients idle, which is the proxy's affair and not what is asked here.
    let think = vec![ms(2)..ms(14), ms(500)..ms(3000)];
    let kept = Visitors::start(proxy.address, 100, 16, &Manner::Stay { think, kept: ms(4000) });
    for restart in 0..restarts {
        let ingress = &mut pair[usize::from(!restart.is_multiple_of(2))];
        asked_again(ingress);
        assert!(ingress.terminate().success(), "an orderly end");
        ingress.restart();
        ingress.ready();
        asked_again(ingress);
        again.go_on(BETWEEN, UP_WITHIN);
        kept.go_on(1, UP_WITHIN);
    }
    let mut visits = Visits::default();
    visits.add(again.finish());
    visits.add(kept.finish());
    let (answered, slowest) = (visits.acked.len(), visits.slowest);
    let line =
        format!("proxied: {restarts} restarts in turn behind haproxy; {answered} answered, slowest {slowest:.2?}");
    report(&format!("{line}; faults: {:?}", visits.faults));
    assert!(visits.faults.is_empty(), "no client is refused: {:?}\n{}", visits.faults, proxy.last_words());
    each_is_in_raw_once(&names, &visits.acked);
}

/// The proxy has found that an ingress is there: events come.
fn asked_again(ingress: &Process) {
    eventually(UP_WITHIN, "the proxy asks this ingress", || {
        let events = ingress.metric("hookledger_ingress_events_total", "");
        events.filter(|count| *count > 0.0)
    });
}

struct Proxy {
    address: SocketAddr,
    log: std::path::PathBuf,
    process: Child,
    _guard: Guard,
}

impl Proxy {
    /// Starts haproxy with our file, in which nothing but addresses is changed.
    fn start(names: &Names, pair: &[Process; 2]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let mut settings = include_str!("../../deploy/haproxy.cfg").to_owned();
        let mut change = |from: &str, to: String| {
            assert!(settings.contains(from), "{from} is not in deploy/haproxy.cfg");
            settings = settings.replace(from, &to);
        };
        change("bind 0.0.0.0:80", format!("bind {address}"));
        for (ingress, place) in pair.iter().zip(["10.0.0.1:8080 port 9080", "10.0.0.2:8080 port 9080"]) {
            let (webhooks, admin) = (ingress.address("webhooks"), ingress.address("admin"));
            change(place, format!("{webhooks} port {}", admin.port()));
        }
        let (file, log) = (names.directory.path().join("haproxy.cfg"), names.directory.path().join("haproxy.log"));
        fs::write(&file, settings).expect("write haproxy.cfg");
        let out = File::create(&log).expect("a log");
        let err = out.try_clone().expect("share the log");
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(out).stderr(err);
        let process = haproxy.spawn().expect("start haproxy");
        let guard = Guard::watch(process.id(), None).expect("watch it");
        let mut proxy = Self { address, log, process, _guard: guard };
        eventually(UP_WITHIN, "haproxy listens", || {
            let ended = proxy.process.try_wait().expect("look at haproxy");
            assert!(ended.is_none(), "haproxy ended:\n{}", proxy.last_words());
            TcpStream::connect(address).ok()
        });
        proxy
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| !line.contains(" 200 ")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.process.kill().expect("end haproxy");
        self.process.wait().expect("wait for its end");
    }
}
