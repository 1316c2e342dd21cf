//! The load, in a process of its own: a closed loop per connection, the same bodies for everyone.

use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use crate::arguments::number;
use portal_sim::load::{LoadPlan, Watch};
use portal_sim::portal::{Encoding, Event, FORM, Portal, now_s};

/// Portals that play. Their bodies are made beforehand.
const PORTALS: u64 = 64;

/// How it is called, by the bench itself.
pub fn command() -> Command {
    Command::new("load")
        .about("Sends installs of 64 portals as fast as they are answered")
        .hide(true)
        .arg(Arg::new("url").long("url").required(true))
        .arg(number("connections", "Connections", "64"))
        .arg(number("milliseconds", "For how long", "1000"))
        .arg(number("rate", "Events a second, due whether answers come or not; 0 for as many as are answered", "0"))
}

/// Sends, and prints the summary as JSON.
pub fn run(arguments: &ArgMatches) -> anyhow::Result<()> {
    let number = |name: &str| *arguments.get_one::<u32>(name).expect("a default");
    let bodies = bodies();
    let plan = LoadPlan {
        url: arguments.get_one::<String>("url").expect("clap requires it").clone(),
        path: "/v1/events/bench".to_owned(),
        content_type: FORM,
        connections: usize::try_from(number("connections")).context("so many connections")?,
        rate: Some(number("rate")).filter(|rate| *rate > 0),
        duration: Duration::from_millis(number("milliseconds").into()),
        events: None,
        bodies: Arc::new(move |connection, _| bodies[connection % bodies.len()].clone()),
    };
    let summary =
        portal_sim::client::block_on(async { Ok(portal_sim::load::run(plan, Arc::new(Watch::default())).await?) })?;
    println!("{}", summary.to_json());
    Ok(())
}

/// Runs it against `address`; its summary. Without a rate each connection sends once it has its answer.
pub fn start(address: &str, connections: u32, rate: Option<u32>, duration: Duration) -> anyhow::Result<Value> {
    let ended = Process::new(std::env::current_exe().context("find this program")?)
        .args(["load", "--url", &format!("http://{address}")])
        .args(["--connections", &connections.to_string(), "--milliseconds", &duration.as_millis().to_string()])
        .args(["--rate", &rate.unwrap_or_default().to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start the load")?;
    ensure!(ended.status.success(), "the load failed");
    serde_json::from_slice(&ended.stdout).context("read the load's summary")
}

/// How long the bodies are.
pub fn body_bytes() -> usize {
    bodies().iter().map(Bytes::len).max().unwrap_or_default()
}

fn bodies() -> Vec<Bytes> {
    let install = Event::Install { version: "1".to_owned() };
    let body = |number| Portal::nth("bench", number).body(&install, now_s(), Encoding::Form);
    (0..PORTALS).map(body).collect()
}
