//! `hookledger rejected`: what was rejected and why, and bringing it in again.

use clap::{Arg, ArgMatches, Command};
use domain::Reason;

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
    [
        Arg::new("app").long("app").value_name("APP").help("Only of this app"),
        Arg::new("member_id").long("member").value_name("MEMBER").help("Only of this portal, by its member_id"),
        Arg::new("reason").long("reason").value_parser(Reason::ALL.map(Reason::label)).help("Only for this reason"),
        Arg::new("since")
            .long("since")
            .value_name("TIME")
            .help("Only received since, such as 2h or 2026-01-31T10:00:00Z"),
    ]
}

fn filter(arguments: &ArgMatches) -> [(&'static str, Option<&str>); 4] {
    FILTERS.map(|name| (name, arguments.get_one::<String>(name).map(String::as_str)))
}

fn id(arg: Arg) -> Arg {
    let parse = |text: &str| {
        let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if is_name { Ok(text.to_owned()) } else { Err("an event's id, or its place in a list, such as 0-15") }
    };
    arg.value_name("ID").value_parser(parse)
}
