//! What people reported about handlers of such webhooks: nothing that was sent is lost or bent, as a form and as JSON,
//! without a broker and through Kafka.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::{Cluster, Standalone};
use tests::http::{Client, FORM, JSON};
use tests::kafka;
use tests::topics::Isolation;
use tests::wait::eventually;

const MEMBER: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const TOKEN: &str = "51856fefc120afa4b628cc82d3935cce";
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn nothing_that_was_sent_is_lost_without_a_broker() {
    let world = World::Standalone(Standalone::start());
    for encoding in [Encoding::Form, Encoding::Json] {
        everything(&world, encoding);
    }
    bodies_of_their_own_kind(&world);
    probes_and_encodings(&world);
}

#[test]
fn nothing_that_was_sent_is_lost_through_kafka() {
    let Some(servers) = kafka::shared("nothing_that_was_sent_is_lost_through_kafka") else { return };
    let world = World::Cluster(Cluster::start(servers, 1));
    for encoding in [Encoding::Form, Encoding::Json] {
        everything(&world, encoding);
    }
    bodies_of_their_own_kind(&world);
    every_record_is_a_cloud_event_of_its_own_or_none(&world);
}

fn everything(world: &World, encoding: Encoding) {
    fields_of_users_in_the_query(world, encoding);
    a_domain_in_the_query(world, encoding);
    all_scopes_or_none(world, encoding);
    data_that_is_a_number(world, encoding);
    names_that_are_no_secrets(world, encoding);
    a_long_message(world, encoding);
    what_was_not_said(world, encoding);
}

fn fields_of_users_in_the_query(world: &World, encoding: Encoding) {
    let app = encoding.app("robot");
    let robot = json!({
        "document_id": ["crm", "CCrmDocumentDeal", "DEAL_42"],
        "auth": { "domain": "firma.bitrix24.ru", "client_endpoint": "https://firma.bitrix24.ru/rest/", "member_id": MEMBER },
    });
    for (query, title) in [
        ("deal_id=42&title=Acme", "Acme"),
        ("deal_id=42&title=%D0%90%D0%BA%D0%BC%D0%B5+%22%3C", "Акме \"<"),
        ("deal_id=42&title=Акме+\"<", "Акме \"<"),
    ] {
        let id = world.send(&format!("{app}?{query}"), encoding, &robot);
        let shown = world.shown("unverified", &id);
        assert_eq!(shown["query"], json!({ "deal_id": "42", "title": title }));
        assert_eq!(
            (&shown["event"], &shown["call"], &shown["principal"]),
            (&Value::Null, &json!("robot"), &Value::Null)
        );
        assert_eq!(shown["fields"]["document_id"], robot["document_id"]);
        assert_eq!(shown["auth"]["domain"], "firma.bitrix24.ru");
    }
    world.raw_holds("deal_id=42&title=%D0%90%D0%BA%D0%BC%D0%B5+%22%3C");

    // With the token of a trusted principal, and a secret in the query.
    world.send(&app, encoding, &install());
    let mut robot = robot;
    robot["auth"]["application_token"] = json!(TOKEN);
    let id = world.send(&format!("{app}?stage=won&key=s&token={TOKEN}&note=see+{TOKEN}"), encoding, &robot);
    let shown = world.shown("events", &id);
    let query = json!({ "stage": "won", "key": "s", "token": "[secret]", "note": "see [secret]" });
    assert_eq!((&shown["query"], &shown["call"]), (&query, &json!("robot")));
}

fn a_domain_in_the_query(world: &World, encoding: Encoding) {
    let app = encoding.app("widget");
    world.send(&app, encoding, &install());
    let widget = json!({
        "AUTH_ID": "a".repeat(70), "AUTH_EXPIRES": "3600", "REFRESH_ID": "b".repeat(70), "APPLICATION_TOKEN": TOKEN,
        "APPLICATION_SCOPE": "crm,placement", "member_id": MEMBER, "status": "L", "PLACEMENT": "DEFAULT",
        "PLACEMENT_OPTIONS": "{\"any\":\"6\\/\"}",
    });
    let sid = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
    let query = format!("DOMAIN=firma.bitrix24.ru&PROTOCOL=1&LANG=ru&APP_SID={sid}");
    let shown = world.shown("events", &world.send(&format!("{app}?{query}"), encoding, &widget));
    assert_eq!((&shown["event"], &shown["call"]), (&Value::Null, &json!("placement")));
    assert_eq!(shown["auth"]["domain"], "firma.bitrix24.ru");
    assert_eq!(
        shown["query"],
        json!({ "DOMAIN": "firma.bitrix24.ru", "PROTOCOL": "1", "LANG": "ru", "APP_SID": "[secret]" })
    );
    assert_eq!((&shown["fields"]["AUTH_ID"], &shown["fields"]["PLACEMENT"]), (&json!("[secret]"), &json!("DEFAULT")));
    assert!(!shown.to_string().contains(sid));
    world.raw_holds(&query);

    // The domain of an event whose body names none.
    let app = encoding.app("domain");
    let mut install = install();
    install["auth"] = json!({ "member_id": MEMBER, "application_token": TOKEN });
    let id = world.send(&format!("{app}?DOMAIN=firma.bitrix24.ru"), encoding, &install);
    assert_eq!(world.record(&app, &id)["domain"], "firma.bitrix24.ru");
}

fn all_scopes_or_none(world: &World, encoding: Encoding) {
    let app = encoding.app("scopes");
    let with = |scope: &str, ts: u64| {
        let mut install = install();
        install["auth"]["scope"] = json!(scope);
        install["ts"] = json!(ts.to_string());
        install
    };
    let names: Vec<String> = (0..55).map(|nth| format!("scope_{nth:03}")).collect();
    let id = world.send(&app, encoding, &with("crm,user", 1_764_000_000));
    assert_eq!(world.record(&app, &id)["scope"], json!(["crm", "user"]));
    let id = world.send(&app, encoding, &with(&names.join(","), 1_764_000_060));
    assert_eq!(world.record(&app, &id)["scope"], json!(names));

    let before = world.metric("hookledger_processor_omitted_total{field=\"scope\"}");
    let id = world.send(&app, encoding, &with(&"x".repeat(8 * 1024 + 1), 1_764_000_120));
    let record = world.record(&app, &id);
    assert_eq!((&record["scope"], &record["omitted"]), (&Value::Null, &json!(["scope"])));
    assert_eq!(world.metric("hookledger_processor_omitted_total{field=\"scope\"}"), before + 1);
}

fn data_that_is_a_number(world: &World, encoding: Encoding) {
    let app = encoding.app("line");
    world.send(&app, encoding, &install());
    let mut delete = event("ONIMCONNECTORLINEDELETE", &json!("107"));
    delete["event_handler_id"] = json!("563");
    let shown = world.shown("events", &world.send(&app, encoding, &delete));
    assert_eq!((&shown["data"], &shown["event_handler_id"]), (&json!("107"), &json!("563")));
    assert_eq!((shown.get("query"), shown.get("fields")), (None, None));
}

fn names_that_are_no_secrets(world: &World, encoding: Encoding) {
    let app = encoding.app("bot");
    world.send(&app, encoding, &install());
    let data = json!({
        "bot": { "id": "456", "auth": { "access_token": "d".repeat(70), "application_token": TOKEN, "member_id": MEMBER } },
        "message": { "id": "789", "text": "our imconnector is offline, see https://firma.bitrix24.ru/rest/1/0123456789abcdef/" },
        "user": { "id": "27", "externalAuthId": "imconnector", "UF_SECRETARY": "5", "AUTHOR": "me", "TOKENS_LEFT": "9" },
    });
    let shown = world.shown("events", &world.send(&app, encoding, &event("ONIMBOTV2MESSAGEADD", &data)));
    assert_eq!(shown["data"]["user"], data["user"]);
    assert_eq!(
        shown["data"]["message"]["text"],
        "our imconnector is offline, see https://firma.bitrix24.ru/rest/1/[secret]/"
    );
    let auth = json!({ "access_token": "[secret]", "application_token": "[secret]", "member_id": MEMBER });
    assert_eq!(shown["data"]["bot"]["auth"], auth);
}

fn a_long_message(world: &World, encoding: Encoding) {
    let app = encoding.app("long");
    world.send(&app, encoding, &install());
    let data = json!({ "message": { "text": "я".repeat(20_000) } });
    let shown = world.shown("events", &world.send(&app, encoding, &event("ONIMBOTV2MESSAGEADD", &data)));
    assert!(shown["data"] == data, "the message is another one");
}

fn what_was_not_said(world: &World, encoding: Encoding) {
    let app = encoding.app("clean");
    world.send(&app, encoding, &install());
    let mut uninstall = event("ONAPPUNINSTALL", &json!({ "LANGUAGE_ID": "ru" }));
    uninstall["ts"] = json!("1764000100");
    let id = world.send(&app, encoding, &uninstall);
    let record = world.record(&app, &id);
    assert_eq!((&record["status"], record.get("cleaned")), (&json!("uninstalled"), Some(&Value::Null)));
    assert_eq!(record["since"], "2025-11-24T16:01:40.000Z");
}

/// Bodies that are about their encoding.
fn bodies_of_their_own_kind(world: &World) {
    let mark = "\u{feff}";
    let form = Encoding::Form.of(&install());
    let flat = json!({
        "event": "ONAPPINSTALL", "data[VERSION]": "1", "data[LANGUAGE_ID]": "ru", "ts": "1764000000",
        "auth[domain]": "firma.bitrix24.ru", "auth[member_id]": MEMBER, "auth[application_token]": TOKEN,
    });
    for (app, content_type, body) in [
        ("mark-form", FORM, format!("{mark}{form}")),
        ("mark-json", JSON, format!("{mark}{}", install())),
        ("line-end", FORM, format!("{form}\r\n")),
        ("flat", JSON, flat.to_string()),
        ("flat-as-form", FORM, flat.to_string()),
    ] {
        let id = world.post(app, content_type, body.as_bytes());
        let record = world.record(app, &id);
        assert_eq!((&record["status"], &record["domain"]), (&json!("installed"), &json!("firma.bitrix24.ru")), "{app}");
        assert_eq!((&record["version"], &record["language"]), (&json!("1"), &json!("ru")), "{app}");
    }
    for (app, data) in [("no-install", json!({ "INSTALLED": false })), ("not-active", json!({ "ACTIVE": false }))] {
        let id = world.send(app, Encoding::Json, &event("ONAPPINSTALL", &data));
        let shown = world.shown("unverified", &id);
        assert_eq!(shown["event"], "ONAPPINSTALL");
        assert_ne!(world.record(app, &id)["status"], "installed", "{app}");
    }
    let id = world.send("empty", Encoding::Json, &install());
    world.shown("events", &id);
    let data = json!({ "a": {}, "b": [], "c": null, "d": ["x", {}] });
    let shown = world.shown("events", &world.send("empty", Encoding::Json, &event("ONX", &data)));
    assert_eq!(shown["data"], data);
}

fn probes_and_encodings(world: &World) {
    let mut webhooks = world.webhooks();
    for (query, status) in [("", 200), ("?event=ONAPPINSTALL", 405), ("?auth[member_id]=a", 405), ("?DOMAIN=x", 200)] {
        assert_eq!(webhooks.get(&format!("/v1/events/probe{query}")).expect("an answer").status, status, "{query}");
    }
    let form = Encoding::Form.of(&install());
    for (encoding, status) in [("utf-8", 200), ("", 200), ("identity, identity", 200), ("gzip", 415), ("br", 415)] {
        let mut webhooks = world.webhooks().with("content-encoding", encoding);
        let answer = webhooks.post("/v1/events/encoded", FORM, form.as_bytes()).expect("an answer");
        assert_eq!(answer.status, status, "{encoding}");
        let id = answer.json()["id"].as_str().expect("it is kept, or kept aside").to_owned();
        if status == 415 {
            let rejected = world.shown("rejected", &id);
            assert_eq!((&rejected["reason"], &rejected["app"]), (&json!("compressed"), &json!("encoded")));
            assert_eq!((&rejected["size"], &rejected["member_id"]), (&json!(form.len()), &Value::Null));
            assert!(rejected["raw"]["offset"].is_u64() && rejected["received_at"].is_string(), "{rejected}");
        }
    }
}

/// Ids are unique for each source and topic, and only records that are `CloudEvents` have such headers.
fn every_record_is_a_cloud_event_of_its_own_or_none(world: &World) {
    let World::Cluster(cluster) = world else { panic!("it reads topics") };
    // Held, and released by the install behind it.
    let id = world.send("held", Encoding::Form, &event("ONX", &json!("1")));
    world.shown("unverified", &id);
    world.send("held", Encoding::Form, &install());
    let released = world.shown("events", &id);
    for topic in ["raw", "facts", "events", "unverified", "installations", "permissions", "rejected"] {
        let mut seen = std::collections::BTreeSet::new();
        for record in cluster.names().read(topic, Isolation::Committed) {
            let required = ["ce_specversion", "ce_id", "ce_source", "ce_type"].map(|name| record.header(name));
            if record.value.is_none() || record.header("hl_type").is_some() {
                assert!(record.headers.iter().all(|(name, _)| !name.starts_with("ce_")), "{topic}: {record:?}");
                continue;
            }
            assert!(required.iter().all(Option::is_some), "{topic}: {record:?}");
            assert!(
                seen.insert((required[1].map(str::to_owned), required[2].map(str::to_owned))),
                "{topic}: {record:?}"
            );
            if topic == "events" && record.header("ce_id") == Some(&id) {
                assert_eq!(record.header("hl_body_offset"), Some(released["raw"]["offset"].to_string().as_str()));
                assert_ne!(record.header("hl_raw_offset"), record.header("hl_body_offset"));
            }
        }
        assert!(!seen.is_empty() || matches!(topic, "permissions" | "rejected"), "{topic} is empty");
    }
}

fn install() -> Value {
    event("ONAPPINSTALL", &json!({ "VERSION": "1", "ACTIVE": "Y", "INSTALLED": "Y", "LANGUAGE_ID": "ru" }))
}

fn event(name: &str, data: &Value) -> Value {
    json!({
        "event": name, "data": data, "ts": "1764000000",
        "auth": {
            "domain": "firma.bitrix24.ru", "client_endpoint": "https://firma.bitrix24.ru/rest/",
            "server_endpoint": "https://oauth.bitrix.info/rest/", "member_id": MEMBER, "application_token": TOKEN,
        },
    })
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Form,
    Json,
}

impl Encoding {
    /// A name for an app that only this encoding is sent to.
    fn app(self, name: &str) -> String {
        format!("{name}-{}", format!("{self:?}").to_lowercase())
    }

    fn of(self, body: &Value) -> String {
        match self {
            Self::Json => body.to_string(),
            Self::Form => {
                let mut form = String::new();
                fields("", body, &mut form);
                form
            }
        }
    }
}

/// As PHP makes a form of it.
fn fields(name: &str, value: &Value, form: &mut String) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}[{key}]") };
    match value {
        Value::Object(inner) => inner.iter().for_each(|(key, value)| fields(&below(key), value, form)),
        Value::Array(inner) => {
            (0..).zip(inner).for_each(|(index, value): (usize, _)| fields(&below(&index.to_string()), value, form));
        }
        Value::String(text) => {
            let escaped = |text: &str| {
                text.bytes().fold(String::new(), |mut escaped, byte| {
                    write!(escaped, "%{byte:02X}").expect("a string takes everything");
                    escaped
                })
            };
            let sign = if form.is_empty() { "" } else { "&" };
            write!(form, "{sign}{}={}", escaped(name), escaped(text)).expect("a string takes everything");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => panic!("{name} is no text: {value}"),
    }
}

enum World {
    Standalone(Standalone),
    Cluster(Cluster),
}

impl World {
    fn webhooks(&self) -> Client {
        match self {
            Self::Standalone(standalone) => standalone.process.webhooks(),
            Self::Cluster(cluster) => cluster.ingress.webhooks(),
        }
    }

    /// Sends a body to an app, perhaps with a query behind its name. The event's id.
    fn send(&self, app: &str, encoding: Encoding, body: &Value) -> String {
        let content_type = if matches!(encoding, Encoding::Json) { JSON } else { FORM };
        self.post(app, content_type, encoding.of(body).as_bytes())
    }

    fn post(&self, app: &str, content_type: &str, body: &[u8]) -> String {
        let answer = self.webhooks().post(&format!("/v1/events/{app}"), content_type, body).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// The record once this event is folded.
    fn record(&self, app: &str, id: &str) -> Value {
        let mut queries = match self {
            Self::Standalone(standalone) => standalone.process.queries(),
            Self::Cluster(cluster) => cluster.processors[0].queries(),
        };
        let path = format!("/v1/installations/{app}/{MEMBER}?after={id}&wait=30s");
        queries.get(&path).expect("an answer").json()
    }

    fn metric(&self, series: &str) -> u64 {
        let process = match self {
            Self::Standalone(standalone) => &standalone.process,
            Self::Cluster(cluster) => &cluster.processors[0],
        };
        let metrics = process.admin().get("/metrics").expect("metrics").text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)).expect("the series");
        value.trim().parse().expect("a number")
    }

    /// The record of this id in a derived topic or log, once it is there.
    fn shown(&self, topic: &str, id: &str) -> Value {
        eventually(WITHIN, &format!("{id} is in {topic}"), || match self {
            Self::Standalone(standalone) => {
                let log = log(&standalone.data().join("logs").join(topic));
                let begin = format!("{{\"id\":\"{id}\"");
                let at = find(&log, begin.as_bytes()).or_else(|| {
                    // Keys of a rejected event are sorted.
                    let at = find(&log, format!("\"id\":\"{id}\"").as_bytes())?;
                    log[..at].iter().rposition(|byte| *byte == b'{')
                })?;
                serde_json::Deserializer::from_slice(&log[at..]).into_iter().next()?.ok()
            }
            Self::Cluster(cluster) => {
                let records = cluster.names().read(topic, Isolation::Committed);
                records.into_iter().find(|record| record.header("ce_id") == Some(id)).map(|record| record.json())
            }
        })
    }

    fn raw_holds(&self, query: &str) {
        let is_there = match self {
            Self::Standalone(standalone) => find(&log(&standalone.data().join("logs/raw")), query.as_bytes()).is_some(),
            Self::Cluster(cluster) => {
                let raw = cluster.names().read("raw", Isolation::Uncommitted);
                raw.iter().any(|record| record.header("hl_query") == Some(query))
            }
        };
        assert!(is_there, "{query} is not in raw");
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// All files of a log, one behind the other, without the zeros of what is not written yet.
fn log(directory: &Path) -> Vec<u8> {
    let mut paths: Vec<_> =
        fs::read_dir(directory).expect("a log").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let written = |path| fs::read(path).ok().map(|bytes: Vec<u8>| bytes.into_iter().filter(|byte| *byte != 0));
    paths.iter().filter_map(written).flatten().collect()
}
