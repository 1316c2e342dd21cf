//! `hookledger check APP MEMBER METHOD`: may the holder of this token call this method?

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};

use primitives::plain;
use primitives::secret::Fingerprint;

use crate::arguments::{self, option};
use crate::outcome::{Outcome, Usage};
use crate::output::{complain, print_answer, shown};
use crate::query::{self, Query};
use crate::token_file::{self, TOKEN_BYTES_MAX};
use portal_sim::client::block_on;

/// A token is no argument: other users of the machine could read it.
pub fn command() -> Command {
    Command::new("check")
        .about("Asks whether the holder of a token may call a method")
        .after_help(
            "The token is read from stdin unless --token-file or --token-fingerprint is given; only its SHA-256 \
             leaves this process.\nExit codes: 0 granted, 3 denied, 4 unanswered.",
        )
        .args(arguments::installation())
        .arg(Arg::new("method").value_name("METHOD").required(true).help("The REST method"))
        .arg(
            option("token-fingerprint", "HEX", "The SHA-256 of the token")
                .value_parser(|text: &str| Fingerprint::parse(text).ok_or("a fingerprint is 64 hex digits")),
        )
        .arg(token_file::argument().conflicts_with("token-fingerprint"))
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let installation = arguments::given_installation(arguments);
    let method = arguments.get_one::<String>("method").expect("clap requires it");
    let mut query = Query::from_arguments(arguments)?;
    let token = token(arguments)?;
    let answer = block_on(async { Ok(query.check(&installation, method, token, &query::waiting(arguments)).await?) })?;
    let decision = answer["decision"].as_str().unwrap_or_default();
    let outcome = match decision {
        "granted" => Outcome::Done,
        "denied" => Outcome::No,
        "unanswered" => Outcome::NotYet,
        _ => anyhow::bail!("{} answers with a decision that is none", query.url()),
    };
    print_answer(arguments, &answer, || {
        let reason = answer.get("reason").map(|reason| format!(": {}", shown(reason))).unwrap_or_default();
        let until = answer.get("until").map(|until| format!(" until {}", shown(until))).unwrap_or_default();
        plain::line(&format!("{decision}{reason}{until}"))
    })?;
    Ok(outcome)
}

fn token(arguments: &ArgMatches) -> anyhow::Result<Fingerprint> {
    if let Some(fingerprint) = arguments.get_one::<Fingerprint>("token-fingerprint") {
        return Ok(*fingerprint);
    }
    if let Some(file) = arguments.get_one::<PathBuf>("token-file") {
        return Ok(Fingerprint::of(token_file::read(file)?.reveal()));
    }
    if io::stdin().is_terminal() {
        complain("The token, then Enter and Ctrl-D:");
    }
    let mut text = String::new();
    io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut text).context("read the token from stdin")?;
    match text.trim() {
        "" => {
            Err(Usage("there is no token: give it on stdin, or use --token-file or --token-fingerprint".into()).into())
        }
        token => Ok(Fingerprint::of(token)),
    }
}
