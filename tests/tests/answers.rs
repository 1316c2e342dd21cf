//! Questions are answered as promised, and as soon as the event that they ask about has been folded.

use portal_sim::player::{Player, Step};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Standalone};
use tests::http::{Client, JSON};
use tests::kafka;
use tests::load::send;
use tests::oracle::fingerprint;
use tests::process::Process;

#[test]
fn questions_are_answered_without_a_broker() {
    let standalone = Standalone::start();
    ask_everything(&standalone.process, &standalone.process);
}

#[test]
fn questions_are_answered_through_kafka_by_the_owner_and_by_its_follower() {
    let test = "questions_are_answered_through_kafka_by_the_owner_and_by_its_follower";
    let Some(servers) = kafka::shared(test) else { return };
    let cluster = Cluster::start(servers, 2);
    for processor in &cluster.processors {
        ask_everything(&cluster.ingress, processor);
    }
}

fn ask_everything(ingress: &Process, processor: &Process) {
    let app = format!("app-{}", processor.address("queries").port());
    let (mut webhooks, mut queries) = (ingress.webhooks(), processor.queries());
    a_life_is_followed(&app, &mut webhooks, &mut queries);
    a_list_is_paged(&app, &mut webhooks, &mut queries);
    what_cannot_be_answered_is_a_problem(&app, &mut queries);
}

fn a_life_is_followed(app: &str, webhooks: &mut Client, queries: &mut Client) {
    let mut portal = Player::new(app, 1);
    let mut tell = |portal: &mut Player, step: Step, queries: &mut Client| {
        let id = send(webhooks, portal.webhook(step)).id;
        after(queries, &portal.key(), &id)
    };
    let record = tell(&mut portal, Step::PassedOn, queries);
    assert_eq!((&record["status"], &record["trusted"]), (&json!("untrusted"), &json!([])), "{record}");
    check(
        queries,
        &portal,
        "any",
        "voximplant.user.get",
        &json!({ "decision": "denied", "reason": "unknown-installation" }),
    );

    assert_eq!(tell(&mut portal, Step::Install, queries)["status"], "installed");
    check(queries, &portal, "any", "a.b", &json!({ "decision": "unanswered", "reason": "no-answer-yet" }));

    tell(&mut portal, Step::Grant, queries);
    let (token, method) = (portal.decided().0.to_owned(), portal.decided().1.to_owned());
    let granted = ask(queries, &portal, &token, &method);
    assert_eq!(granted["decision"], "granted", "{granted}");
    assert!(granted["until"].is_string(), "{granted}");
    check(queries, &portal, "another token", &method, &json!({ "decision": "unanswered", "reason": "no-answer-yet" }));

    tell(&mut portal, Step::Revoke, queries);
    check(queries, &portal, &token, &method, &json!({ "decision": "denied", "reason": "refused" }));

    let record = tell(&mut portal, Step::Uninstall { clean: true }, queries);
    assert_eq!((&record["status"], &record["cleaned"]), (&json!("uninstalled"), &json!(true)), "{record}");
    check(queries, &portal, &token, &method, &json!({ "decision": "denied", "reason": "not-installed" }));

    let history = queries.get(&format!("/v1/installations/{}/history", portal.key())).expect("an answer").json();
    let types = history["items"].as_array().expect("a list").iter().map(|fact| fact["type"].as_str());
    let expected =
        ["com.hookledger.described", "ONAPPINSTALL", "ONAPPMETHODCONFIRM", "ONAPPMETHODCONFIRM", "ONAPPUNINSTALL"];
    assert_eq!(types.collect::<Vec<_>>(), expected.map(Some), "{history}");
}

/// Cursors bring each installation once, however many lie on a page.
fn a_list_is_paged(app: &str, webhooks: &mut Client, queries: &mut Client) {
    let mut keys = Vec::new();
    for number in 10..17 {
        let mut portal = Player::new(app, number);
        let id = send(webhooks, portal.webhook(Step::Install)).id;
        after(queries, &portal.key(), &id);
        keys.push(portal.member_id.clone());
    }
    keys.sort();
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/installations?app={app}&status=installed&limit=3{cursor}");
        let page = queries.get(&path).expect("an answer").json();
        let items = page["items"].as_array().expect("a list");
        assert!(items.len() <= 3, "{page}");
        found.extend(items.iter().map(|record| record["member_id"].as_str().expect("a text").to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace('/', "%2F")),
            None => break,
        }
    }
    found.sort();
    assert_eq!(found, keys);
}

fn what_cannot_be_answered_is_a_problem(app: &str, queries: &mut Client) {
    for (path, status) in [
        (format!("/v1/installations/{app}/no-such-portal"), 404),
        ("/v1/installations?after=01930000-0000-7000-8000-000000000000&wait=50ms".to_owned(), 504),
        ("/v1/installations?limit=many".to_owned(), 400),
        ("/v1/installations?cursor=nonsense".to_owned(), 400),
    ] {
        let answer = queries.get(&path).expect("an answer");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
    }
}

/// The record once that event has been folded.
fn after(queries: &mut Client, key: &str, id: &str) -> Value {
    let answer = queries.get(&format!("/v1/installations/{key}?after={id}&wait=20s")).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn ask(queries: &mut Client, portal: &Player, token: &str, method: &str) -> Value {
    let mut question = json!({ "app": portal.app, "member_id": portal.member_id, "method": method, "token": token });
    let answer = queries.post("/v1/check", JSON, question.to_string().as_bytes()).expect("an answer").json();
    question["token"].take();
    question["token_fingerprint"] = json!(fingerprint(token));
    let by_fingerprint = queries.post("/v1/check", JSON, question.to_string().as_bytes()).expect("an answer");
    assert_eq!(by_fingerprint.json(), answer, "the same by fingerprint");
    answer
}

fn check(queries: &mut Client, portal: &Player, token: &str, method: &str, expected: &Value) {
    assert_eq!(ask(queries, portal, token, method), *expected, "{method}");
}

/// The place was left by an uninstall and taken by another: its former holder has it again with its next install.
#[test]
fn a_former_holder_returns_with_its_next_install() {
    let standalone = Standalone::start();
    let (mut webhooks, mut queries) = (standalone.process.webhooks(), standalone.process.queries());
    let mut portal = Player::new("crm-sync", 1);
    let mut tell = |portal: &mut Player, step: Step| {
        let id = send(&mut webhooks, portal.webhook(step)).id;
        after(&mut queries, &portal.key(), &id)
    };
    let first = tell(&mut portal, Step::Install)["trusted"].clone();
    tell(&mut portal, Step::Uninstall { clean: false });
    let mut reinstalled = portal.with_another_token();
    let record = tell(&mut reinstalled, Step::Install);
    assert_ne!(record["trusted"][0]["principal"], first[0]["principal"], "{record}");

    let record = tell(&mut portal, Step::Install);
    assert_eq!(record["trusted"], first, "{record}");
    assert_eq!((&record["status"], &record["contested"]), (&json!("installed"), &json!(true)), "{record}");
}
