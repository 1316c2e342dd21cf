//! `hookledger rejected redrive [ID…]`

use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use super::arguments::{filter, filters, id};
use crate::arguments;
use crate::outcome::{Outcome, Usage};
use crate::output::{complain, print, print_json, table_of};
use crate::query::{self, Query};
use portal_sim::client::block_on;
use portal_sim::portal;

/// The server's limit for ids in one request.
const IDS_AT_ONCE: usize = 20;
/// Events of one request that a filter finds.
const PAGE: usize = 100;
const COLUMNS: [&str; 4] = ["id", "place", "outcome", "redrive_id"];

pub fn command() -> Command {
    Command::new("redrive")
        .about("Brings rejected events in again, as far back as raw reaches")
        .after_help(
            "The same request comes into raw once more, under an id of its own that is the same each time: an event \
             that is redriven twice is folded once. Events of refused senders are redriven only by ID or with --reason \
             unknown_source. Exit code 3: some could not be redriven.\n\
             Example: hookledger rejected redrive --app crm-sync --reason missing_field --since 2h",
        )
        .arg(id(Arg::new("id")).num_args(0..).action(ArgAction::Append).help("Ids, or places in a list"))
        .args(filters().map(|filter| filter.conflicts_with("id")))
        .arg(arguments::json())
        .args(query::server_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let ids: Vec<&String> = arguments.get_many("id").into_iter().flatten().collect();
    let filter: Map<String, Value> =
        filter(arguments).into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect();
    if ids.is_empty() && filter.is_empty() {
        return Err(Usage("name what to redrive: IDs, or --app, --member, --reason or --since".into()).into());
    }
    let mut query = Query::from_arguments(arguments)?;
    let (items, last) = block_on(async {
        if ids.is_empty() { by_filter(&mut query, filter).await } else { by_ids(&mut query, &ids).await }
    })?;
    let redriven = items.iter().filter(|item| is_redriven(item)).count();
    let left = items.len() - redriven;
    if arguments.get_flag("json") {
        print_json(&json!({ "items": items, "redriven": redriven, "last": last }))?;
    } else {
        print(&table_of(COLUMNS, &items))?;
        let why = if left > 0 { "; see the outcome of the others" } else { "" };
        complain(&format!("redriven: {redriven} of {}{why}", items.len()));
    }
    Ok(if left > 0 { Outcome::No } else { Outcome::Done })
}

fn is_redriven(item: &Value) -> bool {
    item["outcome"] == "redriven"
}

type Redriven = (Vec<Value>, Value);

async fn by_ids(query: &mut Query, ids: &[&String]) -> anyhow::Result<Redriven> {
    let bar = ProgressBar::new(ids.len() as u64);
    let (mut items, mut last) = (Vec::new(), Value::Null);
    for some in ids.chunks(IDS_AT_ONCE) {
        let answer = ask(query, &json!({ "ids": some })).await?;
        bar.inc(some.len() as u64);
        take(answer, &mut items, &mut last);
    }
    bar.finish_and_clear();
    Ok((items, last))
}

async fn by_filter(query: &mut Query, mut filter: Map<String, Value>) -> anyhow::Result<Redriven> {
    // Their number is not known. Hidden by indicatif unless stderr is a terminal.
    let bar = ProgressBar::new_spinner();
    let (mut items, mut last) = (Vec::new(), Value::Null);
    filter.insert("limit".to_owned(), json!(PAGE));
    loop {
        let answer = ask(query, &Value::Object(filter.clone())).await?;
        let next = answer["next"].clone();
        take(answer, &mut items, &mut last);
        bar.set_message(format!("{} events", items.len()));
        bar.tick();
        if next.is_null() {
            bar.finish_and_clear();
            return Ok((items, last));
        }
        filter.insert("cursor".to_owned(), next);
    }
}

async fn ask(query: &mut Query, body: &Value) -> anyhow::Result<Value> {
    Ok(query.post("/v1/rejected/redrive", portal::JSON, Bytes::from(body.to_string())).await?)
}

fn take(mut answer: Value, items: &mut Vec<Value>, last: &mut Value) {
    if !answer["last"].is_null() {
        *last = answer["last"].take();
    }
    if let Value::Array(more) = answer["items"].take() {
        items.extend(more);
    }
}
