//! Measures how fast webhooks are kept and folded, side by side with simpler handlers, on a real broker.
//!
//! `cargo run --release -p bench` starts a broker, our programs and the handlers that they are compared
//! with, sends the same load to one after another in several rounds, and prints Markdown tables. Every
//! server and every load runs in a process of its own, so that the CPU that a server takes is its own.
//! Ratios within one run mean something; values from another machine or another day do not.

use std::process::ExitCode;

use arguments::number;
use clap::{Arg, ArgMatches, Command};

mod ack;
mod arguments;
mod broker;
mod cpu;
mod fold;
mod footprint;
mod growth;
mod handlers;
mod load;
mod path;
mod peers;
mod plot;
mod server;
mod table;

fn main() -> ExitCode {
    let arguments = command().get_matches();
    let done = match arguments.subcommand() {
        Some(("handler", arguments)) => handlers::run(arguments),
        Some(("load", arguments)) => load::run(arguments),
        Some(("path", arguments)) => path::run(arguments),
        Some(("growth", arguments)) => growth::run(arguments),
        _ => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    Command::new("bench")
        .about("Measures ingress and processor on a real broker, side by side with simpler handlers")
        .after_help(
            "HOOKLEDGER_TEST_KAFKA=host:port names a running broker (with --broker-pid for its CPU); else one is started.",
        )
        .args_conflicts_with_subcommands(true)
        .arg(number("rounds", "Rounds of which the median is shown", "3"))
        .arg(number("seconds", "Seconds for each cell of a round", "4"))
        .arg(
            number("connections", "Connections at a time; repeat for several [default: 64 and 256]", "")
                .action(clap::ArgAction::Append),
        )
        .arg(number("fold-events", "Events that the processor folds, in each of its rows; 0 for none", "300000"))
        .arg(number("fold-rounds", "Rounds of folding of which the median is shown", "1"))
        .arg(
            Arg::new("peers")
                .long("peers")
                .action(clap::ArgAction::SetTrue)
                .help("Beside the peers of bench/peers too, which are fetched from registries and built"),
        )
        .arg(number("broker-pid", "The process of a running broker", ""))
        .subcommand(handlers::command())
        .subcommand(load::command())
        .subcommand(path::command())
        .subcommand(growth::command())
}

fn run(arguments: &ArgMatches) -> anyhow::Result<()> {
    let number = |name: &str| arguments.get_one::<u32>(name).copied();
    if cfg!(debug_assertions) {
        eprintln!("bench: a debug build: the figures say nothing; use cargo run --release -p bench");
    }
    server::build()?;
    let peers = if arguments.get_flag("peers") { peers::Peers::build()? } else { peers::Peers::default() };
    let broker = broker::Kafka::find(number("broker-pid"))?;
    let connections: Vec<u32> = match arguments.get_many::<u32>("connections") {
        Some(connections) => connections.copied().collect(),
        None => vec![64, 256],
    };
    let rounds = number("rounds").unwrap_or_default();
    if rounds > 0 {
        let plan = ack::Plan { rounds, seconds: number("seconds").unwrap_or_default().max(1), connections };
        println!("{}", ack::run(&broker, &plan, &peers)?);
    }
    let events = number("fold-events").unwrap_or_default();
    if events > 0 {
        let plan = fold::Plan { rounds: number("fold-rounds").unwrap_or_default().max(1), events: events.into() };
        println!("{}", fold::run(&broker, &plan, peers.kafka_streams.as_deref())?);
    }
    if !peers.left_out.is_empty() {
        println!("Left out: {}", peers.left_out.join(", "));
    }
    Ok(())
}
