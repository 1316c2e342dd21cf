//! `hookledger forward`: what waits to be forwarded to a handler, and an operator's word about it.

use bytes::Bytes;
use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use crate::arguments::{self, given_installation, installation, option, text};
use crate::outcome::Outcome;
use crate::output::print_answer;
use crate::query::{self, Query};
use portal_sim::client::block_on;
use portal_sim::portal;

const COLUMNS: [&str; 9] = ["state", "app", "member_id", "type", "id", "attempts", "reason", "status", "received_at"];
const FILTERS: [&str; 3] = ["app", "member_id", "state"];

pub fn command() -> Command {
    let state = option("state", "STATE", "Only in this state").value_parser(["parked", "waiting", "behind"]);
    let list = Command::new("list")
        .about("Lists portals whose events wait, and what they wait with")
        .arg(option("app", "APP", "Only of this app"))
        .arg(option("member_id", "MEMBER", "Only of this portal, by its member_id").long("member"))
        .arg(state)
        .args(arguments::page("100", 1_000_000, "The most portals to list"))
        .args(query::question_arguments());
    let id = || option("id", "ID", "The event's id, as the list shows it");
    let retry = decision("retry", "Tries a parked event again, now and as long as at first").arg(id());
    let skip = decision("skip", "Leaves out the event that a portal waits with, and goes on with the next")
        .after_help("The event stays in raw and in events.")
        .arg(id().required(true));
    Command::new("forward")
        .about("Shows what waits to be forwarded to a handler, and decides about it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(list)
        .subcommand(retry)
        .subcommand(skip)
}

fn decision(name: &'static str, about: &'static str) -> Command {
    let json: Arg = arguments::json();
    Command::new(name).about(about).args(installation()).arg(json).args(query::server_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    match arguments.subcommand().expect("clap requires a subcommand") {
        ("list", arguments) => {
            let filter = FILTERS.map(|name| (name, text(arguments, name)));
            query::print_list(arguments, "/v1/forward", filter.to_vec(), COLUMNS)
        }
        (action, arguments) => decide(action, arguments),
    }
}

fn decide(action: &str, arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let (about, mut query) = (given_installation(arguments), Query::from_arguments(arguments)?);
    let body = json!({ "app": about.app, "member_id": about.member_id, "id": text(arguments, "id") });
    let (path, body) = (format!("/v1/forward/{action}"), Bytes::from(body.to_string()));
    let answer = block_on(async { Ok(query.post(&path, portal::JSON, body).await?) })?;
    print_answer(arguments, &answer, || {
        let id = answer["id"].as_str().unwrap_or_default();
        format!("{action} of event {id} of {about} is kept, and done by the owner of the partition")
    })?;
    Ok(Outcome::Done)
}
