//! Settings from flags, the environment and a TOML file.

use std::ffi::OsString;
use std::fs;

use runtime::settings::{Setting, Settings, read};

use crate::disk_log::{lay, log_in};

/// Stands in place of a secret, and in no other place.
const SECRET: &str = "Xq7Zp2Vw9Lk4Rt8Bn3";
/// What the input writes in its place.
const SIGN: &str = "@";
/// Settings whose value is secret, as lines of the file begin.
const SECRET_KEYS: [&str; 4] = ["query-tokens", "query-token", "path-key", "client-secret"];
/// The same as flags and variables; librdkafka's passwords are among its settings.
const SECRET_FLAGS: [&str; 5] = [
    "--query-tokens=",
    "--query-token=",
    "--kafka-set=sasl.password=",
    "--kafka-set=ssl.key.password=",
    "--kafka-set=sasl.jaas.config=",
];
const SECRET_VARIABLES: [&str; 2] = ["HOOKLEDGER_QUERY_TOKENS=", "HOOKLEDGER_QUERY_TOKEN="];

/// Settings are read or refused in words; neither the words nor what is shown of the settings holds a secret.
///
/// The input is lines: flags begin with `--`, variables with `HOOKLEDGER_`, all others are the file.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace(SECRET, "");
    let (flags, rest): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("--"));
    let (variables, file): (Vec<_>, Vec<_>) = rest.into_iter().partition(|line| line.starts_with("HOOKLEDGER_"));
    // A text of several lines makes something harmless of a line that looks like a secret's.
    let has_long_texts = text.contains("\"\"\"") || text.contains("'''");
    let file = file.iter().filter(|line| !reads_a_file(line));
    let file: Vec<String> =
        file.map(|line| if has_long_texts { (*line).to_owned() } else { line_of_file(line) }).collect();

    let dir = lay(&[("settings.toml".to_owned(), file.join("\n").into_bytes())].into());
    let path = log_in(dir.path()).join("settings.toml");
    // Behind `--` nothing is a flag any more.
    let flags =
        flags.iter().filter(|flag| **flag != "--" && !reads_a_file(flag)).map(|flag| with_secret(flag, &SECRET_FLAGS));
    let args: Vec<OsString> = [OsString::from("program"), "--config".into(), path.clone().into()]
        .into_iter()
        .chain(flags.map(OsString::from))
        .collect();
    let variables: Vec<(String, String)> = variables
        .iter()
        .filter(|line| !reads_a_file(line))
        .filter_map(|line| {
            with_secret(line, &SECRET_VARIABLES)
                .split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    let env = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    for (program, table) in [("ingress", ingress::config::table()), ("processor", processor::config::settings())] {
        let names = variables.iter().map(|(name, _)| name.clone());
        let read = read(program, "", &table, args.clone(), &env, names);
        let shown = read.as_ref().map_or_else(ToString::to_string, |settings| shown(program, &table, settings));
        assert!(!shown.contains(SECRET), "{program} shows a secret: {shown}");
    }
    fs::remove_file(path).expect("it is still there");
}

/// Everything that is ever shown of settings that were read.
fn shown(program: &str, table: &[Setting], settings: &Settings) -> String {
    let described = settings.describe();
    for setting in table {
        assert!(described.contains(&format!("{} = ", setting.name)), "{} is not described", setting.name);
    }
    let config = match program {
        "ingress" => ingress::config::Config::read(settings).map(|config| format!("{config:?}")),
        _ => processor::config::Config::read(settings).map(|config| format!("{config:?}")),
    };
    let config = config.unwrap_or_else(|error| error.to_string());
    format!("{described}\n{settings:?}\n{config}")
}

fn line_of_file(line: &str) -> String {
    let key =
        |key: &&str| line.strip_prefix(*key).is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with('='));
    if SECRET_KEYS.iter().any(key) { line.replace(SIGN, SECRET) } else { line.to_owned() }
}

fn with_secret(line: &str, beginnings: &[&str]) -> String {
    if beginnings.iter().any(|beginning| line.starts_with(beginning)) {
        line.replace(SIGN, SECRET)
    } else {
        line.to_owned()
    }
}

/// Files beside ours do not matter here.
fn reads_a_file(line: &str) -> bool {
    line.contains("file") || line.contains("FILE") || line.contains("config") || line.contains("CONFIG")
}
