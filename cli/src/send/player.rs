//! The portal and the target: the arguments that the kinds of `send` share.

use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use serde_json::Value;

use bitrix24::{AppName, Installation, MemberId};

use crate::outcome::Usage;
use crate::query;
use portal_sim::client::{Answer, Client};
use portal_sim::load::Promise;
use portal_sim::portal::{Encoding, Event, Portal, Token, now_s};

pub fn target_arguments() -> [Arg; 3] {
    [
        Arg::new("to")
            .long("to")
            .value_name("URL")
            .default_value("http://127.0.0.1:8080")
            .help("The ingress, without the path"),
        Arg::new("app")
            .long("app")
            .value_name("APP")
            .default_value("my-app")
            .value_parser(query::app)
            .help("The app, as in the handler's URL"),
        Arg::new("path-key-file")
            .long("path-key-file")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("A file with the secret last segment of the URL; else the app's in HOOKLEDGER_PATH_KEYS_DIR"),
    ]
}

pub fn encoding_argument() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Send JSON instead of a form")
}

pub fn encoding(arguments: &ArgMatches) -> Encoding {
    if arguments.get_flag("json") { Encoding::Json } else { Encoding::Form }
}

pub fn portal_arguments() -> [Arg; 6] {
    [
        Arg::new("member")
            .long("member")
            .value_name("MEMBER")
            .value_parser(query::member)
            .help("The portal's member_id [default: a new one]"),
        Arg::new("application-token")
            .long("application-token")
            .value_name("TOKEN")
            .help("The application_token [default: follows from the member_id]"),
        Arg::new("domain").long("domain").value_name("HOST").help("The portal's address"),
        Arg::new("language").long("language").value_name("CODE").help("The portal's language [default: en]"),
        Arg::new("unlinked")
            .long("unlinked")
            .action(ArgAction::SetTrue)
            .help("As if no user had caused the event: no OAuth tokens"),
        Arg::new("ts")
            .long("ts")
            .value_name("SECONDS")
            .value_parser(value_parser!(u64))
            .help("The event's time by the portal's clock, Unix time [default: now]"),
    ]
}

pub fn portal(arguments: &ArgMatches) -> Portal {
    let text = |name: &str| arguments.get_one::<String>(name).cloned();
    let mut portal = arguments
        .get_one::<MemberId>("member")
        .cloned()
        .map_or_else(Portal::random, |member| Portal::of(member.as_str()));
    if let Some(token) = text("application-token") {
        portal.application_token = Token::new(token);
    }
    if let Some(domain) = text("domain") {
        portal.domain = domain;
    }
    if let Some(language) = text("language") {
        portal.language = language;
    }
    portal.linked = !arguments.get_flag("unlinked");
    portal
}

pub fn at_s(arguments: &ArgMatches) -> u64 {
    arguments.get_one::<u64>("ts").copied().unwrap_or_else(now_s)
}

pub struct Player {
    client: Client,
    app: AppName,
    path: String,
    encoding: Encoding,
}

pub struct Said {
    pub answer: Answer,
    pub promise: Option<Promise>,
}

impl Player {
    pub fn from_arguments(arguments: &ArgMatches, encoding: Encoding) -> anyhow::Result<Self> {
        let client = Client::new(arguments.get_one::<String>("to").expect("a default"))?;
        Ok(Self { client, app: app(arguments), path: path(arguments)?, encoding })
    }

    pub fn installation(&self, portal: &Portal) -> Installation {
        let member_id = MemberId::parse(&portal.member_id).expect("arguments and random ids are parsed");
        Installation { app: self.app.clone(), member_id }
    }

    pub async fn send(&mut self, portal: &Portal, event: &Event, at_s: u64) -> anyhow::Result<Said> {
        self.post(self.encoding.content_type(), portal.body(event, at_s, self.encoding)).await
    }

    pub async fn post(&mut self, content_type: &str, body: Bytes) -> anyhow::Result<Said> {
        let answer = self.client.post(&self.path, content_type, body).await.context("send the event")?;
        let promise = Promise::read(answer.status, &answer.body);
        Ok(Said { answer, promise })
    }
}

fn app(arguments: &ArgMatches) -> AppName {
    arguments.get_one::<AppName>("app").expect("a default").clone()
}

/// The path of the app's events, from [`target_arguments`]. It may hold a secret.
pub fn path(arguments: &ArgMatches) -> anyhow::Result<String> {
    let app = app(arguments);
    let directory = std::env::var_os("HOOKLEDGER_PATH_KEYS_DIR").filter(|directory| !directory.is_empty());
    let kept = directory.map(|directory| PathBuf::from(directory).join(app.as_str())).filter(|file| file.exists());
    let Some(file) = arguments.get_one::<PathBuf>("path-key-file").cloned().or(kept) else {
        return Ok(format!("/v1/events/{app}"));
    };
    let key = std::fs::read_to_string(&file)
        .map_err(|error| Usage(format!("read the path key from {}: {error}", file.display())))?;
    Ok(format!("/v1/events/{app}/{}", key.trim()))
}

impl Said {
    pub fn describe(&self) -> String {
        let status = self.answer.status;
        if let Some(promise) = &self.promise {
            return format!("{status}, id {}, kept by {}", promise.id, promise.kept.name());
        }
        let document = serde_json::from_slice::<Value>(&self.answer.body).unwrap_or_default();
        let text = |name: &str| document[name].as_str();
        match (text("title"), text("detail")) {
            (Some(title), detail) => format!("{status} {title}: {}", detail.unwrap_or_default()),
            (None, _) if status == 200 => format!("{status} without a promise"),
            (None, _) => status.to_string(),
        }
    }
}
