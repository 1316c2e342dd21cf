//! `hookledger salvage --dir DIR`: goes on knowingly after a disk log was damaged.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};
use disk_log::{Salvaged, salvage};

use crate::outcome::Outcome;
use crate::output::print;

/// How it is called.
pub fn command() -> Command {
    Command::new("salvage")
        .about("Makes a damaged disk log anew of what can still be read, and says what cannot")
        .long_about(
            "Makes a damaged disk log anew of what can still be read, each record at its offset, and says what cannot. \
             Nothing is deleted: the damaged files are kept beside the directory. The log must not be in use.",
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The log's directory, as the error names it"),
        )
}

/// Salvages and tells.
pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let dir: &PathBuf = arguments.get_one("dir").expect("clap requires it");
    anyhow::ensure!(dir.is_dir(), "there is no directory {}", dir.display());
    let saved = salvage(dir).with_context(|| format!("salvage {}", dir.display()))?;
    print(&(told(&saved) + "\n"))?;
    Ok(Outcome::Done)
}

fn told(saved: &Salvaged) -> String {
    let lost = saved.lost.iter().map(|lost| {
        let (first, last) = (lost.offsets.start, lost.offsets.end.saturating_sub(1));
        let doubt = if lost.is_certain { "" } else { ", at most: perhaps not all were ever taken" };
        format!("lost: offsets {first} to {last}, in {}{doubt}", lost.file.display())
    });
    let Some(aside) = &saved.set_aside else {
        let mut lines = vec![format!("nothing is damaged: {} records, nothing was done", saved.records)];
        if !saved.lost.is_empty() {
            lines.push("the last write was cut short, as by a crash, or damaged since: that cannot be told".to_owned());
        }
        lines.extend(lost);
        return lines.join("\n");
    };
    let mut lines = vec![format!("{} records are saved", saved.records)];
    lines.extend(lost);
    if saved.lost.is_empty() {
        lines.push("nothing is lost: the damage was between records".to_owned());
    }
    lines.push(format!("the damaged files are in {}", aside.display()));
    lines.join("\n")
}
