//! Operators decide which principals are trusted, and what was held until then flows: an existing fleet, and a contested portal.

use std::fs;
use std::time::Duration;

use portal_sim::player::{Player, Step};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Standalone};
use tests::http::Client;
use tests::kafka;
use tests::load::{Acked, send};
use tests::oracle::{Oracle, fingerprint};
use tests::process::{Ended, Process, Program, run};
use tests::verify::{answers_agree, derived_topics_agree, raw_of};
use tests::wait::eventually;

/// Portals of a fleet.
const FLEET: u64 = 300;
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn an_existing_fleet_is_imported_without_a_broker() {
    let standalone = Standalone::start();
    let mut fleet = Fleet::sends_payments(&standalone.process, "crm-sync");
    fleet.is_imported(&standalone.process);
    fleet.goes_on(&standalone.process);
    answers_agree_about_trust(&fleet, &mut standalone.process.queries());
}

#[test]
fn an_existing_fleet_is_imported_through_kafka() {
    let Some(servers) = kafka::shared("an_existing_fleet_is_imported_through_kafka") else { return };
    let cluster = Cluster::start(servers, 2);
    let mut fleet = Fleet::sends_payments(&cluster.ingress, "crm-sync");
    // Each processor takes commands for all partitions.
    fleet.is_imported(&cluster.processors[1]);
    fleet.goes_on(&cluster.ingress);
    for processor in &cluster.processors {
        answers_agree_about_trust(&fleet, &mut processor.queries());
    }
    let oracle = Oracle::of(&raw_of(cluster.names(), &fleet.acked));
    answers_agree(&mut cluster.processors[0].queries(), &oracle);
    derived_topics_agree(cluster.names(), &oracle);
}

#[test]
fn one_forged_install_takes_no_portal_and_an_operator_decides() {
    let Some(servers) = kafka::shared("one_forged_install_takes_no_portal_and_an_operator_decides") else { return };
    let cluster = Cluster::start(servers, 1);
    let (mut webhooks, mut queries) = (cluster.ingress.webhooks(), cluster.processors[0].queries());
    let mut portal = Player::new("crm-sync", 1);
    let mut forger = portal.with_another_token();
    let mut acked = Vec::new();
    let mut tell = |portal: &mut Player, step: Step, queries: &mut Client| {
        acked.push(send(&mut webhooks, portal.webhook(step)));
        after(queries, &portal.key(), &acked.last().expect("sent above").id)
    };
    let record = tell(&mut portal, Step::Payment, &mut queries);
    assert_eq!((&record["status"], &record["trusted"]), (&json!("untrusted"), &json!([])), "{record}");
    let record = tell(&mut forger, Step::Install, &mut queries);
    assert_eq!((&record["status"], &record["contested"]), (&json!("untrusted"), &json!(true)), "{record}");
    tell(&mut portal, Step::PassedOn, &mut queries);

    let token = portal.secrets()[0].clone();
    let trust = |more: &[&str]| {
        let principal = fingerprint(&token);
        let mut arguments = vec!["trust", "crm-sync", &portal.member_id, "--principal", &principal];
        arguments.extend(more);
        command(&cluster.processors[0], &arguments)
    };
    let ended = trust(&[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    let record = queries.get(&format!("/v1/installations/{}", portal.key())).expect("an answer").json();
    assert_eq!((&record["status"], &record["contested"]), (&json!("trusted"), &Value::Null), "{record}");
    assert_eq!(record["trusted"][0]["basis"], "operator", "{record}");

    let oracle = Oracle::of(&raw_of(cluster.names(), &acked));
    derived_topics_agree(cluster.names(), &oracle);
    assert_eq!(oracle.events.len(), 2, "what was held is passed on, and nothing of the forger");

    let ended = trust(&["--revoke"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let record = queries.get(&format!("/v1/installations/{}", portal.key())).expect("an answer").json();
    assert_eq!(record["trusted"][0]["basis"], "first-install", "the one that is left reported an install: {record}");
}

/// Every order of a reinstallation with another token ends alike: late events open and close nothing.
#[test]
fn a_reinstalled_app_is_the_new_ones_in_every_order() {
    let standalone = Standalone::start();
    let (mut webhooks, mut queries) = (standalone.process.webhooks(), standalone.process.queries());
    for (number, order) in (0..).zip([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]) {
        let mut old = Player::new("crm-sync", number);
        let installed = old.webhook(Step::Install);
        let uninstalled = old.webhook(Step::Uninstall { clean: true });
        let mut new = old.with_another_token();
        let principal = fingerprint(new.secrets().last().expect("a token"));
        let sent = [installed, uninstalled, new.webhook(Step::Install)];
        let last = order.map(|index| send(&mut webhooks, sent[index].clone()).id)[2].clone();
        let record = after(&mut queries, &old.key(), &last);
        assert_eq!((&record["status"], &record["trusted"][0]["principal"]), (&json!("installed"), &json!(principal)));
        assert_eq!((&record["cleaned"], &record["contested"]), (&Value::Null, &Value::Null), "{order:?}: {record}");
        let passed_on = send(&mut webhooks, new.webhook(Step::Payment)).id;
        let record = after(&mut queries, &old.key(), &passed_on);
        assert_eq!(record["last_fact"]["type"], "ONAPPPAYMENT", "{record}");
    }
}

#[test]
fn what_is_wrong_in_a_list_is_named_and_nothing_is_imported() {
    let standalone = Standalone::start();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("portals.csv");
    fs::write(&file, "member_id,application_token\na223,t0ken\na/b,t0ken\n").expect("written");
    let file = file.display().to_string();
    let ended = command(&standalone.process, &["import", &file, "--app", "crm-sync"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("line 3") && !ended.stderr.contains("t0ken"), "{}", ended.stderr);
    let list = standalone.process.queries().get("/v1/installations").expect("an answer").json();
    assert_eq!(list["items"], json!([]), "{list}");
}

/// Portals that installed the app before Hookledger ran: they only send payments and events of their own.
struct Fleet {
    app: String,
    portals: Vec<Player>,
    acked: Vec<Acked>,
}

impl Fleet {
    fn sends_payments(ingress: &Process, app: &str) -> Self {
        let portals = (0..FLEET).map(|number| Player::new(app, number)).collect();
        let mut fleet = Self { app: app.to_owned(), portals, acked: Vec::new() };
        fleet.goes_on(ingress);
        fleet
    }

    fn goes_on(&mut self, ingress: &Process) {
        let mut webhooks = ingress.webhooks();
        for portal in &mut self.portals {
            for step in [Step::Payment, Step::PassedOn] {
                self.acked.push(send(&mut webhooks, portal.webhook(step)));
            }
        }
    }

    /// As CSV with tokens, then the same as JSON with fingerprints, which changes nothing.
    fn is_imported(&self, processor: &Process) {
        let directory = tempfile::tempdir().expect("a directory");
        let [csv, ndjson] = ["portals.csv", "portals.ndjson"].map(|name| directory.path().join(name));
        let line = |portal: &Player| format!("{},{}", portal.member_id, portal.secrets()[0]);
        let lines: Vec<String> = self.portals.iter().map(line).collect();
        fs::write(&csv, format!("member_id,application_token\n{}\n", lines.join("\n"))).expect("written");
        let line = |portal: &Player| {
            let sha256 = fingerprint(&portal.secrets()[0]);
            json!({ "member_id": portal.member_id, "application_token_sha256": sha256 }).to_string()
        };
        fs::write(&ndjson, self.portals.iter().map(line).collect::<Vec<_>>().join("\n")).expect("written");

        let [csv, ndjson] = [csv, ndjson].map(|file| file.display().to_string());
        let ended = command(processor, &["import", &csv, "--app", &self.app, "--dry-run"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stdout.contains("nothing was sent"), "{}", ended.stdout);
        for file in [csv, ndjson] {
            let ended = command(processor, &["import", &file, "--app", &self.app, "--json"]);
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            let answer: Value = serde_json::from_str(&ended.stdout).expect("JSON");
            assert_eq!(answer["installations"], json!(FLEET), "{answer}");
        }
    }
}

/// All portals are trusted, by the list, and one fact each says so.
fn answers_agree_about_trust(fleet: &Fleet, queries: &mut Client) {
    for portal in &fleet.portals {
        let path = format!("/v1/installations/{}", portal.key());
        eventually(CAUGHT_UP_WITHIN, "the portal is trusted, and its payment known", || {
            let record = queries.get(&path).ok()?.json();
            let is_known = record["trusted"][0]["basis"] == "imported" && record["status"] == "trusted";
            (is_known && record["licence"].is_string()).then_some(())
        });
        let history = queries.get(&format!("{path}/history")).expect("an answer").json();
        let facts = history["items"].as_array().expect("a list").iter();
        let attested = facts.filter(|fact| fact["type"] == "com.hookledger.attested").count();
        assert_eq!(attested, 1, "{history}");
    }
}

fn after(queries: &mut Client, key: &str, id: &str) -> Value {
    let answer = queries.get(&format!("/v1/installations/{key}?after={id}&wait=20s")).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn command(processor: &Process, arguments: &[&str]) -> Ended {
    let query = format!("http://{}", processor.address("queries"));
    run(Program::Hookledger, &[arguments, &["--query", &query]].concat())
}
