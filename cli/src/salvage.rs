//! `hookledger salvage --dir DIR`: recovers what is readable of a damaged disk log.

use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgMatches, Command};
use disk_log::{Salvaged, salvage};

use crate::arguments::path;
use crate::outcome::Outcome;
use crate::output::print;

pub fn command() -> Command {
    Command::new("salvage")
        .about("Recovers the readable records of a damaged disk log, and reports the rest")
        .long_about(
            "Writes a new disk log with the readable records of a damaged one, each at its offset, and reports the \
             rest. Nothing is deleted: the damaged files are kept beside the directory. The log must not be in use.",
        )
        .arg(path("dir", "DIR", "The log's directory, as the error names it").required(true))
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let dir: &PathBuf = arguments.get_one("dir").expect("clap requires it");
    anyhow::ensure!(dir.is_dir(), "there is no directory {}", dir.display());
    let saved = salvage(dir).with_context(|| format!("salvage {}", dir.display()))?;
    print(&(described(&saved) + "\n"))?;
    Ok(Outcome::Done)
}

fn described(saved: &Salvaged) -> String {
    let lost = saved.lost.iter().map(|lost| {
        let (first, last) = (lost.offsets.start, lost.offsets.end.saturating_sub(1));
        let doubt = if lost.is_certain { "" } else { ", at most: perhaps not all were ever taken" };
        format!("lost: offsets {first} to {last}, in {}{doubt}", lost.file.display())
    });
    let Some(aside) = &saved.set_aside else {
        let mut lines = vec![format!("nothing is damaged: {} records, nothing was done", saved.records)];
        if !saved.lost.is_empty() {
            lines.push(
                "the last write was cut short by a crash, or damaged later: these cannot be distinguished".to_owned(),
            );
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
