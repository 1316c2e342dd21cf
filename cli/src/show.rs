//! `hookledger show APP MEMBER`: the record of one installation.

use clap::{ArgMatches, Command};
use serde_json::Value;

use crate::arguments;
use crate::outcome::Outcome;
use crate::output::{aligned, print, print_json, row, shown, table_of};
use crate::query::{self, Query};
use crate::query_error::QueryError;
use portal_sim::client::block_on;

/// In the order of the output.
const FIELDS: [&str; 15] = [
    "app",
    "member_id",
    "status",
    "cleaned",
    "since",
    "domain",
    "version",
    "licence",
    "language",
    "scope",
    "client_endpoint",
    "server_endpoint",
    "trusted",
    "last_fact",
    "position",
];

/// The most decisions that a principal has.
const ALL_METHODS: [(&str, Option<&str>); 1] = [("limit", Some("1000"))];

pub fn command() -> Command {
    Command::new("show")
        .about("Shows an installation's record and what its administrators allowed")
        .args(arguments::installation())
        .args(query::question_arguments())
}

/// With `--json` the record alone, as the API returns it.
pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let installation = arguments::given_installation(arguments);
    let mut query = Query::from_arguments(arguments)?;
    let json = arguments.get_flag("json");
    let (record, methods) = block_on(async {
        let record = query.about(&installation, "", &query::waiting(arguments)).await?;
        let methods = if json { Value::Null } else { query.about(&installation, "/methods", &ALL_METHODS).await? };
        Ok::<_, QueryError>((record, methods)).map_err(Into::into)
    })?;
    if json {
        print_json(&record)?;
        return Ok(Outcome::Done);
    }
    let fields = FIELDS.iter().filter(|field| record.get(**field).is_some());
    let mut text = aligned(&fields.map(|field| row(field, shown(&record[*field]))).collect::<Vec<_>>());
    let methods = methods["items"].as_array().map_or(&[][..], Vec::as_slice);
    if !methods.is_empty() {
        let columns = ["method", "decision", "decided_at", "expires_at", "token"];
        text.push('\n');
        text.push_str(&table_of(columns, methods));
    }
    print(&text)?;
    Ok(Outcome::Done)
}
