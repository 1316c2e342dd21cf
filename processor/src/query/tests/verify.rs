//! Whether a token is the portal's, and who speaks for it.

use super::*;

fn question(member_id: &str, token: &str) -> TestRequest {
    let question = json!({ "app": "crm-sync", "member_id": member_id, "application_token": token });
    TestRequest::post().uri("/v1/verify").insert_header(("host", "localhost")).set_json(question)
}

#[actix_web::test]
async fn a_token_is_verified_or_not_or_not_known() {
    for (member_id, token, answer) in [
        (MEMBER, "application token", json!({ "verified": true, "basis": "first-install", "reason": "trusted" })),
        (MEMBER, "hidden", json!({ "verified": false, "basis": null, "reason": "other-principal" })),
        ("nobody", "hidden", json!({ "verified": null, "basis": null, "reason": "unknown-installation" })),
    ] {
        assert_eq!(
            ask(context(&[]), question(member_id, token)).await,
            (StatusCode::OK, answer),
            "{member_id} {token}"
        );
    }
    for token in ["", &"hidden".repeat(30)] {
        let (status, problem) = ask(context(&[]), question(MEMBER, token)).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!((status, detail), (StatusCode::BAD_REQUEST, "application_token takes a text of 1 to 128 bytes"));
    }
    let limited = || question(MEMBER, "application token").insert_header(("authorization", "Bearer right"));
    assert_eq!(ask(context(&["right app=other"]), limited()).await.0, StatusCode::FORBIDDEN);
    assert_eq!(ask(context(&["right operate"]), limited()).await.0, StatusCode::FORBIDDEN);
}

#[actix_web::test]
async fn who_speaks_for_an_installation_is_listed_page_by_page() {
    let context = context(&[]);
    let path = format!("/v1/installations/crm-sync/{MEMBER}/principals");
    let other = |offset: u64| {
        Change::Fact(Box::new(Fact {
            installation: Installation::parse("crm-sync", MEMBER).expect("valid"),
            stamp: Stamp::new(None, Timestamp::from_s(offset), EventId::from_u128(u128::from(offset))),
            principal: Fingerprint::of("another"),
            raw: Position { partition: 0, offset },
            revision: Revision::default(),
            kind: FactKind::Described { profile: Profile::default() },
        }))
    };
    apply(&context.store().expect("open"), &[other(5), other(7), other(9)], None, 5);
    let (_, all) = ask(context.clone(), get(&path)).await;
    let items = all["items"].as_array().expect("a list");
    assert_eq!((items.len(), &all["next"]), (2, &Value::Null));
    let of = |token: &str| {
        let fingerprint = Fingerprint::of(token).to_string();
        items.iter().find(|item| item["principal"] == fingerprint).expect("listed")
    };
    let trusted = of("application token");
    assert_eq!((&trusted["trusted"], &trusted["basis"]), (&json!(true), &json!("first-install")));
    assert_eq!(trusted["held_events"], 0);
    let another = of("another");
    assert_eq!((&another["trusted"], &another["basis"]), (&json!(false), &Value::Null));
    assert_eq!(
        another["first_heard_at"],
        Timestamp::from_s(5).to_string(),
        "its facts are no turns, and the last one is the third"
    );
    assert_eq!(another["last_heard_at"], Timestamp::from_s(9).to_string());

    let (_, first) = ask(context.clone(), get(&format!("{path}?limit=1"))).await;
    let next = first["next"].as_str().expect("a cursor");
    let (_, rest) = ask(context.clone(), get(&format!("{path}?cursor={next}"))).await;
    assert_eq!((&first["items"][0], &rest["items"]), (&items[0], &json!([items[1]])));
    assert_eq!(ask(context, get(&format!("{path}?cursor=x"))).await.0, StatusCode::BAD_REQUEST);
}
