//! `hookledger doctor`: what can be checked of a set-up, from its settings to the round trip of an event, each fault
//! with its remedy.
//!
//! It reads the settings of the programs, as flags, environment and file. It changes nothing but for one test event.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgMatches, Command};
use ingress::Webhooks;
use processor::config::ServiceConfig;
use runtime::settings::{KafkaSettings, Setting, Settings, SettingsError};
use serde_json::json;

use crate::arguments::{self, option, switch};
use crate::outcome::Outcome;
use crate::output::{aligned, print, print_json};
use crate::query;
use public::Public;
use report::Report;

mod certificate;
mod machine;
mod public;
mod report;
mod topics;

pub fn command() -> Command {
    let about = "Checks a set-up from outside to inside, and says how to mend what is wrong";
    runtime::settings::command("doctor", about, &settings())
        .arg(option("url", "URL", "What Bitrix24 calls, up to the path, such as https://hooks.example.com"))
        .arg(arguments::path("ca-file", "FILE", "Certificates to trust, as PEM, in place of the well-known ones"))
        .arg(switch("no-test-event", "Send no test event"))
        .args(query::server_arguments())
        .arg(arguments::json())
        .after_help(
            "Give it the settings of ingress and processor, or of standalone.\n\
             Exit codes: 0 no fault, 1 faults, 2 wrong usage.",
        )
}

/// Those of all programs.
fn settings() -> Vec<Setting> {
    let mut all = ingress::config::table();
    for setting in processor::config::settings() {
        if all.iter().all(|known| known.name != setting.name) {
            all.push(setting);
        }
    }
    all
}

/// What the checks need of the settings.
struct SetUp {
    webhooks: Webhooks,
    data_dir: PathBuf,
    disk_log_bytes_max: u64,
    query_listen: SocketAddr,
    kafka: Option<KafkaSettings>,
}

impl SetUp {
    fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let service = ServiceConfig::read(settings)?;
        Ok(Self {
            query_listen: service.query_listen,
            webhooks: Webhooks::read(settings)?,
            data_dir: settings.path("data-dir")?,
            disk_log_bytes_max: settings.size("disk-log-limit")?,
            kafka: settings.kafka()?,
        })
    }
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let public = Public::from_arguments(arguments)?;
    let query = query::Query::from_arguments(arguments)?;
    let mut report = Report::default();
    let read = Settings::from_matches_and_process(&settings(), arguments);
    match read.and_then(|settings| SetUp::read(&settings).map(|set_up| (settings, set_up))) {
        Err(error) => {
            report.fault("settings", error.to_string(), "correct it; docs/settings.md has every setting");
            report.skipped("everything else", "it needs the settings");
        }
        Ok((settings, set_up)) => {
            let mut query = query.or_at(set_up.query_listen)?;
            machine::check_settings(&settings, &set_up, public.as_ref(), &mut report);
            machine::check_data_dir(&set_up, &mut report);
            topics::check(set_up.kafka.as_ref(), &mut report);
            public::check(public, &set_up, &mut query, !arguments.get_flag("no-test-event"), &mut report)?;
        }
    }
    show(&report, arguments.get_flag("json"))?;
    Ok(if report.faults() == 0 { Outcome::Done } else { Outcome::Failed })
}

fn show(report: &Report, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let checks: Vec<_> = report.checks().map(report::Check::document).collect();
        return print_json(&json!({ "faults": report.faults(), "checks": checks }));
    }
    let rows: Vec<_> = report.checks().map(report::Check::row).collect();
    let summary = match report.faults() {
        0 => "No fault found.".to_owned(),
        1 => "1 fault found.".to_owned(),
        faults => format!("{faults} faults found."),
    };
    print(&format!("{}{summary}\n", aligned(&rows)))
}
