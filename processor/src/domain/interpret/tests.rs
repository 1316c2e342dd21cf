use bytes::Bytes;
use common::event::AppName;

use super::*;

fn event(body: &str) -> Result<Event, Reason> {
    let app = AppName::parse("crm-sync").expect("a name");
    let body = Bytes::copy_from_slice(body.as_bytes());
    let raw = RawEvent::new(app, Form::parse(&body).head(), body, Timestamp::from_s(1_800_000_000));
    interpret(&raw, Place { partition: 0, offset: 0 })
}

fn told(body: &str) -> Told {
    event(body).expect("understood").told.expect("a fact")
}

const AUTH: &str = "auth[member_id]=a223&auth[application_token]=51856fefc120afa4b628cc82d3935cce";

#[test]
fn an_install_describes_the_portal() {
    let body = format!(
        "event=ONAPPINSTALL&data[VERSION]=1&data[LANGUAGE_ID]=de&ts=1696527000&auth[scope]=crm,user&auth[status]=F\
         &auth[domain]=some.bitrix24.com&auth[client_endpoint]=https://some.bitrix24.com/rest/&{AUTH}"
    );
    let Told::Installed { complete, profile } = told(&body) else { panic!("an install") };
    assert!(complete);
    assert_eq!(profile.domain.as_deref(), Some("some.bitrix24.com"));
    assert_eq!(profile.scope, Some(vec!["crm".to_owned(), "user".to_owned()]));
    assert_eq!((profile.version.as_deref(), profile.licence.as_deref()), (Some("1"), Some("F")));
    assert_eq!(profile.server_endpoint, None);
    assert_eq!(event(&body).expect("understood").stamp.told_at.s(), 1_696_527_000);
}

#[test]
fn an_install_that_is_not_finished_is_not_complete() {
    let body = format!("event=ONAPPINSTALL&data[INSTALLED]=N&{AUTH}");
    assert!(matches!(told(&body), Told::Installed { complete: false, .. }));
}

#[test]
fn the_authorisation_servers_domain_is_not_the_portals() {
    let body = format!(
        "event=ONAPPUSERREADY&auth[domain]=oauth.bitrix.info&auth[server_endpoint]=https://oauth.bitrix.info/rest/\
         &auth[client_endpoint]=https://some.bitrix24.com/rest/&{AUTH}"
    );
    let Told::UserReady { profile, .. } = told(&body) else { panic!("user ready") };
    assert_eq!(profile.domain.as_deref(), Some("some.bitrix24.com"));
}

#[test]
fn a_decision_names_its_token_by_fingerprint_only() {
    let body = format!(
        "event=ONAPPMETHODCONFIRM&data[TOKEN]=fkp963yuv1&data[METHOD]=Voximplant.User.Get&data[CONFIRMED]=0&{AUTH}"
    );
    let Told::MethodDecided { method, token, decision, .. } = told(&body) else { panic!("a decision") };
    assert_eq!((method.as_str(), decision), ("voximplant.user.get", Decision::Denied));
    assert_eq!(token, Fingerprint::of("fkp963yuv1"));
}

#[test]
fn what_cannot_be_understood_is_set_aside_for_a_reason() {
    let confirm = "event=ONAPPMETHODCONFIRM&data[TOKEN]=t&data[METHOD]=m";
    for (body, reason) in [
        (format!("member_id=a223&AUTH_ID=x&{AUTH}"), Reason::NoEvent),
        ("event=ONAPPINSTALL&auth[application_token]=t".to_owned(), Reason::NoMember),
        ("event=ONAPPINSTALL&auth[member_id][x]=a&auth[application_token]=t".to_owned(), Reason::NoMember),
        ("event=ONAPPPAYMENT&auth[member_id]=a223".to_owned(), Reason::NoProof),
        ("event=ONAPPINSTALL&auth[member_id]=a223&auth[application_token]=a b".to_owned(), Reason::NoProof),
        (format!("{confirm}&{AUTH}"), Reason::MissingField),
        (format!("{confirm}&data[CONFIRMED]=yes&{AUTH}"), Reason::BadValue),
    ] {
        assert_eq!(event(&body).expect_err("set aside"), reason, "{body}");
    }
}

#[test]
fn nothing_is_shown_of_a_body_with_more_secrets_than_any_event_has() {
    let secrets =
        |count: usize| (0..count).map(|nth| format!("&data[token][]=secret-{nth:05}")).collect::<Vec<_>>().concat();
    let shown = |count| event(&format!("event=ONX&{AUTH}&data[x]=1{}", secrets(count))).expect("understood").public;
    assert_eq!(shown(63).data["x"], "1");
    assert_eq!(shown(64).data, "[secret]");
    assert_eq!(shown(64).auth, serde_json::json!({}));
}

#[test]
fn a_foreign_event_is_shown_without_secrets_wherever_they_stand() {
    let body = format!(
        "event=OnCrmContactAdd&data[FIELDS][ID]=7&data[LIST][0]=a&data[LIST][1]=b&data[AUTH][access_token]=s6p6eclrvim6da22\
         &data[NOTE]=see s6p6eclrvim6da22 and 51856fefc120afa4b628cc82d3935cce&data[s6p6eclrvim6da22]=x&auth[refresh_token]=4s386p3q&{AUTH}"
    );
    let event = event(&body).expect("understood");
    assert_eq!(event.told, None);
    assert_eq!(event.public.event, "ONCRMCONTACTADD");
    let shown = serde_json::to_string(&event.public).expect("JSON");
    assert_eq!(
        event.public.data.to_string(),
        r#"{"AUTH":{"access_token":"[secret]"},"FIELDS":{"ID":"7"},"LIST":["a","b"],"NOTE":"[secret]","[secret]":"x"}"#
    );
    for secret in ["s6p6eclrvim6da22", "51856fefc120afa4b628cc82d3935cce", "4s386p3q"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}
