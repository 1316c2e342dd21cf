//! What a server says never commands the terminal that a person reads it on.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;

use serde_json::{Value, json};

/// Orders to a terminal, a line of its own, letters that run backwards, and nothing at all.
const HOSTILE: &str = "a\x1b[2J\u{9b}31m\u{7f}\r\nAll is well.\u{202e}moc\u{200b}\u{2066}\u{e0041}";

/// Runs a command against a server that answers every question so.
fn ask(arguments: &[&str], status: &'static str, document: &Value) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let body = document.to_string();
    // It ends with the test's process: how many connections there will be is the command's business.
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let mut request = BufReader::new(client.try_clone().expect("a second hand"));
            let mut line = String::new();
            while request.read_line(&mut line).is_ok_and(|read| read > 0) {
                if line == "\r\n" {
                    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = client.write_all((head + &body).as_bytes());
                }
                line.clear();
            }
        }
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookledger"));
    command.args(arguments).args(["--query", &url]).env_remove("HOOKLEDGER_QUERY_TOKEN");
    command.output().expect("run hookledger")
}

fn is_harmless(output: &[u8]) -> String {
    let text = String::from_utf8(output.to_vec()).expect("text");
    assert_eq!(primitives::plain::lines(&text), text, "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("All is well.")), "it made a line of its own: {text}");
    text
}

#[test]
fn whatever_a_server_says_is_shown_and_not_obeyed() {
    const MEMBER: &str = "a223c6b3710f85df22e9377d6c4f7553";
    let record = json!({
        "app": "crm-sync", "member_id": MEMBER, "status": "installed", "domain": HOSTILE, "scope": [HOSTILE],
        "trusted": { HOSTILE: HOSTILE }, "items": [{ "domain": HOSTILE, "method": HOSTILE, "type": HOSTILE }],
        "next": HOSTILE, "decision": "granted", "reason": HOSTILE,
    });
    let check = ["check", "crm-sync", MEMBER, "user.get", "--token-fingerprint", &"0".repeat(64)];
    for arguments in [&["show", "crm-sync", MEMBER][..], &["history", "crm-sync", MEMBER], &["installations"], &check] {
        let mut record = record.clone();
        if arguments[0] == "history" {
            // It would be followed.
            record["next"] = Value::Null;
        }
        let plain = ask(arguments, "200 OK", &record);
        assert!(plain.status.success(), "{arguments:?}: {plain:?}");
        let shown = is_harmless(&plain.stdout) + &is_harmless(&plain.stderr);
        assert!(shown.contains("moc"), "{arguments:?} shows it: {shown}");

        let json = ask(&[arguments, &["--json"]].concat(), "200 OK", &record);
        let document: Value = serde_json::from_str(&is_harmless(&json.stdout)).expect("JSON");
        assert!(document.to_string().contains("moc"), "{arguments:?}: {document}");

        let problem = json!({ "title": HOSTILE, "detail": HOSTILE });
        let refused = ask(arguments, "500 Internal Server Error", &problem);
        assert!(is_harmless(&refused.stderr).contains("moc"), "{refused:?}");
    }
}
