use bitrix24::AppName;
use bitrix24::form::Request;
use bytes::Bytes;
use disk_log::{DiskEventLog, DiskLogQuery};
use domain::Reason;
use event_log::contract::Topic;
use event_log::{EventLog, LogReader, RawEvent, redrive_id};
use tempfile::TempDir;

use super::*;
use crate::run::publish::Publisher;

/// Logs on a disk, into which a processor rejected events.
struct World {
    raw: DiskLog,
    logs: DiskEventLog,
    context: QueryContext,
    _dir: TempDir,
}

impl World {
    fn with(tokens: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let raw = DiskLog::open(&dir.path().join("raw"), Options::source()).expect("a log");
        let logs = DiskEventLog::open(&dir.path().join("logs"), raw.clone(), Retention::default()).expect("logs");
        let queried = DiskLogQuery::new(raw.clone());
        queried.open(&logs);
        let commands = Arc::new(LogWriter::Disk(raw.clone()));
        let context = QueryContext { commands, logs: Arc::new(queried), ..context(tokens) };
        Self { raw, logs, context, _dir: dir }
    }

    /// An event of this body that came some seconds ago, as ingress keeps it.
    fn event(app: &str, body: &str, ago_s: u64) -> RawEvent {
        let head = Request::parse(body.as_bytes(), None).head();
        let app = AppName::parse(app).expect("a name");
        let received_at = Timestamp::from_ms(Timestamp::now().ms() - ago_s * 1_000);
        RawEvent::new(app, head, Bytes::from(body.to_owned()), received_at)
    }

    fn reject(&mut self, event: RawEvent, reason: Reason) -> EventId {
        let (id, record) = (event.id, event.into_record());
        let offset = self.raw.append_blocking(vec![record.clone()]).expect("kept");
        let place = Position { partition: 0, offset };
        let rejected = Publisher::new(&record, place).rejected(reason);
        self.logs.publish(vec![rejected], &[Position { partition: 0, offset: offset + 1 }]).expect("published");
        id
    }

    fn raw_records(&mut self) -> Vec<RawEvent> {
        let (end, mut found) = (self.raw.bounds().1, Vec::new());
        let from = Position { partition: 0, offset: 0 };
        let read = self.logs.read(Topic::Raw, from, end, &mut |entry| {
            found.push(RawEvent::from_record(&entry.record).expect("a raw event"));
            std::ops::ControlFlow::Continue(())
        });
        read.expect("read");
        found
    }

    async fn asks(&self, path: &str) -> (StatusCode, Value) {
        ask(self.context.clone(), get(path)).await
    }

    async fn redrives(&self, body: Value) -> (StatusCode, Value) {
        let request = TestRequest::post().uri("/v1/rejected/redrive").insert_header(("host", "127.0.0.1:8081"));
        ask(self.context.clone(), request.set_json(body)).await
    }
}

const BODY: &str = "event=ONCRMLEADADD&data[FIELDS][ID]=7&auth[member_id]=a223&auth[access_token]=hidden-token-1234";

fn ids(answer: &Value) -> Vec<String> {
    let items = answer["items"].as_array().expect("a list").iter();
    items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

#[actix_web::test]
async fn what_was_rejected_is_listed_newest_first_and_filtered() {
    let mut world = World::with(&[]);
    let old = world.reject(World::event("crm-sync", BODY, 7_200), Reason::MissingToken).to_string();
    let junk = world.reject(World::event("other", "x=1", 60), Reason::NoEvent).to_string();
    let new = world.reject(World::event("crm-sync", BODY, 5), Reason::MissingToken).to_string();

    let (status, first) = world.asks("/v1/rejected?limit=2").await;
    assert_eq!((status, ids(&first)), (StatusCode::OK, vec![new.clone(), junk.clone()]), "{first}");
    assert_eq!(
        (&first["items"][0]["reason"], &first["items"][0]["member_id"]),
        (&json!("missing_token"), &json!("a223"))
    );
    let next = first["next"].as_str().expect("more");
    let (_, rest) = world.asks(&format!("/v1/rejected?cursor={next}")).await;
    assert_eq!((ids(&rest), &rest["next"]), (vec![old.clone()], &Value::Null));

    for (filter, expected) in [
        ("app=crm-sync", vec![&new, &old]),
        ("member_id=a223&since=1h", vec![&new]),
        ("member_id=b334", vec![]),
        ("reason=no_event", vec![&junk]),
        ("since=1h", vec![&new, &junk]),
        ("app=crm-sync&since=1h&reason=missing_token", vec![&new]),
        ("app=crm-sync&reason=no_event", vec![]),
    ] {
        let (_, found) = world.asks(&format!("/v1/rejected?{filter}")).await;
        assert_eq!(ids(&found).iter().collect::<Vec<_>>(), expected, "{filter}");
    }
}

#[actix_web::test]
async fn a_mistake_in_a_question_about_rejected_events_is_named() {
    let world = World::with(&[]);
    for (query, named) in [
        ("colour=red", "colour"),
        ("reason=nonsense", "reason takes one of not_a_raw_event,"),
        ("app=Not%20An%20App", "app takes"),
        ("member_id=a%20b", "member_id takes"),
        ("since=yesterday", "since takes"),
        ("limit=0", "limit takes"),
        ("limit=1001", "limit takes"),
        ("cursor=x", "cursor takes"),
        ("cursor=1.2", "cursor takes"),
        ("limit=1&limit=2", "limit is given more than once"),
    ] {
        let (status, problem) = world.asks(&format!("/v1/rejected?{query}")).await;
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(status == StatusCode::BAD_REQUEST && detail.contains(named), "{query}: {problem}");
    }
    for (body, named) in [
        (json!({}), "name what to redrive"),
        (json!({ "ids": [] }), "ids takes 1 to 20"),
        (json!({ "ids": ["nonsense"] }), "ids takes 1 to 20"),
        (json!({ "ids": "0-1" }), "ids takes a list"),
        (json!({ "ids": vec!["0-1"; 21] }), "ids takes 1 to 20"),
        (json!({ "ids": ["0-1"], "app": "crm-sync" }), "app does not go together with ids"),
        (json!({ "app": "crm-sync", "limit": 101 }), "limit takes"),
        (json!({ "reason": "nonsense" }), "reason takes"),
        (json!({ "everything": true }), "everything is not known here"),
    ] {
        let (status, problem) = world.redrives(body.clone()).await;
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(status == StatusCode::BAD_REQUEST && detail.contains(named), "{body}: {problem}");
    }
    for (request, allow) in [
        (TestRequest::post().uri("/v1/rejected"), "GET, HEAD, OPTIONS"),
        (TestRequest::delete().uri("/v1/rejected/0-1"), "GET, HEAD, OPTIONS"),
        (TestRequest::get().uri("/v1/rejected/redrive"), "POST, OPTIONS"),
    ] {
        let (status, problem) = ask(world.context.clone(), request.insert_header(("host", "localhost"))).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{problem}");
        assert!(problem["detail"].as_str().expect("a detail").contains(allow), "{problem}");
    }
}

#[actix_web::test]
async fn one_event_is_shown_with_what_it_says_and_without_its_secrets() {
    let mut world = World::with(&[]);
    let mut event = World::event("crm-sync", BODY, 5);
    event.content_type = Some("application/x-www-form-urlencoded; boundary=hidden-token-1234".to_owned());
    let id = world.reject(event, Reason::MissingToken);
    for name in [id.to_string(), "0-0".to_owned()] {
        let (status, shown) = world.asks(&format!("/v1/rejected/{name}")).await;
        assert_eq!((status, &shown["id"]), (StatusCode::OK, &json!(id)), "{shown}");
        assert_eq!((&shown["in_raw"], &shown["size"]), (&json!(true), &json!(BODY.len())));
        assert_eq!(shown["content_type"], "application/x-www-form-urlencoded");
        assert_eq!(shown["preview"]["data"]["FIELDS"]["ID"], "7", "{shown}");
        assert_eq!(shown["redrive_id"], json!(redrive_id(id)));
        assert!(!shown.to_string().contains("hidden-token"), "{shown}");
    }
    let mut named = World::event("crm-sync", BODY, 5);
    named.content_type = Some("text/hidden-token-1234".to_owned());
    world.reject(named, Reason::MissingToken);
    assert_eq!(world.asks("/v1/rejected/0-1").await.1["content_type"], Value::Null);
    for name in ["0-2", "1-0", &EventId::now_v7().to_string(), "nonsense"] {
        let (status, problem) = world.asks(&format!("/v1/rejected/{name}")).await;
        assert_eq!(
            (status, &problem["type"]),
            (StatusCode::NOT_FOUND, &json!("/docs/problems#unknown-rejected-event"))
        );
    }
}

#[actix_web::test]
async fn a_redriven_event_is_in_raw_again_under_the_same_id_each_time() {
    let mut world = World::with(&[]);
    let event = World::event("crm-sync", BODY, 5);
    let id = world.reject(event.clone(), Reason::MissingToken);
    let unknown = EventId::now_v7().to_string();
    for name in [id.to_string(), "0-0".to_owned()] {
        let (status, answer) = world.redrives(json!({ "ids": [name, unknown] })).await;
        assert_eq!((status, &answer["redriven"]), (StatusCode::OK, &json!(1)), "{answer}");
        let outcomes: Vec<_> =
            answer["items"].as_array().expect("a list").iter().map(|item| &item["outcome"]).collect();
        assert_eq!(outcomes, ["unknown", "redriven"], "{answer}");
        assert_eq!(answer["last"], json!(redrive_id(id)));
    }
    let kept = world.raw_records();
    assert_eq!(kept.len(), 3);
    for again in &kept[1..] {
        assert_eq!((again.id, &again.body), (redrive_id(id), &event.body));
        assert_eq!(again.redrive.expect("a redrive").of, id);
    }
}

#[actix_web::test]
async fn a_filter_redrives_page_by_page_and_lets_no_refused_sender_in_unless_asked() {
    let mut world = World::with(&[]);
    for _ in 0..3 {
        world.reject(World::event("crm-sync", BODY, 5), Reason::MissingToken);
    }
    let again = World::event("crm-sync", BODY, 5).redriven(Timestamp::now());
    world.reject(again, Reason::MissingToken);
    let refused = RawEvent { unknown_source: true, ..World::event("crm-sync", BODY, 5) };
    world.reject(refused, Reason::UnknownSource);

    let (_, answer) = world.redrives(json!({ "member_id": "b334" })).await;
    assert_eq!((&answer["redriven"], &answer["items"]), (&json!(0), &json!([])), "another portal: {answer}");
    let (mut redriven, mut cursor) = (0, Value::Null);
    loop {
        let (status, answer) = world.redrives(json!({ "member_id": "a223", "limit": 2, "cursor": cursor })).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        redriven += answer["redriven"].as_u64().expect("a number");
        cursor = answer["next"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(redriven, 3, "neither what was redriven before, nor who was refused");
    let (_, answer) = world.redrives(json!({ "reason": "unknown_source" })).await;
    assert_eq!(answer["redriven"], 1, "{answer}");
    assert!(!world.raw_records().last().expect("it").unknown_source);
}

#[actix_web::test]
async fn what_raw_no_longer_has_is_told() {
    let mut world = World::with(&[]);
    let record = World::event("crm-sync", BODY, 5).into_record();
    let elsewhere = Position { partition: 0, offset: 7 };
    world.raw.append_blocking(vec![record.clone()]).expect("kept");
    let rejected = Publisher::new(&record, elsewhere).rejected(Reason::NoEvent);
    world.logs.publish(vec![rejected], &[Position { partition: 0, offset: 8 }]).expect("published");
    let (_, answer) = world.redrives(json!({ "ids": ["0-0"] })).await;
    assert_eq!((&answer["items"][0]["outcome"], &answer["redriven"]), (&json!("gone"), &json!(0)), "{answer}");
    let (_, shown) = world.asks("/v1/rejected/0-0").await;
    assert_eq!((&shown["in_raw"], &shown["preview"]), (&json!(false), &Value::Null), "{shown}");
    assert_eq!(world.raw_records().len(), 1);
}

#[actix_web::test]
async fn a_token_of_other_apps_sees_and_redrives_nothing_of_this_one() {
    let mut world = World::with(&["right read operate app=other", "reader read"]);
    let id = world.reject(World::event("crm-sync", BODY, 5), Reason::MissingToken);
    let other = world.reject(World::event("other", BODY, 5), Reason::MissingToken);
    let asked = |request: TestRequest, token: &str| {
        ask(world.context.clone(), request.insert_header(("authorization", format!("Bearer {token}"))))
    };
    let redrive = |ids: &[EventId]| {
        TestRequest::post()
            .uri("/v1/rejected/redrive")
            .insert_header(("host", "localhost"))
            .set_json(json!({ "ids": ids }))
    };
    let (_, list) = asked(get("/v1/rejected"), "right").await;
    assert_eq!(ids(&list), [other.to_string()]);
    assert_eq!(asked(get("/v1/rejected?app=crm-sync"), "right").await.0, StatusCode::FORBIDDEN);
    assert_eq!(asked(get(&format!("/v1/rejected/{id}")), "right").await.0, StatusCode::NOT_FOUND);
    let (_, answer) = asked(redrive(&[id, other]), "right").await;
    assert_eq!(answer["redriven"], 1, "{answer}");
    assert_eq!(asked(redrive(&[id]), "reader").await.0, StatusCode::FORBIDDEN, "it may not operate");
}
