use bitrix24::AppName;
use bytes::Bytes;

use super::*;
use crate::event::{Json, Part};

const PLACE: Position = Position { partition: 0, offset: 0 };
const NOW_S: u64 = 1_800_000_000;

fn event(body: &str) -> Result<Event, Reason> {
    let app = AppName::parse("crm-sync").expect("a name");
    let body = Bytes::copy_from_slice(body.as_bytes());
    let head = Request::parse(&body, None).head();
    interpret(&RawEvent::new(app, head, body, Timestamp::from_s(NOW_S)), PLACE)
}

fn raw(body: &str, query: &str) -> RawEvent {
    let app = AppName::parse("crm-sync").expect("a name");
    let head = Request::parse(body.as_bytes(), Some(query)).head();
    let body = Bytes::copy_from_slice(body.as_bytes());
    RawEvent { query: Some(query.to_owned()), ..RawEvent::new(app, head, body, Timestamp::from_s(NOW_S)) }
}

fn asked(body: &str, query: &str) -> Event {
    interpret(&raw(body, query), PLACE).expect("understood")
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
        ("member_id=a223&x=1".to_owned(), Reason::NoEvent),
        (format!("event=not+a+name&{AUTH}"), Reason::NoEvent),
        ("member_id=a223&AUTH_ID=x".to_owned(), Reason::MissingToken),
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
fn every_one_of_many_secrets_is_hidden_and_nothing_else() {
    let secret = |nth: usize| format!("secret-number-{nth:05}");
    let secrets: Vec<String> =
        (0..900).map(|nth| format!("&data[token][]={0}&data[note][]=n+{0}", secret(nth))).collect();
    let secrets = secrets.concat();
    let shown = event(&format!("event=ONX&{AUTH}&data[x]=1{secrets}")).expect("understood").public;
    assert_eq!(shown.data.value()["x"], "1");
    assert_eq!(shown.data.value()["note"][899], "n [secret]");
    assert!(!shown.data.text().contains("secret-number"));
}

#[test]
fn a_foreign_event_is_shown_without_secrets_wherever_they_stand() {
    let body = format!(
        "event=OnCrmContactAdd&data[FIELDS][ID]=7&data[LIST][0]=a&data[LIST][1]=b&data[AUTH][access_token]=s6p6eclrvim6da22\
         &data[NOTE]=see s6p6eclrvim6da22 and 51856fefc120afa4b628cc82d3935cce&data[s6p6eclrvim6da22]=x&auth[refresh_token]=4s386p3q&{AUTH}"
    );
    let event = event(&body).expect("understood");
    assert_eq!(event.kind, None);
    assert_eq!(event.public.event.as_deref(), Some("ONCRMCONTACTADD"));
    let shown = serde_json::to_string(&*event.public).expect("JSON");
    assert_eq!(
        event.public.data.text(),
        r#"{"AUTH":{"access_token":"[secret]"},"FIELDS":{"ID":"7"},"LIST":["a","b"],"NOTE":"see [secret] and [secret]","[secret]":"x"}"#
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
        r#"{"AUTH_ID":"[secret]","[secret]":"2","x [secret]":"1"}"#
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
    assert_eq!(shown(""), "null");
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
    assert_eq!((&large.omitted[..], large.raw), (&[Part::Data][..], Some(Position { partition: 0, offset: 0 })));
    let small = public(&"%01".repeat(150_000));
    assert_eq!((small.data.text().len(), &small.omitted[..], small.raw), (900_008, &[][..], Some(PLACE)));

    let auth =
        event(&format!("event=ONX&{AUTH}&auth[scope]={}&data[x]=1", "x".repeat(40_000))).expect("understood").public;
    assert_eq!((auth.data.text(), auth.auth.text(), &auth.omitted[..]), (r#"{"x":"1"}"#, "null", &[Part::Auth][..]));
}

#[test]
fn a_body_with_more_fields_than_any_event_is_rejected() {
    let body = |count: usize| format!("event=ONX&{AUTH}{}", "&data[]=1".repeat(count));
    assert!(event(&body(9_990)).is_ok());
    assert_eq!(event(&body(10_000)).expect_err("rejected"), Reason::TooManyFields);
}

#[test]
fn a_fact_names_what_it_does_not_take_and_takes_no_secret() {
    let long = "x".repeat(8 * 1024 + 1);
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
        ("auth[scope]", &scopes(1_024), None),
        ("auth[scope]", &scopes(1_025), Some(ProfileField::Scope)),
        ("auth[scope]", &"x".repeat(8 * 1024), None),
        ("auth[scope]", &long, Some(ProfileField::Scope)),
        ("data[VERSION]", &"x".repeat(8 * 1024), None),
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
fn a_domain_that_holds_a_secret_in_lower_case_is_omitted() {
    let token = "51856fefc120afa4b628cc82d3935cce";
    let mixed = "51856FEFC120afa4b628cc82d3935cce";
    for field in [format!("auth[domain]=some.{mixed}"), format!("auth[client_endpoint]=https://{mixed}.x.com/rest/")] {
        let kind = kind(&format!("event=ONAPPINSTALL&auth[member_id]=a223&auth[application_token]={token}&{field}"));
        let profile = kind.profile().expect("a profile");
        assert_eq!(profile.domain, None, "{field}");
        assert_eq!(profile.omitted, [ProfileField::Domain].into(), "{field}");
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
        format!("event=ONAPPINSTALL&{AUTH}&auth[member_id]=an-access-token-1&auth[access_token]=an-access-token-1"),
    ] {
        assert_eq!(event(&body).expect_err("a secret").label(), "secret_in_name", "{body}");
    }
    assert!(event(&format!("event=ONAPPTOKEN&data[TOKEN]=onapp&{AUTH}")).is_ok(), "too short to be one by chance");
}

#[test]
fn the_names_of_what_was_rejected_unread_may_be_secret() {
    let secret = "0123456789abcdef0123456789abcdef";
    let ordinary = raw(&format!("event=ONX&{AUTH}&auth[access_token]={secret}"), "");
    assert!(!names_may_be_secret(&ordinary, Reason::UnknownSource));
    assert!(!names_may_be_secret(&ordinary, Reason::MissingField));
    for reason in [Reason::Compressed, Reason::TooManyFields, Reason::SecretInName] {
        assert!(names_may_be_secret(&ordinary, reason), "{reason:?}");
    }
    let compressed = RawEvent { compression: Some("gzip".to_owned()), ..ordinary };
    assert!(names_may_be_secret(&compressed, Reason::UnknownSource));
    for (body, query) in [
        (format!("event=ONX&auth[member_id]={secret}&auth[access_token]={secret}"), String::new()),
        (format!("event={secret}&{AUTH}&data[sessid]={secret}"), String::new()),
        (format!("AUTH_ID={secret}"), format!("event=ONX&member_id={secret}")),
        (
            format!("event=ONX&auth[member_id]={secret}&auth[access_token]={secret}{}", "&x".repeat(10_001)),
            String::new(),
        ),
    ] {
        assert!(names_may_be_secret(&raw(&body, &query), Reason::UnknownSource), "{query}");
    }
}

#[test]
fn a_fact_names_its_own_values_that_it_does_not_take() {
    let long = "x".repeat(8 * 1024 + 1);
    for (kind, field, value, omitted) in [
        ("ONAPPUPDATE", "PREVIOUS_VERSION", long.as_str(), ProfileField::PreviousVersion),
        ("ONAPPPAYMENT", "CODE", &long, ProfileField::Code),
        ("ONAPPUSERREADY", "user_id", &long, ProfileField::UserId),
        ("ONAPPUSERREADY", "client_id", "1%00", ProfileField::ClientId),
    ] {
        let kind = self::kind(&format!("event={kind}&data[{field}]={value}&{AUTH}"));
        assert_eq!(kind.profile().expect("a profile").omitted, [omitted].into(), "{field}");
    }
}

#[test]
fn what_is_not_known_is_not_no() {
    let clean = |fields: &str| {
        let kind = kind(&format!("event=ONAPPUNINSTALL&{AUTH}&{fields}"));
        let FactKind::Uninstalled { clean, .. } = kind else { panic!("{kind:?}") };
        clean
    };
    for (value, expected) in
        [("1", Some(true)), ("0", Some(false)), ("Y", Some(true)), ("N", Some(false)), ("", None), ("maybe", None)]
    {
        assert_eq!(clean(&format!("data[CLEAN]={value}")), expected, "{value}");
    }
    assert_eq!(clean("data[LANGUAGE_ID]=ru"), None);

    let auth = r#""auth":{"member_id":"a223","application_token":"51856fefc120afa4b628cc82d3935cce"}"#;
    for (data, expected) in [
        (r#"{"INSTALLED":false}"#, false),
        (r#"{"ACTIVE":false}"#, false),
        (r#"{"INSTALLED":"N"}"#, false),
        (r#"{"INSTALLED":true,"ACTIVE":true}"#, true),
        (r#"{"INSTALLED":null}"#, true),
        (r#"{"INSTALLED":"Y","ACTIVE":"Y"}"#, true),
    ] {
        let kind = kind(&format!(r#"{{"event":"ONAPPINSTALL","data":{data},{auth}}}"#));
        assert!(matches!(kind, FactKind::Installed { complete, .. } if complete == expected), "{data}");
    }
    let uninstall = |value: &str| kind(&format!(r#"{{"event":"ONAPPUNINSTALL","data":{{"CLEAN":{value}}},{auth}}}"#));
    assert!(matches!(uninstall("true"), FactKind::Uninstalled { clean: Some(true), .. }));
    assert!(matches!(uninstall("0"), FactKind::Uninstalled { clean: Some(false), .. }));
    assert!(matches!(uninstall("null"), FactKind::Uninstalled { clean: None, .. }));
    let paid = |fields: &str| {
        let kind = kind(&format!("event=ONAPPPAYMENT&{AUTH}&{fields}"));
        let FactKind::Paid { expired, .. } = kind else { panic!("{kind:?}") };
        expired
    };
    assert_eq!(["data[PAYMENT_EXPIRED]=N", "data[PAYMENT_EXPIRED]=Y", ""].map(paid), [Some(false), Some(true), None]);
}

#[test]
fn what_was_sent_is_shown_in_form_and_json() {
    let body = format!("event=ONIMCONNECTORLINEDELETE&event_handler_id=563&data=107&extra[a]=1&ts=5&{AUTH}");
    let json = r#"{"event":"ONIMCONNECTORLINEDELETE","event_handler_id":563,"data":107,"extra":{"a":"1"},"ts":5,
        "auth":{"member_id":"a223","application_token":"51856fefc120afa4b628cc82d3935cce"}}"#;
    for body in [body.as_str(), json] {
        let public = event(body).expect("understood").public;
        assert_eq!(public.event_handler_id.as_deref(), Some("563"));
        assert_eq!(public.data.text(), r#""107""#);
        assert_eq!(public.fields.as_ref().map(Json::text), Some(r#"{"extra":{"a":"1"}}"#));
        assert_eq!((&public.query, public.call), (&None, None));
    }
    let json = r#"{"event":"ONX","data":{"a":{},"b":[],"c":null,"d":{"0":"x"},"e":["x",{"f":[]}],"g[h]":true},
        "auth":{"member_id":"a223","application_token":"t"}}"#;
    let public = event(json).expect("understood").public;
    let expected = r#"{"a":{},"b":[],"c":null,"d":{"0":"x"},"e":["x",{"f":[]}],"g[h]":"1"}"#;
    assert_eq!((public.data.text(), &public.fields), (expected, &None));
    let public = event(&format!("event=ONX&event_handler_id[]=1&ts=soon&{AUTH}")).expect("understood").public;
    assert_eq!((&public.event_handler_id, public.occurred_at.s()), (&None, NOW_S));
    assert_eq!(public.fields.as_ref().map(Json::text), Some(r#"{"event_handler_id":["1"],"ts":"soon"}"#));
}

#[test]
fn names_that_only_sound_like_secrets_are_shown() {
    let body = format!(
        "event=ONIMBOTV2MESSAGEADD&data[bot][auth][access_token]={0}&data[user][externalAuthId]=imconnector\
         &data[message][text]=our+imconnector+is+offline&data[bot][auth][member_id]=a223&data[TOKENS_LEFT]=5&{AUTH}",
        "d".repeat(70)
    );
    assert_eq!(
        event(&body).expect("understood").public.data.text(),
        r#"{"TOKENS_LEFT":"5","bot":{"auth":{"access_token":"[secret]","member_id":"a223"}},"message":{"text":"our imconnector is offline"},"user":{"externalAuthId":"imconnector"}}"#
    );
}

#[test]
fn the_query_is_a_part_of_the_event() {
    let query = "deal_id=42&title=Acme+%D0%AF&APP_SID=0123456789abcdef0123456789abcdef&list[]=a&auth=s6p6&auth_key=k";
    let event = asked(&format!("event=ONX&data[x]=sid+0123456789abcdef0123456789abcdef&{AUTH}"), query);
    assert_eq!(
        event.public.query.as_ref().map(Json::text),
        Some(r#"{"APP_SID":"[secret]","auth":"[secret]","auth_key":"k","deal_id":"42","list":["a"],"title":"Acme Я"}"#)
    );
    assert_eq!(event.public.data.text(), r#"{"x":"sid [secret]"}"#);
    assert_eq!(event.principal, Fingerprint::of("51856fefc120afa4b628cc82d3935cce"));

    let event = asked("data[x]=1&ts=5", &format!("event=ONX&ts=6&data[y]=2&{AUTH}&auth[other]=not-to-be-shown-at-all"));
    assert_eq!((event.public.event.as_deref(), event.stamp.occurred_at.s()), (Some("ONX"), 5));
    assert_eq!(event.public.data.text(), r#"{"x":"1"}"#);
    let shown = event.public.query.as_ref().expect("a query").value();
    assert_eq!(
        (&shown["auth"]["application_token"], &shown["auth"]["other"]),
        (&"[secret]".into(), &"[secret]".into())
    );
    assert_eq!(shown["auth"]["member_id"], "a223");
}

#[test]
fn a_domain_in_the_query_serves_where_the_body_names_none() {
    let domain = |body: &str, query: &str| {
        let event = asked(&format!("event=ONAPPINSTALL&{AUTH}{body}"), query);
        event.kind.and_then(|kind| kind.profile().cloned()).and_then(|profile| profile.domain)
    };
    assert_eq!(domain("", "DOMAIN=firma.bitrix24.ru&PROTOCOL=1").as_deref(), Some("firma.bitrix24.ru"));
    assert_eq!(
        domain("&auth[domain]=other.bitrix24.ru", "DOMAIN=firma.bitrix24.ru").as_deref(),
        Some("other.bitrix24.ru")
    );
    assert_eq!(domain("", "DOMAIN=oauth.bitrix.info"), None);
    assert_eq!(domain("", "DOMAIN=u:p@x"), None);
}

#[test]
fn a_call_is_passed_on_as_what_it_is() {
    let robot = event(&format!("document_id[0]=crm&workflow_id=5&event_token=abc&{AUTH}")).expect("a call");
    assert_eq!((robot.kind, &robot.public.event, robot.public.call), (None, &None, Some(Call::Robot)));
    assert_eq!(robot.public.type_name(), "com.bitrix24.robot");
    let fields = r#"{"document_id":["crm"],"event_token":"[secret]","workflow_id":"5"}"#;
    assert_eq!(robot.public.fields.as_ref().map(Json::text), Some(fields));

    let page = "AUTH_ID=aaaaaaaaaaaaaaaaaaaa&REFRESH_ID=bbbb&APPLICATION_TOKEN=51856fefc120afa4b628cc82d3935cce\
                &APPLICATION_SCOPE=crm&member_id=a223&PLACEMENT=DEFAULT";
    let page = asked(page, "DOMAIN=firma.bitrix24.ru&APP_SID=0123456789abcdef0123456789abcdef");
    assert_eq!((page.public.call, page.public.type_name().as_str()), (Some(Call::Placement), "com.bitrix24.placement"));
    assert_eq!(page.principal, Fingerprint::of("51856fefc120afa4b628cc82d3935cce"), "APP_SID is none");
    assert_eq!(page.public.auth.text(), r#"{"domain":"firma.bitrix24.ru","member_id":"a223","scope":"crm"}"#);
    let fields = page.public.fields.as_ref().expect("fields").value();
    assert_eq!((&fields["AUTH_ID"], &fields["PLACEMENT"]), (&"[secret]".into(), &"DEFAULT".into()));
}

#[test]
fn a_call_without_a_token_is_shown_and_nobodys() {
    let robot = raw("document_id[0]=crm&auth[domain]=x.bitrix24.ru&auth[member_id]=a223", "deal_id=42");
    assert_eq!(interpret(&robot, PLACE), Err(Reason::MissingToken));
    let call = unsigned_call(&robot, PLACE).expect("a call");
    assert_eq!((call.principal, call.call), (None, Some(Call::Robot)));
    assert_eq!(call.query.as_ref().map(Json::text), Some(r#"{"deal_id":"42"}"#));
    assert_eq!(unsigned_call(&raw("event=ONX&auth[member_id]=a223", ""), PLACE), None);
    let sid = raw("member_id=a223&AUTH_ID=x", "APP_SID=0123456789abcdef0123456789abcdef");
    assert_eq!(unsigned_call(&sid, PLACE).map(|call| call.principal), Some(None), "APP_SID is no token");
}

#[test]
fn a_compressed_body_is_rejected_as_such() {
    let compressed = RawEvent { compression: Some("gzip".into()), ..raw(&format!("event=ONX&{AUTH}"), "") };
    assert_eq!(interpret(&compressed, PLACE), Err(Reason::Compressed));
}

#[test]
fn the_address_is_the_one_that_is_called() {
    let domain = |auth: &str| {
        let kind = kind(&format!("event=ONAPPUPDATE&{AUTH}&{auth}"));
        kind.profile().expect("a profile").domain.clone()
    };
    for (auth, expected) in [
        ("auth[domain]=Firma.Bitrix24.RU", Some("firma.bitrix24.ru")),
        (
            "auth[domain]=firma.bitrix24.ru&auth[client_endpoint]=https://firma.bitrix24.com/rest/",
            Some("firma.bitrix24.com"),
        ),
        ("auth[client_endpoint]=https://Portal.example.org/rest/", Some("portal.example.org")),
        ("auth[domain]=oauth.bitrix.info&auth[client_endpoint]=https://a.bitrix24.de/rest/", Some("a.bitrix24.de")),
        ("auth[domain]=a.bitrix24.de&auth[client_endpoint]=https://evil.example.org/rest/", Some("a.bitrix24.de")),
        ("auth[domain]=oauth.bitrix.info", None),
    ] {
        assert_eq!(domain(auth).as_deref(), expected, "{auth}");
    }
}
