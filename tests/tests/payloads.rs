//! Every body that a portal is known to send is accepted as what it is, in both forms of Hookledger.

use std::fs;
use std::path::Path;

use portal_sim::player::Webhook;
use serde_json::{Value, json};
use tests::cluster::{Cluster, Standalone};
use tests::http::{Client, FORM, JSON};
use tests::kafka;
use tests::load::{Acked, send};
use tests::oracle::{Oracle, fingerprint};
use tests::process::Process;
use tests::topics::Isolation;
use tests::verify::{answers_agree, derived_topics_agree, nothing_acked_is_missing};

#[test]
fn every_known_body_is_accepted_as_what_it_is_without_a_broker() {
    let standalone = Standalone::start();
    let acked = send_all(&mut standalone.process.webhooks());
    let mut queries = standalone.process.queries();
    answers_agree(&mut queries, &Oracle::of_acked(&acked));
    the_seeds_end_as_the_right_records(&mut queries);
}

#[test]
fn every_known_body_is_accepted_as_what_it_is_through_kafka() {
    let Some(servers) = kafka::shared("every_known_body_is_accepted_as_what_it_is_through_kafka") else { return };
    let cluster = Cluster::start(servers, 1);
    let acked = send_all(&mut cluster.ingress.webhooks());
    let raw = cluster.names().read("raw", Isolation::Uncommitted);
    assert_eq!(raw.len(), acked.len());
    nothing_acked_is_missing(&acked, &raw);

    let oracle = Oracle::of(&raw);
    let mut queries = cluster.processors[0].queries();
    answers_agree(&mut queries, &oracle);
    derived_topics_agree(cluster.names(), &oracle);
    the_seeds_end_as_the_right_records(&mut queries);
}

#[test]
fn handlers_answer_when_bitrix24_looks_whether_they_are_there() {
    let standalone = Standalone::start();
    let mut webhooks = standalone.process.webhooks();
    for method in ["GET", "HEAD"] {
        assert_eq!(webhooks.send(method, "/v1/events/crm-sync").expect("an answer").status, 200, "{method}");
    }
}

#[test]
fn what_is_no_event_is_answered_with_what_is_wrong_and_kept_where_it_can_be() {
    let standalone = Standalone::start();
    let process = &standalone.process;
    check(process, "crm-sync", b"hello=world", 400, true);
    check(process, "crm-sync", b"", 400, true);
    check(process, "No-Such-Name", b"event=ONAPPTEST&auth[member_id]=a1", 404, false);
    check(process, "crm-sync", &vec![b'a'; 512 * 1024 + 1], 413, false);
    // Whatever has a member_id is taken, whatever else it is.
    check(process, "crm-sync", b"member_id=a1&AUTH_ID=x", 200, true);
    check(process, "crm-sync", b"event=ONAPPINSTALL", 200, true);
}

fn check(process: &Process, app: &str, body: &[u8], status: u16, has_id: bool) {
    let answer = process.webhooks().post(&format!("/v1/events/{app}"), FORM, body).expect("an answer");
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.json()["id"].is_string(), has_id, "{}", answer.text());
    if status != 200 {
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
        for part in ["type", "title", "status"] {
            assert!(!answer.json()[part].is_null(), "{part} is missing in {}", answer.text());
        }
    }
}

/// Sends each recorded body to an app of its own, so that none is about the same installation as another,
/// and the method-confirm documents to a portal that has installed the app before.
fn send_all(webhooks: &mut Client) -> Vec<Acked> {
    let mut acked = Vec::new();
    for (name, webhook) in recorded() {
        if name.contains("methodconfirm") {
            acked.push(send(webhooks, Webhook { body: install_before(&webhook), ..webhook.clone() }));
        }
        acked.push(send(webhooks, webhook));
    }
    acked
}

fn recorded() -> Vec<(String, Webhook)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("payloads");
    let mut recorded = Vec::new();
    for file in fs::read_dir(folder).expect("the payloads") {
        let path = file.expect("a payload").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let content_type = if path.extension().is_some_and(|extension| extension == "json") { JSON } else { FORM };
        let body = fs::read(&path).expect("a payload");
        recorded.push((name.clone(), Webhook { app: name.replace('.', "-"), content_type, body }));
    }
    recorded.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert!(recorded.len() >= 29, "all payloads are there");
    recorded
}

/// An install by the portal of the method-confirm documents, in the same form.
fn install_before(confirm: &Webhook) -> Vec<u8> {
    let name = if confirm.content_type == JSON { "onappinstall.json" } else { "onappinstall.form" };
    let (_, install) = recorded().into_iter().find(|(recorded, _)| recorded == name).expect("an install");
    let install = String::from_utf8(install.body).expect("text");
    let install = install.replace("a223c6b3710f85df22e9377d6c4f7553", "74ef8a46a75104de55d5d4a61b98ab6d");
    let install = install.replace("51856fefc120afa4b628cc82d3935cce", "c289487163b58658eae5e8b42eaf11b8");
    // Before the decision, which was made in 2016.
    install.replace("1696527000", "1478790000").into_bytes()
}

/// What the seeds say, once more in plain words.
fn the_seeds_end_as_the_right_records(queries: &mut Client) {
    for form in ["json", "form"] {
        let language = |app: &str, domain: &str, server: &str, language: &str| {
            json!({
                "app": app, "member_id": "a223c6b3710f85df22e9377d6c4f7553", "status": "installed", "since": "2023-10-05T17:30:00.000Z",
                "domain": domain, "client_endpoint": format!("https://{domain}/rest/"), "server_endpoint": server,
                "version": "1.0.0", "licence": "F", "language": language, "scope": null,
                "trusted": [{ "principal": fingerprint("51856fefc120afa4b628cc82d3935cce"), "basis": "first-install",
                    "since": "2023-10-05T17:30:00.000Z" }],
            })
        };
        let english = format!("seed-onappinstall-en-{form}");
        let expected = language(&english, "some-domain.bitrix24.com", "https://oauth.bitrix.info/rest/", "en");
        holds(queries, &format!("{english}/a223c6b3710f85df22e9377d6c4f7553"), &expected);
        let russian = format!("seed-onappinstall-ru-{form}");
        let expected = language(&russian, "some-domain.bitrix24.ru", "https://oauth.bitrix24.tech/rest/", "ru");
        holds(queries, &format!("{russian}/a223c6b3710f85df22e9377d6c4f7553"), &expected);

        let app = format!("seed-onappmethodconfirm-en-{form}");
        let token = "fkp963yuv1ggkfbs5z3f5hy8lilm0iw6";
        let member_id = "74ef8a46a75104de55d5d4a61b98ab6d";
        let methods = queries.get(&format!("/v1/installations/{app}/{member_id}/methods")).expect("an answer").json();
        let expected = json!([{
            "method": "voximplant.user.get", "token": fingerprint(token), "decision": "granted",
            "decided_at": "2016-11-10T15:14:12.000Z", "expires_at": "2016-11-10T16:14:12.000Z",
        }]);
        assert_eq!(methods["items"], expected, "{app}");

        let question = json!({ "app": app, "member_id": member_id, "method": "Voximplant.User.Get", "token": token });
        let answer = queries.post("/v1/check", JSON, question.to_string().as_bytes()).expect("an answer");
        assert_eq!(answer.json(), json!({ "decision": "denied", "reason": "expired" }), "{app}");
    }
}

fn holds(queries: &mut Client, key: &str, expected: &Value) {
    let record = queries.get(&format!("/v1/installations/{key}")).expect("an answer").json();
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(record[name], *value, "{name} of {key} in {record}");
    }
}
