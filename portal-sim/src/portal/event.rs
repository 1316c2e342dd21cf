//! The events of a portal, and their fields.

use super::fields::Fields;
use super::{AUTHORISATION_SERVER, CLIENT_ID, EXPIRES_IN_S, Portal, Token, server_endpoint};

#[derive(Clone, Debug)]
pub enum Event {
    Install {
        version: String,
    },
    Update {
        version: String,
        previous_version: String,
    },
    Uninstall {
        /// Whether the app's data is to be deleted, too.
        clean: bool,
    },
    Payment {
        code: String,
        version: String,
        /// The status letter after the payment.
        status: String,
        /// The days that are left, if the period ends.
        days: Option<u64>,
    },
    /// An administrator answered whether the holder of a token may call a method.
    MethodConfirm {
        method: String,
        token: Token,
        confirmed: bool,
    },
    UserReady {
        user_id: u64,
        access_token: Token,
        refresh_token: Token,
    },
    /// A change in the CRM: one of hundreds of events without a fact.
    Crm {
        /// Such as `ONCRMCONTACTADD`.
        name: &'static str,
        id: u64,
    },
    UserAdd {
        id: u64,
        name: String,
    },
    Offline,
    Test,
}

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
const AUTH_BARE: [&str; 5] = ["domain", "server_endpoint", "client_endpoint", "member_id", "application_token"];
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
    /// On the wire.
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
    pub(super) fn fields(&self, portal: &Portal, at_s: u64) -> Fields {
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
        // In the documentation, this one event has the authorisation server in place of the portal.
        let domain = if matches!(self, Self::UserReady { .. }) { AUTHORISATION_SERVER } else { &portal.domain };
        body.text("ts", &at_s.to_string()).map("auth", portal.auth(names, domain, at_s))
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
                .text("member_id", &portal.member_id)
                .text("user_id", &user_id.to_string())
                .text("client_id", CLIENT_ID)
                .text("status", &portal.status)
                .text("LANGUAGE_ID", language),
            Self::Crm { id, .. } => data.map("FIELDS", Fields::default().text("ID", &id.to_string())),
            Self::UserAdd { id, name } => data
                .number("ID", *id)
                .text("ACTIVE", "Y")
                .text("EMAIL", "user@example.com")
                .text("NAME", name)
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
mod tests;
