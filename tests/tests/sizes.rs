//! What follows from an event is bounded, whatever the event is: nothing stands still behind it, and nothing is shortened
//! in silence.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::{Cluster, Standalone};
use tests::http::{Client, FORM};
use tests::kafka;
use tests::topics::Isolation;
use tests::wait::{eventually, eventually_ok};

const LARGE: &[(&str, &str)] = &[("HOOKLEDGER_BODY_LIMIT", "900KiB"), ("HOOKLEDGER_REQUEST_MEMORY_LIMIT", "64MiB")];
const WITHIN: Duration = Duration::from_secs(60);
const AUTH: &str = "auth[member_id]=a223&auth[application_token]=51856fefc120afa4b628cc82d3935cce";
/// What a topic takes unless it is told otherwise.
const KAFKA_BYTES_MAX: usize = 1_048_588;

/// Nearly 900 KiB of a byte that JSON writes as six.
fn large() -> Vec<u8> {
    let head = format!("event=ONCRMDEALADD&{AUTH}&data[FIELDS][TITLE]=");
    let title = vec![1; 900 * 1024 - head.len()];
    [head.into_bytes(), title].concat()
}

/// Sends an install, what is large, and an uninstall, and waits until all of it is folded.
fn send(webhooks: &mut Client, queries: &mut Client) {
    let install = format!("event=ONAPPINSTALL&{AUTH}").into_bytes();
    let uninstall = format!("event=ONAPPUNINSTALL&data[CLEAN]=1&{AUTH}").into_bytes();
    for body in [install, large(), uninstall] {
        let answer = webhooks.post("/v1/events/crm-sync", FORM, &body).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    eventually(WITHIN, "the event behind the large one is folded", || {
        let answer = queries.get("/v1/installations/crm-sync/a223").ok()?;
        (answer.status == 200 && answer.json()["status"] == "uninstalled").then_some(())
    });
}

#[test]
fn what_would_be_too_large_is_named_and_the_partition_goes_on_through_kafka() {
    let Some(servers) = kafka::shared("what_would_be_too_large_is_named_and_the_partition_goes_on") else { return };
    let cluster = Cluster::start_with(servers, 1, LARGE);
    send(&mut cluster.ingress.webhooks(), &mut cluster.processors[0].queries());

    let raw = cluster.names().read("raw", Isolation::Uncommitted);
    let sent = raw.iter().find(|record| record.header("ce_type") == Some("com.bitrix24.oncrmdealadd")).expect("kept");
    assert_eq!(sent.value.as_deref(), Some(&*large()));
    let events = eventually_ok(WITHIN, "all events are shown", || {
        let events = cluster.names().read("events", Isolation::Committed);
        anyhow::ensure!(events.len() == 3, "{}", events.len());
        Ok(events)
    });
    let shown = events.iter().find(|record| record.header("ce_id") == sent.header("ce_id")).expect("shown");
    assert!(shown.value.as_ref().is_some_and(|value| value.len() < KAFKA_BYTES_MAX));
    omits_data(&shown.json(), sent.partition, sent.offset);
}

#[test]
fn what_would_be_too_large_is_named_without_a_broker() {
    let standalone = Standalone::start_with(LARGE);
    send(&mut standalone.process.webhooks(), &mut standalone.process.queries());
    let mut log = Vec::new();
    files(&standalone.data().join("logs/events"), &mut log);
    // The second of three records, in a form of its own: its value is a run of JSON.
    let begin = br#"{"id":"#;
    let values = log.windows(begin.len()).enumerate().filter(|(_, window)| window == begin);
    let shown: Vec<Value> = values
        .filter_map(|(at, _)| serde_json::Deserializer::from_slice(&log[at..]).into_iter().next()?.ok())
        .collect();
    let large: Vec<&Value> = shown.iter().filter(|event: &&Value| event["event"] == "ONCRMDEALADD").collect();
    assert_eq!(large.len(), 1, "{} events, {} bytes", shown.len(), log.len());
    omits_data(large[0], 0, 1);
}

fn omits_data(event: &Value, partition: i32, offset: i64) {
    // Not printed where it is wrong: it has megabytes.
    assert!(event["data"].is_null(), "data is shown");
    assert_eq!(event["omitted"], json!(["data"]));
    assert_eq!(event["raw"], json!({ "partition": partition, "offset": offset }));
    assert_eq!(event["auth"]["member_id"], "a223");
}

fn files(directory: &Path, bytes: &mut Vec<u8>) {
    for entry in fs::read_dir(directory).expect("a log") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, bytes);
        } else {
            bytes.extend(fs::read(path).expect("a file"));
        }
    }
}

#[test]
fn a_record_shows_no_secret_no_strangers_endpoint_and_no_older_word() {
    let standalone = Standalone::start_with(&[("HOOKLEDGER_ENDPOINT_HOSTS", "*.box.example")]);
    let (mut webhooks, mut queries) = (standalone.process.webhooks(), standalone.process.queries());
    let mut record_after = |member_id: &str, fields: &str| {
        let body = format!(
            "event=ONAPPINSTALL&auth[member_id]={member_id}&auth[application_token]=51856fefc120afa4b628cc82d3935cce&{fields}"
        );
        let answer = webhooks.post("/v1/events/crm-sync", FORM, body.as_bytes()).expect("an answer");
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let path = format!("/v1/installations/crm-sync/{member_id}?after={id}&wait=30s");
        queries.get(&path).expect("an answer").json()
    };
    let good =
        "auth[domain]=some.bitrix24.com&auth[server_endpoint]=https://oauth.bitrix.info/rest/&auth[scope]=crm,user";
    let record =
        record_after("a1", &format!("{good}&auth[client_endpoint]=https://u:p@some.bitrix24.com/rest/?auth=t"));
    assert_eq!(record["client_endpoint"], "https://some.bitrix24.com/rest/");
    assert_eq!(record["scope"], json!(["crm", "user"]));
    assert_eq!(record["omitted"], Value::Null);

    let scope = vec!["crm"; 3_000].join(",");
    let evil = format!(
        "auth[domain]=some.bitrix24.com&auth[client_endpoint]=https://evil.example/rest/&auth[scope]={scope}\
         &auth[server_endpoint]=https://evil.example/rest/&data[VERSION]=51856fefc120afa4b628cc82d3935cce"
    );
    let record = record_after("a1", &evil);
    for field in ["client_endpoint", "server_endpoint", "scope", "version"] {
        assert_eq!(record[field], Value::Null, "{field}");
    }
    assert_eq!(record["omitted"], json!(["client_endpoint", "server_endpoint", "version", "scope"]));
    assert_eq!(record["domain"], "some.bitrix24.com");
    assert_eq!(record_after("a1", good)["omitted"], json!(["client_endpoint", "version"]));

    let own = "auth[domain]=portal.box.example&auth[client_endpoint]=https://api.box.example/rest/\
               &auth[server_endpoint]=https://oauth.box.example/rest/";
    let record = record_after("a2", own);
    assert_eq!(record["client_endpoint"], "https://api.box.example/rest/");
    assert_eq!(
        (&record["server_endpoint"], &record["omitted"]),
        (&json!("https://oauth.box.example/rest/"), &Value::Null)
    );
}
