//! `hookledger trust list APP [MEMBER]`: who speaks for an installation.

use bitrix24::{AppName, Installation, MemberId};
use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use crate::arguments::{self, text};
use crate::outcome::Outcome;
use crate::output::print_page;
use crate::query::{self, Page, Query};
use crate::query_error::QueryError;
use portal_sim::client::block_on;

/// More than an installation has principals.
const PAGE: &str = "1000";
const COLUMNS: [&str; 8] =
    ["member_id", "principal", "trusted", "basis", "since", "first_heard_at", "last_heard_at", "held_events"];

pub fn command() -> Command {
    let app = Arg::new("app").value_name("APP").required(true).value_parser(arguments::app);
    let member = Arg::new("member").value_name("MEMBER").value_parser(arguments::member);
    Command::new("list")
        .about("Lists the principals of an installation, or of all installations of an app")
        .arg(app.help("The app, as in the handler's URL"))
        .arg(member.help("The portal's member_id [default: every portal]"))
        .args(arguments::page("100", 1_000, "Without MEMBER, the most installations to list"))
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let mut query = Query::from_arguments(arguments)?;
    let (items, next) = block_on(async { Ok(all(&mut query, arguments).await?) })?;
    print_page(arguments.get_flag("json"), COLUMNS, &items, next.as_deref())?;
    Ok(Outcome::Done)
}

async fn all(query: &mut Query, arguments: &ArgMatches) -> Result<Page, QueryError> {
    let app = arguments.get_one::<AppName>("app").expect("clap requires it").clone();
    let waiting = query::waiting(arguments);
    if let Some(member_id) = arguments.get_one::<MemberId>("member").cloned() {
        return Ok((of(query, &Installation { app, member_id }, &waiting).await?, None));
    }
    let limit = arguments.get_one::<u64>("limit").expect("a default").to_string();
    let mut parameters =
        vec![("app", Some(app.as_str())), ("limit", Some(&limit)), ("cursor", text(arguments, "cursor"))];
    parameters.extend(waiting);
    let listed = query.get("/v1/installations", &parameters).await?;
    let mut items = Vec::new();
    for record in listed["items"].as_array().into_iter().flatten() {
        if let Some(member_id) = record["member_id"].as_str().and_then(MemberId::parse) {
            items.extend(of(query, &Installation { app: app.clone(), member_id }, &[]).await?);
        }
    }
    Ok((items, listed["next"].as_str().map(str::to_owned)))
}

/// The principals of one installation, each with its portal.
async fn of(
    query: &mut Query,
    installation: &Installation,
    waiting: &[(&str, Option<&str>)],
) -> Result<Vec<Value>, QueryError> {
    let parameters = [&[("limit", Some(PAGE))], waiting].concat();
    let mut document = query.about(installation, "/principals", &parameters).await?;
    let Value::Array(mut items) = document["items"].take() else { return Ok(Vec::new()) };
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.insert("member_id".to_owned(), json!(installation.member_id));
    }
    Ok(items)
}
