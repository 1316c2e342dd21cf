//! Every body against one that was recorded.

use super::*;
use crate::portal::Encoding;
use crate::read::fields;

const SOME: (&str, &str, &str) =
    ("a223c6b3710f85df22e9377d6c4f7553", "some-domain.bitrix24.com", "51856fefc120afa4b628cc82d3935cce");
const ACCESS: &str = "s6p6eclrvim6da22ft9ch94ekreb52lv";
const REFRESH: &str = "4s386p3q0tr8dy89xvmt96234v3dljg8";

/// The portal of a recorded body.
fn portal((member_id, domain, application_token): (&str, &str, &str)) -> Portal {
    let mut portal = Portal::of(member_id);
    portal.domain = domain.into();
    portal.application_token = Token::new(application_token);
    portal.access_token = Token::new(ACCESS);
    portal.refresh_token = Token::new(REFRESH);
    portal.language = "de".into();
    portal
}

/// The form is the recorded one byte for byte, and the JSON means the same.
fn check(event: &Event, portal: &Portal, recorded: &str) {
    let form = fields(recorded.trim_end().as_bytes());
    let at_s = form["ts"].parse().expect("seconds");
    assert_eq!(String::from_utf8_lossy(&portal.body(event, at_s, Encoding::Form)), recorded.trim_end());
    let json = portal.body(event, at_s, Encoding::Json);
    assert_eq!(json.first(), Some(&b'{'));
    assert_eq!(fields(&json), form, "{}", event.name());
}

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/payloads/", $name, ".form"))
    };
}

#[test]
fn an_install_is_as_recorded() {
    check(&Event::Install { version: "1".into() }, &portal(SOME), recorded!("onappinstall"));
}

#[test]
fn an_update_is_as_recorded() {
    let about = ("d41d8cd98f00b204e9800998ecf8427e", "some-domain.bitrix24.com", "c917d38f6bdb84e9d9e0bfe9d585be73");
    let mut portal = portal(about);
    portal.access_token = Token::new("lh8ze36o8ulgrljbyscr36c7ay5sinva");
    portal.refresh_token = Token::new("5f1ih5tsnsb11sc5heg3kp4ywqnjhd09");
    let event = Event::Update { version: "3".into(), previous_version: "2".into() };
    check(&event, &portal, recorded!("onappupdate"));
}

#[test]
fn an_uninstall_is_as_recorded() {
    check(&Event::Uninstall { clean: true }, &portal(SOME), recorded!("onappuninstall"));
}

#[test]
fn a_payment_is_as_recorded() {
    let event =
        Event::Payment { code: "bitrix.gds_company".into(), version: "1".into(), status: "P".into(), days: Some(28) };
    check(&event, &portal(SOME), recorded!("onapppayment"));
}

#[test]
fn an_administrators_answer_is_as_recorded() {
    let about = ("74ef8a46a75104de55d5d4a61b98ab6d", "portal.bitrix24.com", "c289487163b58658eae5e8b42eaf11b8");
    let event = Event::MethodConfirm {
        method: "voximplant.user.get".into(),
        token: Token::new("fkp963yuv1ggkfbs5z3f5hy8lilm0iw6"),
        confirmed: true,
    };
    check(&event, &portal(about), recorded!("onappmethodconfirm"));
}

#[test]
fn a_ready_user_is_as_recorded() {
    let about = ("a1b2c3d4e5f60718293a4b5c6d7e8f90", "some-domain.bitrix24.com", "0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    let mut portal = portal(about);
    portal.scope = "crm,user,task".into();
    portal.status = "L".into();
    portal.access_token = Token::new("u9z8y7x6w5v4u3t2s1r0q9p8o7n6m5l4");
    portal.refresh_token = Token::new("q9z8y7x6w5v4u3t2s1r0q9p8o7n6m5l4");
    let event = Event::UserReady {
        user_id: 512,
        access_token: Token::new("s1a2b3c4d5e6f70890abcdef1234567890abcd"),
        refresh_token: Token::new("r1a2b3c4d5e6f70890abcdef1234567890abcd"),
    };
    check(&event, &portal, recorded!("onappuserready"));
}

#[test]
fn a_crm_event_is_as_captured() {
    let about = (
        "010b6886ebc205e43ae65000ee00addb",
        "bitrix24-php-sdk-playground.bitrix24.com",
        "3c6c9248ec54af6bea1159b43ee0ab32",
    );
    let mut portal = portal(about);
    portal.scope = "crm,placement,user_brief".into();
    portal.status = "L".into();
    portal.access_token = Token::new("be45f0660071849a0058f18a000000010000077261ef50fc26f1357adbd86a052c9e48");
    let event = Event::Crm { name: "ONCRMCONTACTADD", id: 134_806 };
    check(&event, &portal, recorded!("captured-oncrmcontactadd-2024"));
}

#[test]
fn the_other_events_are_as_recorded() {
    let mut portal = portal(SOME);
    portal.scope = "user".into();
    check(&Event::UserAdd { id: 123, name: "Klaus".into() }, &portal, recorded!("onuseradd"));
    portal.scope = "task".into();
    check(&Event::Offline, &portal, recorded!("onofflineevent"));
    portal.scope = "crm".into();
    portal.status = "L".into();
    portal.language = "en".into();
    check(&Event::Test, &portal, recorded!("onapptest"));
}

#[test]
fn without_a_user_there_are_no_oauth_tokens() {
    let mut portal = portal(SOME);
    portal.linked = false;
    let body = portal.body(&Event::Install { version: "1".into() }, 1, Encoding::Form);
    let auth: Vec<String> = fields(&body)
        .into_keys()
        .filter_map(|name| name.strip_prefix("auth[").map(|name| name.trim_end_matches(']').to_owned()))
        .collect();
    assert_eq!(auth, ["application_token", "client_endpoint", "domain", "member_id", "server_endpoint"]);
}
