//! Arguments that the commands share.

use clap::{Arg, ArgMatches};
use domain::Reason;

use crate::arguments::{option, text};

/// Names of parameters and flags.
const FILTERS: [&str; 4] = ["app", "member_id", "reason", "since"];

pub fn filters() -> [Arg; 4] {
    let reasons = Reason::ALL.map(Reason::label);
    let member = option("member_id", "MEMBER", "Only of this portal, by its member_id");
    [
        option("app", "APP", "Only of this app"),
        member.long("member"),
        Arg::new("reason").long("reason").value_parser(reasons).help("Only for this reason"),
        option("since", "TIME", "Only received since, such as 2h or 2026-01-31T10:00:00Z"),
    ]
}

pub fn filter(arguments: &ArgMatches) -> [(&'static str, Option<&str>); 4] {
    FILTERS.map(|name| (name, text(arguments, name)))
}

pub fn id(arg: Arg) -> Arg {
    let parse = |text: &str| {
        let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if is_name { Ok(text.to_owned()) } else { Err("an event's id, or its place in a list, such as 0-15") }
    };
    arg.value_name("ID").value_parser(parse)
}
