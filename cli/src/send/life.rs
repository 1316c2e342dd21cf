//! `hookledger send life`: a portal from install to uninstall, with its record after each step.

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use bitrix24::Installation;
use primitives::plain;
use primitives::secret::Fingerprint;

use super::player::{Player, Said, encoding, encoding_argument, portal, portal_arguments};
use super::target::target_arguments;
use crate::outcome::Outcome;
use crate::output::{print, shown};
use crate::query::{Query, server_arguments};
use crate::query_error::QueryError;
use portal_sim::portal::{Event, Portal, now_s};

/// The longest wait for a step's event to be folded.
const WAIT: &str = "5s";
const GRANTED: &str = "voximplant.user.get";
const DENIED: &str = "voximplant.statistic.get";

/// An event, and the expected record after it.
struct Step {
    event: Event,
    record: &'static [(&'static str, &'static str)],
    /// A method, and the expected answer of the check.
    permission: Option<(&'static str, &'static str)>,
}

pub fn command() -> Command {
    // All steps happen now, one after another.
    let portal = portal_arguments().into_iter().filter(|argument| argument.get_id() != "ts").collect::<Vec<Arg>>();
    Command::new("life")
        .about("Plays a portal from install to uninstall, and shows its record after each step")
        .args(portal)
        .arg(encoding_argument())
        .args(target_arguments())
        .args(server_arguments())
}

pub async fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let portal = portal(arguments);
    let mut player = Player::from_arguments(arguments, encoding(arguments)).await?;
    let installation = player.installation(&portal);
    let mut query = Some(Query::from_arguments(arguments)?);
    print(&format!("The life of {installation}\n\n"))?;
    if let Some(asked) = &mut query
        && !asked.answers().await?
    {
        print(&format!(
            "The query API does not answer at {}: only the answers to webhooks are shown.\n\n",
            asked.url()
        ))?;
        query = None;
    }

    let mut good = true;
    for step in steps(&portal) {
        let said = player.send(&portal, &step.event, now_s()).await?;
        print(&format!("{:<20}{}\n", step.event.name(), plain::line(&said.describe())))?;
        good &= said.promise.is_some();
        if let Some(query) = &mut query {
            good &= ask(query, &installation, &portal, &step, &said).await?;
        }
    }
    print(if good { "\nAll as it should be.\n" } else { "\nNot everything was as it should be.\n" })?;
    Ok(if good { Outcome::Done } else { Outcome::Failed })
}

fn steps(portal: &Portal) -> Vec<Step> {
    let confirm = |method: &str, confirmed| Event::MethodConfirm {
        method: method.to_owned(),
        token: portal.access_token.clone(),
        confirmed,
    };
    let installed = &[("status", "installed"), ("version", "1")];
    let updated = &[("status", "installed"), ("version", "2")];
    let mut steps = vec![
        step(Event::Install { version: "1".into() }, installed, Some((GRANTED, "unanswered"))),
        step(confirm(GRANTED, true), installed, Some((GRANTED, "granted"))),
    ];
    for (name, id) in [("ONCRMCONTACTADD", 1), ("ONCRMCONTACTUPDATE", 1), ("ONCRMDEALUPDATE", 7)] {
        steps.push(step(Event::Crm { name, id }, installed, None));
    }
    let update = Event::Update { version: "2".into(), previous_version: "1".into() };
    let payment = Event::Payment { code: "vendor.app".into(), version: "2".into(), status: "P".into(), days: Some(28) };
    steps.extend([
        step(update, updated, None),
        step(payment, &[("status", "installed"), ("version", "2"), ("licence", "P")], None),
        step(confirm(DENIED, false), updated, Some((DENIED, "denied"))),
        step(Event::Uninstall { clean: true }, &[("status", "uninstalled")], Some((GRANTED, "denied"))),
    ]);
    steps
}

fn step(
    event: Event,
    record: &'static [(&'static str, &'static str)],
    permission: Option<(&'static str, &'static str)>,
) -> Step {
    Step { event, record, permission }
}

/// Shows the record. Returns whether it is as expected.
async fn ask(
    query: &mut Query,
    installation: &Installation,
    portal: &Portal,
    step: &Step,
    said: &Said,
) -> anyhow::Result<bool> {
    let Some(promise) = &said.promise else {
        return Ok(true);
    };
    let id = promise.id.to_string();
    let after = [("after", Some(id.as_str())), ("wait", Some(WAIT))];
    let mut good = match query.about(installation, "", &after).await {
        Ok(record) => print_line(&summary(&record), &wrong(&record, step.record))?,
        Err(error) => print_error(&error)?,
    };
    if let Some((method, expected)) = step.permission {
        let token = Fingerprint::of(portal.access_token.reveal());
        // The record was read after this event; the check needs no further wait.
        good &= match query.check(installation, method, token, &[]).await {
            Ok(answer) => print_line(&decision(method, &answer), &wrong(&answer, &[("decision", expected)]))?,
            Err(error) => print_error(&error)?,
        };
    }
    Ok(good)
}

fn summary(record: &Value) -> String {
    let field = |name: &str| shown(&record[name]);
    let (status, since) = (field("status"), field("since"));
    format!(
        "{status} since {since}, version {}, licence {}, at {}",
        field("version"),
        field("licence"),
        field("domain")
    )
}

fn decision(method: &str, answer: &Value) -> String {
    let more = ["reason", "until"].iter().filter_map(|name| answer.get(name).map(|value| (name, shown(value))));
    more.fold(format!("{method}: {}", shown(&answer["decision"])), |text, (name, value)| match *name {
        "until" => format!("{text} until {value}"),
        _ => format!("{text}, {value}"),
    })
}

fn wrong(document: &Value, expected: &[(&str, &str)]) -> Vec<String> {
    let differs = expected.iter().filter(|(name, value)| document[*name].as_str() != Some(*value));
    differs.map(|(name, value)| format!("{name} should be {value}")).collect()
}

fn print_line(line: &str, wrong: &[String]) -> anyhow::Result<bool> {
    let good = wrong.is_empty();
    let differences = if good { String::new() } else { format!("  <-- {}", wrong.join(", ")) };
    print(&format!("{:20}{}{differences}\n", "", plain::line(line)))?;
    Ok(good)
}

fn print_error(error: &QueryError) -> anyhow::Result<bool> {
    print_line(&error.to_string(), &["there should be an answer".to_owned()])
}
