//! `hookledger rejected`: what was rejected and why, and bringing it in again.

use clap::{ArgMatches, Command};

use crate::outcome::Outcome;

mod arguments;
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
