//! What can happen on a portal, and the fields in which it tells of it.

use common::secret::Secret;
use common::time::Timestamp;

use super::fields::Fields;
use super::{AUTHORISATION_SERVER, CLIENT_ID, EXPIRES_IN_S, Portal, server_endpoint};

/// Something that a portal tells an app.
#[derive(Clone, Debug)]
pub enum Event {
    /// The app was installed.
    Install {
        /// Its version.
        version: String,
    },
    /// The app was updated.
    Update {
        /// To this version.
        version: String,
        /// From this version.
        previous_version: String,
    },
    /// The app was removed.
    Uninstall {
        /// Whether its data is to go, too.
        clean: bool,
    },
    /// The app was paid for.
    Payment {
        /// The app's code.
        code: String,
        /// The installed version.
        version: String,
        /// The status letter that payment brought.
        status: String,
        /// The days that are left, if the period ends.
        days: Option<u64>,
    },
    /// An administrator let the holder of a token call a method, or did not.
    MethodConfirm {
        /// The method.
        method: String,
        /// The token.
        token: Secret,
        /// Which of the two.
        confirmed: bool,
    },
    /// The app's system user exists.
    UserReady {
        /// Who it is.
        user_id: u64,
        /// Their access token.
        access_token: Secret,
        /// Their refresh token.
        refresh_token: Secret,
    },
    /// Something in the CRM was made, changed or deleted: one of the hundreds that are no facts.
    Crm {
        /// The event's name, such as `ONCRMCONTACTADD`.
        name: &'static str,
        /// What it happened to.
        id: u64,
    },
    /// A user was added.
    UserAdd {
        /// Who.
        id: u64,
    },
    /// There are offline events to fetch.
    Offline,
    /// Somebody called `event.test`.
    Test,
}

/// `auth` of installs and updates.
const AUTH_INSTALL: [&str; 10] = [
    "domain",
    "scope",
    "access_token",
    "refresh_token",
    "expires_in",
    "server_endpoint",
    "status",
    "client_endpoint",
    "member_id",
    "application_token",
];
/// `auth` of uninstalls and payments.
const AUTH_BARE: [&str; 5] = ["domain", "server_endpoint", "client_endpoint", "member_id", "application_token"];
/// `auth` of an administrator's answer.
const AUTH_CONFIRM: [&str; 5] = ["domain", "client_endpoint", "server_endpoint", "member_id", "application_token"];
/// `auth` of the system user's readiness: the installer's.
const AUTH_USER_READY: [&str; 11] = [
    "access_token",
    "refresh_token",
    "expires_in",
    "scope",
    "domain",
    "server_endpoint",
    "client_endpoint",
    "member_id",
    "user_id",
    "status",
    "application_token",
];
/// `auth` of CRM events, as captured.
const AUTH_CRM: [&str; 11] = [
    "access_token",
    "expires",
    "expires_in",
    "scope",
    "domain",
    "server_endpoint",
    "status",
    "client_endpoint",
    "member_id",
    "user_id",
    "application_token",
];
/// `auth` of a new user.
const AUTH_USER_ADD: [&str; 9] = [
    "access_token",
    "expires_in",
    "scope",
    "domain",
    "server_endpoint",
    "status",
    "client_endpoint",
    "member_id",
    "application_token",
];
/// `auth` of offline events' signal.
const AUTH_OFFLINE: [&str; 10] = [
    "access_token",
    "expires_in",
    "scope",
    "domain",
    "server_endpoint",
    "status",
    "client_endpoint",
    "member_id",
    "refresh_token",
    "application_token",
];
/// `auth` of `event.test`.
const AUTH_TEST: [&str; 10] = [
    "access_token",
    "refresh_token",
    "expires_in",
    "scope",
    "domain",
    "server_endpoint",
    "status",
    "client_endpoint",
    "member_id",
    "application_token",
];

impl Event {
    /// The event's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Install { .. } => "ONAPPINSTALL",
            Self::Update { .. } => "ONAPPUPDATE",
            Self::Uninstall { .. } => "ONAPPUNINSTALL",
            Self::Payment { .. } => "ONAPPPAYMENT",
            Self::MethodConfirm { .. } => "ONAPPMETHODCONFIRM",
            Self::UserReady { .. } => "ONAPPUSERREADY",
            Self::Crm { name, .. } => name,
            Self::UserAdd { .. } => "ONUSERADD",
            Self::Offline => "ONOFFLINEEVENT",
            Self::Test => "ONAPPTEST",
        }
    }

    /// The whole body: `event`, `event_handler_id`, `data`, `ts`, `auth`.
    pub(super) fn fields(&self, portal: &Portal, at: Timestamp) -> Fields {
        let body = Fields::default().text("event", self.name());
        let body = match self.handler_id() {
            Some(id) => body.text("event_handler_id", &id.to_string()),
            None => body,
        };
        let body = match self.data(portal) {
            Some(data) => body.map("data", data),
            None => body.list("data", &[]),
        };
        let names = match self {
            Self::Install { .. } | Self::Update { .. } => &AUTH_INSTALL[..],
            Self::Uninstall { .. } | Self::Payment { .. } => &AUTH_BARE,
            Self::MethodConfirm { .. } => &AUTH_CONFIRM,
            Self::UserReady { .. } => &AUTH_USER_READY,
            Self::Crm { .. } => &AUTH_CRM,
            Self::UserAdd { .. } => &AUTH_USER_ADD,
            Self::Offline => &AUTH_OFFLINE,
            Self::Test => &AUTH_TEST,
        };
        // In this one event the documentation has the authorisation server where the portal stands elsewhere.
        let domain = if matches!(self, Self::UserReady { .. }) { AUTHORISATION_SERVER } else { &portal.domain };
        body.text("ts", &at.s().to_string()).map("auth", portal.auth(names, domain, at))
    }

    /// Not every event names its handler.
    fn handler_id(&self) -> Option<u64> {
        match self {
            Self::Install { .. } => Some(11),
            Self::Update { .. } => Some(12),
            Self::Payment { .. } => Some(14),
            Self::MethodConfirm { .. } => Some(15),
            Self::UserReady { .. } => Some(17),
            Self::Crm { .. } => Some(58),
            Self::Test => Some(1),
            Self::Uninstall { .. } | Self::UserAdd { .. } | Self::Offline => None,
        }
    }

    /// What happened; none where there is nothing to say.
    fn data(&self, portal: &Portal) -> Option<Fields> {
        let data = Fields::default();
        let language = portal.language.as_str();
        Some(match self {
            Self::Install { version } => {
                data.text("VERSION", version).text("ACTIVE", "Y").text("INSTALLED", "Y").text("LANGUAGE_ID", language)
            }
            Self::Update { version, previous_version } => {
                data.text("VERSION", version).text("PREVIOUS_VERSION", previous_version).text("LANGUAGE_ID", language)
            }
            Self::Uninstall { clean } => data.text("LANGUAGE_ID", language).number("CLEAN", u64::from(*clean)),
            Self::Payment { code, version, status, days } => {
                let data = data
                    .text("CODE", code)
                    .text("VERSION", version)
                    .text("STATUS", status)
                    .text("PAYMENT_EXPIRED", "N");
                match days {
                    Some(days) => data.text("DAYS", &days.to_string()),
                    None => data,
                }
            }
            Self::MethodConfirm { method, token, confirmed } => data
                .text("TOKEN", token.reveal())
                .text("METHOD", method)
                .text("CONFIRMED", if *confirmed { "1" } else { "0" })
                .text("LANGUAGE_ID", language),
            Self::UserReady { user_id, access_token, refresh_token } => data
                .text("access_token", access_token.reveal())
                .text("refresh_token", refresh_token.reveal())
                .text("expires_in", &EXPIRES_IN_S.to_string())
                .text("scope", &portal.scope)
                .text("domain", AUTHORISATION_SERVER)
                .text("server_endpoint", &server_endpoint())
                .text("client_endpoint", &portal.client_endpoint())
                .text("member_id", portal.member_id.as_str())
                .text("user_id", &user_id.to_string())
                .text("client_id", CLIENT_ID)
                .text("status", &portal.status)
                .text("LANGUAGE_ID", language),
            Self::Crm { id, .. } => data.map("FIELDS", Fields::default().text("ID", &id.to_string())),
            Self::UserAdd { id } => data
                .number("ID", *id)
                .text("ACTIVE", "Y")
                .text("EMAIL", "user@example.com")
                .text("NAME", "Klaus")
                .text("LAST_NAME", "Weber")
                .text("PERSONAL_GENDER", "M")
                .text("PERSONAL_BIRTHDAY", "1990-01-01")
                .list("UF_DEPARTMENT", &[1, 2])
                .text("DATE_REGISTER", "2024-04-05T10:00:00+03:00")
                .text("WORK_POSITION", "Developer")
                .text("UF_EMPLOYMENT_DATE", "2024-04-05"),
            Self::Offline => return None,
            Self::Test => data.map("QUERY", Fields::default().text("any", "data")).text("LANGUAGE_ID", language),
        })
    }
}

#[cfg(test)]
mod tests {
    use common::event::MemberId;
    use common::form::Form;

    use super::super::Encoding;
    use super::*;

    const SOME: (&str, &str, &str) =
        ("a223c6b3710f85df22e9377d6c4f7553", "some-domain.bitrix24.com", "51856fefc120afa4b628cc82d3935cce");
    const ACCESS: &str = "s6p6eclrvim6da22ft9ch94ekreb52lv";
    const REFRESH: &str = "4s386p3q0tr8dy89xvmt96234v3dljg8";

    /// The portal of a recorded body.
    fn portal((member_id, domain, application_token): (&str, &str, &str)) -> Portal {
        let mut portal = Portal::of(MemberId::parse(member_id).expect("a member_id"));
        portal.domain = domain.into();
        portal.application_token = Secret::new(application_token);
        portal.access_token = Secret::new(ACCESS);
        portal.refresh_token = Secret::new(REFRESH);
        portal.language = "de".into();
        portal
    }

    /// The form is the recorded one byte for byte, and the JSON means the same.
    fn check(event: &Event, portal: &Portal, recorded: &str) {
        let form = Form::parse(recorded.as_bytes());
        let at = Timestamp::from_s(form.text("ts").expect("ts").parse().expect("seconds"));
        assert_eq!(String::from_utf8_lossy(&portal.body(event, at, Encoding::Form)), recorded.trim_end());
        let json = portal.body(event, at, Encoding::Json);
        assert_eq!(json.first(), Some(&b'{'));
        assert_eq!(Form::parse(&json), form, "{}", event.name());
    }

    macro_rules! recorded {
        ($name:literal) => {
            include_str!(concat!("../../../tests/payloads/", $name, ".form"))
        };
    }

    #[test]
    fn an_install_is_as_recorded() {
        check(&Event::Install { version: "1".into() }, &portal(SOME), recorded!("onappinstall"));
    }

    #[test]
    fn an_update_is_as_recorded() {
        let about =
            ("d41d8cd98f00b204e9800998ecf8427e", "some-domain.bitrix24.com", "c917d38f6bdb84e9d9e0bfe9d585be73");
        let mut portal = portal(about);
        portal.access_token = Secret::new("lh8ze36o8ulgrljbyscr36c7ay5sinva");
        portal.refresh_token = Secret::new("5f1ih5tsnsb11sc5heg3kp4ywqnjhd09");
        let event = Event::Update { version: "3".into(), previous_version: "2".into() };
        check(&event, &portal, recorded!("onappupdate"));
    }

    #[test]
    fn an_uninstall_is_as_recorded() {
        check(&Event::Uninstall { clean: true }, &portal(SOME), recorded!("onappuninstall"));
    }

    #[test]
    fn a_payment_is_as_recorded() {
        let event = Event::Payment {
            code: "bitrix.gds_company".into(),
            version: "1".into(),
            status: "P".into(),
            days: Some(28),
        };
        check(&event, &portal(SOME), recorded!("onapppayment"));
    }

    #[test]
    fn an_administrators_answer_is_as_recorded() {
        let about = ("74ef8a46a75104de55d5d4a61b98ab6d", "portal.bitrix24.com", "c289487163b58658eae5e8b42eaf11b8");
        let event = Event::MethodConfirm {
            method: "voximplant.user.get".into(),
            token: Secret::new("fkp963yuv1ggkfbs5z3f5hy8lilm0iw6"),
            confirmed: true,
        };
        check(&event, &portal(about), recorded!("onappmethodconfirm"));
    }

    #[test]
    fn a_ready_user_is_as_recorded() {
        let about =
            ("a1b2c3d4e5f60718293a4b5c6d7e8f90", "some-domain.bitrix24.com", "0f1e2d3c4b5a69788796a5b4c3d2e1f0");
        let mut portal = portal(about);
        portal.scope = "crm,user,task".into();
        portal.status = "L".into();
        portal.access_token = Secret::new("u9z8y7x6w5v4u3t2s1r0q9p8o7n6m5l4");
        portal.refresh_token = Secret::new("q9z8y7x6w5v4u3t2s1r0q9p8o7n6m5l4");
        let event = Event::UserReady {
            user_id: 512,
            access_token: Secret::new("s1a2b3c4d5e6f70890abcdef1234567890abcd"),
            refresh_token: Secret::new("r1a2b3c4d5e6f70890abcdef1234567890abcd"),
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
        portal.access_token = Secret::new("be45f0660071849a0058f18a000000010000077261ef50fc26f1357adbd86a052c9e48");
        let event = Event::Crm { name: "ONCRMCONTACTADD", id: 134_806 };
        check(&event, &portal, recorded!("captured-oncrmcontactadd-2024"));
    }

    #[test]
    fn the_other_events_are_as_recorded() {
        let mut portal = portal(SOME);
        portal.scope = "user".into();
        check(&Event::UserAdd { id: 123 }, &portal, recorded!("onuseradd"));
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
        let body = portal.body(&Event::Install { version: "1".into() }, Timestamp::from_s(1), Encoding::Form);
        let auth: Vec<String> = Form::parse(&body)
            .iter()
            .filter_map(|(name, _)| name.strip_prefix("auth[").map(|name| name.trim_end_matches(']').to_owned()))
            .collect();
        assert_eq!(auth, ["application_token", "client_endpoint", "domain", "member_id", "server_endpoint"]);
    }
}
