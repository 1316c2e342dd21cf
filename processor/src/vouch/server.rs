//! One query to an authorisation server: `app.info`, with the access token in the body.

use std::time::Duration;

use primitives::secret::Secret;
use serde::Deserialize;
use ureq::Agent;

/// Bitrix24's authorisation servers: worldwide, and for Russia. What an event names is never asked, unless it is one of
/// them.
const SERVERS: [&str; 2] = ["https://oauth.bitrix.info", "https://oauth.bitrix24.tech"];
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(Vec<String>);

impl Default for Servers {
    fn default() -> Self {
        Self(SERVERS.map(str::to_owned).to_vec())
    }
}

impl Servers {
    /// Others than Bitrix24's must be on this machine: for tests.
    pub fn parse(text: &str) -> Option<Self> {
        let servers: Vec<String> = text.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
        let is_here = |url: &str| {
            let authority = url.strip_prefix("http://").filter(|rest| !rest.contains(['/', '@', '?', '#']));
            let host = authority.map(|authority| authority.rsplit_once(':').map_or(authority, |(host, _)| host));
            host == Some("127.0.0.1") || host == Some("localhost")
        };
        servers.iter().all(|url| SERVERS.contains(&url.as_str()) || is_here(url)).then_some(Self(servers))
    }

    pub fn url(&self, number: usize) -> &str {
        &self.0[number % self.0.len()]
    }

    /// The server that an event names as its own, else the first.
    pub fn named(&self, endpoint: Option<&str>) -> usize {
        let is_named = |server: &String| endpoint.is_some_and(|named| named.starts_with(&format!("{server}/")));
        self.0.iter().position(is_named).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The token is of this app and this portal.
    Vouched,
    OtherApp,
    OtherPortal,
    /// The token is dead, or none of this server's.
    Expired,
    /// The server asks for patience.
    Throttled,
    /// No answer in time, or no connection.
    Unreachable,
    /// The answer is not what the server's documentation says.
    Unreadable,
}

impl Answer {
    pub const ALL: [Self; 7] = [
        Self::Vouched,
        Self::OtherApp,
        Self::OtherPortal,
        Self::Expired,
        Self::Throttled,
        Self::Unreachable,
        Self::Unreadable,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::Vouched => "vouched",
            Self::OtherApp => "other_app",
            Self::OtherPortal => "other_portal",
            Self::Expired => "expired",
            Self::Throttled => "throttled",
            Self::Unreachable => "unreachable",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether the same query may be answered otherwise later.
    pub fn may_change(self) -> bool {
        match self {
            Self::Vouched | Self::OtherApp | Self::OtherPortal | Self::Expired => false,
            Self::Throttled | Self::Unreachable | Self::Unreadable => true,
        }
    }
}

#[derive(Deserialize)]
struct Document {
    result: Option<Info>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Info {
    client_id: String,
    install: Install,
}

#[derive(Deserialize)]
struct Install {
    member_id: String,
}

pub fn ask(server: &str, token: &Secret, client_id: &str, member_id: &str) -> Answer {
    let sent = agent(server).post(format!("{server}/rest/app.info")).send_form([("auth", token.reveal())]);
    let Ok(mut answer) = sent else { return Answer::Unreachable };
    let status = answer.status().as_u16();
    let body = match answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec() {
        Ok(body) => body,
        Err(ureq::Error::BodyExceedsLimit(_)) => return Answer::Unreadable,
        Err(_) => return Answer::Unreachable,
    };
    judge(status, &body, client_id, member_id)
}

fn judge(status: u16, body: &[u8], client_id: &str, member_id: &str) -> Answer {
    if matches!(status, 429 | 503) {
        return Answer::Throttled;
    }
    let Ok(Document { result, error }) = serde_json::from_slice(body) else { return Answer::Unreadable };
    match (result, error.as_deref()) {
        (_, Some("QUERY_LIMIT_EXCEEDED")) => Answer::Throttled,
        (_, Some(_)) if (400..500).contains(&status) || status == 200 => Answer::Expired,
        (Some(info), None) if status == 200 && info.client_id != client_id => Answer::OtherApp,
        (Some(info), None) if status == 200 && info.install.member_id != member_id => Answer::OtherPortal,
        (Some(_), None) if status == 200 => Answer::Vouched,
        _ => Answer::Unreadable,
    }
}

/// Follows no redirect, which would carry the token elsewhere. Uses proxies from the environment.
fn agent(server: &str) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(ANSWER_WAIT_MAX))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .https_only(server.starts_with("https:"))
        .user_agent(concat!("hookledger/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::new_with_config(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bitrix24s_servers_and_this_machine_are_asked() {
        assert_eq!(Servers::parse("https://oauth.bitrix.info, https://oauth.bitrix24.tech/"), Some(Servers::default()));
        assert!(Servers::parse("http://127.0.0.1:8099").is_some());
        for url in [
            "https://oauth.bitrix.info.evil.org",
            "http://oauth.bitrix.info",
            "http://127.0.0.1@evil.org",
            "http://127.0.0.1/x@evil.org",
            "https://evil.org",
            "",
        ] {
            assert_eq!(Servers::parse(url), None, "{url}");
        }
        let servers = Servers::default();
        assert_eq!(servers.named(Some("https://oauth.bitrix24.tech/rest/")), 1);
        assert_eq!(servers.named(Some("https://oauth.bitrix24.tech.evil.org/rest/")), 0);
        assert_eq!(servers.named(None), 0);
    }

    #[test]
    fn an_answer_counts_only_if_it_names_this_app_and_this_portal() {
        let info = |client: &str, member: &str| {
            format!(
                r#"{{"result":{{"client_id":"{client}","scope":"crm","install":{{"installed":true,"member_id":"{member}"}}}}}}"#
            )
        };
        for (status, body, expected) in [
            (200, info("app.1", "a223"), Answer::Vouched),
            (200, info("app.2", "a223"), Answer::OtherApp),
            (200, info("app.1", "b223"), Answer::OtherPortal),
            (401, r#"{"error":"expired_token","error_description":"…"}"#.to_owned(), Answer::Expired),
            (200, r#"{"error":"invalid_token"}"#.to_owned(), Answer::Expired),
            (429, String::new(), Answer::Throttled),
            (503, r#"{"error":"QUERY_LIMIT_EXCEEDED"}"#.to_owned(), Answer::Throttled),
            (500, info("app.1", "a223"), Answer::Unreadable),
            (302, String::new(), Answer::Unreadable),
            (200, "<html>".to_owned(), Answer::Unreadable),
            (200, r#"{"result":{}}"#.to_owned(), Answer::Unreadable),
            (200, r#"{"result":true}"#.to_owned(), Answer::Unreadable),
        ] {
            assert_eq!(judge(status, body.as_bytes(), "app.1", "a223"), expected, "{status} {body}");
        }
    }
}
