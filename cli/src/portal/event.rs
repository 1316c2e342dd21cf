//! What can happen on a portal, and the fields in which it tells of it.

use primitives::secret::Secret;
use primitives::time::Timestamp;

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
mod tests;
