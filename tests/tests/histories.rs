//! The table of histories from outside: webhooks over HTTP, the operator's commands, and what the queries answer.

use std::path::Path;

use portal_sim::history::{Cast, History, Message, Seen};
use portal_sim::portal::now_s;
use serde_json::{Value, json};
use tests::cluster::Standalone;
use tests::http::{Client, JSON};

/// An app for each setting of `trust`.
const APPS: &str = "
[apps.first-install]
trust = 'first-install'
[apps.first-event]
trust = 'first-event'
[apps.known]
trust = 'known'
";

#[test]
fn the_histories_of_the_table_end_alike_from_outside() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("settings.toml");
    std::fs::write(&file, APPS).expect("written");
    let standalone = Standalone::start_with(&[("HOOKLEDGER_CONFIG", &file.display().to_string())]);
    let (mut webhooks, mut queries) = (standalone.process.webhooks(), standalone.process.queries());

    let table = History::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("histories"));
    let table: Vec<History> = table.into_iter().filter(|history| history.is_end_to_end).collect();
    assert!(table.len() >= 50, "{}", table.len());
    let mut failed = Vec::new();
    for (number, history) in (0..).zip(&table) {
        let cast = Cast { app: history.trust.clone(), member_id: format!("{number:032x}"), now_s: now_s() };
        let last = play(&mut webhooks, &mut queries, &cast, history, number % 2 == 1);
        let differences = history.expected.differences(&cast, &seen(&mut queries, &cast, history, &last));
        if !differences.is_empty() {
            failed.push(format!("{}\n    {}", history.name, differences.join("\n    ")));
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), table.len(), failed.join("\n"));
}

/// Returns the id of the last event. Each is kept before the next is sent, so that `raw` has the order of the table.
fn play(webhooks: &mut Client, queries: &mut Client, cast: &Cast, history: &History, as_json: bool) -> String {
    let mut last = String::new();
    for message in history.steps.iter().flat_map(|step| cast.messages(step)) {
        let (answer, id) = match message {
            Message::Webhook { body } => {
                let (content_type, body) = Message::webhook(&body, as_json);
                (webhooks.post(&format!("/v1/events/{}", cast.app), content_type, &body), "id")
            }
            Message::Command(line) => (queries.post("/v1/commands", "application/x-ndjson", line.as_bytes()), "last"),
        };
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{}: {}", history.name, answer.text());
        answer.json()[id].as_str().expect("an id").clone_into(&mut last);
    }
    last
}

fn seen(queries: &mut Client, cast: &Cast, history: &History, last: &str) -> Seen {
    let Cast { app, member_id, .. } = cast;
    let path = format!("/v1/installations/{app}/{member_id}");
    let mut get = |path: &str| {
        let answer = queries.get(path).expect("an answer");
        assert_eq!(answer.status, 200, "{}: {}", history.name, answer.text());
        answer.json()
    };
    let record = get(&format!("{path}?after={last}&wait=20s"));
    let methods = get(&format!("{path}/methods"))["items"].as_array().expect("a list").clone();
    let mut ask = |asked: &str| -> Value {
        let (method, token) = cast.asked(asked);
        let question = json!({"app": app, "member_id": member_id, "method": method, "token": token});
        let answer = queries.post("/v1/check", JSON, question.to_string().as_bytes()).expect("an answer");
        assert_eq!(answer.status, 200, "{}: {}", history.name, answer.text());
        answer.json()
    };
    let answers = history.expected.asks.iter().map(|(asked, _)| ask(asked)).collect();
    Seen { record, methods, answers }
}
