//! `hookledger rejected list`, newest first.

use clap::{ArgMatches, Command};
use serde_json::Value;

use super::{filter, filters};
use crate::outcome::Outcome;
use crate::output::print_page;
use crate::query::{self, Query};
use crate::query_error::QueryError;
use portal_sim::client::block_on;

const PAGE: u64 = 1_000;
const COLUMNS: [&str; 7] = ["received_at", "reason", "app", "member_id", "size", "id", "place"];

pub fn command() -> Command {
    Command::new("list")
        .about("Lists rejected events, newest first")
        .args(filters())
        .args(query::page_arguments("100", 1_000_000, "The most events to list"))
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let mut query = Query::from_arguments(arguments)?;
    let (items, next) = block_on(async { Ok(all(&mut query, arguments).await?) })?;
    print_page(arguments.get_flag("json"), COLUMNS, &items, next.as_deref())?;
    Ok(Outcome::Done)
}

/// Page by page, up to the limit. A page may be empty although there are more.
async fn all(query: &mut Query, arguments: &ArgMatches) -> Result<(Vec<Value>, Option<String>), QueryError> {
    let limit = *arguments.get_one::<u64>("limit").expect("a default");
    let mut items = Vec::new();
    let mut next = arguments.get_one::<String>("cursor").cloned();
    loop {
        let page = (limit - items.len() as u64).min(PAGE).to_string();
        let mut parameters = vec![("limit", Some(page.as_str())), ("cursor", next.as_deref())];
        parameters.extend(filter(arguments));
        parameters.extend(query::waiting(arguments));
        let mut document = query.get("/v1/rejected", &parameters).await?;
        if let Value::Array(more) = document["items"].take() {
            items.extend(more);
        }
        next = document["next"].as_str().map(str::to_owned);
        if next.is_none() || items.len() as u64 >= limit {
            return Ok((items, next));
        }
    }
}
