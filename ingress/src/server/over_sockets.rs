//! What clients get who do not behave, over real sockets: each limit, and nothing for the others.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use disk_log::{DiskLog, Options};
use event_log::RawEvent;
use prometheus::Registry;
use runtime::lifecycle::Stop;
use tempfile::TempDir;
use tokio_rustls::rustls;

use super::*;
use crate::config;
use crate::metrics::Metrics;

mod queries;

const BODY: &str = "event=ONAPPINSTALL&auth%5Bmember_id%5D=a223";
/// Longer than any test takes: what waits for this is never ended by us.
const NEVER: Duration = Duration::from_secs(60);

/// A server that runs, and the log behind it.
struct Running {
    address: SocketAddr,
    log: DiskLog,
    registry: Registry,
    stop: Stop,
    serving: Option<JoinHandle<anyhow::Result<()>>>,
    _dir: TempDir,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let log = DiskLog::open(dir.path(), Options::log()).expect("a log");
        let (registry, stop, webhooks) = (runtime::telemetry::registry(), Stop::default(), config::webhooks(args));
        let handler = WebhookHandler::start(&webhooks, &registry, Metrics::new(&registry)).expect("a handler");
        let handler = Arc::new(handler);
        let (sender, address) = std::sync::mpsc::channel();
        let (delivery, stopping) = (Delivery::Disk(log.clone()), stop.clone());
        let serving = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = http_edge::listener::listener(([127, 0, 0, 1], 0).into())?;
                let (address, serving) = serve(listener, &webhooks, handler, delivery, stopping)?;
                sender.send(address).expect("the test listens");
                serving.await?;
                anyhow::Ok(())
            })
        });
        let address = address.recv().expect("it listens");
        Self { address, log, registry, stop, serving: Some(serving), _dir: dir }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_read_timeout(Some(NEVER)).expect("a time limit");
        socket
    }

    /// Sends these bytes; all that is answered until the connection is closed.
    fn say(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut socket = self.connect();
        // It may be closed before all has been said.
        let _ = socket.write_all(bytes.as_ref());
        until_closed(&mut socket)
    }

    /// The same from a client that says no more.
    fn say_all(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut socket = self.connect();
        let _ = socket.write_all(bytes.as_ref());
        let _ = socket.shutdown(Shutdown::Write);
        until_closed(&mut socket)
    }

    fn ended(&self, reason: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "hookledger_ingress_connections_ended_total");
        let metrics = family.expect("it is counted").get_metric();
        let metric = metrics.iter().find(|metric| metric.get_label()[0].value() == reason).expect("a known reason");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
        let count = metric.get_counter().get_value() as u64;
        count
    }

    /// Waits until so many connections were ended for this reason.
    fn comes_to(&self, reason: &str, count: u64) {
        while self.ended(reason) < count {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn events(&self) -> Vec<RawEvent> {
        let mut reader = self.log.reader(0).expect("a reader");
        let records = std::iter::from_fn(|| reader.next().expect("a readable log"));
        records.map(|(_, record)| RawEvent::from_record(&record).expect("a raw event")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.request();
        let ended = self.serving.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.expect("it ran").expect("no panic").expect("an orderly end");
        }
    }
}

/// All that comes; a connection that is reset is closed too.
fn until_closed(socket: &mut impl Read) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("it was not closed"),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

fn post(body: &str) -> String {
    post_with("", body)
}

fn post_with(fields: &str, body: &str) -> String {
    format!("POST /v1/events/a HTTP/1.1\r\nhost: h\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

/// The last of a connection.
fn last_post(body: &str) -> String {
    post_with("connection: close\r\n", body)
}

/// Reads one answer, head and body.
fn one_answer(socket: &mut impl Read) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        socket.read_exact(&mut byte).expect("an answer");
        text.push(char::from(byte[0]));
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    socket.read_exact(&mut body).expect("its body");
    text + &String::from_utf8_lossy(&body)
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_told_so_the_first_and_any_later() {
    let server = Running::start(&["--head-timeout", "200ms"]);
    assert_eq!(statuses(&server.say("POST /v1/ev")), ["408"]);
    let mut socket = server.connect();
    for _ in 0..2 {
        socket.write_all(post(BODY).as_bytes()).expect("a request");
        assert_eq!(statuses(&one_answer(&mut socket)), ["200"]);
    }
    socket.write_all(b"POST /v1/ev").expect("a part of a head");
    assert_eq!(statuses(&until_closed(&mut socket)), ["408"]);
    server.comes_to("slow_head", 2);
}

#[test]
fn a_head_byte_by_byte_has_no_more_time_than_any_other() {
    let server = Running::start(&["--head-timeout", "200ms"]);
    let mut socket = server.connect();
    let mut reading = socket.try_clone().expect("the same socket");
    let dripping = thread::spawn(move || {
        while socket.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(statuses(&until_closed(&mut reading)), ["408"]);
    drop(reading);
    dripping.join().expect("the end of it");
}

#[test]
fn a_body_that_does_not_come_is_told_so() {
    let server = Running::start(&["--body-timeout", "200ms"]);
    let announced = "POST /v1/events/a HTTP/1.1\r\nhost: h\r\ncontent-length: 99\r\n\r\nevent=";
    let answer = server.say(announced);
    assert!(answer.contains("body-too-slow"), "{answer}");
    assert_eq!(statuses(&answer), ["408"]);
    let chunked = "POST /v1/events/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\ne\r\n";
    assert_eq!(statuses(&server.say(chunked)), ["408"]);
    assert!(server.events().is_empty());
}

#[test]
fn who_says_nothing_is_told_nothing() {
    let server = Running::start(&["--idle-timeout", "200ms", "--head-timeout", "300ms"]);
    assert_eq!(server.say(""), "");
    assert_eq!(statuses(&server.say(post(BODY))), ["200"]);
    server.comes_to("idle", 2);
}

#[test]
fn a_body_that_nobody_wants_is_not_awaited_for_ever() {
    let server = Running::start(&["--apps", "other"]);
    let mut socket = server.connect();
    let head = "POST /v1/events/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).expect("a head");
    let mut reading = socket.try_clone().expect("the same socket");
    let dripping = thread::spawn(move || {
        while socket.write_all(b"1\r\nx\r\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(statuses(&until_closed(&mut reading)), ["404"]);
    drop(reading);
    dripping.join().expect("the end of it");
}

#[test]
fn who_does_not_read_the_answers_is_let_go() {
    let server = Running::start(&["--idle-timeout", "300ms"]);
    let mut socket = server.connect();
    socket.set_write_timeout(Some(NEVER)).expect("a time limit");
    let many = "GET /v1/events/a HTTP/1.1\r\nhost: h\r\n\r\n".repeat(1000);
    // Until it is reset: a client that sends for ever would be read for ever.
    let refused = std::iter::repeat_with(|| socket.write_all(many.as_bytes())).find_map(Result::err);
    assert!(refused.is_some_and(|error| error.kind() != io::ErrorKind::WouldBlock));
    server.comes_to("unread", 1);
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_order() {
    let server = Running::start(&[]);
    let get = "GET /missing HTTP/1.1\r\nhost: h\r\n\r\n";
    let numbered = |number: usize| format!("{BODY}&number={number}");
    let ahead: String = (0..300).map(|number| post(&numbered(number)) + get).collect();
    let mut socket = server.connect();
    let mut reading = socket.try_clone().expect("the same socket");
    let sending = thread::spawn(move || socket.write_all((ahead + &last_post(BODY)).as_bytes()).map(|()| socket));
    let answers = until_closed(&mut reading);
    sending.join().expect("no panic").expect("all of it was read");
    let wanted: Vec<_> = (0..300).flat_map(|_| ["200", "404"]).chain(["200"]).collect();
    assert_eq!(statuses(&answers), wanted);
    let events = server.events();
    let acknowledged: Vec<_> = answers.split(r#"{"id":""#).skip(1).map(|answer| answer[..36].to_owned()).collect();
    let kept: Vec<_> = events.iter().map(|event| event.id.to_string()).collect();
    assert_eq!(acknowledged, kept);
    assert!(events[..300].iter().enumerate().all(|(number, event)| event.body == numbered(number)));
}

#[test]
fn a_body_of_many_lines_comes_in_portions_and_whole() {
    let server = Running::start(&[]);
    let lines = format!("{BODY}{}", "\n".repeat(60_000));
    assert_eq!(statuses(&server.say(last_post(&lines))), ["200"]);
    assert_eq!(server.events()[0].body, lines);
}

#[test]
fn when_there_are_too_many_who_idles_for_longest_has_to_go() {
    let server = Running::start(&["--connections-limit", "8"]);
    let mut idle: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for _ in 0..40 {
        assert_eq!(statuses(&server.say(last_post(BODY))), ["200"], "no request hangs");
    }
    server.comes_to("crowded", 32);
    assert_eq!(until_closed(&mut idle[0]), "");
}

#[test]
fn when_bodies_take_too_much_memory_the_slowest_loses_and_small_ones_do_not() {
    let server = Running::start(&["--request-memory-limit", "128KiB", "--body-limit", "64KiB"]);
    let begin = |bytes: usize| {
        let mut socket = server.connect();
        let head = "POST /v1/events/a HTTP/1.1\r\nhost: h\r\ncontent-length: 60000\r\n\r\n";
        socket.write_all(&[head.as_bytes(), &vec![b'x'; bytes]].concat()).expect("most of a body");
        socket
    };
    let mut slow: Vec<_> = (0..40).map(|_| begin(50_000)).collect();
    for _ in 0..20 {
        assert_eq!(statuses(&server.say(last_post(BODY))), ["200"], "small ones have their place");
    }
    let answer = one_answer(&mut slow[0]);
    assert_eq!(statuses(&answer), ["408"], "{answer}");
    let large = format!("{BODY}&x={}", "x".repeat(60_000));
    assert_eq!(statuses(&server.say(last_post(&large))), ["200"], "a large one that comes is faster than they are");
}

#[test]
fn heads_have_an_end() {
    let server = Running::start(&[]);
    let long = format!("GET /v1/events/a HTTP/1.1\r\nhost: h\r\nx: {}", "x".repeat(70_000));
    assert_eq!(statuses(&server.say(&long)), ["431"]);
    let fields = |count: usize| (0..count).map(|number| format!("x-{number}: y\r\n")).collect::<Vec<_>>().concat();
    assert_eq!(statuses(&server.say(post_with(&(fields(90) + "connection: close\r\n"), BODY))), ["200"]);
    for count in [100, 10_000] {
        let answers = server.say(post_with(&fields(count), BODY));
        assert_eq!(statuses(&answers), ["431"], "{count} fields");
    }
    let path = format!("GET /{} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n", "x".repeat(10_000));
    assert_eq!(statuses(&server.say(path)), ["404"]);
}

#[test]
fn what_could_be_understood_in_two_ways_is_refused() {
    let server = Running::start(&[]);
    let with = |fields: &str| format!("POST /v1/events/a HTTP/1.1\r\nhost: h\r\n{fields}\r\n{BODY}");
    let chunks = "transfer-encoding: chunked\r\n";
    for wrong in [
        with("content-length: 43\r\ncontent-length: 43\r\n"),
        with("content-length: 43, 43\r\n"),
        with("content-length: +43\r\n"),
        with("content-length: 0x2b\r\n"),
        with("content-length: -1\r\n"),
        with("content-length: 99999999999999999999999\r\n"),
        with("content-length : 43\r\n"),
        with(&format!("content-length: 43\r\n{chunks}")),
        with(&format!("{chunks}{chunks}")),
        with("transfer-encoding: gzip, chunked\r\n"),
        with("transfer-encoding: identity\r\ncontent-length: 43\r\n"),
        with("transfer-encoding: xchunked\r\n"),
        with("host: other\r\ncontent-length: 43\r\n"),
        with("upgrade: websocket\r\ncontent-length: 43\r\n"),
        format!("POST /v1/events/a HTTP/1.1\r\ncontent-length: 43\r\n\r\n{BODY}"),
        format!("POST /v1/events/a HTTP/1.0\r\n{chunks}\r\n{BODY}"),
        format!("POST /v1/events/a HTTP/1.0\r\n\r\n{BODY}"),
        format!("POST /v1/events/a HTTP/1.1\r\nhost: h\r\n{chunks}\r\nzz\r\n{BODY}"),
        format!("POST /v1/events/a HTTP/1.1\r\nhost: h\r\n{chunks}\r\nffffffffffffffffff\r\n{BODY}"),
        "POST /v1/events/a HTTP/1.1\r\nhost: h\r\n folded: x\r\n\r\n".to_owned(),
        "POST /v1/events/a\r\n\r\n".to_owned(),
        "POST  /v1/events/a HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(),
        "POST /v1/events/\0 HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(),
        "POST /v1/events/a HTTP/3.7\r\nhost: h\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".to_owned(),
    ] {
        let answers = server.say_all(&wrong);
        let statuses = statuses(&answers);
        assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == "400"), "{wrong:?}: {answers}");
    }
    assert_eq!(server.events().len(), 0);
}

#[test]
fn unusual_requests_that_have_one_meaning_are_taken() {
    let server = Running::start(&[]);
    let rest = format!("host: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    for (head, wanted) in [
        ("POST http://other/v1/events/a HTTP/1.1", "200"),
        ("POST /v1/events/a?x=%zz%00%ff HTTP/1.1", "200"),
        ("POST /v1/events/%zz HTTP/1.1", "404"),
        ("POST /v1/events/%61 HTTP/1.1", "200"),
        ("post /v1/events/a HTTP/1.1", "405"),
        ("OPTIONS * HTTP/1.1", "404"),
        ("CONNECT h:80 HTTP/1.1", "404"),
    ] {
        assert_eq!(statuses(&server.say_all(format!("{head}\r\n{rest}"))), [wanted], "{head}");
    }
    let old = format!("POST /v1/events/a HTTP/1.0\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    assert!(server.say(old).starts_with("HTTP/1.0 200"), "an old client is answered and let go");
    let chunked = "POST /v1/events/a HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = format!("{chunked}6;x=y\r\nevent=\r\n3\r\nABC\r\n0\r\ntrailer: x\r\n\r\n");
    let answer = server.say(chunked);
    assert!(["200", "400"].contains(&statuses(&answer)[0]), "{answer}");
}

#[test]
fn a_body_that_is_too_long_is_refused_announced_or_not() {
    let server = Running::start(&["--body-limit", "1KiB"]);
    let long = "x".repeat(5_000);
    assert_eq!(statuses(&server.say(post(&long))), ["413"]);
    let head = "POST /v1/events/a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(statuses(&server.say(format!("{head}1388\r\n{long}\r\n0\r\n\r\n"))), ["413"]);
    assert_eq!(statuses(&server.say(format!("{head}{}", "5\r\nevent\r\n".repeat(2_000)))), ["413"]);
}

#[test]
fn who_asks_before_sending_a_body_is_told_to_go_on() {
    let server = Running::start(&[]);
    let mut socket = server.connect();
    let head = format!(
        "POST /v1/events/a HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    socket.write_all(head.as_bytes()).expect("a head");
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(BODY.as_bytes()).expect("a body");
    assert_eq!(statuses(&until_closed(&mut socket)), ["200"]);
}

#[test]
fn a_compressed_body_is_refused_with_what_to_do() {
    let server = Running::start(&[]);
    let compressions = ["gzip", "deflate", "br", "zstd", "compress", "identity, gzip", "X-GZIP"];
    for encoding in compressions {
        let answer = server.say(post_with(&format!("connection: close\r\ncontent-encoding: {encoding}\r\n"), BODY));
        assert_eq!(statuses(&answer), ["415"], "{encoding}");
        assert!(answer.contains("accept-encoding: identity"), "{answer}");
        let kept = server.events().pop().expect("it is kept aside");
        assert!(answer.contains(&kept.id.to_string()) && kept.compression.is_some(), "{answer}");
        assert_eq!((kept.member_id, kept.kind), (None, None), "it was not read");
    }
    let others = ["identity", "utf-8", "", "identity, identity", "none", "UTF-8, 8bit"];
    for encoding in others {
        let answer = server.say(post_with(&format!("connection: close\r\ncontent-encoding: {encoding}\r\n"), BODY));
        assert_eq!(statuses(&answer), ["200"], "{encoding}");
        assert_eq!(server.events().pop().and_then(|event| event.compression), None);
    }
    assert_eq!(server.events().len(), compressions.len() + others.len());
}

#[test]
fn a_trusted_proxy_says_whom_it_speaks_for() {
    let server = Running::start(&["--trusted-proxies", "127.0.0.0/8", "--proxy-protocol", "v2"]);
    let header = |address: [u8; 4]| {
        let addresses = [&address[..], &[10, 0, 0, 1, 0x30, 0x39, 0, 80]].concat();
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &addresses].concat()
    };
    let answer = server.say([header([203, 0, 113, 7]), last_post(BODY).into_bytes()].concat());
    assert_eq!(statuses(&answer), ["200"]);
    let local = [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], last_post(BODY).as_bytes()].concat();
    assert_eq!(statuses(&server.say(local)), ["200"]);
    let sources: Vec<_> = server.events().iter().map(|event| event.source).collect();
    assert_eq!(sources, [Some([203, 0, 113, 7].into()), Some([127, 0, 0, 1].into())]);

    for wrong in [last_post(BODY), format!("PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\r\n{}", last_post(BODY))] {
        assert_eq!(server.say(wrong), "", "a connection without the header is refused");
    }
    server.comes_to("no_proxy", 2);
    assert_eq!(server.events().len(), 2);
}

#[test]
fn a_proxy_that_speaks_for_itself_is_not_trusted_about_others() {
    let server = Running::start(&["--trusted-proxies", "127.0.0.0/8", "--proxy-protocol", "v2"]);
    let forwarded = post_with("connection: close\r\nx-forwarded-for: 203.0.113.9\r\n", BODY);
    let addresses = [203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];
    let header = |command: u8, family: u8, rest: &[u8]| {
        let length = u8::try_from(rest.len()).expect("short");
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family, 0, length], rest].concat()
    };
    let own = [header(0x20, 0, &[]), header(0x20, 0x11, &addresses), header(0x21, 0, &[])];
    for header in &own {
        let answer = server.say([header, forwarded.as_bytes()].concat());
        assert_eq!(statuses(&answer), ["200"], "{header:?}");
        let check = [header, &b"GET /v1/events/a HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"[..]].concat();
        assert_eq!(statuses(&server.say(check)), ["200"], "a health check of its own is answered");
    }
    let sources: Vec<_> = server.events().iter().map(|event| event.source).collect();
    assert_eq!(sources, [Some([127, 0, 0, 1].into()); 3]);

    // For a client that is a proxy too, it is trusted as before.
    let spoofed = header(0x21, 0x11, &[&[127, 0, 0, 9], &addresses[4..]].concat());
    assert_eq!(statuses(&server.say([spoofed, forwarded.into_bytes()].concat())), ["200"]);
    assert_eq!(server.events()[3].source, Some([203, 0, 113, 9].into()));
}

#[test]
fn a_page_of_another_site_sends_no_webhooks_to_a_machine_that_has_no_proxy() {
    let cross = |fields: &str| post_with(&format!("connection: close\r\n{fields}"), BODY);
    let foreign = [
        "sec-fetch-site: cross-site\r\norigin: https://evil.example\r\n",
        "sec-fetch-site: same-origin\r\norigin: http://rebound.example:8080\r\n",
        "origin: null\r\n",
    ];
    let server = Running::start(&[]);
    for fields in foreign {
        let answer = server.say(cross(fields));
        assert!(answer.contains("/docs/problems#cross-site"), "{answer}");
        assert_eq!(statuses(&answer), ["403"], "{fields}");
    }
    assert!(server.events().is_empty());
    assert_eq!(statuses(&server.say(cross("origin: http://localhost:3000\r\nsec-fetch-site: same-site\r\n"))), ["200"]);
    assert_eq!(statuses(&server.say(last_post(BODY))), ["200"], "Bitrix24 sends neither");

    let proxied = Running::start(&["--trusted-proxies", "127.0.0.1"]);
    assert_eq!(statuses(&proxied.say(cross(foreign[0]))), ["200"], "that is the proxy's to say");
}

/// A certificate for `localhost` and its key, in two files.
fn certificate(dir: &Path) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    fs::write(dir.join("cert.pem"), made.cert.pem()).expect("a file");
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    made.cert.der().clone()
}

/// Sends a request over TLS and trusts this certificate only.
fn say_over_tls(server: &Running, trusted: &rustls::pki_types::CertificateDer<'static>) -> io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut stream = rustls::StreamOwned::new(session, server.connect());
    stream.write_all(last_post(BODY).as_bytes())?;
    Ok(one_answer(&mut stream))
}

#[test]
fn a_certificate_that_changes_is_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let first = certificate(dir.path());
    let server = Running::start(&["--tls-cert-file", &file("cert.pem"), "--tls-key-file", &file("key.pem")]);
    assert_eq!(statuses(&say_over_tls(&server, &first).expect("a handshake")), ["200"]);
    assert_eq!(server.say(last_post(BODY)).len(), 7, "an alert of TLS, no word of HTTP");
    server.comes_to("no_tls", 1);

    let second = certificate(dir.path());
    while say_over_tls(&server, &second).is_err() {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(say_over_tls(&server, &first).is_err(), "the old one is not shown any more");
}

#[test]
fn a_handshake_that_does_not_come_to_its_end_has_no_more_time_than_a_head() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name).display().to_string();
    certificate(dir.path());
    let args = ["--tls-cert-file", &file("cert.pem"), "--tls-key-file", &file("key.pem"), "--head-timeout", "200ms"];
    let server = Running::start(&args);
    assert_eq!(server.say("\u{16}\u{3}\u{1}"), "");
    server.comes_to("slow_head", 1);
}

#[test]
fn nobody_else_may_speak_for_others() {
    let server = Running::start(&["--trusted-proxies", "10.0.0.0/8", "--proxy-protocol", "v2"]);
    assert_eq!(server.say(last_post(BODY)), "");
    server.comes_to("no_proxy", 1);
}
