//! `hookledger verify-token APP MEMBER`: is this the portal's `application_token`?

use std::path::PathBuf;

use clap::{ArgMatches, Command};
use primitives::plain;

use crate::arguments;
use crate::outcome::Outcome;
use crate::output::{print_answer, shown};
use crate::query::{self, Query};
use crate::token_file;
use portal_sim::client::block_on;

pub fn command() -> Command {
    Command::new("verify-token")
        .about("Asks whether a token is the portal's application_token")
        .after_help("Exit codes: 0 yes, 3 no, 4 not known.")
        .args(arguments::installation())
        .arg(token_file::argument().required(true))
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let installation = arguments::given_installation(arguments);
    let token = token_file::read(arguments.get_one::<PathBuf>("token-file").expect("clap requires it"))?;
    let mut query = Query::from_arguments(arguments)?;
    let waiting = query::waiting(arguments);
    let answer = block_on(async { Ok(query.verify(&installation, &token, &waiting).await?) })?;
    let (said, outcome) = match answer.get("verified") {
        Some(serde_json::Value::Bool(true)) => ("yes", Outcome::Done),
        Some(serde_json::Value::Bool(false)) => ("no", Outcome::No),
        Some(serde_json::Value::Null) => ("not known", Outcome::NotYet),
        _ => anyhow::bail!("{} does not say whether it is verified", query.url()),
    };
    print_answer(arguments, &answer, || {
        let basis = answer["basis"].as_str().map(|basis| format!(", {basis}")).unwrap_or_default();
        plain::line(&format!("{said}: {}{basis}", shown(&answer["reason"])))
    })?;
    Ok(outcome)
}
