//! `hookledger installations`: the portals of each app, and since when.

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use bitrix24::AppName;

use crate::outcome::Outcome;
use crate::output::print_page;
use crate::query::{self, Query};
use crate::query_error::QueryError;
use portal_sim::client::block_on;

const PAGE: u64 = 1_000;
const COLUMNS: [&str; 6] = ["app", "member_id", "status", "since", "version", "domain"];

/// Parameters of the API, by the flags that give them.
const FILTERS: [(&str, &str); 6] = [
    ("status", "status"),
    ("domain", "domain"),
    ("unfinished", "unfinished"),
    ("contested", "contested"),
    ("silent_for", "silent-for"),
    ("updated_since", "updated-since"),
];

pub fn command() -> Command {
    Command::new("installations")
        .about("Lists installations")
        .arg(Arg::new("app").long("app").value_name("APP").value_parser(query::app).help("Only of this app"))
        .arg(
            Arg::new("status")
                .long("status")
                .value_parser(["installed", "uninstalled", "trusted", "untrusted"])
                .help("Only with this status"),
        )
        .arg(Arg::new("domain").long("domain").value_name("HOST").help("Only at this address, in any case"))
        .arg(
            Arg::new("unfinished")
                .long("unfinished")
                .value_parser(["true", "false"])
                .num_args(0..=1)
                .default_missing_value("true")
                .require_equals(true)
                .help("Only those whose install is not complete, or with =false only the others"),
        )
        .arg(
            Arg::new("contested")
                .long("contested")
                .value_parser(["true", "false"])
                .num_args(0..=1)
                .default_missing_value("true")
                .require_equals(true)
                .help("Only those that more than one principal claims, or with =false only the others"),
        )
        .arg(
            Arg::new("silent-for")
                .long("silent-for")
                .value_name("DURATION")
                .help("Only those without an event of a trusted principal for this time, such as 30d"),
        )
        .arg(
            Arg::new("updated-since")
                .long("updated-since")
                .value_name("TIME")
                .help("Only those with an event of a trusted principal since, such as 2026-01-31T10:00:00Z"),
        )
        .args(query::page_arguments("1000", 1_000_000, "The most installations to list"))
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let mut query = Query::from_arguments(arguments)?;
    let (items, next) = block_on(async { Ok(all(&mut query, arguments).await?) })?;
    print_page(arguments.get_flag("json"), COLUMNS, &items, next.as_deref())?;
    Ok(Outcome::Done)
}

/// Page by page, up to the limit.
async fn all(query: &mut Query, arguments: &ArgMatches) -> Result<(Vec<Value>, Option<String>), QueryError> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let limit = *arguments.get_one::<u64>("limit").expect("a default");
    let app = arguments.get_one::<AppName>("app").map(AppName::as_str);
    let mut items = Vec::new();
    let mut next = text("cursor").map(str::to_owned);
    loop {
        let page = (limit - items.len() as u64).min(PAGE).to_string();
        let mut parameters = vec![("app", app), ("limit", Some(page.as_str())), ("cursor", next.as_deref())];
        parameters.extend(FILTERS.map(|(name, flag)| (name, text(flag))));
        parameters.extend(query::waiting(arguments));
        let mut document = query.get("/v1/installations", &parameters).await?;
        if let Value::Array(more) = document["items"].take() {
            items.extend(more);
        }
        next = document["next"].as_str().map(str::to_owned);
        if next.is_none() || items.len() as u64 >= limit {
            return Ok((items, next));
        }
    }
}
