//! `hookledger trust`: an operator's word about a principal of an installation, and a list of principals.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{ArgMatches, Command};
use primitives::secret::Fingerprint;
use serde_json::{Value, json};

use crate::arguments::{self, option, switch};
use crate::outcome::{Outcome, Usage};
use crate::output::{print_answer, shown};
use crate::query::{self, Query};
use crate::token_file;
use portal_sim::client::block_on;

mod list;

/// How long the command may take to be folded, until the record is shown as it is.
const FOLDED_WITHIN: &str = "10s";

pub fn command() -> Command {
    Command::new("trust")
        .about("Trusts a principal of an installation, or revokes that")
        .after_help(
            "A principal is the holder of an application_token, named by its SHA-256. Trusted principals that were \
             attested before stay trusted; use --revoke for those that should not.",
        )
        .args(arguments::installation())
        .arg(
            option("principal", "SHA256", "The SHA-256 of the application_token")
                .value_parser(|text: &str| Fingerprint::parse(text).ok_or("a principal is 64 hex digits")),
        )
        .arg(token_file::argument().conflicts_with("principal"))
        .arg(switch("revoke", "Do not trust it any longer"))
        .arg(arguments::json())
        .args(query::server_arguments())
        .subcommand(list::command())
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    if let Some((_, arguments)) = arguments.subcommand() {
        return list::run(arguments);
    }
    let installation = arguments::given_installation(arguments);
    let principal = match (arguments.get_one::<Fingerprint>("principal"), arguments.get_one::<PathBuf>("token-file")) {
        (Some(principal), _) => *principal,
        (None, Some(file)) => Fingerprint::of(token_file::read(file)?.reveal()),
        (None, None) => return Err(Usage("give --token-file or --principal".into()).into()),
    };
    let line = json!({ "command": "trust", "app": installation.app, "member_id": installation.member_id,
        "principal": principal, "revoke": arguments.get_flag("revoke") });
    let mut query = Query::from_arguments(arguments)?;
    let record: Value = block_on(async {
        let answer = query.post("/v1/commands", query::NDJSON, Bytes::from(line.to_string())).await?;
        let last = answer["last"].as_str().unwrap_or_default().to_owned();
        Ok(query.about(&installation, "", &[("after", Some(last.as_str())), ("wait", Some(FOLDED_WITHIN))]).await?)
    })?;
    print_answer(arguments, &record, || {
        let trusted = record["trusted"].as_array().into_iter().flatten();
        let trusted: Vec<String> = trusted.map(|trusted| shown(&trusted["principal"])).collect();
        let trusted = if trusted.is_empty() { "no principal".to_owned() } else { trusted.join(", ") };
        format!("{installation} is {}; trusted: {trusted}", shown(&record["status"]))
    })?;
    Ok(Outcome::Done)
}
