//! The shapes of arguments, and the arguments that several commands have.

use std::path::PathBuf;

use bitrix24::{AppName, Installation, MemberId};
use clap::{Arg, ArgAction, ArgMatches, value_parser};

/// `--name VALUE`.
pub fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

/// `--name` alone.
pub fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// `--name PATH`, of a file or a directory.
pub fn path(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    option(name, value, help).value_parser(value_parser!(PathBuf))
}

pub fn json() -> Arg {
    switch("json", "Print JSON, for programs")
}

/// Of a list that has pages.
pub fn page(limit: &'static str, limit_max: u64, help: &'static str) -> [Arg; 2] {
    let limit = option("limit", "N", help).default_value(limit);
    let cursor = option("cursor", "CURSOR", "Go on behind a former list's end");
    [limit.value_parser(value_parser!(u64).range(1..=limit_max)), cursor]
}

pub fn installation() -> [Arg; 2] {
    [
        Arg::new("app").value_name("APP").required(true).value_parser(app).help("The app, as in the handler's URL"),
        Arg::new("member").value_name("MEMBER").required(true).value_parser(member).help("The portal's member_id"),
    ]
}

/// What [`installation`] gives.
pub fn given_installation(arguments: &ArgMatches) -> Installation {
    let app = arguments.get_one::<AppName>("app").expect("clap requires it").clone();
    let member_id = arguments.get_one::<MemberId>("member").expect("clap requires it").clone();
    Installation { app, member_id }
}

/// The text of an argument, if it was given or has a default.
pub fn text<'a>(arguments: &'a ArgMatches, name: &str) -> Option<&'a str> {
    arguments.get_one::<String>(name).map(String::as_str)
}

pub fn app(text: &str) -> Result<AppName, &'static str> {
    AppName::parse(text).ok_or("an app's name is made of a-z, 0-9 and -, at most 63 of them")
}

pub fn member(text: &str) -> Result<MemberId, &'static str> {
    MemberId::parse(text).ok_or("a member_id is made of letters, digits, -, _ and ., at most 64 of them")
}
