//! `hookledger man DIR`: manual pages, one for each command.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::outcome::Outcome;

pub fn command() -> Command {
    Command::new("man")
        .about("Writes a manual page for each command, such as hookledger-import.1")
        .arg(Arg::new("dir").value_name("DIR").required(true).value_parser(value_parser!(PathBuf)).help("Where to"))
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let dir = arguments.get_one::<PathBuf>("dir").expect("clap requires it");
    let write = || {
        fs::create_dir_all(dir)?;
        clap_mangen::generate_to(crate::command::command(), dir)
    };
    write().with_context(|| format!("write manual pages to {}", dir.display()))?;
    Ok(Outcome::Done)
}
