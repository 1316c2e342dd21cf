//! `hookledger history APP MEMBER`: the facts about one installation, oldest first.

use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use bitrix24::Installation;

use crate::outcome::Outcome;
use crate::output::{aligned, print, print_json, shown};
use crate::query::{self, Query};
use crate::query_error::QueryError;
use portal_sim::client::block_on;

const PAGE: &str = "1000";
/// More facts are read in pages, by the API's cursor.
const FACTS_MAX: usize = 100_000;

/// Fields that have a column of their own, or repeat the command line.
const ELSEWHERE: [&str; 9] =
    ["app", "member_id", "occurred_at", "received_at", "id", "type", "principal", "raw", "profile"];

pub fn command() -> Command {
    Command::new("history")
        .about("Shows the facts about an installation, oldest first")
        .args(query::installation_arguments())
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let installation = query::installation(arguments);
    let mut query = Query::from_arguments(arguments)?;
    let (facts, next) = block_on(async { Ok(all(&mut query, &installation, arguments).await?) })?;
    if arguments.get_flag("json") {
        print_json(&json!({ "items": facts, "next": next }))?;
        return Ok(Outcome::Done);
    }
    let header = ["occurred at", "what", "principal", "raw", "id", "more"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(facts.iter().map(row)).collect();
    print(&aligned(&rows))?;
    Ok(Outcome::Done)
}

async fn all(
    query: &mut Query,
    installation: &Installation,
    arguments: &ArgMatches,
) -> Result<(Vec<Value>, Option<String>), QueryError> {
    let mut facts = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut parameters = vec![("limit", Some(PAGE)), ("cursor", next.as_deref())];
        parameters.extend(query::waiting(arguments));
        let mut document = query.about(installation, "/history", &parameters).await?;
        if let Value::Array(more) = document["items"].take() {
            facts.extend(more);
        }
        next = document["next"].as_str().map(str::to_owned);
        if next.is_none() || facts.len() >= FACTS_MAX {
            return Ok((facts, next));
        }
    }
}

fn row(fact: &Value) -> Vec<String> {
    let principal = shown(&fact["principal"]).chars().take(8).collect();
    let place = format!("{}/{}", shown(&fact["raw"]["partition"]), shown(&fact["raw"]["offset"]));
    vec![shown(&fact["occurred_at"]), shown(&fact["type"]), principal, place, shown(&fact["id"]), more(fact)]
}

fn more(fact: &Value) -> String {
    let mut fields: Map<String, Value> = fact.as_object().cloned().unwrap_or_default();
    fields.retain(|name, value| !ELSEWHERE.contains(&name.as_str()) && !value.is_null());
    if let Some(version) = fact["profile"]["version"].as_str() {
        fields.insert("version".to_owned(), version.into());
    }
    if let Some(token) = fields.get_mut("token")
        && let Some(text) = token.as_str()
    {
        *token = text.chars().take(8).collect::<String>().into();
    }
    shown(&Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_one_row() {
        let fact = json!({
            "app": "crm-sync", "member_id": "a223", "occurred_at": "2023-10-05T17:30:00Z", "id": "0199",
            "received_at": "2023-10-05T17:30:01Z", "principal": "8b1f0c00aabbccdd", "raw": {"partition": 3, "offset": 1042},
            "type": "ONAPPMETHODCONFIRM", "method": "voximplant.user.get", "decision": "granted", "token": "ab".repeat(32),
            "profile": {"domain": "x.bitrix24.com", "version": null},
        });
        let row = row(&fact);
        assert_eq!(row[..5], ["2023-10-05T17:30:00Z", "ONAPPMETHODCONFIRM", "8b1f0c00", "3/1042", "0199"]);
        assert_eq!(row[5], "decision granted, method voximplant.user.get, token abababab");
    }
}
