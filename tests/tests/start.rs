//! What `docs/start.md` says about a handler that goes on receiving: it does, and Hookledger gets what it got.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portal_sim::player::{Player, Step};
use tempfile::TempDir;
use tests::cluster::Standalone;
use tests::http::{Client, FORM};
use tests::wait::{eventually, not_run};

const WITHIN: Duration = Duration::from_secs(60);
/// Notes what it got: the query and the body.
const HANDLER: &str = "file_put_contents(__DIR__ . '/got', $_SERVER['QUERY_STRING'] . ' ' . file_get_contents('php://input') . \"\\n\", FILE_APPEND);";

/// A program that serves until it is dropped.
struct Served {
    child: Child,
    directory: TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that has ended needs no ending.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(mut command: Command, directory: TempDir, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        let served = Self { child, directory };
        eventually(WITHIN, "it listens", || TcpStream::connect(address).ok().map(drop));
        served
    }

    fn php(code: &str) -> (Self, SocketAddr) {
        let (directory, address) = (tempfile::tempdir().expect("a directory"), free_port());
        fs::write(directory.path().join("handler.php"), code).expect("written");
        let mut command = Command::new("php");
        command.arg("-S").arg(address.to_string()).arg("-t").arg(directory.path());
        (Self::start(command, directory, address), address)
    }

    fn got(&self) -> String {
        fs::read_to_string(self.directory.path().join("got")).unwrap_or_default()
    }
}

/// One that was free a moment ago: neither server takes a socket or tells its port.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// The block of this language in the page, with the addresses of this test.
fn block(language: &str, addresses: &[(&str, String)]) -> String {
    let page: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/start.md");
    let page = fs::read_to_string(page).expect("a page");
    let code = page.split(&format!("```{language}\n")).nth(1).expect("code").split("```").next().expect("its end");
    addresses.iter().fold(code.to_owned(), |code, (shown, real)| {
        assert!(code.contains(shown), "{shown} is not in {code}");
        code.replace(shown, real)
    })
}

fn has(program: &str, version: &str, test: &str) -> bool {
    let found = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        not_run(test, &format!("there is no {program}"));
    }
    found
}

/// Events of a portal go to the handler at this address, and are in Hookledger with their query.
fn is_copied(handler: SocketAddr, got: impl Fn() -> String, standalone: &Standalone) {
    let mut portal = Player::new("crm-sync", 1);
    let mut client = Client::new(handler);
    let bodies: Vec<_> = [Step::Install, Step::PassedOn].map(|step| portal.webhook(step).body).into();
    for (number, body) in (0..).zip(&bodies) {
        let answer = client.post(&format!("/handler.php?number={number}"), FORM, body).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let bodies = bodies.iter().map(|body| std::str::from_utf8(body).expect("a form"));
    let expected: Vec<String> = (0..).zip(bodies).map(|(number, body)| format!("number={number} {body}")).collect();
    assert_eq!(got().lines().collect::<Vec<_>>(), expected, "the handler gets everything as before");
    eventually(WITHIN, "the copies are events", || {
        let events = standalone.process.queries().get("/v1/feed").expect("an answer").json();
        let queries: Vec<&str> =
            events["events"].as_array()?.iter().filter_map(|it| it["query"]["number"].as_str()).collect();
        (queries == ["0", "1"]).then_some(())
    });
}

#[test]
fn a_handler_in_php_copies_what_it_gets() {
    if !has("php", "--version", "a_handler_in_php_copies_what_it_gets") {
        return;
    }
    let mut standalone = Standalone::start();
    let hookledger = standalone.process.address("webhooks").to_string();
    let code = block("php", &[("127.0.0.1:8080", hookledger)]);
    let (php, address) = Served::php(&format!("{code}{HANDLER}"));
    is_copied(address, || php.got(), &standalone);
    standalone.process.kill9();
    let answer = Client::new(address).post("/handler.php?alone", FORM, b"event=ONX").expect("an answer");
    assert_eq!(answer.status, 200, "a handler does not need it");
    assert!(php.got().ends_with("alone event=ONX\n"), "{}", php.got());
}

#[test]
fn nginx_copies_what_a_handler_gets() {
    let test = "nginx_copies_what_a_handler_gets";
    if !has("php", "--version", test) || !has("nginx", "-v", test) {
        return;
    }
    let standalone = Standalone::start();
    let (php, handler) = Served::php(&format!("<?php {HANDLER}"));
    let hookledger = standalone.process.address("webhooks").to_string();
    let block = block("nginx", &[("127.0.0.1:8080", hookledger), ("127.0.0.1:8000", handler.to_string())]);
    let (directory, address) = (tempfile::tempdir().expect("a directory"), free_port());
    let here = directory.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {here}/{name};\n"))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {here}/pid; error_log {here}/error;\nevents {{}}\nhttp {{ access_log off;\n\
         {temporary}server {{ listen {address};\n{block}}}\n}}\n"
    );
    fs::write(directory.path().join("nginx.conf"), config).expect("written");
    let mut command = Command::new("nginx");
    command.arg("-e").arg(directory.path().join("error")).arg("-c").arg(directory.path().join("nginx.conf"));
    let nginx = Served::start(command, directory, address);
    is_copied(address, || php.got(), &standalone);
    drop(nginx);
}
