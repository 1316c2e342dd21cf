//! `hookledger audit`: compares facts with `raw`, and the records of compacted topics with the result of the facts;
//! with `--repair` it publishes the differences.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{ArgMatches, Command};
use primitives::plain;
use primitives::time::Timestamp;
use processor::maintenance::audit::{Audit, Auditing};
use processor::state::{Trusts, opening, watchdog};
use runtime::lifecycle::Stop;

use crate::arguments::switch;
use crate::logs::{logs, own_logs, settings};
use crate::outcome::Outcome;
use crate::output::print;
use crate::rebuild::Shown;
use crate::state::{State, settings_of};

pub fn command() -> Command {
    runtime::settings::command("audit", "Compares facts with raw, and published records with facts", &settings())
        .after_help(
            "Interprets raw again as far back as it is kept and compares each fact; folds facts and compares the \
             last record of each key in installations and permissions. Changes nothing, and processors may run \
             meanwhile. Reads Kafka, or, where kafka is not set, the disk logs of a standalone in data-dir, which \
             must not be running. Ends with 3 if there are differences, with 4 if there are some but a processor \
             published meanwhile: then run it again.\n\nWith --repair it publishes the differences: facts that are \
             missing, facts that differ from their raw event, and records that are missing, different, or without \
             any fact. Each carries the header hl_correction. No processor of the group may run; at its next start \
             it reads the corrected facts and folds their installations again. Events are not published again. Ends \
             with 3 if a difference is left that it cannot repair.",
        )
        .arg(switch("repair", "Publishes what differs, in transactions, marked as corrections"))
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let settings = settings_of(&settings(), arguments)?;
    let stop = Stop::on_signals().context("listen for signals")?;
    let data_dir = settings.path("data-dir")?;
    // The logs of a standalone have one user; Kafka has many.
    let _lock = settings.text("kafka").is_none().then(|| State::take(&settings)).transpose()?;
    let scratch = Scratch::below(&data_dir);
    watchdog::end_with(&scratch.0);
    let trusts = Trusts::new(settings.apps().iter().map(|(name, app)| (name.clone(), app.trust)));
    let repairs = arguments.get_flag("repair");
    let mut shown = Shown::new();
    let (now, report) = (Timestamp::now(), &mut |progress| shown.report(progress));
    let auditing = Auditing { scratch: &scratch.0, trusts, now, stop: &stop, report };
    let audited = if repairs {
        auditing.repair(&mut *own_logs(&settings, &data_dir, &stop)?)
    } else {
        auditing.compare(&mut *logs(&settings, &data_dir, &stop)?)
    };
    shown.end();
    let audit = audited.context("compare")?;
    for difference in &audit.differences {
        print(&format!("{}\n", plain::line(&difference.to_string())))?;
    }
    print(&format!("{}\n", summary(&audit)))?;
    Ok(match audit {
        Audit { found, repaired, .. } if found == repaired => Outcome::Done,
        Audit { has_moved: true, .. } => Outcome::NotYet,
        Audit { .. } => Outcome::No,
    })
}

fn summary(audit: &Audit) -> String {
    let Audit { events, facts, records, found, .. } = audit;
    let unnamed = found - audit.differences.len() as u64;
    let more = if unnamed > 0 { format!(", {unnamed} of them not named here") } else { String::new() };
    let corrected =
        if audit.repaired > 0 { format!(". {} corrections were published", audit.repaired) } else { String::new() };
    let moved = match (found, audit.has_moved) {
        (1.., true) => ". A processor published meanwhile: they may have been on their way, so ask again",
        _ => "",
    };
    format!(
        "{events} events of raw, {facts} facts and {records} published records were compared: {found} \
         differences{more}{corrected}{moved}."
    )
}

struct Scratch(PathBuf);

impl Scratch {
    fn below(data_dir: &Path) -> Self {
        Self(data_dir.join(format!("audit-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = opening::throw_away(&self.0) {
            tracing::warn!("{} is left behind: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_on_its_way_is_told_only_if_something_differs() {
        let calm = Audit { has_moved: true, ..Audit::default() };
        assert!(summary(&calm).ends_with(": 0 differences."), "{}", summary(&calm));
        let busy = Audit { found: 3, has_moved: true, ..Audit::default() };
        assert!(
            summary(&busy).ends_with(
                "3 of them not named here. A processor published meanwhile: they may have been \
             on their way, so ask again."
            ),
            "{}",
            summary(&busy)
        );
    }
}
