//! `hookledger rejected list`, newest first.

use clap::{ArgMatches, Command};

use super::arguments::{filter, filters};
use crate::arguments;
use crate::outcome::Outcome;
use crate::query;

const COLUMNS: [&str; 7] = ["received_at", "reason", "app", "member_id", "size", "id", "place"];

pub fn command() -> Command {
    Command::new("list")
        .about("Lists rejected events, newest first")
        .args(filters())
        .args(arguments::page("100", 1_000_000, "The most events to list"))
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    query::print_list(arguments, "/v1/rejected", filter(arguments).to_vec(), COLUMNS)
}
