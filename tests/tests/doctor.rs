//! `hookledger doctor` finds each planted fault, with a remedy, and none in a sound set-up.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::Value;
use tempfile::TempDir;
use tests::cluster::{Cluster, Standalone};
use tests::process::{Ended, Process, Program, run};
use tests::{kafka, topics};

const TOKEN: &str = "0123456789abcdef";
const KEY: &str = "s6p6eclrvim6da22";

/// What `doctor` said, as JSON.
struct Said(Ended);

impl Said {
    fn by(arguments: &[&str]) -> Self {
        Self(run(Program::Hookledger, &[&["doctor", "--json"], arguments].concat()))
    }

    fn checks(&self, verdict: &str) -> Vec<Value> {
        let document: Value = serde_json::from_str(&self.0.stdout).unwrap_or_else(|_| panic!("no JSON: {:?}", self.0));
        let checks = document["checks"].as_array().expect("a list").clone();
        checks.into_iter().filter(|check| check["verdict"] == verdict).collect()
    }

    /// One fault and no other, which says this and has a remedy.
    fn only_finds(&self, check: &str, text: &str) {
        let faults = self.checks("fault");
        let [fault] = &faults[..] else { panic!("not one fault, {check}: {faults:?}") };
        self.finds(check, text);
        assert!(!fault["remedy"].as_str().expect("a remedy").is_empty(), "{fault}");
    }

    fn finds(&self, check: &str, text: &str) {
        let has =
            |fault: &Value| fault["check"] == check && fault["found"].as_str().is_some_and(|it| it.contains(text));
        assert!(self.checks("fault").iter().any(has), "no fault in {check} has {text:?}: {:?}", self.0);
        assert_eq!(self.0.code, Some(1));
        assert!(!self.0.stdout.contains(KEY) && !self.0.stderr.contains(KEY), "a path key is shown: {:?}", self.0);
    }

    fn is_sound(&self, checks: &[&str]) {
        assert_eq!(self.0.code, Some(0), "{:?}", self.0);
        let sound = self.checks("sound");
        let sound: Vec<_> = sound.iter().map(|check| check["check"].as_str().expect("a name")).collect();
        for check in checks {
            assert!(sound.contains(check), "{check} is not sound: {:?}", self.0);
        }
    }
}

/// A certificate authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let directory = tempfile::tempdir().expect("a directory");
        let own = params.self_signed(&key).expect("a certificate");
        fs::write(directory.path().join("ca.pem"), own.pem()).expect("written");
        Self { issuer: Issuer::new(params, key), directory }
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The settings of a server with a certificate for this name, which is valid until this day.
    fn sign(&self, file: &str, name: &str, until: Option<(i32, u8, u8)>) -> [(&'static str, String); 2] {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        if let Some((year, month, day)) = until {
            params.not_after = date_time_ymd(year, month, day);
        }
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        let files = [self.file(&format!("{file}.pem")), self.file(&format!("{file}.key"))];
        fs::write(&files[0], signed.pem()).expect("written");
        fs::write(&files[1], key.serialize_pem()).expect("written");
        fs::set_permissions(&files[1], Permissions::from_mode(0o600)).expect("its own file");
        let [cert, key] = files;
        [("HOOKLEDGER_TLS_CERT_FILE", cert), ("HOOKLEDGER_TLS_KEY_FILE", key)]
    }
}

/// A standalone with TLS, and what `doctor` needs to know of it.
struct SetUp {
    standalone: Standalone,
    arguments: Vec<String>,
    keys: TempDir,
}

impl SetUp {
    fn start(authority: &Authority, certificate: &[(&'static str, String)]) -> Self {
        let keys = tempfile::tempdir().expect("a directory");
        let key = keys.path().join("crm-sync");
        write_private(&key, KEY);
        let tokens = keys.path().join("tokens");
        write_private(&tokens, TOKEN);
        let path = |path: &Path| path.display().to_string();
        let table = keys.path().join("hookledger.toml");
        let toml = format!("[apps.crm-sync]\npath-key-file = {:?}\n", path(&key));
        write_private(&table, &toml);
        let own = [("HOOKLEDGER_CONFIG", path(&table)), ("HOOKLEDGER_QUERY_TOKENS_FILE", path(&tokens))];
        let all: Vec<_> = own.iter().chain(certificate).map(|(name, value)| (*name, value.as_str())).collect();
        let standalone = Standalone::start_with(&all);
        let query = format!("http://{}", standalone.process.address("queries"));
        let data = path(&standalone.data());
        let (config, tokens) = (path(&table), path(&tokens));
        let arguments = [
            ("--config", config),
            ("--query-tokens-file", tokens.clone()),
            ("--query-token-file", tokens),
            ("--query", query),
            ("--data-dir", data),
            ("--ca-file", authority.file("ca.pem")),
        ];
        let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        Self { standalone, arguments, keys }
    }

    fn url(&self, name: &str) -> String {
        format!("https://{name}:{}", self.standalone.process.address("webhooks").port())
    }

    fn doctor(&self, more: &[&str]) -> Said {
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Said::by(&arguments)
    }
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("its own file");
}

/// Answers GET like an ingress, with these headers, and POST with this status.
fn stand_in(get: &'static str, post: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A client may go at any time.
            let _ = stream.map(|stream| answer_each(&stream, get, post));
        }
    });
    address
}

fn answer_each(stream: &TcpStream, get: &str, post: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let is_get = line.starts_with("GET");
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
    }
    let body = if is_get { r#"{"send":"POST"}"# } else { "{}" };
    let head = if is_get { get } else { post };
    write!(&mut &*stream, "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok()
}

#[test]
fn a_sound_set_up_has_no_fault_and_planted_ones_are_found() {
    let authority = Authority::new();
    let sound = SetUp::start(&authority, &authority.sign("sound", "localhost", None));
    let url = sound.url("localhost");
    let all = ["settings", "data-dir", "disk", "queries", "certificate", "url", "clock", "round-trip"];
    sound.doctor(&["--url", &url]).is_sound(&all);
    let spoken = run(
        Program::Hookledger,
        &[&["doctor"], &sound.arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat(),
    );
    assert!(spoken.stdout.ends_with("No fault found.\n"), "{}", spoken.stdout);

    // Settings and files.
    sound.doctor(&["--body-limit", "2MiB"]).only_finds("settings", "body-limit");
    let open = sound.keys.path().join("open");
    write_private(&open, "fedcba9876543210");
    fs::set_permissions(&open, Permissions::from_mode(0o644)).expect("its own file");
    let open = open.display().to_string();
    let tokens = |arguments: &[&str]| sound.doctor(&[&["--url", &url][..], arguments].concat());
    let said = Said::by(&["--query-tokens-file", &open, "--no-test-event"]);
    said.finds("settings", "others may read it");
    Said::by(&["--apps", "crm-sync", "--url", "https://hooks.invalid"]).finds("settings", "no secret in the URL");
    Said::by(&["--url", "https://hooks.invalid"]).finds("settings", "no app is named");

    // The directory and its disk.
    let logs = sound.standalone.data().join("logs");
    let mode = |mode| fs::set_permissions(&logs, Permissions::from_mode(mode)).expect("our directory");
    mode(0o755);
    tokens(&[]).only_finds("data-dir", "others may read");
    mode(0o700);
    fs::set_permissions(sound.standalone.data(), Permissions::from_mode(0o777)).expect("our directory");
    tokens(&[]).only_finds("data-dir", "others may");
    fs::set_permissions(sound.standalone.data(), Permissions::from_mode(0o700)).expect("our directory");
    let password = run(Program::Hookledger, &["doctor", "--url", "http://u:pass-word@h/?key=secret"]);
    assert!(password.code == Some(2) && !password.stderr.contains("pass-word"), "{password:?}");
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let memory = memory.path().display().to_string();
    Said::by(&["--data-dir", &memory]).finds("disk", "in memory");
    Said::by(&["--data-dir", "/proc/version"]).finds("data-dir", "no directory");

    // What is asked.
    let query = format!("http://{}", sound.standalone.process.address("queries"));
    Said::by(&["--query", &query]).only_finds("queries", "401");
    let listen = sound.standalone.process.address("queries").to_string();
    Said::by(&["--query-listen", &listen]).only_finds("queries", "401");
    Said::by(&["--query", "http://127.0.0.1:1"]).only_finds("queries", "127.0.0.1:1");
    let other = Standalone::start();
    let other_query = format!("http://{}", other.process.address("queries"));
    let elsewhere = |process: &Process| format!("http://{}", process.address("webhooks"));
    // Two that do not belong together.
    let third = Standalone::start();
    Said::by(&["--query", &other_query, "--url", &elsewhere(&third.process)]).only_finds("round-trip", "not folded");

    // The name and the URL.
    sound.doctor(&["--url", "https://hooks.invalid"]).only_finds("name", "does not resolve");
    sound.doctor(&["--url", "https://10.0.0.1"]).only_finds("name", "10.0.0.1");
    sound.doctor(&["--url", "https://127.0.0.1:1"]).only_finds("certificate", "does not accept");
    sound.doctor(&["--url", &format!("{url}/elsewhere")]).only_finds("url", "404");
    Said::by(&["--query", &other_query, "--url", "http://127.0.0.1:1"]).only_finds("url", "not answered");
    for (get, post, check, text) in [
        ("301 Moved Permanently\r\nlocation: /", "200 OK", "url", "301"),
        ("502 Bad Gateway", "200 OK", "url", "502"),
        ("200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT", "200 OK\r\n", "clock", "differ by"),
        ("200 OK", "405 Method Not Allowed", "round-trip", "405"),
        ("200 OK", "413 Content Too Large", "round-trip", "413"),
    ] {
        let at = format!("http://{}", stand_in(get, post));
        Said::by(&["--query", &other_query, "--url", &at]).finds(check, text);
    }

    // The certificate.
    let plain = elsewhere(&other.process).replace("http:", "https:");
    sound.doctor(&["--url", &plain]).only_finds("certificate", "TLS handshake");
    sound.doctor(&["--url", &sound.url("127.0.0.1")]).only_finds("certificate", "other names");
    let without_ca: Vec<_> =
        sound.arguments.iter().map(String::as_str).take_while(|word| *word != "--ca-file").collect();
    Said::by(&[&without_ca[..], &["--url", &url]].concat()).only_finds("certificate", "issuer is not known");
    let soon = std::process::Command::new("date").args(["-u", "-d", "+5 days", "+%Y %m %d"]).output().expect("a date");
    let soon: Vec<i32> = String::from_utf8(soon.stdout)
        .expect("a text")
        .split_whitespace()
        .map(|it| it.parse().expect("a number"))
        .collect();
    let soon = (soon[0], u8::try_from(soon[1]).expect("a month"), u8::try_from(soon[2]).expect("a day"));
    for (file, until, text) in [("expired", (2020, 1, 1), "has expired"), ("soon", soon, "ends in 4 days")] {
        let broken = SetUp::start(&authority, &authority.sign(file, "localhost", Some(until)));
        broken.doctor(&["--url", &broken.url("localhost")]).only_finds("certificate", text);
    }
}

#[test]
fn kafkas_faults_are_found() {
    let Some(servers) = kafka::shared("kafkas_faults_are_found") else { return };
    let cluster = Cluster::start(servers, 1);
    let names = cluster.names();
    let home: PathBuf = names.home("ingress");
    let query = format!("http://{}", cluster.processors[0].address("queries"));
    let url = format!("http://{}", cluster.ingress.address("webhooks"));
    let doctor = |more: &[&str]| {
        let arguments = names.arguments_in(&home);
        let own = ["--query", &query, "--url", &url, "--disk-log-limit", "64MiB"];
        Said::by(&arguments.iter().map(String::as_str).chain(own).chain(more.iter().copied()).collect::<Vec<_>>())
    };
    doctor(&[]).is_sound(&["settings", "data-dir", "disk", "kafka", "queries", "url", "round-trip"]);
    doctor(&["--kafka-set", "acks=1"]).only_finds("kafka", "acks");
    doctor(&["--raw-retention", "90d"]).finds("kafka", "retention.ms");
    let raw = names.topic("raw");
    topics::set(servers, &raw, "unclean.leader.election.enable", "true");
    doctor(&[]).finds("kafka", "unclean.leader.election.enable");
    topics::set_policy(servers, &raw, "compact");
    doctor(&[]).finds("kafka", "is compacted");
    topics::delete(servers, &names.topic("rejected"));
    doctor(&[]).finds("kafka", "is not there");
    topics::add_partitions(servers, &names.topic("events"), 5);
    doctor(&[]).finds("kafka", "has 5 partitions where partitions is 4");
    Said::by(&["--kafka", "127.0.0.1:1", "--apps", "crm-sync"]).finds("kafka", "does not answer");
}
