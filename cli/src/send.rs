//! `hookledger send`: plays a portal against an ingress: one event, a whole life, a recorded body, or load.
//!
//! Every answer is compared with the expected one, and the exit code says whether all of them matched.

use clap::{ArgMatches, Command};

use crate::outcome::Outcome;
use portal_sim::client::block_on;

mod event;
mod file;
mod life;
mod load;
mod player;
mod target;

pub use target::{APP, URL};

pub fn command() -> Command {
    Command::new("send")
        .about("Plays a portal: one event, a whole life, a recorded body, or load")
        .after_help(
            "A portal's tokens follow from its member_id, so that the same portal can be played again with --member.\n\
             Give no real tokens: arguments can be read by other users of the machine.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(event::commands())
        .subcommand(life::command())
        .subcommand(file::command())
        .subcommand(load::command())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let (name, arguments) = arguments.subcommand().expect("clap requires it");
    block_on(async {
        match name {
            "life" => life::run(arguments).await,
            "file" => file::run(arguments).await,
            "load" => load::run(arguments).await,
            _ => event::run(name, arguments).await,
        }
    })
}
