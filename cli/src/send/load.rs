//! `hookledger send load`: many portals at once, with latencies.

use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Command, value_parser};
use indicatif::ProgressBar;
use uuid::Uuid;

use super::player::{encoding, encoding_argument};
use super::target::{self, path, target_arguments};
use crate::arguments::{option, switch};
use crate::outcome::Outcome;
use crate::output::{aligned, bar, print, print_json, row};
use portal_sim::load::{LoadPlan, LoadSummary, Watch, events};

/// Enough for one machine.
const CONNECTIONS_MAX: u64 = 10_000;
const TICK: Duration = Duration::from_millis(200);

pub fn command() -> Command {
    let number =
        |name: &'static str, help: &'static str| option(name, "N", help).value_parser(value_parser!(u64).range(1..));
    Command::new("load")
        .about("Sends many events of many portals and shows the answers")
        .after_help(
            "Each portal begins with an install. What follows are CRM events (ONCRMCONTACTADD), but for 1.5 in 100 \
             that are an administrator's answer (ONAPPMETHODCONFIRM) and 0.5 in 100 that are an update (ONAPPUPDATE).",
        )
        .arg(
            option("rate", "N", "Events a second [default: as fast as they are answered]")
                .value_parser(value_parser!(u32).range(1..)),
        )
        .arg(
            number("connections", "Connections at a time")
                .value_parser(value_parser!(u64).range(1..=CONNECTIONS_MAX))
                .default_value("16"),
        )
        .arg(number("portals", "Portals that play").default_value("1000"))
        .arg(
            option("duration", "DURATION", "For how long")
                .default_value("10s")
                .value_parser(|text: &str| humantime::parse_duration(text).map_err(|error| error.to_string())),
        )
        .arg(number("events", "Stop after this many events"))
        .arg(option("seed", "TEXT", "The same portals for the same text [default: new portals]"))
        .arg(switch("summary-json", "Print the summary as JSON, for programs"))
        .arg(encoding_argument())
        .args(target_arguments())
}

/// Ends with the time, the number of events, or Ctrl-C.
pub async fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let plan = plan(arguments)?;
    target::client(arguments).await?;
    let watch = Arc::new(Watch::default());
    let bar = bar_of(&plan);
    let watching = tokio::spawn(show(bar.clone(), watch.clone(), plan.events.is_some()));
    let stopping = tokio::spawn({
        let watch = watch.clone();
        async move {
            // Without a handler, the signal ends the process as usual.
            if tokio::signal::ctrl_c().await.is_ok() {
                watch.stop();
            }
        }
    });
    let summary = portal_sim::load::run(plan, watch).await;
    stopping.abort();
    watching.abort();
    bar.finish_and_clear();
    let summary = summary?;
    report(&summary, arguments.get_flag("summary-json"))?;
    Ok(if summary.all_good() { Outcome::Done } else { Outcome::Failed })
}

fn plan(arguments: &ArgMatches) -> anyhow::Result<LoadPlan> {
    let number = |name: &str| arguments.get_one::<u64>(name).copied();
    let connections = usize::try_from(number("connections").expect("a default")).expect("at most 10,000");
    let portals = number("portals").expect("a default");
    let seed = arguments.get_one::<String>("seed").cloned().unwrap_or_else(|| Uuid::now_v7().to_string());
    let encoding = encoding(arguments);
    Ok(LoadPlan {
        url: arguments.get_one::<String>("to").expect("a default").clone(),
        path: path(arguments)?,
        content_type: encoding.content_type(),
        connections,
        rate: arguments.get_one::<u32>("rate").copied(),
        duration: *arguments.get_one::<Duration>("duration").expect("a default"),
        events: number("events"),
        bodies: events::of_portals(seed, portals, connections, encoding),
    })
}

fn bar_of(plan: &LoadPlan) -> ProgressBar {
    let (length, template) = match plan.events {
        Some(events) => (events, "{bar:40} {pos}/{len} events, {msg}"),
        None => (plan.duration.as_secs(), "{bar:40} {pos}/{len} s, {msg}"),
    };
    bar(length, template)
}

async fn show(bar: ProgressBar, watch: Arc<Watch>, counts_events: bool) {
    let mut ticks = tokio::time::interval(TICK);
    let mut before = 0;
    loop {
        ticks.tick().await;
        let answered = watch.answered();
        bar.set_message(format!("{}/s", (answered - before) * 1_000 / 200));
        bar.set_position(if counts_events { answered } else { bar.elapsed().as_secs() });
        before = answered;
    }
}

fn report(summary: &LoadSummary, json: bool) -> anyhow::Result<()> {
    if json { print_json(&summary.to_json()) } else { print(&describe(summary)) }
}

fn describe(summary: &LoadSummary) -> String {
    let mut rows = vec![
        row("sent", format!("{} in {:.1} s", summary.sent, summary.elapsed.as_secs_f64())),
        row("kept by Kafka", summary.kept_kafka.to_string()),
        row("kept on disk", summary.kept_disk.to_string()),
    ];
    rows.extend(summary.other.iter().map(|(status, count)| match status {
        200 => row("answered 200 without a promise", count.to_string()),
        _ => row(&format!("answered {status}"), count.to_string()),
    }));
    let why = summary.first_failure.as_ref().map(|why| format!(", the first: {why}")).unwrap_or_default();
    rows.push(row("not answered", format!("{}{why}", summary.failed)));
    rows.push(row("acknowledged/s", format!("{:.0}", summary.acked_per_s())));
    let latency = |took: Duration| format!("{:.2} ms", took.as_secs_f64() * 1_000.0);
    rows.push(row("latency p50", latency(summary.latencies.percentile(50))));
    rows.push(row("latency p99", latency(summary.latencies.percentile(99))));
    rows.push(row("latency max", latency(summary.latencies.max())));
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_answers_are_shown_by_their_status() {
        let mut summary = LoadSummary { sent: 4, kept_kafka: 3, ..LoadSummary::default() };
        summary.other.insert(503, 1);
        let shown = describe(&summary);
        assert!(shown.contains("kept by Kafka   3\n") && shown.contains("answered 503    1\n"), "{shown}");
    }
}
