//! The portal that plays, and its arguments, which the kinds of `send` share.

use anyhow::Context;
use bytes::Bytes;
use clap::{Arg, ArgMatches, value_parser};
use serde_json::Value;

use bitrix24::{AppName, Installation, MemberId};

use super::target::{self, app, path};
use crate::arguments::{self, option, switch};
use portal_sim::client::{Answer, Client};
use portal_sim::load::Promise;
use portal_sim::portal::{Encoding, Event, Portal, Token, now_s};

pub fn encoding_argument() -> Arg {
    switch("json", "Send JSON instead of a form")
}

pub fn encoding(arguments: &ArgMatches) -> Encoding {
    if arguments.get_flag("json") { Encoding::Json } else { Encoding::Form }
}

pub fn portal_arguments() -> [Arg; 6] {
    [
        option("member", "MEMBER", "The portal's member_id [default: a new one]").value_parser(arguments::member),
        option("application-token", "TOKEN", "The application_token [default: follows from the member_id]"),
        option("domain", "HOST", "The portal's address"),
        option("language", "CODE", "The portal's language [default: en]"),
        switch("unlinked", "As if no user had caused the event: no OAuth tokens"),
        option("ts", "SECONDS", "The event's time by the portal's clock, Unix time [default: now]")
            .value_parser(value_parser!(u64)),
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
    pub async fn from_arguments(arguments: &ArgMatches, encoding: Encoding) -> anyhow::Result<Self> {
        let client = target::client(arguments).await?;
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
