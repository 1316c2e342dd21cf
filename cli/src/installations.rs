//! `hookledger installations`: the portals of each app, and since when.

use clap::{Arg, ArgMatches, Command};

use bitrix24::AppName;

use crate::arguments::{self, option, text};
use crate::outcome::Outcome;
use crate::query;

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
    let either = |name: &'static str, help: &'static str| {
        let flag = Arg::new(name).long(name).value_parser(["true", "false"]).num_args(0..=1);
        flag.default_missing_value("true").require_equals(true).help(help)
    };
    let status = ["installed", "uninstalled", "trusted", "untrusted"];
    Command::new("installations")
        .about("Lists installations")
        .arg(option("app", "APP", "Only of this app").value_parser(arguments::app))
        .arg(Arg::new("status").long("status").value_parser(status).help("Only with this status"))
        .arg(option("domain", "HOST", "Only at this address, in any case"))
        .arg(either("unfinished", "Only those whose install is not complete, or with =false only the others"))
        .arg(either("contested", "Only those that more than one principal claims, or with =false only the others"))
        .arg(option(
            "silent-for",
            "DURATION",
            "Only those without an event of a trusted principal for this time, such as 30d",
        ))
        .arg(option(
            "updated-since",
            "TIME",
            "Only those with an event of a trusted principal since, such as 2026-01-31T10:00:00Z",
        ))
        .args(arguments::page("1000", 1_000_000, "The most installations to list"))
        .args(query::question_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let app = arguments.get_one::<AppName>("app").map(AppName::as_str);
    let mut parameters = vec![("app", app)];
    parameters.extend(FILTERS.map(|(name, flag)| (name, text(arguments, flag))));
    query::print_list(arguments, "/v1/installations", parameters, COLUMNS)
}
