//! The binary against a server that plays ingress and query API: what is sent, what is said, how it ends.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use bitrix24::form::Form;
use primitives::secret::Fingerprint;
use serde_json::{Value, json};
use tempfile::TempDir;

use server::{Answer, Request, Server};

#[path = "commands/rejected.rs"]
mod rejected;
#[path = "commands/server.rs"]
mod server;

const ID: &str = "0199a2b4-7c30-7000-8000-000000000001";
const MEMBER: &str = "a223c6b3710f85df22e9377d6c4f7553";

#[test]
fn an_event_is_sent_as_bitrix24_sends_it_and_a_promise_is_success() {
    let server = Server::start(|_| promise());
    let ended = run(&["send", "install", "--to", &server.url, "--app", "crm-sync", "--member", MEMBER]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains(ID) && ended.stdout.contains("kept by disk"), "{ended:?}");

    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].line, "POST /v1/events/crm-sync HTTP/1.1");
    assert_eq!(requests[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    let form = Form::parse(&requests[0].body);
    assert_eq!(form.text("event"), Some("ONAPPINSTALL"));
    assert_eq!(form.text("auth[member_id]"), Some(MEMBER));
    let token = form.text("auth[application_token]").expect("a token");
    assert!(!ended.stdout.contains(token), "the token is shown");
}

#[test]
fn every_kind_of_event_can_be_sent_in_both_encodings() {
    let kinds = [
        ("install", "ONAPPINSTALL"),
        ("update", "ONAPPUPDATE"),
        ("uninstall", "ONAPPUNINSTALL"),
        ("payment", "ONAPPPAYMENT"),
        ("method-confirm", "ONAPPMETHODCONFIRM"),
        ("user-ready", "ONAPPUSERREADY"),
        ("contact-add", "ONCRMCONTACTADD"),
        ("contact-update", "ONCRMCONTACTUPDATE"),
        ("deal-update", "ONCRMDEALUPDATE"),
        ("user-add", "ONUSERADD"),
        ("offline", "ONOFFLINEEVENT"),
        ("test", "ONAPPTEST"),
    ];
    let server = Server::start(|_| promise());
    for (kind, _) in kinds {
        for encoding in [&[][..], &["--json"]] {
            let ended = run(&[&["send", kind, "--to", &server.url, "--ts", "1696527000"], encoding].concat());
            assert_eq!(ended.code, 0, "{kind}: {ended:?}");
        }
    }
    for (pair, (_, name)) in server.requests().chunks(2).zip(kinds) {
        let [form, json] = pair else { panic!("two requests for {name}") };
        assert_eq!(json.header("content-type"), Some("application/json"));
        assert!(json.body.starts_with(b"{"));
        for request in [form, json] {
            let form = Form::parse(&request.body);
            assert_eq!(form.text("event"), Some(name));
            assert_eq!(form.text("ts"), Some("1696527000"));
        }
    }
}

#[test]
fn an_answer_that_promises_nothing_is_a_failure() {
    let answers = [
        Answer::new(503, &json!({"title": "storage-unavailable", "detail": "the disk is full", "status": 503})),
        Answer::new(200, &json!({"ok": true})),
        Answer::new(200, &json!({"id": ID, "kept": "memory"})),
    ];
    for answer in answers {
        let server = Server::start(move |_| answer.clone());
        let ended = run(&["send", "install", "--to", &server.url]);
        assert_eq!(ended.code, 1, "{ended:?}");
    }
}

#[test]
fn a_server_that_is_away_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    drop(listener);
    for arguments in [
        &["send", "install", "--to", &url][..],
        &["send", "load", "--events", "2", "--connections", "1", "--to", &url],
        &["installations", "--query", &url],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, 1, "{ended:?}");
    }
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["send"],
        &["send", "install", "--nonsense"],
        &["send", "install", "--app", "Not An App"],
        &["send", "install", "--member", "a/b"],
        &["send", "install", "--to", "https://example.com"],
        &["send", "install", "--to", "example.com"],
        &["send", "file", "/nonexistent/body.form"],
        &["send", "load", "--rate", "0"],
        &["send", "load", "--duration", "ten seconds"],
        &["show", "crm-sync"],
        &["show", "crm-sync", "a b"],
        &["check", "crm-sync", MEMBER, "user.get", "--token-fingerprint", "abc"],
        &["check", "crm-sync", MEMBER, "user.get"],
        &["installations", "--status", "gone"],
        &["installations", "--query-token-file", "/nonexistent/token"],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?} ends without a word");
    }
}

#[test]
fn help_is_no_failure() {
    for arguments in [&["--help"][..], &["--version"], &["send", "load", "--help"], &["check", "--help"]] {
        let ended = run(arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&["completions", shell]);
        assert!(ended.code == 0 && ended.stdout.contains("redrive"), "{shell}: {ended:?}");
    }
    let ended = run(&["completions", "bash"]);
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().expect("bash");
    bash.stdin.take().expect("its input").write_all(ended.stdout.as_bytes()).expect("written");
    assert!(bash.wait().expect("an end").success(), "bash does not take it");

    let directory = TempDir::new().expect("a directory");
    let to = directory.path().join("man1");
    assert_eq!(run(&["man", &to.display().to_string()]).code, 0);
    for (page, text) in
        [("hookledger.1", "import"), ("hookledger-import.1", "portals.csv"), ("hookledger-rejected-redrive.1", "raw")]
    {
        let written = fs::read_to_string(to.join(page)).expect(page);
        assert!(written.starts_with(".ie") && written.contains(text), "{page}: {written}");
    }
    assert_eq!(run(&["man", "/proc/version/man"]).code, 1);
}

#[test]
fn a_recorded_body_is_sent_as_it_is() {
    let server = Server::start(|request| {
        if Form::scan(&request.body).says_something() {
            promise()
        } else {
            Answer::new(400, &json!({"title": "not an event", "detail": "neither event nor member_id", "id": ID}))
        }
    });
    let directory = TempDir::new().expect("a directory");
    let file = |name: &str, body: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, body).expect("write");
        path.display().to_string()
    };
    let bodies: [(&str, &[u8], &str); 3] = [
        ("install.form", b"event=ONAPPINSTALL&auth[member_id]=a223&x=%00%ff", "application/x-www-form-urlencoded"),
        ("install.json", br#"{"event":"ONAPPINSTALL","auth":{"member_id":"a223"}}"#, "application/json"),
        ("nothing.txt", b"hello=world", "application/x-www-form-urlencoded"),
    ];
    for (name, body, content_type) in bodies {
        let ended = run(&["send", "file", &file(name, body), "--to", &server.url]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let request = server.requests().pop().expect("a request");
        assert_eq!(request.body, body);
        assert_eq!(request.header("content-type"), Some(content_type));
    }
    let ended = run(&["send", "file", &file("nothing.txt", b"hello=world"), "--expect", "200", "--to", &server.url]);
    assert_eq!(ended.code, 1, "{ended:?}");
}

#[test]
fn load_counts_what_it_was_answered() {
    let server = Server::start(|_| promise());
    let load = ["send", "load", "--events", "200", "--connections", "4", "--portals", "10", "--summary-json"];
    let ended = run(&[&load[..], &["--to", &server.url]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    let summary: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(summary["sent"], 200);
    assert_eq!(summary["kept"], json!({"kafka": 0, "disk": 200}));
    assert_eq!(server.requests().len(), 200);
}

#[test]
fn load_with_a_wrong_answer_is_a_failure() {
    let server = Server::start(|request| {
        if request.body.starts_with(b"event=ONAPPINSTALL&") {
            promise()
        } else {
            Answer::new(503, &json!({"title": "storage-unavailable"}))
        }
    });
    let load = ["send", "load", "--events", "20", "--connections", "1", "--portals", "5", "--rate", "1000"];
    let ended = run(&[&load[..], &["--to", &server.url]].concat());
    assert_eq!(ended.code, 1, "{ended:?}");
    let lines: Vec<Vec<&str>> = ended.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(lines.contains(&vec!["answered", "503", "15"]), "{}", ended.stdout);
    assert!(lines.contains(&vec!["kept", "on", "disk", "5"]), "{}", ended.stdout);
}

#[test]
fn a_permission_is_an_exit_code_and_the_token_stays_at_home() {
    let token = "s6p6eclrvim6da22ft9ch94ekreb52lv";
    let fingerprint = Fingerprint::of(token).to_string();
    let answers = [
        (json!({"decision": "granted", "until": "2026-11-22T19:00:00Z"}), 0, "granted until 2026-11-22T19:00:00Z\n"),
        (json!({"decision": "denied", "reason": "refused"}), 3, "denied: refused\n"),
        (json!({"decision": "unanswered", "reason": "no-answer-yet"}), 4, "unanswered: no-answer-yet\n"),
        (json!({"decision": "maybe"}), 1, ""),
    ];
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("token");
    fs::write(&file, format!("{token}\n")).expect("write");
    let file = file.display().to_string();
    for (answer, code, line) in answers {
        let server = Server::start(move |_| Answer::new(200, &answer));
        let check = ["check", "crm-sync", MEMBER, "voximplant.user.get", "--query", &server.url];
        let ways = [
            run_with(&check, &format!("{token}\n"), &[]),
            run(&[&check[..], &["--token-file", &file]].concat()),
            run(&[&check[..], &["--token-fingerprint", &fingerprint]].concat()),
        ];
        for ended in ways {
            assert_eq!((ended.code, ended.stdout.as_str()), (code, line), "{ended:?}");
        }
        for request in server.requests() {
            let asked: Value = serde_json::from_slice(&request.body).expect("JSON");
            let question = json!({"app": "crm-sync", "member_id": MEMBER, "method": "voximplant.user.get",
                "token_fingerprint": fingerprint});
            assert_eq!((request.line.as_str(), asked), ("POST /v1/check HTTP/1.1", question));
        }
    }
}

#[test]
fn problems_are_told_and_end_as_exit_codes() {
    let problems = [
        (404, "unknown installation", 3),
        (404, "no such page", 1),
        (504, "not yet", 4),
        (503, "not open", 4),
        (401, "unauthorised", 1),
        (400, "malformed question", 2),
    ];
    for (status, title, code) in problems {
        let server = Server::start(move |_| Answer::new(status, &json!({"title": title, "detail": "such is life"})));
        let ended = run(&["show", "crm-sync", MEMBER, "--query", &server.url, "--after", ID, "--wait", "1s"]);
        assert_eq!(ended.code, code, "{title}: {ended:?}");
        assert!(ended.stderr.contains(title) && ended.stderr.contains("such is life"), "{ended:?}");
        let asked = format!("GET /v1/installations/crm-sync/{MEMBER}?after={ID}&wait=1s HTTP/1.1");
        assert_eq!(server.requests()[0].line, asked);
    }
}

#[test]
fn the_bearer_token_is_sent_and_never_shown() {
    let server = Server::start(|request| match request.header("authorization") {
        Some("Bearer hidden-token") => Answer::new(200, &json!({"items": [], "next": null})),
        _ => Answer::new(401, &json!({"title": "unauthorised", "detail": "a bearer token is needed"})),
    });
    let ask = ["installations", "--query", &server.url];
    assert_eq!(run_with(&ask, "", &[("HOOKLEDGER_QUERY_TOKEN", "hidden-token")]).code, 0);
    let refused = run_with(&ask, "", &[("HOOKLEDGER_QUERY_TOKEN", "wrong-token")]);
    assert_eq!(refused.code, 1);
    assert!(!refused.stderr.contains("wrong-token") && refused.stderr.contains("--query-token-file"), "{refused:?}");
}

#[test]
fn a_token_is_verified_by_an_exit_code_and_never_shown() {
    let dir = TempDir::new().expect("a directory");
    let (token, empty) = (dir.path().join("token"), dir.path().join("empty"));
    fs::write(&token, "hidden-token\n").expect("written");
    fs::write(&empty, "\n").expect("written");
    let file = token.to_str().expect("a plain path");
    for (verified, code, said) in [
        (json!(true), 0, "yes: trusted, first-install"),
        (json!(false), 3, "no: trusted, first-install"),
        (json!(null), 4, "not known: trusted, first-install"),
    ] {
        let answer = json!({"verified": verified, "basis": "first-install", "reason": "trusted"});
        let server = Server::start(move |_| Answer::new(200, &answer));
        let ask = ["verify-token", "crm-sync", MEMBER, "--query", &server.url, "--token-file", file];
        let ended = run(&ask);
        assert_eq!((ended.code, ended.stdout.trim_end()), (code, said), "{ended:?}");
        assert!(!format!("{ended:?}").contains("hidden-token"));
        let request = &server.requests()[0];
        assert_eq!(request.line, "POST /v1/verify HTTP/1.1");
        let sent: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(sent["application_token"], "hidden-token");
        assert_eq!(run(&[&ask[..6], &[empty.to_str().expect("a plain path")]].concat()).code, 2);
    }
}

#[test]
fn principals_are_listed_for_one_portal_or_all_of_an_app() {
    let server = Server::start(|request| {
        let principal = |held: u64| json!({"principal": "ab", "trusted": true, "basis": null, "held_events": held});
        let document = if request.line.contains("/a/principals") {
            json!({"items": [principal(1), principal(2)], "next": null})
        } else if request.line.contains("/b/principals") {
            json!({"items": [principal(3)], "next": null})
        } else {
            json!({"items": [{"member_id": "a"}, {"member_id": "b"}], "next": "crm-sync/b"})
        };
        Answer::new(200, &document)
    });
    let list = |more: &[&str]| run(&[&["trust", "list", "crm-sync", "--query", &server.url], more].concat());
    let rows = |ended: &Ended| {
        ended
            .stdout
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let one = list(&["b"]);
    assert_eq!((one.code, rows(&one)), (0, vec!["b ab true - - - - 3".to_owned()]), "{one:?}");
    let all = list(&[]);
    assert_eq!(rows(&all), ["a ab true - - - - 1", "a ab true - - - - 2", "b ab true - - - - 3"], "{all:?}");
    assert!(all.stderr.contains("--cursor crm-sync/b"), "{all:?}");
}

#[test]
fn a_list_is_filtered_by_the_server() {
    let server = Server::start(|_| Answer::new(200, &json!({"items": [], "next": null})));
    let ask = ["installations", "--query", &server.url, "--domain", "A.example", "--unfinished", "--silent-for", "1d"];
    let ended = run(&[&ask[..], &["--updated-since", "2026-01-31T10:00:00Z"]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    let line = &server.requests()[0].line;
    for asked in ["domain=A.example", "unfinished=true", "silent_for=1d", "updated_since=2026-01-31T10%3A00%3A00Z"] {
        assert!(line.contains(asked), "{asked}: {line}");
    }
}

#[test]
fn a_list_is_read_page_by_page() {
    let server = Server::start(|request| {
        let item = |member: &str| json!({"app": "crm-sync", "member_id": member, "status": "installed", "since": null});
        Answer::new(
            200,
            &if request.line.contains("cursor=crm-sync%2Fa") {
                json!({"items": [item("b")], "next": null})
            } else {
                json!({"items": [item("a")], "next": "crm-sync/a"})
            },
        )
    });
    let ended = run(&["installations", "--app", "crm-sync", "--query", &server.url]);
    let lines: Vec<Vec<&str>> = ended.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(lines[1], ["crm-sync", "a", "installed", "-", "-", "-"]);
    assert_eq!(lines[2], ["crm-sync", "b", "installed", "-", "-", "-"]);

    let ended = run(&["installations", "--limit", "1", "--json", "--query", &server.url]);
    let document: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!((document["items"].as_array().map(Vec::len), &document["next"]), (Some(1), &json!("crm-sync/a")));
}

#[test]
fn a_life_is_compared_with_what_is_known_of_it() {
    for forgetful in [false, true] {
        let server = Server::start_with(Value::Null, move |known, request| play(known, request, forgetful));
        let life = ["send", "life", "--member", MEMBER, "--to", &server.url, "--query", &server.url];
        let ended = run(&life);
        assert_eq!(ended.code, i32::from(forgetful), "{ended:?}");
        assert_eq!(ended.stdout.contains("status should be uninstalled"), forgetful, "{ended:?}");
        let sent = server.requests().iter().filter(|request| request.line.starts_with("POST /v1/events/")).count();
        assert_eq!(sent, 9);
    }
}

/// A query API with just enough memory for one portal; a forgetful one overhears the uninstall.
fn play(known: &mut Value, request: &Request, forgetful: bool) -> Answer {
    let path = request.line.split(' ').nth(1).expect("a path");
    if path.starts_with("/v1/events/") {
        let form = Form::parse(&request.body);
        let text = |name: &str| form.text(name).unwrap_or_default().to_owned();
        match text("event").as_str() {
            "ONAPPINSTALL" | "ONAPPUPDATE" => {
                known["status"] = json!("installed");
                known["version"] = json!(text("data[VERSION]"));
            }
            "ONAPPPAYMENT" => known["licence"] = json!(text("data[STATUS]")),
            "ONAPPMETHODCONFIRM" => known["methods"][text("data[METHOD]")] = json!(text("data[CONFIRMED]")),
            "ONAPPUNINSTALL" if !forgetful => known["status"] = json!("uninstalled"),
            _ => {}
        }
        return promise();
    }
    if path == "/v1/check" {
        let question: Value = serde_json::from_slice(&request.body).expect("JSON");
        let method = question["method"].as_str().expect("a method");
        let decision = match (known["status"].as_str(), known["methods"][method].as_str()) {
            (Some("installed"), None) => "unanswered",
            (Some("installed"), Some("1")) => "granted",
            _ => "denied",
        };
        return Answer::new(200, &json!({"decision": decision}));
    }
    assert_eq!(path, format!("/v1/installations/my-app/{MEMBER}?after={ID}&wait=5s"));
    Answer::new(200, known)
}

fn promise() -> Answer {
    Answer::new(200, &json!({"id": ID, "kept": "disk"}))
}

#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, "", &[])
}

fn run_with(arguments: &[&str], stdin: &str, environment: &[(&str, &str)]) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookledger"))
        .args(arguments)
        .env_remove("HOOKLEDGER_QUERY")
        .env_remove("HOOKLEDGER_QUERY_TOKEN")
        .env_remove("HOOKLEDGER_QUERY_TOKEN_FILE")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start hookledger");
    // A command that reads no stdin may have gone already.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("wait for hookledger");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended {
        code: output.status.code().expect("an exit code"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
