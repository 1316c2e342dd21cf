//! The paths of an event through memory, one at a time: what each costs without a broker or a disk.
//!
//! `bench path NAME` runs one path over the same events as the tables about folding, and prints the time for each event.
//! `tests/instructions.rs` counts its instructions instead, which do not depend on what else the machine does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use bitrix24::form::Form;
use bitrix24::{AppName, Installation, Trust};
use clap::{Arg, ArgMatches, Command, value_parser};
use domain::fold::{Effect, fold};
use domain::{InstallationState, interpret};
use event_log::{Position, RawEvent, Record};
use portal_sim::load::events;
use portal_sim::portal::{Encoding, FORM};
use primitives::time::Timestamp;
use processor::run::publish::Publisher;

mod request;

/// `nothing` makes the events, and does nothing with them.
const PATHS: [&str; 7] = ["nothing", "scan", "append", "request", "interpret", "fold", "encode"];

pub fn command() -> Command {
    Command::new("path")
        .about("Runs one path of an event in memory, for a profiler or to count its instructions")
        .arg(Arg::new("name").required(true).value_parser(PATHS))
        .arg(Arg::new("events").long("events").value_name("N").default_value("20000").value_parser(value_parser!(u64)))
        .arg(
            Arg::new("portals")
                .long("portals")
                .value_name("N")
                .default_value("100")
                .value_parser(value_parser!(u64))
                .help("Portals that take turns: the first event of each is its install, most others are passed on"),
        )
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<()> {
    let name = arguments.get_one::<String>("name").context("a path's name")?;
    let count = *arguments.get_one::<u64>("events").context("a number of events")?;
    let portals = *arguments.get_one::<u64>("portals").context("a number of portals")?;
    let records = raw_records(count, portals)?;
    let began = Instant::now();
    match name.as_str() {
        "nothing" => drop(black_box(records)),
        "scan" => scan(&records),
        "append" => append(&records),
        "request" => request::run(&records)?,
        "interpret" => interpret_all(&records),
        "fold" => fold_all(&records, false),
        _ => fold_all(&records, true),
    }
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    let each_us = began.elapsed().as_secs_f64() * 1e6 / count.max(1) as f64;
    println!("{name}: {each_us:.2} µs for each of {count} events");
    Ok(())
}

fn raw_records(count: u64, portals: u64) -> anyhow::Result<Vec<Record>> {
    let bodies = events::of_portals("bench".to_owned(), portals, 1, Encoding::Form);
    let app = AppName::parse("bench").context("an app's name")?;
    let record = |nth| {
        let body = bodies(0, nth);
        let mut event = RawEvent::new(app.clone(), Form::parse(&body).head(), body, Timestamp::now());
        event.content_type = Some(FORM.to_owned());
        event.into_record()
    };
    Ok((0..count).map(record).collect())
}

/// What ingress reads of a body.
fn scan(records: &[Record]) {
    for record in records {
        let body = record.value.as_deref().unwrap_or_default();
        black_box(Form::scan(black_box(body)).head());
    }
}

/// A raw event as a record.
fn append(records: &[Record]) {
    for record in records {
        let Ok(event) = RawEvent::from_record(record) else { continue };
        black_box(event.into_record());
    }
}

fn interpret_all(records: &[Record]) {
    for (offset, record) in (0..).zip(records) {
        let Ok(raw) = RawEvent::from_record(record) else { continue };
        let _ = black_box(interpret(&raw, Position { partition: 0, offset }));
    }
}

/// From a raw record to its effects, and with `encode` to the records that follow.
fn fold_all(records: &[Record], encode: bool) {
    let mut states: HashMap<Installation, Arc<InstallationState>> = HashMap::new();
    for (offset, record) in (0..).zip(records) {
        let place = Position { partition: 0, offset };
        let Ok(raw) = RawEvent::from_record(record) else { continue };
        let Ok(event) = interpret(&raw, place) else { continue };
        let state = states.entry(event.installation.clone()).or_default();
        let Ok((_, effects)) = fold(state, &event, Trust::FirstInstall, |_| Ok::<_, Infallible>(None));
        if encode {
            let publisher = Publisher::new(record, place);
            let outputs = effects.iter().filter_map(|effect: &Effect| publisher.output(effect));
            black_box(outputs.collect::<Vec<_>>());
        } else {
            black_box(effects);
        }
    }
}
