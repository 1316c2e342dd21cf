//! `hookledger resume`: shows inconsistent logs that halt processors, and lets them continue on request.

use anyhow::Context;
use clap::{ArgMatches, Command};
use event_log::{EventLog, EventLogError};
use primitives::time::Timestamp;
use processor::maintenance::resume::{Obstacle, accept, obstacles};
use runtime::lifecycle::Stop;

use crate::arguments::switch;
use crate::logs::{logs, own_logs, settings};
use crate::outcome::Outcome;
use crate::output::print;
use crate::state::{State, settings_of};

pub fn command() -> Command {
    runtime::settings::command("resume", "Shows inconsistent logs, and lets processors resume", &settings())
        .after_help(
            "A processor halts in a partition where raw no longer reaches back to its read position, raw has lost \
             its tail, or facts were lost or deleted: no record is skipped silently. Without --accept this shows the \
             inconsistency of each such partition and the effect of accepting it, changes nothing, and ends with 3, \
             or with 0 if there is none.\n\nWith --accept it writes the new read position of raw into facts, for \
             each such partition, as a permanent record. No processor of the group may own a partition; halted ones \
             may run, and resume within some seconds. Where it is unknown which events were folded, they are folded \
             and published a second time, so that none is lost.\n\nWhere facts were lost, raw is read again from the \
             read position in the remaining facts; without any, from its first record. --reinterpret-raw does the \
             latter in any case: for facts that were damaged in their middle, and with all events of raw published \
             again. Where facts were deleted at their beginning, processors continue with the rest, and rebuild \
             their states from it.\n\nReads Kafka, or, where kafka is not set, the disk logs of a standalone in \
             data-dir, which must not be running.",
        )
        .arg(switch("accept", "Resumes all partitions that are shown without it"))
        .arg(switch("reinterpret-raw", "Where facts were lost, reads raw again from its first record"))
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let settings = settings_of(&settings(), arguments)?;
    let stop = Stop::on_signals().context("listen for signals")?;
    let (accepts, again) = (arguments.get_flag("accept"), arguments.get_flag("reinterpret-raw"));
    let data_dir = settings.path("data-dir")?;
    let kafka = settings.kafka()?;
    // The logs of a standalone have one user; Kafka has many.
    let _lock = kafka.is_none().then(|| State::take(&settings)).transpose()?;
    if accepts {
        let Some(mut event_log) = unless_partitions_differ(own_logs(&settings, &data_dir, &stop))? else {
            return Ok(Outcome::No);
        };
        let found = obstacles(&mut *event_log, again).context("inspect the logs")?;
        return go_on(&mut *event_log, &found);
    }
    let Some(mut logs) = unless_partitions_differ(logs(&settings, &data_dir, &stop))? else { return Ok(Outcome::No) };
    show(&obstacles(&mut *logs, again).context("inspect the logs")?)
}

/// None, with a word to the operator, if the number of partitions changed.
fn unless_partitions_differ<T>(opened: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match opened {
        Err(error) if matches!(error.downcast_ref(), Some(EventLogError::Partitions(_))) => {
            print(&format!("{error}. This cannot be accepted.\n"))?;
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

fn show(found: &[Obstacle]) -> anyhow::Result<Outcome> {
    for obstacle in found {
        print(&format!("{}\n", described(obstacle)))?;
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
        print(&format!("{}\n", described(obstacle)))?;
        if obstacle.remedy.is_none() {
            outcome = Outcome::No;
            continue;
        }
        let partition = obstacle.offsets.partition;
        accept(event_log, obstacle, Timestamp::now()).with_context(|| format!("go on in partition {partition}"))?;
        print(&format!("  accepted: partition {partition} resumes\n"))?;
    }
    if found.is_empty() {
        print("Nothing is in the way.\n")?;
    }
    Ok(outcome)
}

fn described(obstacle: &Obstacle) -> String {
    let Obstacle { inconsistency, remedy, .. } = obstacle;
    match remedy {
        Some(remedy) => format!("{}.\n  Accepting: {}.", inconsistency.wrong, remedy.meaning),
        None => format!("{inconsistency}.\n  This cannot be accepted."),
    }
}
