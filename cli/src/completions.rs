//! `hookledger completions SHELL`: what a shell completes.

use std::io;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::outcome::Outcome;
use crate::output::print;

pub fn command() -> Command {
    Command::new("completions")
        .about("Prints what a shell needs to complete commands and flags")
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell)).help("The shell"))
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let shell = *arguments.get_one::<Shell>("shell").expect("clap requires it");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::command::command(), "hookledger", &mut script);
    print(&String::from_utf8(script).map_err(io::Error::other)?)?;
    Ok(Outcome::Done)
}
