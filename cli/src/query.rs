//! The client of the query API, and the meaning of its answers for a command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use serde_json::{Value, json};

use bitrix24::Installation;
use primitives::secret::{Fingerprint, Secret};

use crate::arguments::{self, option, text};
use crate::outcome::{Outcome, Usage};
use crate::output::print_page;
use crate::query_error::QueryError;
use crate::standalone::reachable;
use portal_sim::client::{Answer, Client, ClientError, block_on};
use portal_sim::{portal, urlencode};

/// The content type of commands.
pub const NDJSON: &str = "application/x-ndjson";

/// The default address of a processor or `standalone`.
pub const URL: &str = "http://127.0.0.1:8081";
/// The server's limit for one page of a list.
const PAGE: u64 = 1_000;
/// More than the server's own limit for a query.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(40);

/// The address of the query API, and the token.
pub fn server_arguments() -> [Arg; 2] {
    [
        option("query", "URL", "The query API; also HOOKLEDGER_QUERY").default_value(URL),
        arguments::path(
            "query-token-file",
            "FILE",
            "A file with the bearer token; else HOOKLEDGER_QUERY_TOKEN or HOOKLEDGER_QUERY_TOKEN_FILE",
        ),
    ]
}

pub fn question_arguments() -> [Arg; 5] {
    let [query, token] = server_arguments();
    let after = option("after", "EVENT-ID", "Answer once this event has been folded");
    let wait = option("wait", "DURATION", "Wait so long for it, such as 5s");
    [query, token, after, wait, arguments::json()]
}

/// Items of a list, and the cursor of what follows them.
pub type Page = (Vec<Value>, Option<String>);

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

    /// At this address, unless one was given.
    pub fn or_at(self, address: SocketAddr) -> anyhow::Result<Self> {
        if self.chosen {
            return Ok(self);
        }
        let url = format!("http://{}", reachable(address));
        let client = self.client.moved(&url)?;
        Ok(Self { client, url, chosen: false })
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

    /// Items of a list from a cursor on, page by page up to a limit. A page may be empty although there are more.
    pub async fn list(
        &mut self,
        path: &str,
        parameters: &[(&str, Option<&str>)],
        limit: u64,
        cursor: Option<&str>,
    ) -> Result<Page, QueryError> {
        let mut items = Vec::new();
        let mut next = cursor.map(str::to_owned);
        loop {
            let page = (limit - items.len() as u64).min(PAGE).to_string();
            let place = [("limit", Some(page.as_str())), ("cursor", next.as_deref())];
            let mut document = self.get(path, &[parameters, &place].concat()).await?;
            if let Value::Array(more) = document["items"].take() {
                items.extend(more);
            }
            next = document["next"].as_str().map(str::to_owned);
            if next.is_none() || items.len() as u64 >= limit {
                return Ok((items, next));
            }
        }
    }

    /// The record of one installation, or a path below.
    pub async fn about(
        &mut self,
        installation: &Installation,
        below: &str,
        parameters: &[(&str, Option<&str>)],
    ) -> Result<Value, QueryError> {
        self.get(&path_of(installation, below), parameters).await
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
        self.post(&with("/v1/check", parameters), portal::JSON, Bytes::from(question.to_string())).await
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
        if matches!(status, 200 | 202) && document.is_object() {
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

/// A command that prints a list, with the arguments of [`arguments::page`] and [`question_arguments`].
pub fn print_list<'a, const N: usize>(
    arguments: &'a ArgMatches,
    path: &str,
    mut parameters: Vec<(&'a str, Option<&'a str>)>,
    columns: [&str; N],
) -> anyhow::Result<Outcome> {
    let limit = *arguments.get_one::<u64>("limit").expect("a default");
    parameters.extend(waiting(arguments));
    let mut query = Query::from_arguments(arguments)?;
    let listed = query.list(path, &parameters, limit, text(arguments, "cursor"));
    let (items, next) = block_on(async { Ok(listed.await?) })?;
    print_page(arguments.get_flag("json"), columns, &items, next.as_deref())?;
    Ok(Outcome::Done)
}

/// The path of one installation's record, or of what lies below.
pub fn path_of(installation: &Installation, below: &str) -> String {
    format!("/v1/installations/{installation}{below}")
}

pub fn waiting(arguments: &ArgMatches) -> [(&'static str, Option<&str>); 2] {
    ["after", "wait"].map(|name| (name, text(arguments, name)))
}

pub fn with(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
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
