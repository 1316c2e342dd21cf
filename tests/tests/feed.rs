//! The feed: each verified event at least once and in its portal's order, for readers that come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use portal_sim::player::{Player, Step};
use serde_json::{Value, json};
use tests::cluster::{Cluster, PARTITIONS, Standalone};
use tests::http::Client;
use tests::kafka;
use tests::load::send;
use tests::process::{Job, Process, Program};
use tests::stream::Stream;
use tests::topics;
use tests::wait::{eventually, in_pairs};

const WITHIN: Duration = Duration::from_secs(90);
/// Enough that each partition has some.
const PORTALS: usize = 12;
const ROUNDS: usize = 4;
const EACH_ROUND: usize = 6;
const READERS: u32 = 200;

/// The ids of events that were answered 200, by portal and in order.
#[derive(Default)]
struct Sent {
    portals: Vec<Player>,
    ids: BTreeMap<String, Vec<String>>,
}

impl Sent {
    fn of(apps: &[&str]) -> Self {
        let portals = (0..).zip(apps.iter().cycle()).take(PORTALS);
        let portals = portals.map(|(number, app)| Player::new(app, number)).collect();
        Self { portals, ids: BTreeMap::new() }
    }

    /// Each portal is installed first; all of its events are verified.
    fn send(&mut self, ingress: &Process, each: usize) {
        let mut webhooks = ingress.webhooks();
        for _ in 0..each {
            for portal in &mut self.portals {
                let ids = self.ids.entry(portal.key()).or_default();
                let step = if ids.is_empty() { Step::Install } else { Step::PassedOn };
                ids.push(send(&mut webhooks, portal.webhook(step)).id);
            }
        }
    }

    fn all(&self) -> BTreeSet<&String> {
        self.ids.values().flatten().collect()
    }

    fn has_no_secret_in(&self, text: &str) {
        for secret in self.portals.iter().flat_map(Player::secrets) {
            assert!(!text.contains(&secret[..16]), "a secret is in {text}");
        }
    }
}

/// What a reader got, in order.
#[derive(Default)]
struct Seen(Vec<Value>);

impl Seen {
    fn ids(&self) -> BTreeSet<&str> {
        self.0.iter().map(|event| event["id"].as_str().expect("an id")).collect()
    }

    fn has_all(&self, sent: &Sent) -> bool {
        let ids = self.ids();
        sent.all().iter().all(|id| ids.contains(id.as_str()))
    }

    /// Every event, and those of a portal first in their order, though some may come again.
    fn is_whole(&self, sent: &Sent) {
        let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in &self.0 {
            let text = |name: &str| event[name].as_str().expect("a text").to_owned();
            let ids = first.entry(format!("{}/{}", text("app"), text("member_id"))).or_default();
            if !ids.contains(&text("id")) {
                ids.push(text("id"));
            }
        }
        assert_eq!(first, sent.ids);
    }
}

/// Reads with `GET /v1/feed`, each time from another process, and is killed again and again before it has noted how far
/// it came.
fn poll(addresses: &[SocketAddr], is_enough: impl Fn(&Seen) -> bool) -> Seen {
    let (mut seen, mut cursor, mut round) = (Seen::default(), String::new(), 0);
    eventually(WITHIN, "a reader that polls has every event", || {
        round += 1;
        let mut client = Client::new(addresses[round % addresses.len()]);
        let after = if cursor.is_empty() { "since=2h".to_owned() } else { format!("after={cursor}") };
        // A process that was killed answers nothing.
        let answer = client.get(&format!("/v1/feed?limit=20&wait=1s&{after}")).ok()?;
        if answer.status == 503 {
            return None;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        seen.0.extend(answer.json()["events"].as_array().expect("a list").iter().cloned());
        if round % 3 != 0 {
            answer.json()["next"].as_str().expect("a cursor").clone_into(&mut cursor);
        }
        is_enough(&seen).then_some(())
    });
    seen
}

/// Reads with `GET /v1/stream`, and leaves after some events each time.
fn follow(addresses: &[SocketAddr], is_enough: impl Fn(&Seen) -> bool) -> Seen {
    let (mut seen, mut last_id, mut round) = (Seen::default(), None, 0);
    eventually(WITHIN, "a reader of streams has every event", || {
        round += 1;
        let mut stream = Stream::open(addresses[round % addresses.len()], "since=2h", last_id.as_deref(), None).ok()?;
        for _ in 0..7 {
            let Ok((id, event)) = stream.receive() else { break };
            last_id = Some(id);
            seen.0.extend(event);
            if is_enough(&seen) {
                return Some(());
            }
        }
        None
    });
    seen
}

#[test]
fn readers_that_are_killed_miss_nothing_without_a_broker() {
    let _pair = in_pairs();
    let mut standalone = Standalone::start();
    let mut sent = Sent::of(&["crm-sync"]);
    let address = [standalone.process.address("queries")];
    let (polling, following) = read_until_told(&address);
    for round in 0..ROUNDS {
        sent.send(&standalone.process, EACH_ROUND);
        if round + 1 < ROUNDS {
            standalone.process.kill9();
            standalone.process.restart();
            standalone.process.ready();
        }
    }
    let after = standalone.process.address("queries");
    assert_eq!([after], address, "the readers know it");
    for seen in [polling.finish(&sent), following.finish(&sent)] {
        seen.is_whole(&sent);
        seen.0.iter().for_each(|event| sent.has_no_secret_in(&event.to_string()));
    }
    sent.has_no_secret_in(&standalone.process.logs());
}

#[test]
fn readers_miss_nothing_while_processors_take_partitions_over_from_each_other() {
    let test = "readers_miss_nothing_while_processors_take_partitions_over_from_each_other";
    let Some(servers) = kafka::shared(test) else { return };
    let mut cluster = Cluster::start(servers, 2);
    let mut sent = Sent::of(&["crm-sync"]);
    let addresses = [cluster.processors[0].address("queries"), cluster.processors[1].address("queries")];
    let (polling, following) = read_until_told(&addresses);
    for round in 0..ROUNDS {
        sent.send(&cluster.ingress, EACH_ROUND);
        let processor = &mut cluster.processors[round % 2];
        processor.kill9();
        processor.restart();
        processor.ready();
    }
    for seen in [polling.finish(&sent), following.finish(&sent)] {
        seen.is_whole(&sent);
    }
    // The values are those of the topic, whichever processor is asked.
    let topic = cluster.names().read("events", topics::Isolation::Committed);
    let values: BTreeMap<String, Value> =
        topic.iter().map(|event| (event.header("ce_id").expect("an id").to_owned(), event.json())).collect();
    for address in addresses {
        let answer = Client::new(address).get("/v1/feed?limit=1000").expect("an answer").json();
        let events = answer["events"].as_array().expect("a list").clone();
        let shown: BTreeMap<String, Value> =
            events.into_iter().map(|event| (event["id"].as_str().expect("an id").to_owned(), event)).collect();
        assert_eq!(shown, values);
    }
}

/// A reader on a thread of its own.
struct Reading {
    is_over: mpsc::Sender<BTreeSet<String>>,
    thread: thread::JoinHandle<Seen>,
}

impl Reading {
    fn start(read: impl FnOnce(&dyn Fn(&Seen) -> bool) -> Seen + Send + 'static) -> Self {
        let (is_over, told) = mpsc::channel::<BTreeSet<String>>();
        let thread = thread::spawn(move || {
            let wanted = std::cell::OnceCell::new();
            let is_enough = |seen: &Seen| {
                if let Ok(ids) = told.try_recv() {
                    wanted.set(ids).expect("told once");
                }
                wanted.get().is_some_and(|ids| {
                    let seen = seen.ids();
                    ids.iter().all(|id| seen.contains(id.as_str()))
                })
            };
            read(&is_enough)
        });
        Self { is_over, thread }
    }

    fn finish(self, sent: &Sent) -> Seen {
        self.is_over.send(sent.all().into_iter().cloned().collect()).expect("it reads");
        self.thread.join().expect("a reader does not panic")
    }
}

fn read_until_told(addresses: &[SocketAddr]) -> (Reading, Reading) {
    let (first, second) = (addresses.to_vec(), addresses.to_vec());
    let polling = Reading::start(move |is_enough| poll(&first, is_enough));
    (polling, Reading::start(move |is_enough| follow(&second, is_enough)))
}

#[test]
fn two_hundred_readers_share_one_consumer() {
    let Some(servers) = kafka::shared("two_hundred_readers_share_one_consumer") else { return };
    let cluster = Cluster::start(servers, 1);
    let processor = &cluster.processors[0];
    let mut sent = Sent::of(&["crm-sync"]);
    sent.send(&cluster.ingress, 1);
    let address = processor.address("queries");
    poll(&[address], |seen| seen.has_all(&sent));
    let threads = || fs::read_dir(format!("/proc/{}/task", processor.pid())).expect("its threads").count();
    let before = threads();

    let mut streams: Vec<Stream> =
        (0..READERS).map(|_| Stream::open(address, "", None, None).expect("a stream")).collect();
    assert_eq!(processor.metric("hookledger_feed_readers", ""), Some(f64::from(READERS)));
    let refused = Client::new(address).get("/v1/feed?wait=1s").expect("an answer");
    assert_eq!((refused.status, &refused.json()["title"]), (503, &json!("too many readers")));
    let others = Client::new(address).get("/v1/installations").expect("an answer");
    assert_eq!(others.status, 200, "other queries have room");

    sent.send(&cluster.ingress, 2);
    for stream in &mut streams {
        let mut seen = Seen::default();
        while !seen.has_all(&sent) {
            seen.0.push(stream.next_event());
        }
        seen.is_whole(&sent);
    }
    // A consumer has a thread for itself, and one for each broker.
    assert!(threads() < before + 40, "{before} threads became {}", threads());
    eventually(WITHIN, "no reader is behind", || {
        (processor.metric("hookledger_feed_lag_events", "") == Some(0.0)).then_some(())
    });
    drop(streams);
    eventually(WITHIN, "there is no reader", || {
        (processor.metric("hookledger_feed_readers", "") == Some(0.0)).then_some(())
    });
}

#[test]
fn readers_that_go_leave_their_places_at_once() {
    let standalone = Standalone::start();
    let address = standalone.process.address("queries");
    let readers = || standalone.process.metric("hookledger_feed_readers", "").expect("a metric");
    let began = Instant::now();
    let ask = |_| {
        let mut connection = TcpStream::connect(address).expect("a connection");
        write!(connection, "GET /v1/feed?since=0s&wait=30s HTTP/1.1\r\nhost: {address}\r\n\r\n").expect("sent");
        connection
    };
    let connections: Vec<TcpStream> = (0..READERS).map(ask).collect();
    eventually(WITHIN, "all wait", || (readers() > 0.0).then_some(()));
    drop(connections);
    eventually(WITHIN, "no place is taken", || (readers() == 0.0).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(30), "they waited to the end");
    // One that sends nothing more, but reads, is answered.
    let half = ask(0);
    half.shutdown(Shutdown::Write).expect("closed");
    let mut answer = String::new();
    BufReader::new(half).read_line(&mut answer).expect("an answer");
    assert_eq!(answer, "HTTP/1.1 200 OK\r\n");
}

#[test]
fn a_stream_before_http_1_1_has_no_chunks() {
    let standalone = Standalone::start();
    let mut connection = TcpStream::connect(standalone.process.address("queries")).expect("a connection");
    write!(connection, "GET /v1/stream HTTP/1.0\r\nhost: localhost\r\n\r\n").expect("sent");
    let lines = BufReader::new(connection).lines().map(|line| line.expect("a line"));
    let lines: Vec<String> = lines.take_while(|line| !line.starts_with("id: ")).collect();
    assert!(!lines.iter().any(|line| line.to_ascii_lowercase().starts_with("transfer-encoding")), "{lines:?}");
    assert_eq!(lines[lines.len() - 2..], ["", "retry: 1000"], "{lines:?}");
}

#[test]
fn filters_tokens_and_times_say_what_a_reader_gets() {
    let tokens = "0123456789abcdef read, fedcba9876543210 read app=telephony";
    let standalone =
        Standalone::start_with(&[("HOOKLEDGER_QUERY_TOKENS", tokens), ("HOOKLEDGER_QUERY_IDLE_TIMEOUT", "1s")]);
    let with = |token: &str| standalone.process.queries().with("authorization", &format!("Bearer {token}"));
    let (mut all, mut one) = (with("0123456789abcdef"), with("fedcba9876543210"));
    let asks = |client: &mut Client, query: &str| -> Vec<Value> {
        let answer = client.get(&format!("/v1/feed?{query}")).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["events"].as_array().expect("a list").clone()
    };
    let mut sent = Sent::of(&["crm-sync", "telephony"]);
    sent.send(&standalone.process, 2);
    let events = eventually(WITHIN, "all are published", || {
        Some(asks(&mut all, "")).filter(|events| events.len() == 2 * PORTALS)
    });
    let half = PORTALS;
    assert_eq!(asks(&mut all, "app=telephony").len(), half);
    let installs = asks(&mut all, "type=onappinstall");
    assert!(installs.len() == half && installs.iter().all(|event| event["event"] == "ONAPPINSTALL"));
    assert_eq!(asks(&mut all, &format!("member_id={}", sent.portals[0].member_id)).len(), 2);
    let limited = asks(&mut one, "");
    assert!(limited.len() == half && limited.iter().all(|event| event["app"] == "telephony"));
    assert_eq!(one.get("/v1/feed?app=crm-sync").expect("an answer").status, 403);
    assert_eq!(standalone.process.queries().get("/v1/feed").expect("an answer").status, 401);
    let from = events[half]["received_at"].as_str().expect("a time");
    let later: Vec<Value> =
        events.iter().filter(|event| event["received_at"].as_str() >= Some(from)).cloned().collect();
    assert_eq!(asks(&mut all, &format!("since={from}")), later, "none is older, also within the same millisecond");
    assert_eq!(asks(&mut all, "since=0s"), Vec::<Value>::new());
    assert_eq!(all.get("/v1/feed?since=2999-01-01T00:00:00Z").expect("an answer").status, 400, "it may yet come");

    // Nothing is said for longer than a connection may be idle.
    let mut stream = Stream::open(standalone.process.address("queries"), "since=0s", None, Some("fedcba9876543210"))
        .expect("a stream");
    stream.receive().expect("a cursor");
    let silence = stream.receive().expect_err("nothing came").kind();
    assert!(matches!(silence, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{silence:?}");
    sent.send(&standalone.process, 1);
    for _ in 0..half / 2 {
        assert_eq!(stream.next_event()["app"], "telephony");
    }
}

#[test]
fn a_cursor_that_cannot_be_gone_on_with_is_refused_with_the_reason() {
    let Some(servers) = kafka::shared("a_cursor_that_cannot_be_gone_on_with_is_refused_with_the_reason") else {
        return;
    };
    let (mut cluster, standalone) = (Cluster::start(servers, 1), Standalone::start());
    let mut queries = cluster.processors[0].queries();
    let mut sent = Sent::of(&["crm-sync"]);
    sent.send(&cluster.ingress, 2);
    poll(&[cluster.processors[0].address("queries")], |seen| seen.has_all(&sent));
    let first =
        queries.get("/v1/feed?limit=1").expect("an answer").json()["next"].as_str().expect("a cursor").to_owned();
    let all = queries.get("/v1/feed").expect("an answer").json()["next"].as_str().expect("a cursor").to_owned();
    let topic = cluster.names().topic("events");
    for partition in 0..i32::try_from(PARTITIONS).expect("few") {
        let (_, end) = topics::ends(servers, &topic)[&partition];
        topics::trim(servers, &topic, partition, end);
    }
    // Until then it has them in memory.
    cluster.processors[0].kill9();
    cluster.processors[0].restart();
    cluster.processors[0].ready();
    let refuses = |client: &mut Client, cursor: &str, status: u16, name: &str| {
        for path in ["feed", "stream"] {
            let answer = client.get(&format!("/v1/{path}?after={cursor}")).expect("an answer");
            let problem = answer.json();
            assert_eq!(
                (answer.status, &problem["type"]),
                (status, &json!(format!("/docs/problems#{name}"))),
                "{problem}"
            );
        }
    };
    refuses(&mut queries, &first, 410, "cursor-too-old");
    refuses(&mut queries, "nonsense", 400, "malformed-question");
    refuses(&mut standalone.process.queries(), &first, 410, "cursor-of-another-log");
    let rest = queries.get(&format!("/v1/feed?after={all}")).expect("an answer");
    assert_eq!((rest.status, &rest.json()["events"]), (200, &json!([])), "who had seen all goes on: {}", rest.text());
    let next: Value = queries.get("/v1/feed").expect("an answer").json();
    assert_eq!((&next["events"], &next["reaches_back_to"]), (&json!([]), &Value::Null), "as far back as it reaches");
}

#[test]
fn listen_shows_events_posts_them_and_survives_a_restart_of_the_server() {
    let mut standalone = Standalone::start();
    let (handler, posted) = handler();
    let mut sent = Sent::of(&["crm-sync"]);
    sent.send(&standalone.process, 1);
    let query = format!("http://{}", standalone.process.address("queries"));
    let forward = format!("http://{handler}/hooks?from=listen");
    let arguments = ["listen", "--query", &query, "--since", "2h", "--json", "--forward", &forward];
    let listening = Job::start(Program::Hookledger, &arguments);
    let printed = |count: usize| {
        eventually(WITHIN, "events are printed", || {
            let lines: Vec<String> = listening.stdout().lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    };
    printed(PORTALS);
    standalone.process.kill9();
    standalone.process.restart();
    standalone.process.ready();
    sent.send(&standalone.process, 1);
    let lines = printed(2 * PORTALS);
    listening.signal("TERM");
    let ended = listening.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("handler: 204 in ") && ended.stderr.contains("--after "), "{}", ended.stderr);
    let events = |lines: &[String]| Seen(lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect());
    events(&lines).is_whole(&sent);
    let requests: Vec<(String, String)> = posted.try_iter().collect();
    assert!(requests.iter().all(|(line, _)| line == "POST /hooks?from=listen HTTP/1.1"), "{requests:?}");
    let bodies: Vec<String> = requests.into_iter().map(|(_, body)| body).collect();
    events(&bodies).is_whole(&sent);

    let elsewhere =
        tests::process::run(Program::Hookledger, &["listen", "--query", &query, "--forward", "http://192.0.2.1/"]);
    assert_eq!(elsewhere.code, Some(2), "{}", elsewhere.stderr);
}

/// A handler that takes everything, and tells what came.
fn handler() -> (SocketAddr, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (posted, told) = mpsc::channel();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = BufReader::new(connection.expect("a connection"));
            while let Ok(request) = receive(&mut connection) {
                // The test may be over.
                let _ = posted.send(request);
            }
        }
    });
    (address, told)
}

fn receive(connection: &mut BufReader<TcpStream>) -> io::Result<(String, String)> {
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.parse().expect("a length");
        }
        head.push(line);
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    connection.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    Ok((head.remove(0), String::from_utf8(body).expect("UTF-8")))
}
