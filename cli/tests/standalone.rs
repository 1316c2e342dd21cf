//! `hookledger standalone` as a person runs it: what it checks, and what it says.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

#[test]
fn a_check_refuses_what_a_start_refuses() {
    let check = |more: &[&str]| {
        let dir = TempDir::new().expect("a directory");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookledger"));
        command.args(["standalone", "--check-config", "--data-dir"]).arg(dir.path().join("data")).args(more);
        let ended = command.output().expect("run hookledger");
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    assert_eq!(check(&[]).0, Some(0));
    let enforced = ["--apps", "a", "--source-check", "enforce", "--source-list", "/missing.json"];
    let proxied = [&enforced[..], &["--trusted-proxies", "127.0.0.1", "--query-tokens", "0123456789abcdef"]].concat();
    for (settings, reason) in [
        (&["--tls-cert-file", "/missing.pem", "--tls-key-file", "/missing.pem"][..], "/missing.pem"),
        (&enforced[..], "--trusted-proxies"),
        (&proxied[..], "read the source list /missing.json"),
    ] {
        let (code, said) = check(settings);
        assert!(code != Some(0) && said.contains(reason), "{settings:?}: {code:?}, {said}");
    }
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_hint_names_the_ports_that_were_bound() {
    let dir = TempDir::new().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookledger"));
    command.args(["standalone", "--apps", "crm-sync", "--data-dir"]).arg(dir.path().join("data"));
    for port in ["--ingress-listen", "--query-listen", "--admin-listen"] {
        command.args([port, "127.0.0.1:0"]);
    }
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started"));
    let said = BufReader::new(running.0.stdout.take().expect("piped"));
    let hint = said.lines().map_while(Result::ok).find(|line| line.contains("hookledger send")).expect("a hint");
    assert!(hint.contains("--app crm-sync"), "{hint}");
    for flag in ["--to http://", "--query http://"] {
        let address = hint.split_once(flag).and_then(|(_, rest)| rest.split_whitespace().next()).expect(flag);
        let address: SocketAddr = address.parse().expect("an address");
        TcpStream::connect(address).unwrap_or_else(|error| panic!("{flag}{address}: {error}"));
    }
}
