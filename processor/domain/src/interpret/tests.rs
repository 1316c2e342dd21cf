use bitrix24::AppName;
use bytes::Bytes;

use super::*;
use crate::event::Part;

fn event(body: &str) -> Result<Event, Reason> {
    let app = AppName::parse("crm-sync").expect("a name");
    let body = Bytes::copy_from_slice(body.as_bytes());
    let raw = RawEvent::new(app, Form::parse(&body).head(), body, Timestamp::from_s(1_800_000_000));
    interpret(&raw, Position { partition: 0, offset: 0 })
}

fn kind(body: &str) -> FactKind {
    event(body).expect("understood").kind.expect("a fact")
}

const AUTH: &str = "auth[member_id]=a223&auth[application_token]=51856fefc120afa4b628cc82d3935cce";

#[test]
fn an_install_describes_the_portal() {
    let body = format!(
        "event=ONAPPINSTALL&data[VERSION]=1&data[LANGUAGE_ID]=de&ts=1696527000&auth[scope]=crm,user&auth[status]=F\
         &auth[domain]=some.bitrix24.com&auth[client_endpoint]=https://some.bitrix24.com/rest/&{AUTH}"
    );
    let FactKind::Installed { complete, profile } = kind(&body) else { panic!("an install") };
    assert!(complete);
    assert_eq!(profile.domain.as_deref(), Some("some.bitrix24.com"));
    assert_eq!(profile.scope, Some(vec!["crm".to_owned(), "user".to_owned()]));
    assert_eq!((profile.version.as_deref(), profile.licence.as_deref()), (Some("1"), Some("F")));
    assert_eq!(profile.server_endpoint, None);
    assert_eq!(event(&body).expect("understood").stamp.occurred_at.s(), 1_696_527_000);
}

#[test]
fn an_install_that_is_not_finished_is_not_complete() {
    let body = format!("event=ONAPPINSTALL&data[INSTALLED]=N&{AUTH}");
    assert!(matches!(kind(&body), FactKind::Installed { complete: false, .. }));
}

#[test]
fn the_authorisation_servers_domain_is_not_the_portals() {
    let body = format!(
        "event=ONAPPUSERREADY&auth[domain]=oauth.bitrix.info&auth[server_endpoint]=https://oauth.bitrix.info/rest/\
         &auth[client_endpoint]=https://some.bitrix24.com/rest/&{AUTH}"
    );
    let FactKind::UserReady { profile, .. } = kind(&body) else { panic!("user ready") };
    assert_eq!(profile.domain.as_deref(), Some("some.bitrix24.com"));
}

#[test]
fn a_decision_names_its_token_by_fingerprint_only() {
    let body = format!(
        "event=ONAPPMETHODCONFIRM&data[TOKEN]=fkp963yuv1&data[METHOD]=Voximplant.User.Get&data[CONFIRMED]=0&{AUTH}"
    );
    let FactKind::MethodDecided { method, token, decision, .. } = kind(&body) else { panic!("a decision") };
    assert_eq!((method.as_str(), decision), ("voximplant.user.get", Decision::Denied));
    assert_eq!(token, Fingerprint::of("fkp963yuv1"));
}

#[test]
fn what_cannot_be_understood_is_rejected_for_a_reason() {
    let confirm = "event=ONAPPMETHODCONFIRM&data[TOKEN]=t&data[METHOD]=m";
    for (body, reason) in [
        (format!("member_id=a223&AUTH_ID=x&{AUTH}"), Reason::NoEvent),
        ("event=ONAPPINSTALL&auth[application_token]=t".to_owned(), Reason::NoMember),
        ("event=ONAPPINSTALL&auth[member_id][x]=a&auth[application_token]=t".to_owned(), Reason::NoMember),
        ("event=ONAPPPAYMENT&auth[member_id]=a223".to_owned(), Reason::MissingToken),
        ("event=ONAPPINSTALL&auth[member_id]=a223&auth[application_token]=a b".to_owned(), Reason::MissingToken),
        (format!("{confirm}&{AUTH}"), Reason::MissingField),
        (format!("{confirm}&data[CONFIRMED]=yes&{AUTH}"), Reason::BadValue),
    ] {
        assert_eq!(event(&body).expect_err("rejected"), reason, "{body}");
    }
}

#[test]
fn nothing_is_shown_of_a_body_with_more_secrets_than_any_event_has() {
    let secrets =
        |count: usize| (0..count).map(|nth| format!("&data[token][]=secret-{nth:05}")).collect::<Vec<_>>().concat();
    let shown = |count| event(&format!("event=ONX&{AUTH}&data[x]=1{}", secrets(count))).expect("understood").public;
    assert_eq!(shown(63).data.value()["x"], "1");
    assert_eq!(shown(64).data.text(), r#""[secret]""#);
    assert_eq!(shown(64).auth.text(), "{}");
}

#[test]
fn a_foreign_event_is_shown_without_secrets_wherever_they_stand() {
    let body = format!(
        "event=OnCrmContactAdd&data[FIELDS][ID]=7&data[LIST][0]=a&data[LIST][1]=b&data[AUTH][access_token]=s6p6eclrvim6da22\
         &data[NOTE]=see s6p6eclrvim6da22 and 51856fefc120afa4b628cc82d3935cce&data[s6p6eclrvim6da22]=x&auth[refresh_token]=4s386p3q&{AUTH}"
    );
    let event = event(&body).expect("understood");
    assert_eq!(event.kind, None);
    assert_eq!(event.public.event, "ONCRMCONTACTADD");
    let shown = serde_json::to_string(&event.public).expect("JSON");
    assert_eq!(
        event.public.data.text(),
        r#"{"AUTH":{"access_token":"[secret]"},"FIELDS":{"ID":"7"},"LIST":["a","b"],"NOTE":"[secret]","[secret]":"x"}"#
    );
    for secret in ["s6p6eclrvim6da22", "51856fefc120afa4b628cc82d3935cce", "4s386p3q"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[test]
fn names_that_are_hidden_or_look_alike_stay_apart() {
    let body =
        format!("event=ONX&{AUTH}&data[x s6p6eclrvim6da22]=1&data[s6p6eclrvim6da22]=2&data[AUTH_ID]=s6p6eclrvim6da22");
    assert_eq!(
        event(&body).expect("understood").public.data.text(),
        r#"{"AUTH_ID":"[secret]","[secret]":"2","[secret] 2":"1"}"#
    );
    let body = format!("event=ONX&{AUTH}&data[%ff]=1&data[%fe]=2&data[%fe%20]=3");
    assert_eq!(
        event(&body).expect("understood").public.data.text(),
        "{\"\u{fffd}\":\"2\",\"\u{fffd} \":\"3\",\"\u{fffd} 2\":\"1\"}"
    );
}

#[test]
fn data_may_be_a_text() {
    let shown =
        |body: &str| event(&format!("event=ONX&{AUTH}{body}")).expect("understood").public.data.text().to_owned();
    assert_eq!(shown("&data=107"), r#""107""#);
    assert_eq!(shown("&data=51856fefc120afa4b628cc82d3935cce"), r#""[secret]""#);
    assert_eq!(shown(""), "{}");
    assert_eq!(shown("&data[]=a&data[]=b"), r#"["a","b"]"#);
    assert_eq!(shown("&data[1]=a&data[2]=b"), r#"{"1":"a","2":"b"}"#);
}

#[test]
fn what_is_too_large_to_be_shown_says_so_and_where_it_lies() {
    let public =
        |data: &str| event(&format!("event=ONX&{AUTH}&auth[domain]=x&data[T]={data}")).expect("understood").public;
    // Each becomes six bytes of JSON.
    let large = public(&"%01".repeat(200_000));
    assert_eq!((large.data.text(), large.auth.text()), ("null", r#"{"domain":"x","member_id":"a223"}"#));
    assert_eq!((large.omitted, large.raw), (vec![Part::Data], Some(Position { partition: 0, offset: 0 })));
    let small = public(&"%01".repeat(150_000));
    assert_eq!((small.data.text().len(), small.omitted, small.raw), (900_008, vec![], None));

    let auth =
        event(&format!("event=ONX&{AUTH}&auth[scope]={}&data[x]=1", "x".repeat(40_000))).expect("understood").public;
    assert_eq!((auth.data.text(), auth.auth.text(), auth.omitted), (r#"{"x":"1"}"#, "null", vec![Part::Auth]));
}

#[test]
fn a_body_with_more_fields_than_any_event_is_rejected() {
    let body = |count: usize| format!("event=ONX&{AUTH}{}", "&data[]=1".repeat(count));
    assert!(event(&body(9_990)).is_ok());
    assert_eq!(event(&body(10_000)).expect_err("rejected"), Reason::TooManyFields);
}

#[test]
fn a_fact_names_what_it_does_not_take_and_takes_no_secret() {
    let long = "x".repeat(300);
    let scopes = |count: usize| (0..count).map(|nth| format!("s{nth}")).collect::<Vec<_>>().join(",");
    let token = "51856fefc120afa4b628cc82d3935cce";
    for (field, word, omitted) in [
        ("data[VERSION]", long.as_str(), Some(ProfileField::Version)),
        ("data[VERSION]", token, Some(ProfileField::Version)),
        ("data[VERSION]", "1%00", Some(ProfileField::Version)),
        ("data[VERSION]", "", None),
        ("data[LANGUAGE_ID]", &long, Some(ProfileField::Language)),
        ("auth[status]", &long, Some(ProfileField::Licence)),
        ("auth[domain]", &long, Some(ProfileField::Domain)),
        ("auth[domain]", &format!("{token}.bitrix24.com"), Some(ProfileField::Domain)),
        ("auth[domain]", "u:p@some.bitrix24.com", Some(ProfileField::Domain)),
        ("auth[domain]", "some.bitrix24.com/?x", Some(ProfileField::Domain)),
        ("auth[domain]", "some.bitrix24.com:8080", None),
        ("auth[client_endpoint]", "some.bitrix24.com", Some(ProfileField::ClientEndpoint)),
        ("auth[client_endpoint]", &format!("https://x.com/{token}/"), Some(ProfileField::ClientEndpoint)),
        ("auth[client_endpoint]", &format!("https://x.com/rest/?auth={token}"), None),
        ("auth[server_endpoint]", &format!("https://{long}/"), Some(ProfileField::ServerEndpoint)),
        ("auth[scope]", &scopes(55), None),
        ("auth[scope]", &scopes(256), None),
        ("auth[scope]", &scopes(257), Some(ProfileField::Scope)),
        ("auth[scope]", &"x".repeat(4_097), Some(ProfileField::Scope)),
        ("auth[scope]", &format!("crm,{token}"), Some(ProfileField::Scope)),
    ] {
        let kind = kind(&format!("event=ONAPPINSTALL&{AUTH}&{field}={word}"));
        let profile = kind.profile().expect("a profile");
        assert_eq!(profile.omitted, omitted.into_iter().collect(), "{field}");
        assert!(!format!("{kind:?}").contains(token), "{kind:?}");
    }
    let kind = kind(&format!("event=ONAPPINSTALL&{AUTH}&auth[client_endpoint]=https://u:p@x.com/rest/?auth=1%23y"));
    assert_eq!(kind.profile().expect("a profile").client_endpoint.as_deref(), Some("https://x.com/rest/"));
    assert_eq!(kind.profile().expect("a profile").domain.as_deref(), Some("x.com"));
    for method in [token, &token.to_ascii_uppercase(), &format!("user.{token}")] {
        let confirm = format!("event=ONAPPMETHODCONFIRM&data[METHOD]={method}&data[TOKEN]=t&data[CONFIRMED]=1&{AUTH}");
        assert_eq!(event(&confirm).expect_err("rejected"), Reason::BadValue, "{method}");
    }
}

#[test]
fn what_is_shown_of_endpoints_holds_no_user_and_no_query() {
    let body = format!(
        "event=ONX&{AUTH}&auth[client_endpoint]=https://u:pw@x.com/rest/?k=1&auth[server_endpoint]=nowhere?k=1&auth[domain]=u:pw@x"
    );
    assert_eq!(
        event(&body).expect("understood").public.auth.text(),
        r#"{"client_endpoint":"https://x.com/rest/","domain":"[secret]","member_id":"a223","server_endpoint":"[secret]"}"#
    );
}

#[test]
fn a_name_that_holds_a_secret_of_its_body_is_rejected() {
    let token = "51856fefc120afa4b628cc82d3935cce";
    for body in [
        format!("event=ONAPPINSTALL&auth[member_id]={token}&auth[application_token]={token}"),
        format!("event=ONAPPINSTALL&member_id=x{token}&{AUTH}"),
        format!("event=ON{}&{AUTH}", token.to_uppercase()),
        "event=ONAPPINSTALL&auth[member_id]=t&auth[application_token]=T".to_owned(),
        format!("event=ONAPPINSTALL&{AUTH}&auth[member_id]=an-access-token&auth[access_token]=an-access-token"),
    ] {
        assert_eq!(event(&body).expect_err("a secret").label(), "secret_in_name", "{body}");
    }
    assert!(event(&format!("event=ONAPPTOKEN&data[TOKEN]=onapp&{AUTH}")).is_ok(), "too short to be one by chance");
}
