//! Records that claim to be `CloudEvents` are read as such by the official SDKs, and others do not claim it.

use std::collections::BTreeSet;

use portal_sim::player::{Player, Step};
use serde_json::json;
use tests::cloudevents::{DERIVED, all, sdks_agree};
use tests::cluster::Cluster;
use tests::http::{Client, FORM};
use tests::kafka;
use tests::load::send;
use tests::oracle::fingerprint;
use tests::topics::{self, Isolation};
use tests::verify::CAUGHT_UP_WITHIN;
use tests::wait::eventually;

const PORTALS: u64 = 12;
/// Webhooks of each.
const EACH: usize = 24;

#[test]
fn the_official_sdks_read_every_cloudevent_of_every_topic_and_nothing_else() {
    let test = "the_official_sdks_read_every_cloudevent_of_every_topic_and_nothing_else";
    let Some(servers) = kafka::shared(test) else { return };
    let cluster = Cluster::start(servers, 1);
    let mut webhooks = cluster.ingress.webhooks();
    for mut portal in (0..PORTALS).map(|number| Player::new("crm-sync", number)) {
        for _ in 0..EACH {
            send(&mut webhooks, portal.next_webhook());
        }
    }
    held_events_are_released(&cluster);
    calls_and_mistakes(&cluster);
    let rejected = everything_comes_twice(&cluster);
    eventually(CAUGHT_UP_WITHIN, "second copies are rejected, too", || {
        (cluster.names().read("rejected", Isolation::Committed).len() == rejected).then_some(())
    });

    let records = all(cluster.names());
    let types_of = |topic: &str| -> BTreeSet<&str> {
        records.iter().filter(|(of, _)| *of == topic).filter_map(|(_, record)| record.header("ce_type")).collect()
    };
    assert!(DERIVED.iter().all(|topic| !types_of(topic).is_empty()));
    for (topic, expected) in [
        ("facts", ["com.bitrix24.onappinstall", "com.hookledger.attested"]),
        ("events", ["com.bitrix24.placement", "com.bitrix24.onappmethodconfirm"]),
        ("unverified", ["com.bitrix24.robot", "com.bitrix24.onuseradd"]),
    ] {
        assert!(types_of(topic).is_superset(&expected.into()), "{topic}: {:?}", types_of(topic));
    }
    let is_any = |is: &dyn Fn(&topics::Found) -> bool| records.iter().any(|(_, record)| is(record));
    assert!(is_any(&|record| record.header("hl_body_offset").is_some()), "an event that was held is released");
    assert!(is_any(&|record| record.header("ce_id").is_some_and(|id| id.starts_with("raw/"))), "no raw event");
    assert!(is_any(&|record| record.header("traceparent").is_some() && record.header("hl_raw_offset").is_some()));
    assert!(is_any(&|record| record.value.is_none() && record.header("ce_id").is_none()), "a tombstone");
    sdks_agree(test, &records);
}

/// An existing portal, with several decisions about methods, is trusted by an operator.
fn held_events_are_released(cluster: &Cluster) {
    let mut webhooks = cluster.ingress.webhooks().with("traceparent", "00-1-2-00").with("tracestate", "a=1");
    let mut portal = Player::new("crm-sync", PORTALS);
    for step in [Step::PassedOn, Step::Grant, Step::Deny, Step::Grant, Step::Payment, Step::UserReady] {
        send(&mut webhooks, portal.webhook(step));
    }
    let mut queries = cluster.processors[0].queries();
    let command = json!({ "command": "trust", "app": "crm-sync", "member_id": portal.member_id,
        "principal": fingerprint(&portal.secrets()[0]) });
    let answer = queries.post("/v1/commands", "application/x-ndjson", command.to_string().as_bytes());
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let path = format!("/v1/installations/{}", portal.key());
    eventually(CAUGHT_UP_WITHIN, "the portal is trusted", || {
        (queries.get(&path).ok()?.json()["status"] == "trusted").then_some(())
    });
    // All of its decisions become void at once.
    send(&mut webhooks, portal.webhook(Step::Uninstall { clean: true }));
    send(&mut webhooks, portal.webhook(Step::Grant));
}

/// Calls of a portal, and bodies for each kind of rejection.
fn calls_and_mistakes(cluster: &Cluster) {
    let auth = "auth[member_id]=a223&auth[application_token]=51856fefc120afa4b628cc82d3935cce";
    let install = format!("event=ONAPPINSTALL&{auth}&data[VERSION]=1");
    let placement = "member_id=a223&DOMAIN=a.bitrix24.com&PLACEMENT=DEFAULT&AUTH_ID=5f\
                     &APPLICATION_TOKEN=51856fefc120afa4b628cc82d3935cce";
    let kept = [
        install.as_str(),
        placement,
        "auth[member_id]=a223&auth[domain]=a.bitrix24.com&document_id[0]=crm",
        &format!("event=On.Some:Thing-new_1&{auth}"),
        &format!("event=ON APP&{auth}"),
        "event=ONAPPINSTALL&auth[application_token]=t",
        "event=ONAPPINSTALL&auth[member_id]=a..2-2_3",
        &format!("event=ONAPPMETHODCONFIRM&{auth}"),
        &format!("event=ONAPPMETHODCONFIRM&{auth}&data[METHOD]=user.get&data[TOKEN]=x&data[CONFIRMED]=maybe"),
        "event=ONAPPTEST&auth[member_id]=51856fefc120afa4b628cc82d3935cce\
         &auth[application_token]=51856fefc120afa4b628cc82d3935cce",
    ];
    for body in kept {
        post(&mut cluster.ingress.webhooks(), FORM, body, 200);
    }
    post(&mut cluster.ingress.webhooks(), FORM, "neither an event nor a portal", 400);
    post(&mut cluster.ingress.webhooks().with("content-encoding", "gzip"), FORM, &install, 415);
    // In Kafka, this would claim that the value is a whole CloudEvent.
    post(&mut cluster.ingress.webhooks(), "application/cloudevents+json", &install, 200);
    post(&mut cluster.ingress.webhooks(), " Application/CloudEvents-batch+json", &install, 200);
}

fn post(webhooks: &mut Client, content_type: &str, body: &str, status: u16) {
    let answer = webhooks.post("/v1/events/crm-sync", content_type, body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, status, "{body}: {}", answer.text());
}

/// As ingress repeats it after a crash, and a record of another program beside it. Returns how many rejections must follow.
fn everything_comes_twice(cluster: &Cluster) -> usize {
    let names = cluster.names();
    let rejected = eventually(CAUGHT_UP_WITHIN, "each kind of rejection", || {
        let rejected = names.read("rejected", Isolation::Committed);
        (rejected.len() >= 8).then_some(rejected.len())
    });
    let topic = names.topic("raw");
    let raw = names.read("raw", Isolation::Committed);
    topics::append_copies(&names.servers, &topic, &raw, &[("hl_resent", "1")]);
    topics::append(&names.servers, &topic, 0, "nobody", Some(b"{}"));
    2 * rejected + 1
}
