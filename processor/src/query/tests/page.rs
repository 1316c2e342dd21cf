use bitrix24::AppName;
use domain::{HeldDetails, HeldEvent, Reason};

use super::*;
use crate::run::recent_events::RejectedEvent;

/// Beside the installed portal one of which only a stranger spoke, and one that a second principal claims.
fn undecided(tokens: &[&str]) -> QueryContext {
    let context = context(tokens);
    let store = context.shared.get().expect("open");
    let now = Timestamp::now();
    let held = |member: &str, token: &str, offset: u64| {
        let (id, raw) = (EventId::now_v7(), Position { partition: 0, offset });
        let installation = Installation::parse("crm-sync", member).expect("valid");
        let held = HeldEvent { installation, id, principal: Fingerprint::of(token), offset };
        Change::Held(held, HeldDetails { raw, bytes: 1, fact: None })
    };
    let forged = Change::Fact(Box::new(Fact {
        installation: Installation::parse("crm-sync", "contested").expect("valid"),
        stamp: Stamp::new(Some(now), now, EventId::now_v7()),
        principal: Fingerprint::of("forger"),
        raw: Position { partition: 0, offset: 5 },
        revision: Revision::default(),
        kind: FactKind::Installed { complete: true, profile: Profile::default() },
    }));
    let changes = [
        held("stranger", "of a stranger", 2),
        held("stranger", "of a stranger", 3),
        held("contested", "first", 4),
        forged,
    ];
    let progressed = Progressed { raw: 6, log: EventId::nil(), last: None };
    apply(&store, &changes, Some(progressed), 7);
    let rejected =
        |app: &str, reason| RejectedEvent { received_at: now, app: AppName::parse(app).expect("a name"), reason };
    let junk = (0..3).map(|_| rejected("crm-sync", Reason::NoEvent)).chain([rejected("other", Reason::BadValue)]);
    context.recent_events.add([], junk);
    context
}

async fn page(context: QueryContext, path: &str) -> (StatusCode, String) {
    let app = App::new().app_data(web::Data::new(context)).configure(routes);
    let app = init_service(app.wrap(from_fn(access::guard))).await;
    let response = call_service(&app, get(path).insert_header(("authorization", "Bearer right")).to_request()).await;
    let status = response.status();
    (status, String::from_utf8(read_body(response).await.to_vec()).expect("text"))
}

fn decides(member: &str, token: &str) -> String {
    format!(">hookledger trust crm-sync {member} --principal {}</code>", Fingerprint::of(token))
}

#[actix_web::test]
async fn the_first_page_shows_whom_to_decide_about_and_what_was_rejected() {
    let (status, shown) = page(undecided(&[]), "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(shown.contains("To decide") && shown.contains(&decides("stranger", "of a stranger")), "{shown}");
    assert!(shown.contains("More than one principal claims 1 installation<"), "{shown}");
    assert!(shown.contains(">no event</span>") && shown.contains("class=\"number\">3</td>"), "{shown}");
    assert!(shown.contains(">hookledger rejected list --app crm-sync --reason no_event --since 1d</code>"), "{shown}");
    assert!(shown.contains("The logs cannot be read now"), "the rest is shown without them: {shown}");
}

#[actix_web::test]
async fn a_page_shows_who_speaks_for_an_installation() {
    let (_, installed) = page(undecided(&[]), &format!("/installations/crm-sync/{MEMBER}")).await;
    assert!(installed.contains("first-install") && installed.contains(" --revoke</code>"), "{installed}");
    assert!(installed.contains("user.get") && installed.contains("some.bitrix24.com"), "{installed}");
    let (_, contested) = page(undecided(&[]), "/installations/crm-sync/contested").await;
    assert!(contested.contains("may be a stranger"), "{contested}");
    assert!(contested.contains(&decides("contested", "first")), "{contested}");
    let (_, stranger) = page(undecided(&[]), "/installations/crm-sync/stranger").await;
    assert!(stranger.contains("No principal is trusted") && stranger.contains("class=\"number\">2</td>"), "{stranger}");
    let (status, unknown) = page(undecided(&[]), "/installations/crm-sync/unknown").await;
    assert!(status == StatusCode::NOT_FOUND && unknown.contains("nothing is known"), "{unknown}");
}

#[actix_web::test]
async fn installations_are_searched_and_listed() {
    let (_, untrusted) = page(undecided(&[]), "/installations?status=untrusted").await;
    assert!(untrusted.contains(&decides("stranger", "of a stranger")) && !untrusted.contains(MEMBER), "{untrusted}");
    let (_, contested) = page(undecided(&[]), "/installations?contested=true").await;
    assert!(contested.contains(&decides("contested", "first")) && !contested.contains("stranger --"), "{contested}");
    for (search, is_found) in [("SOME.bitrix", true), (&MEMBER[4..9], true), ("else", false)] {
        let (_, found) = page(undecided(&[]), &format!("/installations?search={search}&app=&status=")).await;
        assert_eq!(found.contains(&format!("/installations/crm-sync/{MEMBER}")), is_found, "{search}: {found}");
    }
    for wrong in [
        "/?colour=red",
        "/installations?status=odd",
        "/installations?cursor=x",
        "/events?became=odd",
        "/events?cursor=x",
    ] {
        let (status, shown) = page(undecided(&[]), wrong).await;
        assert!(status == StatusCode::BAD_REQUEST && shown.starts_with("<!doctype html>"), "{wrong}: {shown}");
    }
}

#[actix_web::test]
async fn a_token_of_other_apps_sees_nothing_of_this_one() {
    for path in ["/", "/installations", "/installations?status=untrusted", "/installations?contested=true"] {
        let (status, shown) = page(undecided(&["right read app=other"]), path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(!shown.contains("crm-sync"), "{path}: {shown}");
        assert!(!shown.contains("class=\"numbers\""), "numbers are of all apps: {shown}");
    }
    let (_, shown) = page(undecided(&["right read app=other"]), "/").await;
    assert!(shown.contains("<tr role=\"row\" id=\"rejected-other-bad_value\">"), "its own app's: {shown}");
    for path in ["/installations/crm-sync/stranger", "/installations?app=crm-sync", "/events?app=crm-sync"] {
        assert_eq!(page(undecided(&["right read app=other"]), path).await.0, StatusCode::FORBIDDEN, "{path}");
    }
}

#[actix_web::test]
async fn a_browser_asks_again_for_files_and_is_told_that_they_are_the_same() {
    let app = App::new().app_data(web::Data::new(context(&[]))).configure(routes);
    let app = init_service(app.wrap(from_fn(access::guard)).wrap(headers())).await;
    for path in ["/page.js", "/page.css", "/page.svg"] {
        let response = call_service(&app, get(path).to_request()).await;
        assert_eq!(response.headers().get("cache-control").expect("a header"), "no-cache");
        let tag = response.headers().get("etag").expect("a tag").clone();
        let again = call_service(&app, get(path).insert_header(("if-none-match", tag)).to_request()).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
    }
    let page = call_service(&app, get("/").to_request()).await;
    let policy = page.headers().get("content-security-policy").expect("a policy").to_str().expect("ASCII");
    assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
}

#[actix_web::test]
async fn a_page_that_watches_takes_a_place_of_the_feed() {
    let app = App::new().app_data(web::Data::new(context(&[]))).configure(routes);
    let app = init_service(app.wrap(from_fn(access::guard))).await;
    let first = call_service(&app, get("/page/changes").to_request()).await;
    let second = call_service(&app, get("/page/changes").to_request()).await;
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    let third = call_service(&app, get("/page/changes").to_request()).await;
    assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE, "two may read");
}
