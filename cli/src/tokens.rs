//! `hookledger tokens APP MEMBER`: the newest tokens of an installation, from the vault.

use bytes::Bytes;
use clap::{ArgMatches, Command};

use crate::arguments;
use crate::outcome::Outcome;
use crate::output::{aligned, print, print_json, row, shown};
use crate::query::{self, Query};
use portal_sim::client::block_on;
use portal_sim::portal;

/// In the order of the output.
const FIELDS: [&str; 17] = [
    "app",
    "member_id",
    "status",
    "domain",
    "client_endpoint",
    "server_endpoint",
    "principal",
    "application_token",
    "access_token",
    "expires_at",
    "refresh_token",
    "user_id",
    "scope",
    "occurred_at",
    "received_at",
    "stale",
    "omitted",
];

pub fn command() -> Command {
    Command::new("tokens")
        .about("Shows the newest tokens of an installation; needs a query token with the scope tokens")
        .after_help("Each call is logged, without the tokens.")
        .args(arguments::installation())
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let installation = arguments::given_installation(arguments);
    let mut query = Query::from_arguments(arguments)?;
    let path = query::with(&format!("/v1/tokens/{installation}"), &query::waiting(arguments));
    let answer = block_on(async { Ok(query.post(&path, portal::JSON, Bytes::new()).await?) })?;
    if arguments.get_flag("json") {
        print_json(&answer)?;
    } else {
        print(&aligned(&FIELDS.map(|field| row(field, shown(&answer[field])))))?;
    }
    Ok(Outcome::Done)
}
