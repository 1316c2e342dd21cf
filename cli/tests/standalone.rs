//! `hookledger standalone` as a person runs it: what it checks, and what it says.

use std::process::Command;

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
