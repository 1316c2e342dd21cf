use bitrix24::AppName;
use disk_log::DiskLogQuery;
use event_log::Record;
use primitives::secret::Secret;
use tempfile::TempDir;

use super::*;
use crate::forward::{ForwardConfig, Forwarding, Reachable, TargetConfig};

/// A processor that owns nothing, and knows from the log what others have not delivered.
struct World {
    log: DiskLog,
    context: QueryContext,
    stop: Stop,
    _dir: TempDir,
}

impl World {
    fn with(token: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let raw = DiskLog::open(&dir.path().join("raw"), Options::source()).expect("a log");
        let log = DiskLog::open(&dir.path().join("forward"), Options::progress()).expect("a log");
        let place = |app: &str, member: &str, rest: Value| {
            let mut value = json!({ "next": 7, "attempts": 3, "failure": { "status": 500 } });
            value["event"] =
                json!({ "offset": 7, "id": EVENT, "type": "oncrmdealadd", "received_at": Timestamp::from_s(1) });
            value.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
            record(&format!("place/events/{app}/{member}"), &value)
        };
        let parked = json!({ "parked_at": Timestamp::from_s(9), "since": Timestamp::from_s(2) });
        let records = vec![
            record("watermark/events/crm-sync", &json!({ "next": 9, "lost": 3, "last_lost": EVENT })),
            place("crm-sync", "a", parked.clone()),
            place("crm-sync", "b", json!({})),
            place("crm-sync", "c", json!({ "attempts": 0 })),
            place("other", "d", parked),
            record("watermark/events/other", &json!({ "next": 9 })),
            record("noop", &json!({})),
        ];
        log.append_blocking(records).expect("kept");
        let app = |name: &str| AppName::parse(name).expect("a name");
        let target = TargetConfig { url: Secret::new("http://127.0.0.1:1/?key=hidden"), unverified: false };
        let config = ForwardConfig {
            targets: ["crm-sync", "other"].map(|name| (app(name), target.clone())).into(),
            reachable: Reachable::default(),
            timeout: Duration::from_secs(1),
            park_after: Duration::from_secs(1),
            parallel: 1,
            since: Duration::ZERO,
        };
        let (logs, stop) = (Arc::new(DiskLogQuery::new(raw).with_forward(log.clone())), Stop::default());
        let registry = runtime::telemetry::registry();
        let forwarding = Forwarding::start(config, logs, LogWriter::Disk(log.clone()), &registry, stop.clone());
        let context = context(&[token]).forwarding(forwarding.expect("threads"));
        Self { log, context, stop, _dir: dir }
    }

    async fn asks(&self, request: TestRequest) -> (u16, Value) {
        let (status, answer) =
            ask(self.context.clone(), request.insert_header(("authorization", "Bearer right"))).await;
        (status.as_u16(), answer)
    }

    /// Once the log was read.
    async fn lists(&self, query: &str) -> Value {
        loop {
            let (status, answer) = self.asks(get(&format!("/v1/forward?{query}"))).await;
            assert_eq!(status, 200, "{answer}");
            if answer["lost"] != json!([]) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn orders(&self) -> Vec<(String, Value)> {
        let mut reader = self.log.reader(0).expect("a reader");
        let records = std::iter::from_fn(|| reader.next().expect("readable"));
        let orders = records.filter_map(|(_, record)| {
            let key = record.key.filter(|key| key.starts_with("order/"))?;
            // Behind it stands an id of its own.
            let (key, _) = key.rsplit_once('/')?;
            Some((key.to_owned(), serde_json::from_slice(&record.value?).expect("JSON")))
        });
        orders.collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.request();
    }
}

fn record(key: &str, value: &Value) -> Record {
    Record { key: Some(key.into()), value: Some(value.to_string().into()), headers: vec![], at: Timestamp::from_s(1) }
}

fn members(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("a list").iter().map(|item| item["member_id"].as_str().expect("a text")).collect()
}

fn decide(action: &str, body: &Value) -> TestRequest {
    let request = TestRequest::post().uri(&format!("/v1/forward/{action}")).insert_header(("host", "127.0.0.1:8081"));
    request.set_json(body)
}

#[actix_web::test]
async fn what_waits_is_listed_with_its_state_in_pages_and_without_anything_of_the_request() {
    let world = World::with("right read");
    let all = world.lists("").await;
    assert_eq!(members(&all), ["a", "b", "c", "d"]);
    let first = &all["items"][0];
    assert_eq!(
        (&first["state"], &first["reason"], &first["status"]),
        (&json!("parked"), &json!("status"), &json!(500))
    );
    assert_eq!((&first["id"], &first["attempts"]), (&json!(EVENT), &json!(3)));
    let lost = json!([{ "app": "crm-sync", "source": "events", "partition": 0, "events": 3, "last": EVENT }]);
    assert_eq!(all["lost"], lost);
    assert!(!all.to_string().contains("hidden"));
    for (query, expected) in
        [("state=parked", vec!["a", "d"]), ("state=waiting", vec!["b"]), ("member_id=c", vec!["c"])]
    {
        assert_eq!(members(&world.lists(query).await), expected, "{query}");
    }
    let page = world.lists("limit=3").await;
    assert_eq!(members(&page), ["a", "b", "c"]);
    let next = page["next"].as_str().expect("more");
    let rest = world.lists(&format!("limit=3&cursor={next}")).await;
    assert_eq!((members(&rest), &rest["next"]), (vec!["d"], &Value::Null));
    for wrong in ["state=gone", "cursor=x", "limit=0", "since=2h"] {
        assert_eq!(world.asks(get(&format!("/v1/forward?{wrong}"))).await.0, 400, "{wrong}");
    }
}

#[actix_web::test]
async fn a_token_sees_and_decides_what_is_of_its_apps() {
    let world = World::with("right read operate app=crm-sync");
    assert_eq!(members(&world.lists("").await), ["a", "b", "c"]);
    assert_eq!(world.asks(get("/v1/forward?app=other")).await.0, 403);
    let other = json!({ "app": "other", "member_id": "d", "id": EVENT });
    assert_eq!(world.asks(decide("skip", &other)).await.0, 403);
    let reader = World::with("right read");
    let body = json!({ "app": "crm-sync", "member_id": "a", "id": EVENT });
    let (status, problem) = reader.asks(decide("retry", &body)).await;
    assert_eq!((status, &problem["type"]), (403, &json!("/docs/problems#missing-scope")));
}

#[actix_web::test]
async fn a_decision_names_the_event_that_waits_and_is_kept_for_the_owner() {
    let world = World::with("right read operate");
    world.lists("").await;
    let body = |member: &str, id: Option<EventId>| json!({ "app": "crm-sync", "member_id": member, "id": id });
    for (action, body, status) in [
        ("skip", body("a", None), 400),
        ("skip", body("a", Some(EventId::from_u128(9))), 404),
        ("retry", body("unknown", None), 404),
        ("retry", json!({ "app": "crm-sync" }), 400),
    ] {
        assert_eq!(world.asks(decide(action, &body)).await.0, status, "{action} {body}");
    }
    assert_eq!(world.orders(), []);
    let (status, answer) = world.asks(decide("skip", &body("a", Some(EVENT)))).await;
    assert_eq!((status, answer), (202, json!({ "id": EVENT, "action": "skip" })));
    assert_eq!(world.asks(decide("retry", &body("b", None))).await.0, 202);
    let order = |member: &str, action: &str| {
        (format!("order/events/crm-sync/{member}"), json!({ "id": EVENT, "action": action }))
    };
    assert_eq!(world.orders(), [order("a", "skip"), order("b", "retry")]);
}

#[actix_web::test]
async fn without_a_handler_nothing_waits() {
    let (status, answer) = ask(context(&[]), get("/v1/forward")).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({ "items": [], "next": null, "lost": [] })));
    let body = json!({ "app": "crm-sync", "member_id": "a" });
    let (status, problem) = ask(context(&[]), decide("retry", &body)).await;
    assert_eq!((status, &problem["type"]), (StatusCode::NOT_FOUND, &json!("/docs/problems#not-forwarded")));
}
