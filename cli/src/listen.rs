//! `hookledger listen`: the feed in a terminal, and posted to a handler on this machine if asked.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments;
use crate::outcome::{Outcome, Usage};
use crate::output::{complain, print_json_live, print_live, shown};
use crate::query::{Query, server_arguments};
use crate::query_error::QueryError;
use portal_sim::client::{Client, block_on};
use portal_sim::portal;

/// The server answers within this time, also without an event.
const WAIT: &str = "25s";
const RETRY_WAIT_MIN: Duration = Duration::from_millis(500);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the handler may take.
const HANDLER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Of an event's data in a line.
const DATA_CHARS_MAX: usize = 120;
/// Names of parameters and flags.
const FILTERS: [&str; 3] = ["app", "member_id", "type"];

pub fn command() -> Command {
    let text =
        |name: &'static str, flag: &'static str, value: &'static str| Arg::new(name).long(flag).value_name(value);
    Command::new("listen")
        .about("Shows verified events as they come, and posts them to a handler on this machine if asked")
        .args(server_arguments())
        .arg(text("app", "app", "APP").value_parser(parsed(arguments::app)).help("Only of this app"))
        .arg(
            text("member_id", "member", "MEMBER")
                .value_parser(parsed(arguments::member))
                .help("Only of this portal, by its member_id"),
        )
        .arg(text("type", "type", "EVENT").help("Only of this kind, such as ONCRMDEALADD"))
        .arg(
            text("since", "since", "TIME")
                .default_value("0s")
                .help("Begin at this time, such as 2h or 2026-01-31T10:00:00Z"),
        )
        .arg(text("after", "after", "CURSOR").conflicts_with("since").help("Go on where a former listen ended"))
        .arg(text("forward", "forward", "URL").help("Post each event to this handler, as JSON"))
        .arg(
            Arg::new("forward-anywhere")
                .long("forward-anywhere")
                .action(ArgAction::SetTrue)
                .requires("forward")
                .help("Allow a handler that is not on this machine"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON, a line for each event"))
}

fn parsed<T>(parse: fn(&str) -> Result<T, &'static str>) -> impl Fn(&str) -> Result<String, &'static str> + Clone {
    move |text| parse(text).map(|_| text.to_owned())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let text = |name: &str| arguments.get_one::<String>(name).cloned();
    let handler = text("forward").map(|url| Handler::new(&url, arguments.get_flag("forward-anywhere"))).transpose()?;
    let mut listener = Listener {
        query: Query::from_arguments(arguments)?,
        filters: FILTERS.map(|name| (name, text(name))),
        since: text("since"),
        after: text("after"),
        handler,
        as_json: arguments.get_flag("json"),
    };
    block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let ended = tokio::select! {
            ended = listener.listen() => ended,
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into),
            _ = terminated.recv() => Ok(()),
        };
        // However it ends: nothing else says how far it came.
        if let Some(cursor) = &listener.after {
            complain(&format!("Go on with: hookledger listen --after {cursor}"));
        }
        ended.map(|()| Outcome::Done)
    })
}

struct Listener {
    query: Query,
    filters: [(&'static str, Option<String>); 3],
    /// Where it begins, until there is a cursor.
    since: Option<String>,
    /// All events before it were shown and posted.
    after: Option<String>,
    handler: Option<Handler>,
    as_json: bool,
}

impl Listener {
    /// Until the output has no reader, or an error that does not pass.
    async fn listen(&mut self) -> anyhow::Result<()> {
        // The first answer comes at once, with a cursor.
        let mut answer = self.ask(None).await?;
        complain(&format!("Listening to {}; Ctrl-C ends it.", self.query.url()));
        loop {
            let Some(next) = answer["next"].as_str() else { anyhow::bail!("{} is no feed", self.query.url()) };
            let next = next.to_owned();
            for event in answer["events"].as_array().into_iter().flatten() {
                if !self.show(event).await? {
                    return Ok(());
                }
            }
            if self.after.as_ref() == Some(&next) {
                // A server that stops answers before its time.
                tokio::time::sleep(RETRY_WAIT_MIN).await;
            }
            self.after = Some(next);
            answer = self.ask_until_answered().await?;
        }
    }

    async fn ask(&mut self, wait: Option<&str>) -> Result<Value, QueryError> {
        let [app, member, kind] = self.filters.each_ref().map(|(name, value)| (*name, value.as_deref()));
        let since = self.since.as_deref().filter(|_| self.after.is_none());
        let begin = [("after", self.after.as_deref()), ("since", since), ("wait", wait)];
        self.query.get("/v1/feed", &[&[app, member, kind][..], &begin].concat()).await
    }

    /// Asks again while the server is away.
    async fn ask_until_answered(&mut self) -> Result<Value, QueryError> {
        let mut wait = RETRY_WAIT_MIN;
        loop {
            match self.ask(Some(WAIT)).await {
                Err(error) if passes(&error) => {
                    if wait == RETRY_WAIT_MIN {
                        complain(&format!("hookledger listen: {error}; trying again"));
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_WAIT_MAX);
                }
                answer => {
                    if answer.is_ok() && wait > RETRY_WAIT_MIN {
                        complain("hookledger listen: answered again");
                    }
                    return answer;
                }
            }
        }
    }

    /// Prints an event and posts it. Returns whether anybody reads the output.
    async fn show(&mut self, event: &Value) -> anyhow::Result<bool> {
        let is_read = if self.as_json { print_json_live(event)? } else { print_live(&line(event))? };
        if !is_read {
            return Ok(false);
        }
        let Some(handler) = &mut self.handler else { return Ok(true) };
        let told = format!("    {}", handler.post(event).await);
        if self.as_json {
            complain(&told);
            return Ok(true);
        }
        print_live(&told)
    }
}

/// Whether it may be well in a moment, where it was well before: a proxy may answer meanwhile.
fn passes(error: &QueryError) -> bool {
    match error {
        QueryError::Unreachable { .. } | QueryError::Foreign { .. } => true,
        QueryError::Problem { status, .. } => *status >= 500,
    }
}

fn line(event: &Value) -> String {
    let kind = if event["event"].is_null() { &event["call"] } else { &event["event"] };
    let (app, member) = (shown(&event["app"]), shown(&event["member_id"]));
    let data = event["data"].to_string();
    let mut data: String = data.chars().take(DATA_CHARS_MAX + 1).collect();
    if data.chars().count() > DATA_CHARS_MAX {
        data.pop();
        data.push('…');
    }
    format!("{}  {app}/{member}  {}  {data}", shown(&event["received_at"]), shown(kind))
}

/// Where events are posted.
struct Handler {
    client: Client,
    path: String,
}

impl Handler {
    fn new(url: &str, anywhere: bool) -> anyhow::Result<Self> {
        let scheme = url.find("://").map_or(0, |at| at + 3);
        let path = url[scheme..].find(['/', '?']).map_or(url.len(), |at| scheme + at);
        let (origin, path) = url.split_at(path);
        let client = Client::new(origin)?.with_answer_wait_max(HANDLER_WAIT_MAX);
        if !anywhere && !client.is_loopback() {
            return Err(Usage(format!(
                "{origin} is not on this machine, and events hold personal data: give --forward-anywhere if you mean it"
            ))
            .into());
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { client, path })
    }

    /// What the handler says, or why it says nothing. It is not asked again.
    async fn post(&mut self, event: &Value) -> String {
        let began = Instant::now();
        let answer = self.client.post(&self.path, portal::JSON, Bytes::from(event.to_string())).await;
        let took = began.elapsed().as_millis();
        match answer {
            Ok(answer) => format!("handler: {} in {took} ms", answer.status),
            Err(error) => format!("handler: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let mut event = json!({
            "app": "crm-sync", "member_id": "a223", "event": "ONCRMDEALADD", "received_at": "2026-11-22T18:59:08.956Z",
            "data": { "FIELDS": { "ID": "7" } },
        });
        let expected = r#"2026-11-22T18:59:08.956Z  crm-sync/a223  ONCRMDEALADD  {"FIELDS":{"ID":"7"}}"#;
        assert_eq!(line(&event), expected);
        (event["event"], event["call"], event["data"]) = (Value::Null, "robot".into(), "ж".repeat(500).into());
        let cut = line(&event);
        assert!(cut.contains("  robot  \"жж") && cut.ends_with("ж…") && cut.chars().count() < 180, "{cut}");
    }

    #[test]
    fn a_handler_is_on_this_machine_unless_its_user_means_another() {
        for (url, path) in [
            ("http://127.0.0.1:3000", "/"),
            ("http://localhost/hooks/", "/hooks/"),
            ("http://[::1]:80?x=1", "/?x=1"),
            ("http://127.8.0.1/a?x=1", "/a?x=1"),
        ] {
            assert_eq!(Handler::new(url, false).map(|handler| handler.path).expect(url), path);
        }
        for url in ["http://10.0.0.1/", "http://example.org", "http://127.0.0.1.example.org/", "http://0.0.0.0/"] {
            assert!(Handler::new(url, false).is_err(), "{url}");
            assert!(Handler::new(url, true).is_ok(), "{url}");
        }
        for url in ["", "127.0.0.1", "https://127.0.0.1/", "http://u:p@127.0.0.1/"] {
            assert!(Handler::new(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let problem = |status| QueryError::Problem { status, title: String::new(), detail: String::new() };
        assert!(passes(&problem(503)) && passes(&problem(500)));
        assert!(!passes(&problem(410)) && !passes(&problem(401)) && !passes(&problem(400)));
    }
}
