//! What a token may do that is limited to scopes or apps.

use super::*;

/// Asks with a token of these scopes and apps.
async fn asked(scopes: &str, request: TestRequest) -> (u16, Value) {
    let request = request.insert_header(("authorization", "Bearer right"));
    let (status, answer) = ask(context(&[&format!("right {scopes}")]), request).await;
    (status.as_u16(), answer)
}

#[actix_web::test]
async fn a_token_without_the_scope_read_reads_nothing() {
    let one = format!("/v1/installations/crm-sync/{MEMBER}");
    for path in [
        "/",
        "/v1/installations",
        &one,
        &format!("{one}/history"),
        &format!("{one}/methods"),
        &format!("{one}/principals"),
    ] {
        assert_eq!(asked("", get(path)).await.0, 200, "{path}");
        for scopes in ["operate", "tokens operate"] {
            let (status, problem) = asked(scopes, get(path)).await;
            assert_eq!((status, &problem["type"]), (403, &json!("/docs/problems#missing-scope")), "{path}");
        }
    }
    assert_eq!(asked("operate", question()).await.0, 403);
}

#[actix_web::test]
async fn a_token_of_other_apps_sees_nothing_of_this_one() {
    let one = format!("/v1/installations/crm-sync/{MEMBER}");
    let queries = || {
        let paths = [one.clone(), format!("{one}/history"), format!("{one}/methods"), format!("{one}/principals")];
        let unknown = "/v1/installations/crm-sync/nobody".to_owned();
        let listed = "/v1/installations?app=crm-sync".to_owned();
        paths.into_iter().chain([unknown, listed]).map(|path| get(&path)).chain([question()])
    };
    for request in queries() {
        let (status, problem) = asked("read app=other", request).await;
        assert_eq!((status, &problem["type"]), (403, &json!("/docs/problems#other-app")));
    }
    for request in queries() {
        assert_ne!(asked("read app=other app=crm-sync", request).await.0, 403);
    }
    let all = async |scopes: &str| asked(scopes, get("/v1/installations")).await.1["items"].as_array().map(Vec::len);
    assert_eq!((all("app=other").await, all("app=crm-sync").await), (Some(0), Some(1)));
}

#[actix_web::test]
async fn the_page_of_a_limited_token_has_no_numbers() {
    for (scopes, has_numbers) in [("read", true), ("read app=crm-sync", false)] {
        let app = App::new().app_data(web::Data::new(context(&[&format!("right {scopes}")]))).configure(routes);
        let app = init_service(app.wrap(from_fn(access::guard))).await;
        let request = get("/").insert_header(("authorization", "Bearer right"));
        let page = read_body(call_service(&app, request.to_request()).await).await;
        let page = String::from_utf8(page.to_vec()).expect("text");
        assert_eq!(page.contains(r#"<a href="/installations?status=installed">1</a>"#), has_numbers, "{page}");
    }
}

#[actix_web::test]
async fn commands_take_the_scope_operate_and_the_apps_of_the_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = DiskLog::open(dir.path(), Options::source()).expect("a log");
    for (scopes, expected, kind) in [
        ("", 403, "/docs/problems#missing-scope"),
        ("read tokens", 403, "/docs/problems#missing-scope"),
        ("operate app=other", 403, "/docs/problems#other-app"),
    ] {
        let (status, problem) = asked(scopes, command(COMMAND)).await;
        assert_eq!((status, &problem["type"]), (expected, &json!(kind)), "{scopes}");
    }
    let commands = Arc::new(LogWriter::Disk(log.clone()));
    let context = QueryContext { commands, ..context(&["right operate app=crm-sync"]) };
    let (status, answer) = ask(context, command(COMMAND).insert_header(("authorization", "Bearer right"))).await;
    assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(1)), "{answer}");
}

fn question() -> TestRequest {
    let question = json!({ "app": "crm-sync", "member_id": MEMBER, "method": "user.get", "token": "token" });
    TestRequest::post().uri("/v1/check").insert_header(("host", "localhost")).set_json(question)
}
