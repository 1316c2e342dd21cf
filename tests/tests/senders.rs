//! Who may send: addresses behind proxies, Bitrix24's list of senders, budgets for junk, and keys in paths.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use portal_sim::player::{Player, Step};
use serde_json::Value;
use tempfile::TempDir;
use tests::cluster::Names;
use tests::http::{Client, FORM};
use tests::kafka;
use tests::process::{Process, Program, run};
use tests::topics::{Found, Isolation};
use tests::wait::eventually;

/// Who connects; only the first is a trusted proxy where one is.
const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a form that faces the internet through a proxy has to be told.
const PROXIED: [&str; 6] =
    ["--trusted-proxies", "127.0.0.1", "--apps", "crm-sync", "--query-tokens", "f0e1d2c3b4a5968778695a4b3c2d1e0f"];

const LISTED: &str = "3.217.33.54";
const UNLISTED: &str = "203.0.113.9";

/// A thread has to look, and two cores are shared.
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn only_trusted_proxies_are_trusted_with_the_sender_of_an_event() {
    let Some(servers) = kafka::shared("only_trusted_proxies_are_trusted_with_the_sender_of_an_event") else { return };
    let names = Names::new(servers);
    let ingress =
        names.start(Program::Ingress, "ingress", &["--trusted-proxies", "127.0.0.1, 10.0.0.0/8", "--apps", "crm-sync"]);
    ingress.ready();
    let cases: [(Ipv4Addr, &[&str], &str); 9] = [
        (PROXY, &[], "127.0.0.1"),
        (PROXY, &[LISTED], LISTED),
        (PROXY, &["1.1.1.1, 3.217.33.54, 10.0.0.7"], LISTED),
        (PROXY, &["1.1.1.1", "3.217.33.54:4711", "10.0.0.7"], LISTED),
        (PROXY, &["[2001:db8::1]:443"], "2001:db8::1"),
        (PROXY, &["::ffff:3.217.33.54"], LISTED),
        (PROXY, &["3.217.33.54, unknown"], "127.0.0.1"),
        (STRANGER, &[LISTED], "127.0.0.2"),
        (STRANGER, &["127.0.0.1", LISTED], "127.0.0.2"),
    ];
    for (number, (from, forwarded, _)) in (0..).zip(&cases) {
        let mut client = client(&ingress, *from, forwarded);
        let webhook = Player::new("crm-sync", number).webhook(Step::Install);
        let answer = client.post(&webhook.path(), webhook.content_type, &webhook.body).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let raw = eventually(WITHIN, "all events in raw", || {
        let raw = names.read("raw", Isolation::Uncommitted);
        (raw.len() >= cases.len()).then_some(raw)
    });
    for (number, (from, forwarded, expected)) in (0..).zip(&cases) {
        let key = Player::new("crm-sync", number).key();
        let found: Vec<_> = raw.iter().filter(|record| record.key.as_deref() == Some(&key)).collect();
        let sources: Vec<_> = found.iter().map(|record| record.header("hl_source_address")).collect();
        assert_eq!(sources, [Some(*expected)], "{from} says {forwarded:?}");
    }
}

#[test]
fn who_is_refused_is_kept_in_raw_and_folded_nowhere() {
    let Some(servers) = kafka::shared("who_is_refused_is_kept_in_raw_and_folded_nowhere") else { return };
    let names = Names::new(servers);
    let list = List::new(LISTED);
    let mut settings = enforce(&list.path());
    settings.extend(["--trusted-proxies".into(), PROXY.to_string(), "--apps".into(), "crm-sync".into()]);
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let ingress = names.start(Program::Ingress, "ingress", &settings);
    let processor = names.start(Program::Processor, "processor", &[]);
    ingress.ready();
    processor.ready();

    let (genuine, forged) = (Player::new("crm-sync", 1), Player::new("crm-sync", 2));
    let post = |portal: &Player, sender| {
        let webhook = portal.clone().webhook(Step::Install);
        let answer = client(&ingress, PROXY, &[sender]).post(&webhook.path(), webhook.content_type, &webhook.body);
        let answer = answer.expect("an answer");
        (answer.status, answer.json()["id"].as_str().map(str::to_owned))
    };
    let (status, refused) = post(&forged, UNLISTED);
    assert_eq!(status, 403);
    let refused = refused.expect("it is kept");
    let (status, taken) = post(&genuine, LISTED);
    assert_eq!(status, 200);

    // Both are read, each in its partition: the one is known, the other one set aside.
    let ask = |portal: &Player| processor.queries().get(&format!("/v1/installations/{}", portal.key()));
    eventually(WITHIN, "the genuine install", || ask(&genuine).ok().filter(|answer| answer.status == 200));
    let label = "unknown_source";
    eventually(WITHIN, "the forged one is set aside", || {
        processor.metric("hookledger_processor_rejected_total", label).filter(|count| *count > 0.0)
    });
    assert_eq!(ask(&forged).expect("an answer").status, 404);
    let id = |record: &Found| record.header("ce_id").map(str::to_owned);
    let raw = names.read("raw", Isolation::Uncommitted);
    let mark = |id: &str| {
        let found = raw.iter().find(|record| record.header("ce_id") == Some(id)).expect("it is in raw");
        (found.header("hl_unknown_source"), found.header("hl_source_address"))
    };
    assert_eq!(mark(&refused), (Some("1"), Some(UNLISTED)));
    assert_eq!(mark(&taken.expect("an id")), (None, Some(LISTED)));
    let rejected = names.read("rejected", Isolation::Committed);
    let reasons: Vec<_> = rejected.iter().map(|record| (id(record), record.header("hl_reason"))).collect();
    assert_eq!(reasons, [(Some(refused), Some(label))]);
    for topic in ["facts", "events", "unverified", "installations"] {
        let found = names.read(topic, Isolation::Committed);
        assert!(found.iter().all(|record| !record.key.as_deref().unwrap_or_default().contains(&forged.key())));
    }
}

#[test]
fn strangers_are_counted_and_taken_while_we_only_observe() {
    let list = List::new(&format!("{{\"nodes\":[\"{LISTED}\",\"52.29.163.104\"]}}"));
    let path = list.path();
    let server = Server::start(&[&["--source-check", "observe", "--source-list", &path], &PROXIED[..]].concat());
    assert_eq!(server.post_from(LISTED), (200, None));
    assert_eq!(server.post_from(UNLISTED), (200, None));
    assert_eq!(server.post_from(UNLISTED), (200, None));
    assert_eq!(server.verdicts(), [Some(1.0), Some(2.0), Some(0.0)]);
    assert_eq!(server.process.metric("hookledger_source_list_addresses", ""), Some(2.0));
    let logs = server.process.logs();
    assert_eq!(logs.matches("not in the source list").count(), 1, "once, not a flood");
    assert!(logs.contains(UNLISTED), "it is said who it was");
}

#[test]
fn a_list_in_a_file_is_enforced_as_it_changes_and_a_bad_one_changes_nothing() {
    let list = List::new(LISTED);
    let server = Server::start_owned(&enforce(&list.path()));
    assert_eq!(server.post_from(LISTED).0, 200);
    let (status, kept) = server.post_from(UNLISTED);
    assert!(status == 403 && kept.is_some(), "refused and kept aside: {status} {kept:?}");
    let at_the_door = |from, forwarded: &[&str]| post(&mut client(&server.process, from, forwarded), BODY).0;
    assert_eq!(at_the_door(STRANGER, &[LISTED]), 403, "a stranger is not trusted with its own address");
    assert_eq!(at_the_door(PROXY, &["3.217.33.54, oops"]), 403, "nor is a list that cannot be read");

    let two = format!("# two now\n{LISTED}\n203.0.113.0/24\n");
    list.write(&two);
    server.has_addresses(2.0);
    assert_eq!(server.post_from(UNLISTED), (200, None));

    for (round, bad) in (1..).zip(["", "garbage", "{\"nodes\":[]}", "3.217.33.54\n1.2.3"]) {
        list.write(bad);
        server.has_told("cannot be had", round);
        assert_eq!((server.post_from(UNLISTED).0, server.post_from("198.51.100.1").0), (200, 403), "{bad}");
        list.write(&two);
        server.has_told("is good again", round);
    }
    fs::remove_file(list.path()).expect("removed");
    assert_eq!((server.post_from(UNLISTED).0, server.post_from("198.51.100.1").0), (200, 403));

    list.write(LISTED);
    server.has_addresses(1.0);
    assert_eq!((server.post_from(LISTED).0, server.post_from(UNLISTED).0), (200, 403));
    assert_eq!(server.process.metric("hookledger_ingress_events_total", "unknown_source"), Some(9.0));
}

#[test]
fn a_list_on_the_web_refuses_nobody_until_it_is_there_and_then_survives_its_server() {
    let web = Web::start("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n");
    let server = Server::start_owned(&enforce(&web.url()));
    server.has_told("there is no source list", 1);
    server.has_told("is read without TLS", 1);
    assert_eq!((server.post_from(LISTED).0, server.post_from(UNLISTED).0), (200, 200));
    assert_eq!(server.verdicts(), [Some(0.0), Some(0.0), Some(2.0)]);
    assert_eq!(server.process.metric("hookledger_source_list_addresses", ""), Some(0.0));

    web.answer_list(&format!("{{\"nodes\":[\"{LISTED}\"]}}"));
    server.has_addresses(1.0);
    assert_eq!((server.post_from(LISTED).0, server.post_from(UNLISTED).0), (200, 403));

    for bad in [
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 28\r\n\r\n<html>Please log in</html>\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"nodes\":[]}",
        "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"nodes\":[\"203.0.113.9\"]",
        "HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n",
        "",
    ] {
        web.answer(bad);
        web.is_asked_again();
        assert_eq!((server.post_from(LISTED).0, server.post_from(UNLISTED).0), (200, 403), "{bad}");
    }
    eventually(WITHIN, "its age grows", || {
        server.process.metric("hookledger_source_list_age_seconds", "").filter(|age| *age > 2.0)
    });

    web.answer_list(&format!("[\"{LISTED}\", \"{UNLISTED}\"]"));
    server.has_addresses(2.0);
    assert_eq!(server.post_from(UNLISTED).0, 200);
}

#[test]
fn a_stop_does_not_wait_for_a_list_that_does_not_come() {
    // Accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/list", silent.local_addr().expect("an address"));
    let mut server = Server::start_owned(&enforce(&url));
    let held = silent.accept().expect("it asks");
    assert_eq!(server.post_from(UNLISTED).0, 200, "no request waits for the list");
    let status = server.process.terminate();
    assert!(status.success(), "{status}");
    drop(held);
}

#[test]
fn a_flood_of_junk_leaves_others_their_share_of_what_is_kept() {
    let server = Server::start(&["--junk-per-minute", "8", "--junk-per-minute-per-source", "5"]);
    let kept = |from: [u8; 4]| {
        let mut client = client(&server.process, from.into(), &[]);
        let answers = (0..30).map(|_| post(&mut client, "hello=world")).collect::<Vec<_>>();
        assert!(answers.iter().all(|(status, _)| *status == 400), "{answers:?}");
        answers.iter().filter(|(_, id)| id.is_some()).count()
    };
    assert_eq!([kept([127, 0, 0, 1]), kept([127, 0, 0, 2]), kept([127, 0, 0, 3])], [5, 3, 0]);
    assert_eq!(server.process.metric("hookledger_ingress_discarded_total", ""), Some(82.0));
    // Events have no budget.
    let mut client = client(&server.process, PROXY, &[]);
    assert!((0..30).all(|_| post(&mut client, BODY).0 == 200));
}

#[test]
fn large_junk_fills_the_log_no_further_than_its_budget_in_bytes() {
    let limits = ["--junk-bytes-per-minute", "160KiB", "--junk-bytes-per-minute-per-source", "100KiB"];
    let server = Server::start(&limits);
    let junk = "x".repeat(40 * 1024);
    let kept = |from: [u8; 4]| {
        let mut client = client(&server.process, from.into(), &[]);
        (0..9).filter(|_| post(&mut client, &junk).1.is_some()).count()
    };
    assert_eq!([kept([127, 0, 0, 1]), kept([127, 0, 0, 2]), kept([127, 0, 0, 3])], [2, 1, 0]);
    assert_eq!(server.process.metric("hookledger_ingress_discarded_total", ""), Some(24.0));
}

#[test]
fn behind_a_proxy_nothing_starts_without_apps_and_tokens() {
    let (home, _) = home("");
    let data = home.path().join("data").display().to_string();
    let standalone: &[&str] = &["standalone", "--query-listen", "127.0.0.1:0"];
    let (apps, tokens): (&[&str], &[&str]) = (&["--apps", "crm-sync"], &["--query-tokens", PROXIED[5]]);
    for (program, form, given, missing) in [
        (Program::Hookledger, standalone, tokens, "set apps"),
        (Program::Hookledger, standalone, apps, "set query-tokens"),
        (Program::Ingress, &["--kafka", "127.0.0.1:1"], &[], "set apps"),
        (Program::Processor, &["--kafka", "127.0.0.1:1", "--query-listen", "127.0.0.1:0"], &[], "set query-tokens"),
    ] {
        let common = ["--data-dir", &data, "--admin-listen", "127.0.0.1:0", "--trusted-proxies", "127.0.0.1"];
        let ended = run(program, &[form, given, &common].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("trusted-proxies is set") && ended.stderr.contains(missing), "{}", ended.stderr);
        assert!(!home.path().join("data").exists(), "nothing was opened");
    }
}

#[test]
fn what_comes_through_a_proxy_that_is_not_named_is_noticed() {
    let server = Server::start(&[]);
    let metric = || server.process.metric("hookledger_ingress_open_behind_proxy", "");
    assert_eq!(post(&mut client(&server.process, PROXY, &[]), BODY).0, 200);
    assert_eq!(metric(), Some(0.0));
    for header in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"] {
        let mut through = server.process.webhooks().with(header, UNLISTED);
        assert_eq!(post(&mut through, BODY).0, 200, "a webhook is never lost for it");
        let question = server.process.queries().with(header, UNLISTED).get("/v1/installations").expect("an answer");
        assert_eq!((question.status, &question.json()["type"]), (403, &Value::from("/docs/problems#tokens-needed")));
    }
    assert_eq!(metric(), Some(1.0));
    assert_eq!(server.process.logs().matches("webhooks come through a proxy").count(), 1, "once, not a flood");
    assert_eq!(server.process.queries().get("/v1/installations").expect("an answer").status, 200);
}

#[test]
fn secrets_among_the_flags_are_warned_about() {
    const TOKEN: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0f";
    let server = Server::start(&["--query-tokens", TOKEN]);
    server.has_told("query-tokens was given as a flag", 1);
    assert!(!server.process.logs().contains(TOKEN), "but not shown");
    let quiet = Server::start_with(&[], &[("HOOKLEDGER_QUERY_TOKENS", TOKEN)]);
    assert!(!quiet.process.logs().contains("given as a flag"));
}

#[test]
fn a_path_belongs_to_its_app_however_it_is_written_and_whoever_looks() {
    let home = home("[apps.crm-sync]\npaths = ['/b24/handler.php']\n[apps.shut]\npath-key = 'k3y-k3y-k3y-k3y-k3y'");
    let server = Server::start(&["--config", &home.1]);
    let mut client = client(&server.process, PROXY, &[]);
    for (path, status) in [
        ("/v1/events/crm-sync", 200),
        ("/v1/events/crm-sync/", 200),
        ("//v1/events/crm%2Dsync?x=1", 200),
        ("/b24/handler.php", 200),
        ("/b24//%68andler.php/", 200),
        ("/v1/events/shut/k3y-k3y-k3y-k3y-k3y", 200),
        ("/v1/events/shut/%6B3y-k3y-k3y-k3y-k3y/", 200),
        ("/v1/events/shut", 404),
        ("/v1/events/shut/k3y-k3y-k3y-k3y-k3Y", 404),
        ("/v1/events/other", 404),
        ("/b24", 404),
    ] {
        // One connection: a body that should not be there would be taken for the next answer.
        let head = client.send("HEAD", path).expect("an answer");
        assert_eq!((head.status, head.body.len()), (status, 0), "HEAD {path}");
        assert_eq!(client.get(path).expect("an answer").status, status, "GET {path}");
        assert_eq!(client.post(path, FORM, BODY.as_bytes()).expect("an answer").status, status, "POST {path}");
        let other = if status == 200 { 405 } else { status };
        assert_eq!(client.send("DELETE", path).expect("an answer").status, other, "DELETE {path}");
    }
}

#[test]
fn a_path_key_is_found_in_nothing_that_is_said() {
    const KEY: &str = "7c9e6679f3b0425a8d11e5aa07f2b3c4";
    const WRONG: &str = "1b4e28ba2fa14d6e9c3ff0a1d2b3c4d5";
    let (home, file) = home(&format!("[apps.shut]\npath-key = '{KEY}'"));
    let mut server = Server::start_with(&["--config", &file], &[("RUST_LOG", "trace")]);
    let mut client = client(&server.process, PROXY, &[]);
    let mut said = Vec::new();
    for key in [KEY, WRONG, &KEY.to_uppercase(), &format!("{KEY}%zz"), &format!("%37{}", &KEY[1..])] {
        let path = format!("/v1/events/shut/{key}");
        for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
            said.push(format!("{:?}", client.send(method, &path).expect("an answer")));
        }
        for body in [BODY.to_owned(), "hello=world".to_owned(), "x".repeat(70_000)] {
            let answer = client.post(&path, FORM, body.as_bytes()).expect("an answer");
            said.push(format!("{:?} {}", answer.headers, answer.text()));
        }
    }
    // What is no HTTP is answered before any of our code sees it.
    let mut odd = TcpStream::connect(server.process.address("webhooks")).expect("a connection");
    odd.write_all(format!("POST /v1/events/shut/{KEY} HTTP/9.9\r\nhost h\r\n\r\n").as_bytes()).expect("sent");
    let mut line = String::new();
    BufReader::new(&odd).read_line(&mut line).expect("an answer");
    assert!(line.contains("400"), "{line}");
    said.push(line);

    said.push(server.process.admin().get("/metrics").expect("metrics").text());
    let check = run(Program::Hookledger, &["standalone", "--config", &file, "--check-config"]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("apps.shut.path-key = [secret]"), "{}", check.stdout);
    said.push(format!("{check:?}"));
    for wrong in [format!("path-key = '{KEY}/'"), format!("path-key = ['{KEY}']"), format!("paths-key = '{KEY}'")] {
        fs::write(&file, format!("[apps.shut]\n{wrong}")).expect("written");
        let ended = run(Program::Hookledger, &["standalone", "--config", &file]);
        assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
        said.push(format!("{ended:?}"));
    }
    server.process.terminate();
    said.push(server.process.logs());
    let said = said.join("\n");
    assert!(said.contains("\"TRACE\"") && said.len() > 10_000, "there was something to search: {}", said.len());
    let said = said.to_lowercase();
    let lines: Vec<_> = said.lines().collect();
    for key in [KEY, WRONG] {
        for half in [&key[..16], &key[16..]] {
            let found = lines.iter().find(|line| line.contains(half));
            assert_eq!(found, None, "a key is told");
        }
    }
    drop(home);
}

#[test]
fn what_makes_no_sense_ends_the_programs_and_is_named() {
    let (home, file) = home("source-check = 'enforce'");
    let data = home.path().join("data").display().to_string();
    let loopback: &[&str] = &["--config", &file, "--ingress-listen", "127.0.0.1:0"];
    let open: &[&str] = &["--ingress-listen", "0.0.0.0:0"];
    let proxy: &[&str] = &["--trusted-proxies", "10.0.0.0/99"];
    let ftp: &[&str] = &["--source-check", "observe", "--source-list", "ftp://example.org/list"];
    let cases = [(loopback, "trusted-proxies"), (open, "apps"), (proxy, "trusted-proxies"), (ftp, "source-list")];
    for (settings, named) in cases {
        for (program, form) in [
            (Program::Hookledger, &["standalone", "--query-listen", "127.0.0.1:0"][..]),
            (Program::Ingress, &["--kafka", "127.0.0.1:1"]),
        ] {
            let arguments = [form, &["--data-dir", &data, "--admin-listen", "127.0.0.1:0"], settings].concat();
            let ended = run(program, &arguments);
            assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
            assert!(ended.stderr.contains(named), "{arguments:?}: {}", ended.stderr);
        }
    }
}

const BODY: &str = "event=ONAPPTEST&auth%5Bmember_id%5D=a223c6b3710f85df22e9377d6c4f7553";

/// The status, and the id if it says one that is kept although it is refused.
fn post(client: &mut Client, body: &str) -> (u16, Option<String>) {
    let answer = client.post("/v1/events/crm-sync", FORM, body.as_bytes()).expect("an answer");
    let id = answer.json()["id"].as_str().filter(|_| answer.status != 200).map(str::to_owned);
    if answer.status == 403 {
        assert_eq!(answer.json()["type"], Value::from("/docs/problems#unknown-source"));
    }
    (answer.status, id)
}

fn client(process: &Process, from: Ipv4Addr, forwarded: &[&str]) -> Client {
    let client = process.webhooks().from(from);
    forwarded.iter().fold(client, |client, line| client.with("X-Forwarded-For", line))
}

/// A directory with a file of settings.
fn home(settings: &str) -> (TempDir, String) {
    let directory = tempfile::Builder::new().prefix("hookledger-test-").tempdir().expect("a directory");
    let file = directory.path().join("settings.toml");
    fs::write(&file, settings).expect("written");
    let file = file.display().to_string();
    (directory, file)
}

/// The form without a broker, with settings.
struct Server {
    process: Process,
    _directory: TempDir,
}

impl Server {
    fn start(settings: &[&str]) -> Self {
        Self::start_with(settings, &[])
    }

    fn start_owned(settings: &[String]) -> Self {
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        Self::start(&[&settings[..], &PROXIED[..]].concat())
    }

    fn start_with(settings: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("hookledger-test-").tempdir().expect("a directory");
        let data = directory.path().join("data").display().to_string();
        let arguments = [&["standalone", "--data-dir", &data], settings].concat();
        // A proxy of the machine has no business between us and a server of this test.
        let environment = [environment, &[("NO_PROXY", "127.0.0.1")]].concat();
        let process = Process::start(Program::Hookledger, &arguments, &environment, &directory.path().join("log"));
        process.ready();
        Self { process, _directory: directory }
    }

    /// Posts an event that a trusted proxy says came from there.
    fn post_from(&self, sender: &str) -> (u16, Option<String>) {
        post(&mut client(&self.process, PROXY, &[sender]), BODY)
    }

    /// How many senders were listed, unlisted, and not to be judged.
    fn verdicts(&self) -> [Option<f64>; 3] {
        ["listed", "unlisted", "no_list"].map(|verdict| {
            let label = format!("\"{verdict}\"");
            self.process.metric("hookledger_ingress_source_total", &label)
        })
    }

    /// Waits until its log has said this so often.
    fn has_told(&self, words: &str, times: usize) {
        eventually(WITHIN, words, || (self.process.logs().matches(words).count() >= times).then_some(()));
    }

    fn has_addresses(&self, addresses: f64) {
        eventually(WITHIN, "the list is read", || {
            let has = self.process.metric("hookledger_source_list_addresses", "");
            (has == Some(addresses)).then_some(())
        });
    }
}

/// The settings that enforce the list there.
fn enforce(place: &str) -> Vec<String> {
    let settings = ["--source-check", "enforce", "--source-list", place, "--source-refresh", "1s"];
    settings.map(str::to_owned).into()
}

/// A list in a file.
struct List(TempDir);

impl List {
    fn new(text: &str) -> Self {
        let list = Self(tempfile::tempdir().expect("a directory"));
        list.write(text);
        list
    }

    fn path(&self) -> String {
        self.0.path().join("list").display().to_string()
    }

    /// Replaces it as a whole, as documents say that one does.
    fn write(&self, text: &str) {
        let new: PathBuf = self.0.path().join("new");
        fs::write(&new, text).and_then(|()| fs::rename(new, self.path())).expect("written");
    }
}

/// A server on the web that answers what it is told to.
struct Web {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Web {
    fn start(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer = Arc::new(Mutex::new(format!("{answer}\r\n")));
        let (asked, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let serving = std::thread::spawn({
            let (answer, asked, over) = (Arc::clone(&answer), Arc::clone(&asked), Arc::clone(&over));
            move || {
                while let Ok((mut client, _)) = listener.accept() {
                    if over.load(Ordering::Acquire) {
                        break;
                    }
                    let mut request = BufReader::new(client.try_clone().expect("a second hand"));
                    let mut line = String::new();
                    while request.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
                        line.clear();
                    }
                    let text = answer.lock().expect("no panic").clone();
                    // Who asked may be gone.
                    let _ = client.write_all(text.as_bytes());
                    asked.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        Self { address, answer, asked, over, serving: Some(serving) }
    }

    fn url(&self) -> String {
        format!("http://{}/webhook/app-world.json", self.address)
    }

    fn answer(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock().expect("no panic"));
    }

    fn answer_list(&self, list: &str) {
        self.answer(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{list}", list.len()));
    }

    /// Waits for two more requests: the first may have been answered as before.
    fn is_asked_again(&self) {
        let asked = self.asked.load(Ordering::Acquire);
        eventually(WITHIN, "the list is asked for", || (self.asked.load(Ordering::Acquire) >= asked + 2).then_some(()));
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes it; if that fails it is over already.
        let _ = TcpStream::connect(self.address);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}
