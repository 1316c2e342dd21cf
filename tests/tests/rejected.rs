//! What was set aside is visible and comes back: webhooks that were refused by mistake are listed, shown, and redriven.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use portal_sim::player::{Player, Step};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::cluster::{Cluster, Standalone};
use tests::http::Client;
use tests::kafka;
use tests::load::send;
use tests::process::{Ended, Process, Program, run};
use tests::topics::Isolation;
use tests::wait::eventually;

const TOKEN: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0f";
const WITHIN: Duration = Duration::from_secs(60);
/// Enough that each partition has some.
const PORTALS: u64 = 12;
const STEPS: [Step; 2] = [Step::Install, Step::PassedOn];
const EVENTS: usize = 24;

#[test]
fn refused_webhooks_are_seen_and_redriven_without_a_broker() {
    let refusing = Refusing::new();
    let standalone = refusing.with(Standalone::start_with);
    let process = &standalone.process;
    refusing.webhooks_come_back(process, &[process]);
}

#[test]
fn refused_webhooks_are_seen_and_redriven_through_kafka() {
    let Some(servers) = kafka::shared("refused_webhooks_are_seen_and_redriven_through_kafka") else { return };
    let refusing = Refusing::new();
    let cluster = refusing.with(|environment| Cluster::start_with(servers, 2, environment));
    let processors: Vec<&Process> = cluster.processors.iter().collect();
    let redriven = refusing.webhooks_come_back(&cluster.ingress, &processors);

    let events = cluster.names().read("events", Isolation::Committed);
    let shown: BTreeMap<_, _> =
        events.iter().map(|event| (event.header("ce_id"), event.header("hl_redrive_of"))).collect();
    assert_eq!((events.len(), shown.len()), (EVENTS, EVENTS), "each once, though it was redriven twice");
    for (id, redrive_id) in &redriven {
        assert_eq!(shown.get(&Some(redrive_id.as_str())), Some(&Some(id.as_str())));
    }
    let raw = cluster.names().read("raw", Isolation::Uncommitted);
    assert_eq!(raw.len(), 3 * EVENTS + 1, "as they came, redriven twice, and one of them once more");
    for again in raw.iter().filter(|record| record.header("hl_redrive_of").is_some()) {
        let first =
            raw.iter().find(|record| record.header("ce_id") == again.header("hl_redrive_of")).expect("it is kept");
        assert_eq!((&again.value, &again.key), (&first.value, &first.key));
        let same = ["hl_received", "content-type", "hl_source_address"];
        assert_eq!(same.map(|name| again.header(name)), same.map(|name| first.header(name)));
        assert!(again.header("hl_redriven").is_some() && again.header("hl_unknown_source").is_none());
    }
}

#[test]
fn events_that_were_too_many_to_be_held_come_back_when_their_principal_is_trusted() {
    let test = "events_that_were_too_many_to_be_held_come_back_when_their_principal_is_trusted";
    let Some(servers) = kafka::shared(test) else { return };
    let (held, more) = (100, 20);
    let cluster = Cluster::start(servers, 1);
    let processor = &cluster.processors[0];
    let mut portal = Player::new("crm-sync", 1);
    let mut webhooks = cluster.ingress.webhooks();
    let mut sent: BTreeSet<String> =
        (0..held + more).map(|_| send(&mut webhooks, portal.webhook(Step::PassedOn)).id).collect();
    let query = format!("http://{}", processor.address("queries"));
    let command = |arguments: &[&str]| {
        let ended = run(Program::Hookledger, &[&["rejected"], arguments, &["--query", &query, "--json"]].concat());
        let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        (ended.code, answer)
    };
    // The first event stays, and each further one is held in place of the oldest.
    eventually(WITHIN, "the surplus gave way", || {
        let (_, list) = command(&["list", "--reason", "gave_way"]);
        (list["items"].as_array().expect("a list").len() == more).then_some(())
    });
    let (code, answer) = command(&["redrive", "--reason", "gave_way"]);
    assert_eq!((code, &answer["items"][0]["outcome"]), (Some(3), &json!("untrusted")), "{answer}");

    sent.insert(send(&mut webhooks, portal.webhook(Step::Install)).id);
    is_installed(&mut processor.queries(), &portal);
    let (code, answer) = command(&["redrive", "--reason", "gave_way"]);
    assert_eq!((code, &answer["redriven"]), (Some(0), &json!(more)), "{answer}");
    let events = eventually(WITHIN, "all are passed on", || {
        let events = cluster.names().read("events", Isolation::Committed);
        (events.len() > held + more).then_some(events)
    });
    let id =
        |name: &str| events.iter().filter_map(|event| event.header(name).map(str::to_owned)).collect::<BTreeSet<_>>();
    let released: BTreeSet<String> = id("ce_id").intersection(&sent).cloned().collect();
    assert_eq!(events.len(), held + more + 1, "each once");
    assert_eq!(released.union(&id("hl_redrive_of")).cloned().collect::<BTreeSet<_>>(), sent);
}

/// Everybody is refused: the list of senders has another address.
struct Refusing {
    directory: TempDir,
}

impl Refusing {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("list"), "3.217.33.54\n").expect("written");
        fs::write(directory.path().join("token"), TOKEN).expect("written");
        Self { directory }
    }

    fn with<T>(&self, start: impl FnOnce(&[(&str, &str)]) -> T) -> T {
        let list = self.directory.path().join("list").display().to_string();
        let tokens = format!("{TOKEN} read operate");
        start(&[
            ("HOOKLEDGER_SOURCE_CHECK", "enforce"),
            ("HOOKLEDGER_SOURCE_LIST", &list),
            ("HOOKLEDGER_TRUSTED_PROXIES", "127.0.0.1"),
            ("HOOKLEDGER_APPS", "crm-sync"),
            ("HOOKLEDGER_QUERY_TOKENS", &tokens),
        ])
    }

    fn command(&self, processor: &Process, arguments: &[&str]) -> Ended {
        let query = format!("http://{}", processor.address("queries"));
        let token = self.directory.path().join("token").display().to_string();
        run(
            Program::Hookledger,
            &[&["rejected"], arguments, &["--query", &query, "--query-token-file", &token]].concat(),
        )
    }

    fn asks(&self, processor: &Process, arguments: &[&str]) -> Value {
        let ended = self.command(processor, &[arguments, &["--json"]].concat());
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).expect("JSON")
    }

    /// Returns the events by their ids, with the ids under which they came back.
    fn webhooks_come_back(&self, ingress: &Process, processors: &[&Process]) -> BTreeMap<String, String> {
        let mut portals: Vec<Player> = (0..PORTALS).map(|number| Player::new("crm-sync", number)).collect();
        let mut webhooks = ingress.webhooks();
        for portal in &mut portals {
            for step in STEPS {
                let webhook = portal.webhook(step);
                let answer = webhooks.post(&webhook.path(), webhook.content_type, &webhook.body).expect("an answer");
                assert_eq!(answer.status, 403, "{}", answer.text());
            }
        }
        // Any processor answers for every partition.
        for processor in processors {
            eventually(WITHIN, "all are listed", || {
                let list = self.asks(processor, &["list", "--app", "crm-sync", "--reason", "unknown_source"]);
                (list["items"].as_array().expect("a list").len() == EVENTS).then_some(())
            });
        }
        let asked = processors[processors.len() - 1];
        let list = self.asks(asked, &["list", "--limit", "10"]);
        assert_eq!(list["items"].as_array().map(Vec::len), Some(10), "{list}");
        let rest = self.asks(asked, &["list", "--cursor", list["next"].as_str().expect("a cursor")]);
        assert_eq!((rest["items"].as_array().map(Vec::len), &rest["next"]), (Some(EVENTS - 10), &Value::Null));
        let id = rest["items"][3]["id"].as_str().expect("an id").to_owned();
        let shown = self.asks(asked, &["show", &id]);
        assert_eq!((&shown["in_raw"], &shown["reason"]), (&json!(true), &json!("unknown_source")), "{shown}");
        assert!(shown["preview"]["event"].is_string(), "{shown}");
        for secret in portals.iter().flat_map(Player::secrets) {
            assert!(!shown.to_string().contains(secret), "{shown}");
        }

        let refused = self.asks(asked, &["redrive", "--app", "crm-sync"]);
        assert_eq!(refused["redriven"], 0, "a refused sender is let in by name only: {refused}");
        let answer = self.asks(asked, &["redrive", "--reason", "unknown_source", "--since", "1h"]);
        assert_eq!(answer["redriven"], json!(EVENTS), "{answer}");
        for processor in processors {
            let mut queries = queries(processor);
            for portal in &portals {
                is_installed(&mut queries, portal);
            }
        }
        let text = |item: &Value, name: &str| item[name].as_str().expect("a text").to_owned();
        let items = answer["items"].as_array().expect("a list").iter();
        let redriven: BTreeMap<_, _> = items.map(|item| (text(item, "id"), text(item, "redrive_id"))).collect();

        let ids: Vec<&str> = redriven.keys().map(String::as_str).collect();
        let again = self.asks(asked, &[&["redrive"], &ids[..]].concat());
        assert_eq!(again["redriven"], json!(EVENTS), "{again}");
        eventually(WITHIN, "each is recognised", || {
            let repeated = |processor: &&Process| processor.metric("hookledger_processor_events_total", "repeated");
            let repeated: f64 = processors.iter().filter_map(repeated).sum();
            (repeated >= f64::from(u32::try_from(EVENTS).expect("few"))).then_some(())
        });
        let history =
            queries(asked).get(&format!("/v1/installations/{}/history", portals[0].key())).expect("an answer");
        let facts = history.json()["items"].as_array().expect("a list").len();
        assert_eq!(facts, STEPS.len(), "{}", history.text());

        let unknown = self.command(asked, &["redrive", &id, "01a204a0-601c-743a-94e1-00d5cccf9488"]);
        assert_eq!(unknown.code, Some(3), "{}", unknown.stderr);
        assert!(unknown.stdout.contains("unknown") && unknown.stderr.contains("redriven: 1 of 2"), "{unknown:?}");
        redriven
    }
}

fn queries(processor: &Process) -> Client {
    processor.queries().with("authorization", &format!("Bearer {TOKEN}"))
}

fn is_installed(queries: &mut Client, portal: &Player) {
    let path = format!("/v1/installations/{}", portal.key());
    eventually(WITHIN, "the portal is installed", || {
        let answer = queries.get(&path).ok()?;
        (answer.json()["status"] == "installed").then_some(())
    });
}
