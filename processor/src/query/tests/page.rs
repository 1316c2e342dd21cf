use bitrix24::AppName;
use domain::fold::Outcome;
use domain::{HeldDetails, HeldEvent, Reason};

use super::*;
use crate::run::recent_events::Recent;

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
    let rejected = |app: &str, reason| Recent {
        received_at: now,
        app: AppName::parse(app).expect("a name"),
        installation: None,
        event: None,
        id: EventId::now_v7(),
        outcome: Outcome::Rejected(reason),
    };
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
    format!("<code>hookledger trust crm-sync {member} --principal {}</code>", Fingerprint::of(token))
}

#[actix_web::test]
async fn the_first_page_shows_whom_to_decide_about_and_what_was_rejected() {
    let (status, shown) = page(undecided(&[]), "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        shown.contains("No principal is trusted") && shown.contains(&decides("stranger", "of a stranger")),
        "{shown}"
    );
    assert!(shown.contains("More than one principal claims 1 installations"), "{shown}");
    assert!(shown.contains("<td>crm-sync</td><td>no event</td><td>3</td>"), "{shown}");
    assert!(
        shown.contains("<code>hookledger rejected list --app crm-sync --reason no_event --since 1d</code>"),
        "{shown}"
    );
    assert!(!shown.contains("<script") && !shown.contains("<form"), "{shown}");
}

#[actix_web::test]
async fn a_page_shows_who_speaks_for_an_installation() {
    let (_, installed) = page(undecided(&[]), &format!("/?app=crm-sync&member_id={MEMBER}")).await;
    assert!(installed.contains("yes: first-install") && !installed.contains("hookledger trust"), "{installed}");
    let (_, contested) = page(undecided(&[]), "/?app=crm-sync&member_id=contested").await;
    assert!(contested.contains("may be a stranger"), "{contested}");
    assert!(contested.contains(&decides("contested", "first")) && contested.contains("no, contested"), "{contested}");
    let (_, stranger) = page(undecided(&[]), "/?app=crm-sync&member_id=stranger").await;
    assert!(stranger.contains("<td>no</td><td>-</td>") && stranger.contains("<td>2</td>"), "two are held: {stranger}");
    assert_eq!(page(undecided(&[]), "/?app=crm-sync&member_id=nobody").await.0, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn pages_list_whom_to_decide_about() {
    let (_, untrusted) = page(undecided(&[]), "/?list=untrusted").await;
    assert!(untrusted.contains(&decides("stranger", "of a stranger")) && !untrusted.contains(MEMBER), "{untrusted}");
    let (_, contested) = page(undecided(&[]), "/?list=contested").await;
    assert!(contested.contains(&decides("contested", "first")) && !contested.contains("stranger --"), "{contested}");
    for wrong in
        ["?list=all", "?app=crm-sync", "?member_id=a", "?colour=red", "?cursor=x", "?list=untrusted&app=a&member_id=b"]
    {
        assert_eq!(page(undecided(&[]), &format!("/{wrong}")).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[actix_web::test]
async fn a_token_of_other_apps_sees_nobody_of_this_one() {
    for path in ["/", "/?list=untrusted", "/?list=contested"] {
        let (status, shown) = page(undecided(&["right read app=other"]), path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(!shown.contains("crm-sync"), "{path}: {shown}");
    }
    let (_, shown) = page(undecided(&["right read app=other"]), "/").await;
    assert!(shown.contains("<td>other</td><td>unknown</td>"), "its own app's, without a portal: {shown}");
    let one = page(undecided(&["right read app=other"]), "/?app=crm-sync&member_id=stranger").await;
    assert_eq!(one.0, StatusCode::FORBIDDEN);
}
