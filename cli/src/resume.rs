//! `hookledger resume`: shows where logs are inconsistent so that no processor goes on, and lets them go on knowingly.

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use event_log::{EventLog, EventLogError};
use primitives::time::Timestamp;
use processor::maintenance::resume::{Obstacle, accept, obstacles};
use processor::run::exclusive;
use runtime::lifecycle::Stop;
use runtime::settings::Settings;
use runtime::telemetry;

use crate::outcome::Outcome;
use crate::output::print;
use crate::rebuild::{logs, settings};
use crate::state::State;

/// How it is called.
pub fn command() -> Command {
    runtime::settings::command("resume", "Shows where logs are inconsistent, and lets processors go on knowingly", &settings())
        .after_help(
            "A processor is halted where raw no longer reaches back to where it was read, has lost its tail, or \
             where facts were lost or deleted: nothing is ever skipped in silence. Without --accept this shows for each such \
             partition what is wrong and what accepting would do, changes nothing, and ends with 3, or with 0 if \
             nothing is in the way.\n\n\
             With --accept it writes into facts, for each such partition, where raw goes on, from now and for ever to \
             be seen there. No processor of the group may be at work; those that are halted may run, and go on by \
             themselves within some seconds. Where it is not known which events were folded, they are folded again, \
             and published a second time: rather that than never.\n\n\
             Where facts were lost, raw is read again from where the facts that are left say that they end; where none \
             is left, from its first record. --reinterpret-raw does the latter in any case: for facts that were \
             damaged in their middle, and at the price of publishing again whatever raw holds. Where facts were \
             deleted at their beginning, it goes on with those that are left, and all states are made anew of them.\n\n\
             Reads Kafka, or, where kafka is not set, the disk logs of a standalone in data-dir, which must not be \
             running.",
        )
        .arg(
            Arg::new("accept")
                .long("accept")
                .action(ArgAction::SetTrue)
                .help("Goes on, in all partitions that are shown without it"),
        )
        .arg(
            Arg::new("reinterpret-raw")
                .long("reinterpret-raw")
                .action(ArgAction::SetTrue)
                .help("Where facts were lost, reads raw again from its first record"),
        )
}

/// Looks, tells, and goes on if that is wanted.
pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let settings = Settings::from_matches_and_process(&settings(), arguments)?;
    telemetry::init_logs(settings.log_format()?);
    settings.warn();
    let stop = Stop::on_signals().context("listen for signals")?;
    let (accepts, again) = (arguments.get_flag("accept"), arguments.get_flag("reinterpret-raw"));
    let data_dir = settings.path("data-dir")?;
    let kafka = settings.kafka()?;
    // The logs of a standalone have one user; Kafka has many.
    let _lock = kafka.is_none().then(|| State::take(&settings)).transpose()?;
    let opened: anyhow::Result<Box<dyn EventLog>> = match &kafka {
        Some(kafka) if accepts => {
            let group = settings.text("group").unwrap_or_default();
            exclusive::open(kafka, group, &stop)
                .map(|event_log| Box::new(event_log) as Box<dyn EventLog>)
                .map_err(Into::into)
        }
        Some(_) | None => logs(&settings, &data_dir, &stop),
    };
    let mut event_log = match opened {
        Err(error) if matches!(error.downcast_ref(), Some(EventLogError::Partitions(_))) => {
            print(&format!("{error}. This cannot be accepted.\n"))?;
            return Ok(Outcome::No);
        }
        opened => opened?,
    };
    let found = obstacles(&mut *event_log, again).context("look at the logs")?;
    if accepts { go_on(&mut *event_log, &found) } else { show(&found) }
}

fn show(found: &[Obstacle]) -> anyhow::Result<Outcome> {
    for obstacle in found {
        print(&format!("{}\n", told(obstacle)))?;
    }
    if found.is_empty() {
        print("Nothing is in the way.\n")?;
        return Ok(Outcome::Done);
    }
    Ok(Outcome::No)
}

fn go_on(event_log: &mut dyn EventLog, found: &[Obstacle]) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::Done;
    for obstacle in found {
        print(&format!("{}\n", told(obstacle)))?;
        if obstacle.remedy.is_none() {
            outcome = Outcome::No;
            continue;
        }
        let partition = obstacle.offsets.partition;
        accept(event_log, obstacle, Timestamp::now()).with_context(|| format!("go on in partition {partition}"))?;
        print(&format!("  accepted: partition {partition} goes on\n"))?;
    }
    if found.is_empty() {
        print("Nothing is in the way.\n")?;
    }
    Ok(outcome)
}

fn told(obstacle: &Obstacle) -> String {
    let Obstacle { inconsistency, remedy, .. } = obstacle;
    match remedy {
        Some(remedy) => format!("{}.\n  Accepting: {}.", inconsistency.wrong, remedy.meaning),
        None => format!("{inconsistency}.\n  This cannot be accepted."),
    }
}
