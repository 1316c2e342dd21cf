use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use bitrix24::Installation;
use disk_log::{DiskLog, Options};
use event_log::contract::{Retention, Topic};
use event_log::{EventId, LogQuery, Position};
use kafka_log::TopicWriter;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use runtime::settings::KafkaSettings;
use serde_json::{Value, json};

use super::feed::{Feed, FeedLimits};
use super::parameters::BODY_BYTES_MAX;
use super::tokens::QueryToken;
use super::*;
use crate::log_writer::LogWriter;
use crate::run::recent_events::RecentEvents;
use crate::run::shared::Shared;
use crate::state::Store;
use crate::state::memory::{Facts, Memory};
use crate::state::{Progressed, Trusts};
use domain::{Change, Decision, Fact, FactKind, Method, Profile, Revision, Stamp};

mod feed;
mod forward;
mod handout;
mod history;
mod mistakes;
mod page;
mod rejected;
mod scopes;
mod verify;

const MEMBER: &str = "a223c6b3710f85df22e9377d6c4f7553";
const EVENT: EventId = EventId::from_u128(7);

/// What a portal reported an hour ago and lately, as an asker finds it.
fn context(tokens: &[&str]) -> QueryContext {
    let store = Store::open(Box::new(Memory::default()), "log", 1, Trusts::default()).expect("open");
    let now = Timestamp::now();
    let fact = |offset: u64, kind: FactKind| Fact {
        installation: Installation::parse("crm-sync", MEMBER).expect("valid"),
        stamp: Stamp::new(Some(now), now, EventId::from_u128(offset.into())),
        principal: Fingerprint::of("application token"),
        raw: Position { partition: 0, offset },
        revision: Revision::default(),
        kind,
    };
    let profile = Profile { domain: Some("some.bitrix24.com".into()), ..Profile::default() };
    let installed = FactKind::Installed { complete: true, profile };
    let method = Method::parse("user.get").expect("a method");
    let token = Fingerprint::of("token");
    let decided = FactKind::MethodDecided { method, token, decision: Decision::Granted, profile: Profile::default() };
    let progressed = Progressed { raw: 2, log: EventId::nil(), last: None };
    let facts = [fact(0, installed), fact(1, decided)];
    let changes = facts.clone().map(|fact| Change::Fact(Box::new(fact)));
    apply(&store, &changes, Some(progressed), 3);

    let recent_events = RecentEvents::default();
    recent_events.add([EVENT], []);
    let tokens = tokens.iter().map(|token| query_token(token)).collect();
    let logs = Arc::new(history::Log::of((0..).zip(facts).collect()));
    QueryContext::new(
        Shared::of(store),
        recent_events,
        tokens,
        2,
        Arc::new(LogWriter::Kafka(Box::new(TopicWriter::new(no_kafka(), Topic::Raw)))),
        logs.clone(),
        feed(logs, &runtime::telemetry::registry()),
    )
}

/// For two readers.
fn feed(logs: Arc<dyn LogQuery>, registry: &Registry) -> Feed {
    let limits = FeedLimits { readers: 2, answer_bytes: 1_000, stream_time: Duration::from_secs(60) };
    Feed::new(logs, limits, 100, registry, Stop::default())
}

/// The changes lie in `facts` one after the other, from 0 on.
fn apply(store: &Store, changes: &[Change], progressed: Option<Progressed>, facts: u64) {
    store.apply(0, changes.iter().zip(0..), progressed, facts, &mut Facts::default()).expect("applied");
}

/// Not reached until a command comes.
fn no_kafka() -> KafkaSettings {
    KafkaSettings {
        servers: "127.0.0.1:1".into(),
        set: Vec::new(),
        topic_prefix: "hookledger.".into(),
        partitions: 1,
        replication: None,
        retention: Retention::default(),
    }
}

/// Of any length, with scopes and apps behind it.
fn query_token(text: &str) -> QueryToken {
    let (token, scopes) = text.split_once(' ').unwrap_or((text, ""));
    let parsed = QueryToken::parse(&format!("0123456789abcdef {scopes}")).expect("valid");
    QueryToken { fingerprint: Fingerprint::of(token), ..parsed }
}

async fn ask(context: QueryContext, request: TestRequest) -> (StatusCode, Value) {
    let app = App::new().app_data(web::Data::new(context)).configure(routes);
    let app = init_service(app.wrap(from_fn(access::guard)).wrap(headers())).await;
    let response = call_service(&app, request.to_request()).await;
    for name in ["cache-control", "x-content-type-options", "referrer-policy", "content-security-policy"] {
        assert!(response.headers().contains_key(name), "every answer has {name}: {response:?}");
    }
    let status = response.status();
    (status, serde_json::from_slice(&read_body(response).await).unwrap_or(Value::Null))
}

/// From this machine.
fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path).insert_header(("host", "127.0.0.1:8081"))
}

#[actix_web::test]
async fn an_installation_is_shown_with_null_for_what_is_not_known() {
    let (status, record) = ask(context(&[]), get(&format!("/v1/installations/crm-sync/{MEMBER}"))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&record["status"], &record["domain"]), (&json!("installed"), &json!("some.bitrix24.com")));
    assert_eq!((&record["version"], &record["scope"]), (&Value::Null, &Value::Null));
    assert_eq!(record["trusted"][0]["basis"], "first-install");
    assert_eq!(record["last_fact"]["type"], "ONAPPMETHODCONFIRM");
    assert_eq!(record["position"], json!({ "partition": 0, "offset": 1 }));
    assert_eq!(record["cleaned"], Value::Null);
}

#[actix_web::test]
async fn lists_are_filtered_and_go_on_behind_the_cursor() {
    let context = context(&[]);
    let (_, all) = ask(context.clone(), get("/v1/installations?status=installed&limit=1")).await;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    let next = all["next"].as_str().expect("a cursor");
    let (_, rest) = ask(context.clone(), get(&format!("/v1/installations?cursor={next}"))).await;
    assert_eq!(rest, json!({ "items": [], "next": null }));
    let (_, none) = ask(context, get("/v1/installations?status=uninstalled")).await;
    assert_eq!(none["items"], json!([]));
}

#[actix_web::test]
async fn a_check_takes_a_token_or_its_fingerprint() {
    let question = |token: Value| {
        let mut question = json!({ "app": "crm-sync", "member_id": MEMBER, "method": "User.Get" });
        question.as_object_mut().expect("an object").extend(token.as_object().expect("an object").clone());
        TestRequest::post().uri("/v1/check").insert_header(("host", "localhost:8081")).set_json(question)
    };
    let fingerprint = Fingerprint::of("token").to_string();
    for token in [json!({ "token": "token" }), json!({ "token_fingerprint": fingerprint })] {
        let (status, answer) = ask(context(&[]), question(token)).await;
        assert_eq!((status, &answer["decision"]), (StatusCode::OK, &json!("granted")));
    }
    let (_, answer) = ask(context(&[]), question(json!({ "token": "another", "wait": "1ms" }))).await;
    assert_eq!(answer, json!({ "decision": "unanswered", "reason": "no-answer-yet" }));
    let (status, problem) = ask(context(&[]), question(json!({}))).await;
    assert_eq!((status, &problem["status"]), (StatusCode::BAD_REQUEST, &json!(400)));
}

#[actix_web::test]
async fn an_answer_waits_for_the_event_it_is_to_come_after() {
    let path = format!("/v1/installations/crm-sync/{MEMBER}");
    let (status, _) = ask(context(&[]), get(&format!("{path}?after={EVENT}&wait=2s"))).await;
    assert_eq!(status, StatusCode::OK);
    let other = EventId::from_u128(8);
    let (status, problem) = ask(context(&[]), get(&format!("{path}?after={other}&wait=1ms"))).await;
    assert_eq!((status, &problem["title"]), (StatusCode::GATEWAY_TIMEOUT, &json!("not yet")));
    let (status, _) = ask(context(&[]), get(&format!("{path}?after=nonsense"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[actix_web::test]
async fn nobody_asks_without_a_token_where_tokens_are_set() {
    let path = format!("/v1/installations/crm-sync/{MEMBER}");
    let with = |token: &str| get(&path).insert_header(("Authorization", format!("Bearer {token}")));
    assert_eq!(ask(context(&["right"]), get(&path)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(context(&["right"]), with("wrong")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(context(&["other", "right"]), with("right")).await.0, StatusCode::OK);

    let basic = |encoded: &str| get(&path).insert_header(("Authorization", format!("Basic {encoded}")));
    for (encoded, status) in [
        ("YW55Ym9keTpyaWdodA==", StatusCode::OK),       // anybody:right
        ("cmlnaHQ6d3Jvbmc=", StatusCode::UNAUTHORIZED), // right:wrong
        ("cmlnaHQ=", StatusCode::UNAUTHORIZED),         // right
        ("=", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(ask(context(&["right"]), basic(encoded)).await.0, status, "{encoded}");
    }
}

#[actix_web::test]
async fn without_tokens_nobody_asks_through_a_proxy() {
    let path = format!("/v1/installations/crm-sync/{MEMBER}");
    for header in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"] {
        let through_a_proxy = || get(&path).insert_header((header, "203.0.113.9"));
        let (status, problem) = ask(context(&[]), through_a_proxy()).await;
        assert_eq!(
            (status, &problem["type"]),
            (StatusCode::FORBIDDEN, &json!("/docs/problems#tokens-needed")),
            "{header}"
        );
        let (status, _) = ask(context(&["right"]), through_a_proxy()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{header}");
        let shown = through_a_proxy().insert_header(("Authorization", "Bearer right"));
        assert_eq!(ask(context(&["right"]), shown).await.0, StatusCode::OK, "{header}");
    }
}

#[actix_web::test]
async fn what_is_not_there_is_a_problem_too() {
    for path in ["/v1/installations/crm-sync/nobody", "/v1/installations/CRM/..%2f", "/nothing"] {
        let (status, problem) = ask(context(&[]), get(path)).await;
        assert_eq!((status, &problem["status"]), (StatusCode::NOT_FOUND, &json!(404)), "{path}");
    }
}

#[actix_web::test]
async fn without_tokens_only_names_of_this_machine_are_answered() {
    for (host, status) in [
        ("127.0.0.1:8081", StatusCode::OK),
        ("localhost", StatusCode::OK),
        ("rebound.example:8081", StatusCode::MISDIRECTED_REQUEST),
        ("0.0.0.0:8081", StatusCode::MISDIRECTED_REQUEST),
    ] {
        let request = |token: &str| {
            let request = TestRequest::get().uri("/v1/installations").insert_header(("host", host));
            request.insert_header(("Authorization", format!("Bearer {token}")))
        };
        assert_eq!(ask(context(&[]), request("any")).await.0, status, "{host}");
        assert_eq!(ask(context(&["right"]), request("right")).await.0, StatusCode::OK, "{host}, with a token");
    }
}

#[actix_web::test]
async fn a_check_takes_json_by_its_content_type() {
    let question = json!({ "app": "crm-sync", "member_id": MEMBER, "method": "user.get", "token": "token" });
    let of = |content_type: &str| {
        let request = TestRequest::post().uri("/v1/check").insert_header(("host", "localhost"));
        request.insert_header(("content-type", content_type)).set_payload(question.to_string())
    };
    for json in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(ask(context(&[]), of(json)).await.0, StatusCode::OK, "{json}");
    }
    for other in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp"]
    {
        let (status, problem) = ask(context(&[]), of(other)).await;
        assert_eq!((status, &problem["type"]), (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!("/docs/problems#not-json")));
    }
}

#[actix_web::test]
async fn a_question_that_is_too_long_is_refused() {
    let request = TestRequest::post().uri("/v1/check").insert_header(("host", "localhost"));
    let request =
        request.insert_header(("content-type", "application/json")).set_payload("x".repeat(BODY_BYTES_MAX + 1));
    assert_eq!(ask(context(&[]), request).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[actix_web::test]
async fn no_more_questions_wait_than_there_are_places() {
    let context = context(&[]);
    let path = format!("/v1/installations/crm-sync/{MEMBER}");
    let waiting = context.waits.try_acquire().expect("a place");
    let other = EventId::from_u128(8);
    let (status, problem) = ask(context.clone(), get(&format!("{path}?after={other}&wait=1ms"))).await;
    assert_eq!((status, &problem["type"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("/docs/problems#too-many-wait")));
    for answered_at_once in [path.clone(), format!("{path}?after={EVENT}&wait=2s")] {
        assert_eq!(ask(context.clone(), get(&answered_at_once)).await.0, StatusCode::OK, "{answered_at_once}");
    }
    drop(waiting);
    let (status, _) = ask(context, get(&format!("{path}?after={other}&wait=1ms"))).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
}

#[actix_web::test]
async fn the_page_shows_what_came_in() {
    let app = App::new().app_data(web::Data::new(context(&[]))).configure(routes);
    let app = init_service(app.wrap(from_fn(access::guard))).await;
    let response = call_service(&app, get("/").to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let policy =
        response.headers().get("content-security-policy").expect("a policy").to_str().expect("text").to_owned();
    let page = String::from_utf8(read_body(response).await.to_vec()).expect("text");
    assert!(page.contains(r#"<a href="/installations?status=installed">1</a>"#), "{page}");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    // Its style and script are its own.
    for path in ["/page.css", "/page.js"] {
        assert!(page.contains(path), "{path} is not in {page}");
        assert_eq!(call_service(&app, get(path).to_request()).await.status(), StatusCode::OK, "{path}");
    }
    let wrong = call_service(&app, get("/?colour=red").to_request()).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
}

const COMMAND: &str = r#"{"command":"trust","app":"crm-sync","member_id":"a223","application_token":"operators-word"}"#;

fn command(body: &str) -> TestRequest {
    let request = TestRequest::post().uri("/v1/commands").insert_header(("host", "127.0.0.1:8081"));
    request.insert_header(("content-type", "application/x-ndjson")).set_payload(body.to_owned())
}

#[actix_web::test]
async fn commands_are_events_of_raw_without_their_tokens() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = DiskLog::open(dir.path(), Options::source()).expect("a log");
    let context = QueryContext { commands: Arc::new(LogWriter::Disk(log.clone())), ..context(&[]) };
    let (status, answer) = ask(context, command(&format!("{COMMAND}\n\n{COMMAND}\n"))).await;
    assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(2)), "{answer}");
    let mut reader = log.reader(1).expect("a reader");
    let (_, second) = reader.next().expect("read").expect("a record");
    let last = event_log::RawEvent::from_record(&second).expect("a raw event");
    assert!(last.is_command && !String::from_utf8_lossy(&last.body).contains("operators-word"));
    assert_eq!(answer["last"], json!(last.id));
}

#[actix_web::test]
async fn a_wrong_line_is_named_and_nothing_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = DiskLog::open(dir.path(), Options::source()).expect("a log");
    let commands = Arc::new(LogWriter::Disk(log.clone()));
    let too_many = vec![COMMAND; commands::COMMANDS_MAX + 1].join("\n");
    for (body, named) in [(format!("{COMMAND}\n{{}}"), "line 2"), (String::new(), "no command"), (too_many, "lines")] {
        let context = QueryContext { commands: Arc::clone(&commands), ..context(&[]) };
        let (status, problem) = ask(context, command(&body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(named)), "{problem}");
    }
    let other = command(COMMAND).insert_header(("content-type", "text/plain"));
    assert_eq!(ask(context(&[]), other).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(log.bounds().1, 0);
}
