//! `hookledger history APP MEMBER`: the facts about one installation, oldest first.

use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use crate::arguments;
use crate::outcome::Outcome;
use crate::output::{print, print_json, shown, table};
use crate::query::{self, Query};
use portal_sim::client::block_on;

/// More facts are read in pages, by the API's cursor.
const FACTS_MAX: u64 = 100_000;

/// Fields that have a column of their own, or repeat the command line.
const ELSEWHERE: [&str; 9] =
    ["app", "member_id", "occurred_at", "received_at", "id", "type", "principal", "raw", "profile"];

pub fn command() -> Command {
    Command::new("history")
        .about("Shows the facts about an installation, oldest first")
        .args(arguments::installation())
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let installation = arguments::given_installation(arguments);
    let mut query = Query::from_arguments(arguments)?;
    let path = query::path_of(&installation, "/history");
    let waiting = query::waiting(arguments);
    let (facts, next) = block_on(async { Ok(query.list(&path, &waiting, FACTS_MAX, None).await?) })?;
    if arguments.get_flag("json") {
        print_json(&json!({ "items": facts, "next": next }))?;
        return Ok(Outcome::Done);
    }
    print(&table(["occurred at", "what", "principal", "raw", "id", "more"], facts.iter().map(row)))?;
    Ok(Outcome::Done)
}

fn row(fact: &Value) -> [String; 6] {
    let principal = shown(&fact["principal"]).chars().take(8).collect();
    let place = format!("{}/{}", shown(&fact["raw"]["partition"]), shown(&fact["raw"]["offset"]));
    [shown(&fact["occurred_at"]), shown(&fact["type"]), principal, place, shown(&fact["id"]), more(fact)]
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
