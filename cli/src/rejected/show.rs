//! `hookledger rejected show ID`

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use super::arguments::id;
use crate::outcome::Outcome;
use crate::output::{aligned, print, print_json, row, shown};
use crate::query::{self, Query};
use portal_sim::client::block_on;

pub fn command() -> Command {
    Command::new("show")
        .about("Shows one rejected event: why, when, and what it says, without secrets")
        .arg(id(Arg::new("id")).required(true).help("The event's id, or its place in a list"))
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let id = arguments.get_one::<String>("id").expect("clap requires it");
    let mut query = Query::from_arguments(arguments)?;
    let path = format!("/v1/rejected/{id}");
    let event: Value = block_on(async { Ok(query.get(&path, &query::waiting(arguments)).await?) })?;
    if arguments.get_flag("json") {
        print_json(&event)?;
        return Ok(Outcome::Done);
    }
    let fields = event.as_object().into_iter().flatten();
    let shown = |(name, value): (&String, &Value)| {
        row(name, if name == "preview" && !value.is_null() { value.to_string() } else { shown(value) })
    };
    print(&aligned(&fields.map(shown).collect::<Vec<_>>()))?;
    Ok(Outcome::Done)
}
