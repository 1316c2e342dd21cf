//! What a query is refused for, and what the refusal names.

use actix_web::http::Method;

use super::*;

#[actix_web::test]
async fn a_wrong_parameter_is_named_with_what_it_takes() {
    let one = format!("/v1/installations/crm-sync/{MEMBER}");
    for (path, named) in [
        ("/v1/installations?stauts=installed", "stauts is not known here; known are app, domain, status,"),
        ("/v1/installations?status=instaled", "status takes one of installed, uninstalled, trusted, untrusted"),
        ("/v1/installations?app=CRM", "app takes"),
        ("/v1/installations?domain=", "domain takes"),
        ("/v1/installations?silent_for=30", "silent_for takes a duration"),
        ("/v1/installations?updated_since=yesterday", "updated_since takes a time of RFC 3339"),
        ("/v1/installations?unfinished=1", "unfinished takes true or false"),
        ("/v1/installations?limit=0", "limit takes a whole number from 1 to 1000"),
        ("/v1/installations?limit=1001", "limit takes a whole number from 1 to 1000"),
        ("/v1/installations?limit=many", "limit takes a whole number from 1 to 1000"),
        ("/v1/installations?limit=1&limit=2", "limit is given more than once"),
        ("/v1/installations?cursor=nonsense", "cursor takes the `next` of an earlier answer"),
        ("/v1/installations?after=nonsense", "after takes an event's id"),
        ("/v1/installations?wait=31s", "wait takes a duration of at most 30s"),
        ("/v1/installations?%0dx=1", "a name that was given is not known here"),
        (&format!("{one}?limit=1"), "limit is not known here; known are after, wait"),
        (&format!("{one}/history?cursor=1"), "cursor takes"),
        (&format!("{one}/history?status=installed"), "status is not known here"),
        (&format!("{one}/methods?cursor=user.get"), "cursor takes"),
        (&format!("{one}/methods?limit=-1"), "limit takes"),
        ("/v1/feed?colour=red", "colour is not known here; known are app, member_id, type, after"),
    ] {
        let (status, problem) = ask(context(&[]), get(path)).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!((status, &problem["type"]), (StatusCode::BAD_REQUEST, &json!("/docs/problems#malformed-question")));
        assert!(detail.starts_with(named), "{path}: {detail}");
    }
}

#[actix_web::test]
async fn a_wrong_field_of_a_body_is_named_and_its_value_is_not_repeated() {
    let good = json!({ "app": "crm-sync", "member_id": MEMBER, "method": "user.get", "token": "hidden" });
    for (name, value, named) in [
        ("app", json!("HIDDEN"), "app takes an app's name"),
        ("app", json!(null), "app is missing"),
        ("member_id", json!(7), "member_id takes a text"),
        ("method", json!("hidden method"), "method takes"),
        ("token", json!({ "hidden": 1 }), "token takes a text"),
        ("token_fingerprint", json!("ab"), "one of token and token_fingerprint"),
        ("tokn", json!("hidden"), "tokn is not known here; known are app, member_id, method, token,"),
        ("wait", json!("9"), "wait takes a duration"),
    ] {
        let mut body = good.clone();
        body[name] = value;
        let request = TestRequest::post().uri("/v1/check").insert_header(("host", "localhost")).set_json(body);
        let (status, problem) = ask(context(&[]), request).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && detail.starts_with(named), "{name}: {status} {detail}");
        assert!(!problem.to_string().to_lowercase().contains("hidden"), "{problem}");
    }
    let list = TestRequest::post().uri("/v1/check").insert_header(("host", "localhost")).set_json(json!([good]));
    assert_eq!(ask(context(&[]), list).await.1["detail"], "the body takes a JSON object");
}

#[actix_web::test]
async fn a_path_says_which_methods_it_takes() {
    let one = format!("/v1/installations/crm-sync/{MEMBER}");
    let asked = async |method: Method, path: &str| {
        let app = App::new().app_data(web::Data::new(context(&[]))).configure(routes);
        let app = init_service(app.wrap(from_fn(access::guard))).await;
        let response = call_service(&app, get(path).method(method).to_request()).await;
        let allow = response.headers().get("allow").and_then(|allow| allow.to_str().ok()).map(str::to_owned);
        (response.status().as_u16(), allow)
    };
    let read = Some("GET, HEAD, OPTIONS".to_owned());
    for path in [
        "/",
        "/v1/installations",
        &one,
        &format!("{one}/history"),
        &format!("{one}/methods"),
        &format!("{one}/principals"),
    ] {
        assert_eq!(asked(Method::HEAD, path).await, (200, None), "{path}");
        assert_eq!(asked(Method::OPTIONS, path).await, (204, read.clone()), "{path}");
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(asked(method, path).await, (405, read.clone()), "{path}");
        }
    }
    let question = Some("POST, OPTIONS".to_owned());
    assert_eq!(asked(Method::OPTIONS, "/v1/check").await, (204, question.clone()));
    assert_eq!(asked(Method::GET, "/v1/check").await, (405, question));
    assert_eq!(asked(Method::POST, "/nothing").await, (404, None));
}

#[actix_web::test]
async fn lists_are_filtered_by_each_parameter() {
    let now = Timestamp::now();
    let (before, later) = (now.minus(Duration::from_secs(60)), now.plus(Duration::from_secs(60)));
    for (filter, is_in) in [
        ("domain=SOME.Bitrix24.COM".to_owned(), true),
        ("domain=other.bitrix24.com".to_owned(), false),
        ("app=other".to_owned(), false),
        ("unfinished=false".to_owned(), true),
        ("unfinished=true".to_owned(), false),
        (format!("updated_since={before}"), true),
        (format!("updated_since={later}"), false),
        ("silent_for=1h".to_owned(), false),
        ("silent_for=0s".to_owned(), true),
    ] {
        let (status, list) = ask(context(&[]), get(&format!("/v1/installations?{filter}"))).await;
        let found = list["items"].as_array().map(Vec::len);
        assert_eq!((status, found), (StatusCode::OK, Some(usize::from(is_in))), "{filter}");
    }
}
