//! `hookledger drain`: sends the disk log of an ingress that will not return to Kafka.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{ArgMatches, Command};
use disk_log::{Contents, Inspection, InspectionError};
use indicatif::HumanBytes;
use ingress::adopt::{AdoptError, Adoption, Ending, Progress, inspect};
use runtime::lifecycle::Stop;
use runtime::settings::{KAFKA, PROCESS, Setting, Settings, SettingsError};
use runtime::telemetry;

use crate::arguments::{path, switch};
use crate::outcome::{Outcome, Usage};
use crate::output::{bar, print};

/// Shorter times give no rate.
const RATE_TIME_MIN: Duration = Duration::from_millis(1);

pub fn command() -> Command {
    runtime::settings::command("drain", "Sends the events in the disk log of a lost ingress to Kafka", &settings())
        .after_help(
            "Each event goes to the topic raw, in the order of the log, marked as a possible second copy. Progress is \
         saved in DIR: drain may be interrupted or killed, and resumes. The directory itself stays; at the end it \
         holds no events.",
        )
        .arg(path("dir", "DIR", "The data directory of that ingress, or `ingress` below it").required(true))
        .arg(switch("dry-run", "Only show the events; needs no Kafka and changes nothing"))
}

/// Runs until everything is in Kafka, or a stop is requested.
pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let settings = Settings::from_matches_and_process(&settings(), arguments)?;
    let dir = arguments.get_one::<PathBuf>("dir").expect("clap requires it");
    let inspection = inspect(dir).map_err(explained)?;
    let contents = inspection.read().map_err(|error| explained(error.into()))?;
    if arguments.get_flag("dry-run") {
        print(&format!("{}\n", described(inspection.dir(), &contents)))?;
        return Ok(Outcome::Done);
    }
    let without = "kafka is not set: for example `--kafka localhost:9092`; `--dry-run` needs none";
    let kafka = settings.kafka()?.ok_or_else(|| SettingsError(without.into()))?;
    telemetry::init_logs(settings.log_format()?);
    settings.warn();
    print(&format!("{}\n", described(inspection.dir(), &contents)))?;
    if contents.events == 0 {
        return Ok(Outcome::Done);
    }
    bring(inspection, &kafka)
}

/// All settings of Kafka, since missing topics are created.
fn settings() -> Vec<Setting> {
    let process = PROCESS.iter().filter(|setting| setting.name == "log-format");
    KAFKA.iter().chain(process).copied().collect()
}

fn bring(inspection: Inspection, kafka: &runtime::settings::KafkaSettings) -> anyhow::Result<Outcome> {
    let dir = inspection.dir().to_owned();
    let stop = Stop::on_signals().context("listen for signals")?;
    let who = format!("hookledger drain (process {})", std::process::id());
    let adoption = Adoption::open(inspection, kafka.partitions, &who).map_err(explained)?;
    let bar = bar(adoption.events(), "{bar:40} {pos}/{len} events, {per_sec}, {eta} left");
    let started = Instant::now();
    let ended = adoption.run(kafka, &stop, |Progress { brought, .. }| bar.set_position(brought));
    bar.finish_and_clear();
    let Progress { brought, left } = adoption.progress();
    let took = started.elapsed();
    print(&format!("{brought} events are in Kafka now, {}.\n", rate(brought, took)))?;
    let dir = dir.display();
    match ended.with_context(|| format!("{left} events are left in {dir}"))? {
        Ending::AllDelivered => {
            print(&format!("Nothing is left in {dir}: it may be deleted.\n"))?;
            Ok(Outcome::Done)
        }
        ending @ (Ending::AskedBack | Ending::Refused | Ending::Stopped) => {
            let why = ending.why();
            print(&format!("{left} events are left in {dir}: {why}. The same command goes on.\n"))?;
            Ok(Outcome::Failed)
        }
    }
}

fn explained(error: AdoptError) -> anyhow::Error {
    let advice = match &error {
        AdoptError::Inspection(InspectionError::InUse(_)) => {
            "an ingress that runs brings its events to Kafka itself; stop it if it never will"
        }
        AdoptError::Inspection(InspectionError::Nothing(_)) | AdoptError::Standalone(_) => {
            "name the data directory of an ingress"
        }
        AdoptError::Inspection(InspectionError::Damaged(_) | InspectionError::Unreadable(..))
        | AdoptError::Disk(..) => {
            return error.into();
        }
    };
    Usage(format!("{error}: {advice}")).into()
}

fn described(dir: &Path, contents: &Contents) -> String {
    let (dir, Contents { events, bytes, span }) = (dir.display(), *contents);
    match span {
        None => format!("{dir} holds no event that Kafka does not have."),
        Some((oldest, youngest)) => {
            let bytes = HumanBytes(bytes);
            format!(
                "{dir} holds {events} events that Kafka may not have, {bytes}, received from {oldest} to {youngest}."
            )
        }
    }
}

fn rate(events: u64, took: Duration) -> String {
    let per_second = u128::from(events) * 1_000 / took.max(RATE_TIME_MIN).as_millis();
    format!("{per_second} a second")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_also_of_what_took_no_time() {
        assert_eq!(rate(5, Duration::ZERO), "5000 a second");
        assert_eq!(rate(5, Duration::from_secs(10)), "0 a second");
    }
}
