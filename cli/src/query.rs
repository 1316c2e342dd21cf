//! The client of the query API, and the meaning of its answers for a command.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use serde_json::{Value, json};

use bitrix24::{AppName, Installation, MemberId};
use primitives::secret::{Fingerprint, Secret};

use crate::outcome::Usage;
use crate::query_error::QueryError;
use portal_sim::client::{Answer, Client, ClientError};
use portal_sim::{portal, urlencode};

/// The content type of commands.
pub const NDJSON: &str = "application/x-ndjson";

/// The default address of a processor or `standalone`.
pub const URL: &str = "http://127.0.0.1:8081";
/// More than the server's own limit for a query.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(40);

/// Arguments that say where to ask, and as whom.
pub fn server_arguments() -> [Arg; 2] {
    [
        Arg::new("query")
            .long("query")
            .value_name("URL")
            .default_value(URL)
            .help("The query API; also HOOKLEDGER_QUERY"),
        Arg::new("query-token-file")
            .long("query-token-file")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("A file with the bearer token; else HOOKLEDGER_QUERY_TOKEN or HOOKLEDGER_QUERY_TOKEN_FILE"),
    ]
}

pub fn question_arguments() -> [Arg; 5] {
    let [query, token] = server_arguments();
    let after = Arg::new("after").long("after").value_name("EVENT-ID").help("Answer once this event has been folded");
    let wait = Arg::new("wait").long("wait").value_name("DURATION").help("Wait so long for it, such as 5s");
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON, for programs");
    [query, token, after, wait, json]
}

/// Arguments of a list that has pages.
pub fn page_arguments(limit: &'static str, limit_max: u64, help: &'static str) -> [Arg; 2] {
    let limit = Arg::new("limit").long("limit").value_name("N").default_value(limit);
    let cursor = Arg::new("cursor").long("cursor").value_name("CURSOR").help("Go on behind a former list's end");
    [limit.value_parser(value_parser!(u64).range(1..=limit_max)).help(help), cursor]
}

pub fn installation_arguments() -> [Arg; 2] {
    [
        Arg::new("app").value_name("APP").required(true).value_parser(app).help("The app, as in the handler's URL"),
        Arg::new("member").value_name("MEMBER").required(true).value_parser(member).help("The portal's member_id"),
    ]
}

pub fn installation(arguments: &ArgMatches) -> Installation {
    let app = arguments.get_one::<AppName>("app").expect("clap requires it").clone();
    let member_id = arguments.get_one::<MemberId>("member").expect("clap requires it").clone();
    Installation { app, member_id }
}

pub fn app(text: &str) -> Result<AppName, &'static str> {
    AppName::parse(text).ok_or("an app's name is made of a-z, 0-9 and -, at most 63 of them")
}

pub fn member(text: &str) -> Result<MemberId, &'static str> {
    MemberId::parse(text).ok_or("a member_id is made of letters, digits, -, _ and ., at most 64 of them")
}

pub struct Query {
    client: Client,
    url: String,
    chosen: bool,
}

impl Query {
    pub fn from_arguments(arguments: &ArgMatches) -> anyhow::Result<Self> {
        let flag = arguments.value_source("query") == Some(ValueSource::CommandLine);
        let environment = std::env::var("HOOKLEDGER_QUERY").ok().filter(|url| !flag && !url.is_empty());
        let chosen = flag || environment.is_some();
        let url = environment.unwrap_or_else(|| arguments.get_one::<String>("query").expect("a default").clone());
        let mut client = Client::new(&url)?.with_answer_wait_max(ANSWER_WAIT_MAX);
        if let Some(token) = token(arguments)? {
            client = client.with_token(token.reveal());
        }
        Ok(Self { client, url, chosen })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether a server answers; an error if none does at an address that was given.
    pub async fn answers(&mut self) -> Result<bool, QueryError> {
        match self.client.connect().await {
            Ok(()) => Ok(true),
            Err(source) if self.chosen => Err(QueryError::Unreachable { url: self.url.clone(), source }),
            Err(_) => Ok(false),
        }
    }

    /// Parameters without a value are left out.
    pub async fn get(&mut self, path: &str, parameters: &[(&str, Option<&str>)]) -> Result<Value, QueryError> {
        let answer = self.client.get(&with(path, parameters)).await;
        self.read(answer)
    }

    /// The record of one installation, or a path below.
    pub async fn about(
        &mut self,
        installation: &Installation,
        below: &str,
        parameters: &[(&str, Option<&str>)],
    ) -> Result<Value, QueryError> {
        self.get(&format!("/v1/installations/{installation}{below}"), parameters).await
    }

    /// Whether the holder of a token may call a method. Only the token's fingerprint is sent.
    pub async fn check(
        &mut self,
        installation: &Installation,
        method: &str,
        token: Fingerprint,
        parameters: &[(&str, Option<&str>)],
    ) -> Result<Value, QueryError> {
        let mut question = json!({
            "app": installation.app, "member_id": installation.member_id, "method": method, "token_fingerprint": token,
        });
        if let Some(wait) = parameters.iter().find_map(|(name, value)| value.filter(|_| *name == "wait")) {
            question["wait"] = wait.into();
        }
        let path = with("/v1/check", parameters);
        let answer = self.client.post(&path, portal::JSON, Bytes::from(question.to_string())).await;
        self.read(answer)
    }

    /// Whether a token is the portal's `application_token`.
    pub async fn verify(
        &mut self,
        installation: &Installation,
        token: &Secret,
        parameters: &[(&str, Option<&str>)],
    ) -> Result<Value, QueryError> {
        let question = json!({
            "app": installation.app, "member_id": installation.member_id, "application_token": token.reveal(),
        });
        self.post(&with("/v1/verify", parameters), portal::JSON, Bytes::from(question.to_string())).await
    }

    pub async fn post(&mut self, path: &str, content_type: &str, body: Bytes) -> Result<Value, QueryError> {
        let answer = self.client.post(path, content_type, body).await;
        self.read(answer)
    }

    fn read(&self, answer: Result<Answer, ClientError>) -> Result<Value, QueryError> {
        let url = || self.url.clone();
        let answer = answer.map_err(|source| QueryError::Unreachable { url: url(), source })?;
        let status = answer.status;
        let document = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        if status == 200 && document.is_object() {
            return Ok(document);
        }
        let text = |name: &str| document[name].as_str().map(str::to_owned);
        match (text("title"), text("detail")) {
            (Some(title), detail) if status >= 400 => {
                Err(QueryError::Problem { status, title, detail: detail.unwrap_or_default() })
            }
            _ => Err(QueryError::Foreign { url: url(), status }),
        }
    }
}

pub fn waiting(arguments: &ArgMatches) -> [(&'static str, Option<&str>); 2] {
    ["after", "wait"].map(|name| (name, arguments.get_one::<String>(name).map(String::as_str)))
}

fn with(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut path = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            path.push(separator);
            path.push_str(name);
            path.push('=');
            urlencode::append(&mut path, value);
            separator = '&';
        }
    }
    path
}

fn token(arguments: &ArgMatches) -> anyhow::Result<Option<Secret>> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let file = arguments.get_one::<PathBuf>("query-token-file").cloned();
    if file.is_none()
        && let Some(token) = set("HOOKLEDGER_QUERY_TOKEN")
    {
        return Ok(Some(Secret::new(token)));
    }
    let Some(file) = file.or_else(|| set("HOOKLEDGER_QUERY_TOKEN_FILE").map(PathBuf::from)) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Usage(format!("read the token from {}: {error}", file.display())))?;
    Ok(Some(Secret::new(text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded_and_missing_ones_left_out() {
        let parameters = [("app", None), ("domain", Some("a b&c")), ("limit", Some("5"))];
        assert_eq!(with("/v1/installations", &parameters), "/v1/installations?domain=a+b%26c&limit=5");
    }
}
