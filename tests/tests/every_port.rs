//! Every port is served like the one for webhooks: whatever clients do at one of them, the others go on answering.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::http::{Answer, Client, FORM, JSON};
use tests::ports;
use tests::process::{Process, Program, run};
use tests::swarm::{Behaviour, Swarm};
use tests::wait::eventually;

/// What the questions of a test show.
const TOKEN: &str = "a-token-that-nobody-guesses";
const EVENT: &[u8] = b"event=ONCRMCONTACTADD&data[FIELDS][ID]=7&auth[member_id]=a223";
const WEBHOOKS: &str = "/v1/events/crm-sync";
/// How long an attack goes on once all attackers are there.
const ATTACK: Duration = Duration::from_secs(2);
/// When the admin port closes connections whose head does not come.
const SLOW_HEAD: Duration = Duration::from_secs(5);
const TRIES_MAX: usize = 5;
/// How long something is awaited that comes by itself.
const SOON: Duration = Duration::from_secs(60);
/// What this test may open: attackers and those who behave.
const OPEN_FILES: u64 = 8_192;

/// The form without a broker, with settings of its own.
struct Standalone {
    process: Process,
    _directory: TempDir,
}

impl Standalone {
    fn start(settings: &[&str]) -> Self {
        Self::start_inside(&[], settings)
    }

    fn start_inside(entrance: &[&str], settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data").display().to_string();
        let arguments = [&["standalone", "--data-dir", &data], settings].concat();
        let entrance: Vec<_> = entrance.iter().map(|word| (*word).to_owned()).collect();
        let log = directory.path().join("log");
        let process = Process::start_inside(&entrance, Program::Hookledger, &arguments, &[], &log);
        process.ready();
        Self { process, _directory: directory }
    }
}

#[test]
fn bodies_of_questions_that_never_end_keep_nobody_from_the_other_ports() {
    may_open_many();
    let directory = tempfile::tempdir().expect("a directory");
    let tokens = tokens_file(directory.path(), TOKEN);
    // As many files as there are at first, and may be asked for; and fewer than the ports would like.
    for (files, attackers) in [("--nofile=1024:4096", 2_600), ("--nofile=512:640", 700)] {
        let standalone = Standalone::start_inside(&["prlimit", files], &["--query-tokens-file", &tokens]);
        let endless = Behaviour {
            opening: b"POST /v1/check HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            drip: b"1\r\nx\r\n".to_vec(),
            reads: true,
            steps_max: usize::MAX,
        };
        let swarm = Swarm::start(standalone.process.address("queries"), attackers, &[endless]);
        let (began, mut all_came) = (Instant::now(), None);
        while all_came.is_none_or(|since: Instant| since.elapsed() < ATTACK) {
            if swarm.came() >= attackers {
                all_came.get_or_insert_with(Instant::now);
            }
            assert!(began.elapsed() < SOON, "{} attackers came", swarm.came());
            let webhook = standalone.process.webhooks().post(WEBHOOKS, FORM, EVENT).expect("an answer to a webhook");
            assert_eq!(webhook.status, 200, "{}", webhook.text());
            let mut asker = standalone.process.queries().with("authorization", &format!("Bearer {TOKEN}"));
            let question = asker.get("/v1/installations").expect("an answer to a question");
            assert_eq!(question.status, 200, "{}", question.text());
            assert_eq!(standalone.process.admin().get("/readyz").expect("an answer").status, 200);
        }
        for (status, count) in swarm.stop() {
            assert_eq!(status, 401, "answered {count} times");
        }
        eventually(SOON, "the attackers' connections are closed", || {
            let open = standalone.process.metric("hookledger_query_connections", "").expect("it is counted");
            (open < 1.0).then_some(())
        });
    }
}

#[test]
fn probes_and_metrics_are_answered_while_stuck_connections_lie_on_the_admin_port() {
    let directory = tempfile::tempdir().expect("a directory");
    let (kafka, data) = (format!("127.0.0.1:{}", ports::free()), directory.path().join("data").display().to_string());
    let settings = ["--kafka", &*kafka, "--data-dir", &data];
    let ingress = Process::start(Program::Ingress, &settings, &[], &directory.path().join("log"));
    ingress.ready();
    let standalone = Standalone::start(&[]);
    for process in [&ingress, &standalone.process] {
        for stuck in [64, 200, 500] {
            // A probe that waits until stuck connections are closed for their slowness waits so long at every try; a busy
            // machine does not hold up all of them.
            let is_answered = (0..TRIES_MAX).any(|_| probed(process, stuck) < SLOW_HEAD / 2);
            assert!(is_answered, "{stuck} stuck connections have to be closed for their slowness first");
        }
    }
}

/// How long a probe and a scrape wait for their answers while so many stuck connections lie on the admin port.
fn probed(process: &Process, stuck: usize) -> Duration {
    let address = process.address("admin");
    let stuck: Vec<_> = (0..stuck).map(|number| is_stuck(address, number)).collect();
    let began = Instant::now();
    assert_eq!(process.admin().get("/readyz").expect("an answer to a probe").status, 200);
    assert_eq!(process.admin().get("/livez").expect("an answer to a probe").status, 200);
    let metrics = process.admin().get("/metrics").expect("metrics").text();
    assert!(metrics.contains("hookledger_build_info"), "{metrics}");
    drop(stuck);
    began.elapsed()
}

/// A connection that is never done: it says nothing, or a part of a head.
fn is_stuck(address: SocketAddr, number: usize) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("a connection");
    if number.is_multiple_of(2) {
        socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: h\r\nx: ").expect("it is taken");
    }
    socket
}

#[test]
fn questions_that_wait_hold_up_no_others() {
    let standalone = Standalone::start(&["--query-connections-limit", "8"]);
    let address = standalone.process.address("queries");
    let never = "/v1/installations?after=00000000-0000-7000-8000-000000000000&wait=30s";
    // There are places for half of the connections: of five, one is refused.
    let mut waiting: Vec<_> = (0..5).map(|_| asks(address, never)).collect();
    let mut refused = eventually(SOON, "one too many is refused", || {
        let answers = waiting.iter_mut().filter_map(so_far).collect::<Vec<_>>();
        (!answers.is_empty()).then_some(answers)
    });
    let refused = refused.pop().filter(|_| refused.is_empty()).expect("one of them");
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("#too-many-wait"), "{refused}");
    for _ in 0..10 {
        assert_eq!(standalone.process.queries().get("/v1/installations").expect("an answer").status, 200);
    }
    assert_eq!(waiting.iter_mut().filter_map(so_far).count(), 0, "the others wait");
}

fn asks(address: SocketAddr, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("a connection");
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").expect("it is taken");
    socket.set_nonblocking(true).expect("a socket that does not block");
    socket
}

/// What came since it was last asked, if something did.
fn so_far(socket: &mut TcpStream) -> Option<String> {
    let mut buffer = [0; 4096];
    match socket.read(&mut buffer) {
        Ok(read) => Some(String::from_utf8_lossy(&buffer[..read]).into_owned()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_name_that_a_page_has_lead_to_this_machine_is_not_answered_unless_a_token_is_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let tokens = tokens_file(directory.path(), TOKEN);
    let (open, guarded) = (Standalone::start(&[]), Standalone::start(&["--query-tokens-file", &tokens]));
    for path in ["/", "/v1/installations"] {
        let asked = |standalone: &Standalone, host: &str, more: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n");
            says(standalone.process.address("queries"), &request)
        };
        for host in ["localhost", "127.0.0.1:8081", "[::1]:8081"] {
            assert!(asked(&open, host, "").starts_with("HTTP/1.1 200"), "{host}");
        }
        let answer = asked(&open, "rebound.example:8081", "");
        assert!(answer.starts_with("HTTP/1.1 421") && answer.contains("/docs/problems#wrong-host"), "{answer}");
        let answer = asked(&guarded, "rebound.example:8081", "");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        let answer = asked(&guarded, "questions.example", &format!("authorization: Bearer {TOKEN}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn pages_of_other_sites_send_no_webhooks_to_a_machine_without_a_proxy() {
    let directory = tempfile::tempdir().expect("a directory");
    let tokens = tokens_file(directory.path(), TOKEN);
    // Behind a proxy, apps and tokens are needed.
    let behind = ["--trusted-proxies", "127.0.0.1", "--apps", "crm-sync", "--query-tokens-file", &tokens];
    let (alone, proxied) = (Standalone::start(&[]), Standalone::start(&behind));
    let sent = |standalone: &Standalone, headers: &[(&str, &str)]| -> Answer {
        let client =
            headers.iter().fold(standalone.process.webhooks(), |client, (name, value)| client.with(name, value));
        { client }.post(WEBHOOKS, FORM, EVENT).expect("an answer")
    };
    for foreign in [&[("sec-fetch-site", "cross-site")][..], &[("origin", "https://evil.example")]] {
        let refused = sent(&alone, foreign);
        assert_eq!((refused.status, refused.json()["type"].as_str()), (403, Some("/docs/problems#cross-site")));
        assert_eq!(sent(&proxied, foreign).status, 200, "where a proxy stands in front, that is its to say");
    }
    assert_eq!(sent(&alone, &[]).status, 200, "Bitrix24 sends neither");
    assert_eq!(alone.process.metric("hookledger_ingress_events_total", "outcome=\"cross_site\""), Some(2.0));
}

#[test]
fn a_check_takes_nothing_but_json() {
    let standalone = Standalone::start(&[]);
    let question = br#"{"app":"crm-sync","member_id":"a223","method":"user.get","token":"t"}"#;
    let asked =
        |content_type: &str| standalone.process.queries().post("/v1/check", content_type, question).expect("an answer");
    assert_eq!(asked(JSON).status, 200);
    for other in ["text/plain", FORM] {
        let answer = asked(other);
        assert_eq!((answer.status, answer.json()["type"].as_str()), (415, Some("/docs/problems#not-json")), "{other}");
    }
}

#[test]
fn a_token_that_can_be_guessed_is_refused_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let tokens = tokens_file(directory.path(), &format!("{TOKEN},short-secret"));
    let data = directory.path().join("data").display().to_string();
    let settings = ["--check-config", "--data-dir", &data, "--query-tokens-file", &tokens];
    let refused = [
        run(Program::Hookledger, &[&["standalone"], &settings[..]].concat()),
        run(Program::Processor, &[&["--kafka", "127.0.0.1:9"], &settings[..]].concat()),
    ];
    for refused in refused {
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert!(refused.stderr.contains("query-tokens: token 2 has 12 bytes"), "{refused:?}");
        assert!(!refused.stderr.contains("short-secret") && !refused.stderr.contains(TOKEN), "{refused:?}");
    }
}

#[test]
fn a_refusal_has_the_headers_of_every_answer_and_the_page_a_policy_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let tokens = tokens_file(directory.path(), TOKEN);
    let standalone = Standalone::start(&["--query-tokens-file", &tokens]);
    let asker = || standalone.process.queries().with("authorization", &format!("Bearer {TOKEN}"));
    let got = |client: Client, path: &str, status: u16| {
        let answer = { client }.get(path).expect("an answer");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        answer
    };
    let refused = got(standalone.process.queries(), "/", 401);
    assert!(refused.header("www-authenticate").is_some());
    let answers =
        [refused, got(asker(), "/v1/installations", 200), got(asker(), "/nothing", 404), got(asker(), "/", 200)];
    for answer in &answers {
        for (name, wanted) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'none'; "),
        ] {
            let value = answer.header(name).unwrap_or_default();
            assert!(value.starts_with(wanted), "{name} is {value} in {answer:?}");
        }
    }
    let policy = answers[3].header("content-security-policy").expect("a policy");
    assert!(policy.contains("style-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
}

fn tokens_file(directory: &Path, tokens: &str) -> String {
    let file = directory.join("tokens");
    fs::write(&file, tokens).expect("a file");
    file.display().to_string()
}

/// Sends a request; all that is answered until the connection is closed.
fn says(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket.set_read_timeout(Some(SOON)).expect("a time limit");
    socket.write_all(request.as_bytes()).expect("it is taken");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer and an end");
    answer
}

/// Raises what this process may open, if the system starts it with less.
fn may_open_many() {
    let me = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &me, &format!("--nofile={OPEN_FILES}:")]).status();
    assert!(raised.expect("prlimit, of util-linux").success(), "{OPEN_FILES} open files are needed");
}
