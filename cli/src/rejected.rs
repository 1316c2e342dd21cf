//! `hookledger rejected`: what was rejected and why, and bringing it in again.

use clap::{Arg, ArgMatches, Command};
use domain::Reason;

use crate::arguments::{option, text};
use crate::outcome::Outcome;

mod list;
mod redrive;
mod show;

pub fn command() -> Command {
    Command::new("rejected")
        .about("Lists rejected events, shows one, and brings them in again")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(list::command())
        .subcommand(show::command())
        .subcommand(redrive::command())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    match arguments.subcommand().expect("clap requires a subcommand") {
        ("list", arguments) => list::run(arguments),
        ("show", arguments) => show::run(arguments),
        (_, arguments) => redrive::run(arguments),
    }
}

/// Names of parameters and flags.
const FILTERS: [&str; 4] = ["app", "member_id", "reason", "since"];

fn filters() -> [Arg; 4] {
    let reasons = Reason::ALL.map(Reason::label);
    let member = option("member_id", "MEMBER", "Only of this portal, by its member_id");
    [
        option("app", "APP", "Only of this app"),
        member.long("member"),
        Arg::new("reason").long("reason").value_parser(reasons).help("Only for this reason"),
        option("since", "TIME", "Only received since, such as 2h or 2026-01-31T10:00:00Z"),
    ]
}

fn filter(arguments: &ArgMatches) -> [(&'static str, Option<&str>); 4] {
    FILTERS.map(|name| (name, text(arguments, name)))
}

fn id(arg: Arg) -> Arg {
    let parse = |text: &str| {
        let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if is_name { Ok(text.to_owned()) } else { Err("an event's id, or its place in a list, such as 0-15") }
    };
    arg.value_name("ID").value_parser(parse)
}
