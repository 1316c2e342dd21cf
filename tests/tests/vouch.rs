//! Bitrix24's authorisation server vouches for principals: a stand-in answers as the real one does on good and bad days.
//!
//! `HOOKLEDGER_TEST_FLEET` says how many portals there are, `HOOKLEDGER_TEST_VOUCHED` for how many of them the test waits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::cluster::{Names, Standalone};
use tests::http::Client;
use tests::kafka;
use tests::process::{Process, Program};
use tests::random::number;
use tests::topics::Isolation;
use tests::wait::{eventually, report};

const CLIENT_ID: &str = "app.5f2e8a";
const FORM: &str = "application/x-www-form-urlencoded";
const WITHIN: Duration = Duration::from_secs(1_800);
const VOUCHED_WITHIN: Duration = Duration::from_secs(90);
/// In CI.
const PORTALS: u64 = 50;
const CONNECTIONS: usize = 16;
/// Calls a second.
const BUDGET: u32 = 5;
/// The workers of both processors: a call of each may be on its way while others are counted.
const WORKERS: u32 = 8;

#[test]
fn a_principal_is_trusted_once_the_server_names_our_app_and_its_portal() {
    let server = Server::start();
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("hookledger.toml");
    fs::write(&config, format!("[apps.crm-sync]\nclient-id = '{CLIENT_ID}'\n[apps.other]\n")).expect("written");
    let (config, servers) = (config.display().to_string(), server.url());
    let settings = [
        ("HOOKLEDGER_CONFIG", config.as_str()),
        ("HOOKLEDGER_VOUCH_SERVERS", &servers),
        ("HOOKLEDGER_VOUCH_BUDGET", "50/s"),
    ];
    let standalone = Standalone::start_with(&settings);
    let (mut webhooks, mut queries) = (standalone.process.webhooks(), standalone.process.queries());

    let good = ["good", "slow", "busy", "broken"];
    let bad = ["otherapp", "otherportal", "expired", "junk", "redirect"];
    for kind in good.iter().chain(&bad) {
        say(&mut webhooks, "crm-sync", kind, &format!("{kind}-token"));
    }
    say(&mut webhooks, "other", "good", "good-unasked");
    // Without an access token there is nothing to ask.
    say(&mut webhooks, "crm-sync", "tokenless", "");
    for kind in good {
        eventually(VOUCHED_WITHIN, kind, || {
            let record = record(&mut queries, "crm-sync", kind)?;
            (record["trusted"][0]["basis"] == "vouched").then_some(())
        });
    }
    eventually(VOUCHED_WITHIN, "all bad tokens were shown", || {
        bad.iter().all(|kind| server.was_asked(&format!("{kind}-token"))).then_some(())
    });
    for kind in bad.iter().chain(&["tokenless"]) {
        let record = record(&mut queries, "crm-sync", kind).expect("known");
        assert_eq!((&record["status"], &record["trusted"]), (&json!("untrusted"), &json!([])), "{kind}");
    }
    assert!(!server.was_asked("good-unasked"), "an app without a client id");
    assert!(!server.calls().iter().any(|call| call.path.contains("token")), "tokens are in no URL");
    assert!(server.calls().iter().all(|call| call.path == "/rest/app.info"), "no redirect is followed");
    let (logs, metrics) =
        (standalone.process.logs(), standalone.process.admin().get("/metrics").expect("an answer").text());
    assert!(!logs.contains("-token") && !metrics.contains("-token"), "tokens are in no log and no metric");
    let vouched = standalone.process.metric("hookledger_vouch_total", "outcome=\"vouched\"");
    assert_eq!(vouched, Some(4.0), "{metrics}");
}

#[test]
fn a_group_asks_no_more_than_its_budget_and_what_was_held_flows() {
    let Some(servers) = kafka::shared("a_group_asks_no_more_than_its_budget_and_what_was_held_flows") else { return };
    let (server, names) = (Server::start(), Names::new(servers));
    let config = names.directory.path().join("hookledger.toml");
    fs::write(&config, format!("[apps.crm-sync]\nclient-id = '{CLIENT_ID}'\n")).expect("written");
    let (config, authority, budget) = (config.display().to_string(), server.url(), format!("{BUDGET}/s"));
    let ingress = names.start(Program::Ingress, "ingress", &["--config", &config]);
    ingress.ready();
    let fleet = number("HOOKLEDGER_TEST_FLEET").unwrap_or(PORTALS);
    let vouched = usize::try_from(number("HOOKLEDGER_TEST_VOUCHED").unwrap_or(fleet).min(fleet)).expect("small");
    let portals: Vec<String> = (0..fleet).map(|number| format!("good{number}")).collect();
    thread::scope(|scope| {
        for portals in portals.chunks(portals.len().div_ceil(CONNECTIONS)) {
            let mut webhooks = ingress.webhooks();
            scope.spawn(move || {
                for portal in portals {
                    say(&mut webhooks, "crm-sync", portal, &format!("good-{portal}"));
                }
            });
        }
    });
    let limit = (2 * fleet).to_string();
    let settings = ["--config", &config, "--vouch-servers", &authority, "--vouch-budget", &budget];
    let settings = [&settings[..], &["--untrusted-installations-limit", &limit]].concat();
    let processors: Vec<Process> =
        ["processor-1", "processor-2"].map(|home| names.start(Program::Processor, home, &settings)).into();
    processors.iter().for_each(Process::ready);
    let began = Instant::now();
    eventually(WITHIN, "all events are held", || {
        let all = processors
            .iter()
            .filter_map(|processor| processor.metric("hookledger_processor_events_total", "outcome=\"unverified\""));
        (all.sum::<f64>() >= f64::from(u32::try_from(fleet).expect("small"))).then_some(())
    });
    report(&format!("vouch: {fleet} events of unknown principals are held after {:?}", began.elapsed()));
    // Each answer is a command in `raw`, and then what was held is passed on.
    let passed_on = eventually(WITHIN, "principals are vouched for", || {
        let found = names.read("events", Isolation::Committed);
        (found.len() >= vouched).then_some(found)
    });
    let calls = server.calls();
    let busiest = keeps_the_budget(&calls);
    report(&format!(
        "vouch: {} calls in {:?}, at most {busiest} within a second of a budget of {BUDGET}",
        calls.len(),
        calls.last().expect("calls").at.duration_since(calls[0].at)
    ));
    let asked: BTreeMap<&str, usize> = calls.iter().fold(BTreeMap::new(), |mut asked, call| {
        *asked.entry(call.token.as_str()).or_default() += 1;
        asked
    });
    assert!(asked.values().all(|number| *number == 1), "once each: {asked:?}");
    let keys: BTreeSet<&str> = passed_on.iter().filter_map(|found| found.key.as_deref()).collect();
    assert_eq!(keys.len(), passed_on.len(), "one event of each portal");
    let (_, member_id) = keys.first().expect("some").split_once('/').expect("a key");
    eventually(VOUCHED_WITHIN, member_id, || {
        let record = record(&mut processors[0].queries(), "crm-sync", member_id)?;
        (record["trusted"][0]["basis"] == "vouched").then_some(())
    });
}

/// Between any two calls lies the time that the budget asks for. Returns the most calls within a second.
fn keeps_the_budget(calls: &[Call]) -> usize {
    let mut busiest = 0;
    for (first, call) in calls.iter().enumerate() {
        let within = calls[first..].iter().take_while(|later| later.at - call.at < Duration::from_secs(1)).count();
        busiest = busiest.max(within);
        let (most, all) = (BUDGET + WORKERS, calls.len() - first);
        assert!(within <= usize::try_from(most).expect("small"), "{within} calls within a second");
        let elapsed = calls.last().expect("calls").at.duration_since(call.at).as_secs_f64();
        let most = elapsed * f64::from(BUDGET) + f64::from(WORKERS) + 1.0;
        assert!(f64::from(u32::try_from(all).expect("small")) <= most, "{all} calls in {elapsed} s");
    }
    busiest
}

fn record(queries: &mut Client, app: &str, member_id: &str) -> Option<Value> {
    let answer = queries.get(&format!("/v1/installations/{app}/{member_id}")).ok()?;
    (answer.status == 200).then(|| answer.json())
}

/// An event of a portal that installed the app long ago.
fn say(webhooks: &mut Client, app: &str, member_id: &str, access_token: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let token = format!("&auth[access_token]={access_token}&auth[expires_in]=3600");
    let token = if access_token.is_empty() { "" } else { &token };
    let body = format!(
        "event=ONCRMDEALADD&data[FIELDS][ID]=7&ts={now}&auth[member_id]={member_id}&auth[domain]={member_id}.bitrix24.ru\
         &auth[server_endpoint]=https://evil.example.org/rest/&auth[application_token]=application-of-{member_id}{token}"
    );
    let answer = webhooks.post(&format!("/v1/events/{app}"), FORM, body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[derive(Clone, Debug)]
struct Call {
    at: Instant,
    path: String,
    token: String,
}

/// The stand-in: the token says how it answers, and for which portal.
struct Server {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&calls);
        // Ends with the process: it only waits for connections.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let calls = Arc::clone(&shared);
                thread::spawn(move || answer(stream, &calls));
            }
        });
        Self { address, calls }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no panic").clone()
    }

    fn was_asked(&self, token: &str) -> bool {
        self.calls().iter().any(|call| call.token == token)
    }
}

fn answer(mut stream: TcpStream, calls: &Mutex<Vec<Call>>) {
    let at = Instant::now();
    let mut reader = BufReader::new(stream.try_clone().expect("a second hand"));
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).expect("a request line");
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    for header in reader.by_ref().lines().map_while(Result::ok).take_while(|header| !header.is_empty()) {
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let body = String::from_utf8(body).expect("a form");
    let token = body.strip_prefix("auth=").unwrap_or_default().to_owned();
    let before = {
        let mut calls = calls.lock().expect("no panic");
        let before = calls.iter().filter(|call| call.token == token).count();
        calls.push(Call { at, path, token: token.clone() });
        before
    };
    let kind = token.split('-').next().unwrap_or_default();
    let member_id = token.strip_prefix("good-").filter(|rest| rest.starts_with("good")).unwrap_or(kind);
    let info = |client: &str, member: &str| {
        let install = json!({ "installed": true, "member_id": member, "domain": "x.bitrix24.ru" });
        ("200 OK", json!({ "result": { "client_id": client, "scope": "crm", "install": install } }).to_string())
    };
    let (status, body) = match (kind, before) {
        ("otherapp", _) => info("app.other", kind),
        ("otherportal", _) => info(CLIENT_ID, "somebody-else"),
        ("expired", _) => ("401 Unauthorized", json!({ "error": "expired_token" }).to_string()),
        ("junk", _) => ("200 OK", "<html>".to_owned()),
        ("redirect", _) => ("302 Found\r\nlocation: /elsewhere", String::new()),
        ("busy", 0) => ("429 Too Many Requests", String::new()),
        ("broken", 0) => ("500 Internal Server Error", "oops".to_owned()),
        ("slow", _) => {
            thread::sleep(Duration::from_secs(2));
            info(CLIENT_ID, kind)
        }
        _ => info(CLIENT_ID, member_id),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    // The client may have given up.
    let _ = stream.write_all(answer.as_bytes());
}
