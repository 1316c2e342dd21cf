//! A path key opens an app's URL, and is in no log: neither in ours nor in those of the proxies that we recommend.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use tests::cluster::Names;
use tests::guard::Guard;
use tests::http::{Client, FORM};
use tests::process::{Program, UP_WITHIN};
use tests::wait::{eventually, not_run};
use tests::{kafka, ports};

const KEY: &str = "s6p6eclrvim6da22ft9ch94ekreb52lv";

#[test]
fn an_app_is_there_with_its_key_only_and_one_without_a_key_is_warned_about() {
    let Some(servers) = kafka::shared("an_app_is_there_with_its_key_only_and_one_without_a_key_is_warned_about") else {
        return;
    };
    let names = Names::new(servers);
    let keys = names.directory.path().join("keys");
    fs::create_dir(&keys).expect("a directory");
    fs::write(keys.join("shut"), KEY).expect("a key");
    let keys = keys.to_str().expect("a plain path");
    let mut ingress = names.start(Program::Ingress, "ingress", &["--apps", "open,shut", "--path-keys-dir", keys]);
    ingress.terminate();
    ingress.hold(TcpListener::bind("0.0.0.0:0").expect("a socket"));
    ingress.restart();
    ingress.ready();
    let mut client = Client::new(([127, 0, 0, 1], ingress.address("webhooks").port()).into());
    let mut status = |path: &str| client.post(path, FORM, b"event=ONAPPTEST&member_id=m").expect("an answer").status;
    assert_eq!(status(&format!("/v1/events/shut/{KEY}")), 200);
    assert_eq!(status("/v1/events/shut"), 404);
    assert_eq!(status("/v1/events/open"), 200);

    let logs = ingress.logs();
    let warned: Vec<_> = logs.lines().filter(|line| line.contains("have no path key")).collect();
    assert!(matches!(warned[..], [line] if line.contains("the apps open have no path key")), "{logs}");
    assert!(!logs.contains(KEY), "{logs}");
}

#[test]
fn haproxy_with_our_file_logs_no_path() {
    if !is_there("haproxy", "-v") {
        return not_run("haproxy_with_our_file_logs_no_path", "needs haproxy");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (address, upstream, closed) = (free(), answering(), free());
    let settings = changed(
        include_str!("../../deploy/haproxy.cfg"),
        &[
            ("bind 0.0.0.0:80", format!("bind {address}")),
            ("10.0.0.1:8080 port 9080", upstream.to_string()),
            ("10.0.0.2:8080 port 9080", closed.to_string()),
        ],
    );
    let file = write(directory.path(), "haproxy.cfg", &settings);
    let proxy = Proxy::start(address, Command::new("haproxy").arg("-db").arg("-f").arg(file), directory.path());
    ask(address);
    // What fails is logged as what succeeds.
    let malformed = format!("POST /v1/events/shut/{KEY} HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n");
    TcpStream::connect(address).expect("haproxy").write_all(malformed.as_bytes()).expect("send");
    let log = eventually(UP_WITHIN, "both are logged", || {
        let log = proxy.log();
        (log.contains(" 200 ") && log.contains("BADREQ")).then_some(log)
    });
    assert!(!log.contains(KEY), "{log}");
}

#[test]
fn caddy_with_our_file_logs_no_path() {
    if !is_there("caddy", "version") {
        return not_run("caddy_with_our_file_logs_no_path", "needs caddy");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (address, upstream, closed) = (free(), answering(), free());
    // What takes a newer Caddy than Debian's says nothing about logs.
    let settings = changed(
        include_str!("../../deploy/caddy/Caddyfile"),
        &[
            ("request_buffers 512KiB", String::new()),
            ("\tlog {\n", "\tadmin off\n\tlog {\n".into()),
            ("{$HOOKS_HOST}", format!("http://{address}")),
            ("{$HOOKS_UPSTREAM:ingress:8080}", "{$HOOKS_UPSTREAM}".into()),
            ("lb_try_duration 60s", "lb_try_duration 1s".into()),
        ],
    );
    let file = write(directory.path(), "Caddyfile", &settings);
    for (upstream, said) in [(upstream, None), (closed, Some("http.log.error"))] {
        let mut caddy = Command::new("caddy");
        caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
        for (name, value) in [("HOME", directory.path()), ("HOOKS_UPSTREAM", Path::new(&upstream.to_string()))] {
            caddy.env(name, value);
        }
        let proxy = Proxy::start(address, &mut caddy, directory.path());
        let answered = ask(address);
        assert_eq!(answered == 200, said.is_none(), "{answered}");
        let log = eventually(UP_WITHIN, "Caddy says what it has to say", || {
            let log = proxy.log();
            said.is_none_or(|said| log.contains(said)).then_some(log)
        });
        assert!(!log.contains(KEY), "{log}");
    }
}

fn is_there(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

fn free() -> SocketAddr {
    ([127, 0, 0, 1], ports::free()).into()
}

/// Answers 200 to whatever comes, for as long as the test runs.
fn answering() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            // What comes fits into one read; a connection that says nothing is a probe.
            if stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        }
    });
    address
}

fn changed(settings: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(settings.to_owned(), |settings, (from, to)| {
        assert!(settings.contains(from), "{from} is not in our file");
        settings.replace(from, to)
    })
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let file = directory.join(name);
    fs::write(&file, text).expect("write a file");
    file
}

fn ask(proxy: SocketAddr) -> u16 {
    Client::new(proxy).post(&format!("/v1/events/shut/{KEY}"), FORM, b"event=ONAPPTEST").expect("an answer").status
}

struct Proxy {
    process: Child,
    log: PathBuf,
    _guard: Guard,
}

impl Proxy {
    fn start(address: SocketAddr, command: &mut Command, directory: &Path) -> Self {
        let log = directory.join("log");
        let out = File::create(&log).expect("a log");
        let err = out.try_clone().expect("share the log");
        let process = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect("start the proxy");
        let guard = Guard::watch(process.id(), None).expect("watch it");
        let mut proxy = Self { process, log, _guard: guard };
        eventually(UP_WITHIN, "the proxy listens", || {
            let ended = proxy.process.try_wait().expect("look at the proxy");
            assert!(ended.is_none(), "the proxy ended:\n{}", proxy.log());
            TcpStream::connect(address).ok()
        });
        proxy
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("read the log")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.process.kill().expect("end the proxy");
        self.process.wait().expect("wait for its end");
    }
}
