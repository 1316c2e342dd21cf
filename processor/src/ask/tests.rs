use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use common::event::{EventId, Installation};
use common::time::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::domain::{Change, Decision, Fact, Method, Place, Profile, Revision, Stamp, Told};
use crate::store::memory::Memory;
use crate::store::{Progressed, Trusts};

const MEMBER: &str = "a223c6b3710f85df22e9377d6c4f7553";
const EVENT: EventId = EventId::from_u128(7);

/// What a portal told an hour ago and lately, as an asker finds it.
fn asked(tokens: &[&str]) -> Asked {
    let store = Store::open(Box::new(Memory::default()), "log", 1, Trusts::default()).expect("open");
    let now = Timestamp::now();
    let fact = |offset: u64, told: Told| {
        Change::Told(Box::new(Fact {
            installation: Installation::parse("crm-sync", MEMBER).expect("valid"),
            stamp: Stamp::new(Some(now), now, EventId::from_u128(offset.into())),
            teller: Fingerprint::of("proof"),
            raw: Place { partition: 0, offset },
            revision: Revision::default(),
            told,
        }))
    };
    let profile = Profile { domain: Some("some.bitrix24.com".into()), ..Profile::default() };
    let installed = Told::Installed { complete: true, profile };
    let method = Method::parse("user.get").expect("a method");
    let token = Fingerprint::of("token");
    let decided = Told::MethodDecided { method, token, decision: Decision::Granted, profile: Profile::default() };
    let progressed = Progressed { raw: 2, log: EventId::nil(), last: None };
    store.apply(0, &[fact(0, installed), fact(1, decided)], Some(progressed), 3).expect("applied");

    let folded = Folded::default();
    folded.add([EVENT], []);
    let tokens = Arc::new(tokens.iter().map(|token| Fingerprint::of(token)).collect());
    Asked { shared: Shared::of(store), folded, tokens }
}

async fn ask(asked: Asked, request: TestRequest) -> (StatusCode, Value) {
    let app = App::new()
        .app_data(web::Data::new(asked))
        .app_data(problem::json_config(BODY_BYTES_MAX))
        .app_data(problem::query_config())
        .configure(routes);
    let app = init_service(app.wrap(from_fn(access::guard))).await;
    let request = request.to_request();
    let response = match actix_web::test::try_call_service(&app, request).await {
        Ok(response) => response.map_into_boxed_body().into_parts().1,
        Err(error) => error.error_response(),
    };
    let status = response.status();
    let body = actix_web::body::to_bytes(response.into_body()).await.map_err(|_| "a body").expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path)
}

#[actix_web::test]
async fn an_installation_is_shown_with_null_for_what_is_not_known() {
    let (status, record) = ask(asked(&[]), get(&format!("/v1/installations/crm-sync/{MEMBER}"))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&record["status"], &record["domain"]), (&json!("installed"), &json!("some.bitrix24.com")));
    assert_eq!((&record["version"], &record["scope"]), (&Value::Null, &Value::Null));
    assert_eq!(record["believed"]["how"], "first-install");
    assert_eq!(record["last_fact"]["type"], "ONAPPMETHODCONFIRM");
    assert_eq!(record["position"], json!({ "partition": 0, "offset": 1 }));
    assert!(record.get("cleaned").is_none());
}

#[actix_web::test]
async fn lists_are_filtered_and_go_on_behind_the_cursor() {
    let asked = asked(&[]);
    let (_, all) = ask(asked.clone(), get("/v1/installations?status=installed&limit=1")).await;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    let next = all["next"].as_str().expect("a cursor");
    let (_, rest) = ask(asked.clone(), get(&format!("/v1/installations?cursor={next}"))).await;
    assert_eq!(rest, json!({ "items": [], "next": null }));
    let (_, none) = ask(asked, get("/v1/installations?status=uninstalled")).await;
    assert_eq!(none["items"], json!([]));
}

#[actix_web::test]
async fn history_is_all_facts_oldest_first() {
    let (_, history) = ask(asked(&[]), get(&format!("/v1/installations/crm-sync/{MEMBER}/history"))).await;
    let items = history["items"].as_array().expect("a list");
    let kinds: Vec<&Value> = items.iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["ONAPPINSTALL", "ONAPPMETHODCONFIRM"]);
    assert_eq!(items[1]["raw"], json!({ "partition": 0, "offset": 1 }));
}

#[actix_web::test]
async fn a_check_takes_a_token_or_its_fingerprint() {
    let question = |token: Value| {
        let mut question = json!({ "app": "crm-sync", "member_id": MEMBER, "method": "User.Get" });
        question.as_object_mut().expect("an object").extend(token.as_object().expect("an object").clone());
        TestRequest::post().uri("/v1/check").set_json(question)
    };
    let fingerprint = Fingerprint::of("token").to_string();
    for token in [json!({ "token": "token" }), json!({ "token_fingerprint": fingerprint })] {
        let (status, answer) = ask(asked(&[]), question(token)).await;
        assert_eq!((status, &answer["decision"]), (StatusCode::OK, &json!("granted")));
    }
    let (_, answer) = ask(asked(&[]), question(json!({ "token": "another", "wait": "1ms" }))).await;
    assert_eq!(answer, json!({ "decision": "unanswered", "reason": "no-answer-yet" }));
    let (status, problem) = ask(asked(&[]), question(json!({}))).await;
    assert_eq!((status, &problem["status"]), (StatusCode::BAD_REQUEST, &json!(400)));
}

#[actix_web::test]
async fn an_answer_waits_for_the_event_it_is_to_come_after() {
    let path = format!("/v1/installations/crm-sync/{MEMBER}");
    let (status, _) = ask(asked(&[]), get(&format!("{path}?after={EVENT}&wait=2s"))).await;
    assert_eq!(status, StatusCode::OK);
    let other = EventId::from_u128(8);
    let (status, problem) = ask(asked(&[]), get(&format!("{path}?after={other}&wait=1ms"))).await;
    assert_eq!((status, &problem["title"]), (StatusCode::GATEWAY_TIMEOUT, &json!("not yet")));
    let (status, _) = ask(asked(&[]), get(&format!("{path}?after=nonsense"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[actix_web::test]
async fn nobody_asks_without_a_token_where_tokens_are_set() {
    let path = format!("/v1/installations/crm-sync/{MEMBER}");
    let with = |token: &str| get(&path).insert_header(("Authorization", format!("Bearer {token}")));
    assert_eq!(ask(asked(&["right"]), get(&path)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(asked(&["right"]), with("wrong")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(asked(&["other", "right"]), with("right")).await.0, StatusCode::OK);

    let basic = |encoded: &str| get(&path).insert_header(("Authorization", format!("Basic {encoded}")));
    for (encoded, status) in [
        ("YW55Ym9keTpyaWdodA==", StatusCode::OK),       // anybody:right
        ("cmlnaHQ6d3Jvbmc=", StatusCode::UNAUTHORIZED), // right:wrong
        ("cmlnaHQ=", StatusCode::UNAUTHORIZED),         // right
        ("=", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(ask(asked(&["right"]), basic(encoded)).await.0, status, "{encoded}");
    }
}

#[actix_web::test]
async fn without_tokens_nobody_asks_through_a_proxy() {
    let path = format!("/v1/installations/crm-sync/{MEMBER}");
    for header in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"] {
        let through_a_proxy = || get(&path).insert_header((header, "203.0.113.9"));
        let (status, problem) = ask(asked(&[]), through_a_proxy()).await;
        assert_eq!(
            (status, &problem["type"]),
            (StatusCode::FORBIDDEN, &json!("/docs/problems#tokens-needed")),
            "{header}"
        );
        let (status, _) = ask(asked(&["right"]), through_a_proxy()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{header}");
        let shown = through_a_proxy().insert_header(("Authorization", "Bearer right"));
        assert_eq!(ask(asked(&["right"]), shown).await.0, StatusCode::OK, "{header}");
    }
}

#[actix_web::test]
async fn what_is_not_there_is_a_problem_too() {
    for path in ["/v1/installations/crm-sync/nobody", "/v1/installations/CRM/..%2f", "/nothing"] {
        let (status, problem) = ask(asked(&[]), get(path)).await;
        assert_eq!((status, &problem["status"]), (StatusCode::NOT_FOUND, &json!(404)), "{path}");
    }
}

#[actix_web::test]
async fn the_page_shows_what_came_in() {
    let app = init_service(App::new().app_data(web::Data::new(asked(&[]))).configure(routes)).await;
    let response = call_service(&app, get("/").to_request()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let page = String::from_utf8(read_body(response).await.to_vec()).expect("text");
    assert!(page.contains("<b>1</b>installed"), "{page}");
}
