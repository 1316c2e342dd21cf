//! `hookledger import FILE --app APP`: the installations of an app that existed before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use bitrix24::AppName;
use bytes::Bytes;
use clap::{Arg, ArgMatches, Command, value_parser};
use domain::parse_command;
use primitives::secret::Fingerprint;
use serde_json::{Map, Value, json};

use crate::arguments::{self, option, switch};
use crate::outcome::{Outcome, Usage};
use crate::output::{bar, complain, print, print_json};
use crate::query::{self, Query};
use crate::query_error::QueryError;
use portal_sim::client::block_on;

/// A fleet of a million portals takes about half of this.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Lines of one request.
const LINES_AT_ONCE: usize = 500;
/// Mistakes that are named.
const MISTAKES_MAX: usize = 20;
/// One question waits so long, and all of them.
const FOLDED_WITHIN: &str = "30s";
const FOLDED_PATIENCE: Duration = Duration::from_secs(600);
/// The title of the problem that the last command is not folded.
const NOT_YET: &str = "not yet";
const FIELDS: [&str; 6] =
    ["member_id", "application_token", "application_token_sha256", "domain", "version", "installed_at"];

pub fn command() -> Command {
    Command::new("import")
        .about("Imports installations that existed before, so that they are trusted")
        .after_help(
            "FILE is CSV with a header line, or JSON with an object a line; - is stdin. Columns: member_id, one of \
             application_token and application_token_sha256, and optionally domain, version and installed_at (RFC \
             3339). Of tokens only the SHA-256 leaves this process. To import a file again changes nothing.",
        )
        .arg(Arg::new("file").value_name("FILE").required(true).value_parser(value_parser!(PathBuf)).help("The list"))
        .arg(option("app", "APP", "The app").required(true).value_parser(arguments::app))
        .arg(switch("dry-run", "Check the file and send nothing"))
        .arg(arguments::json())
        .args(query::server_arguments())
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let app = arguments.get_one::<AppName>("app").expect("clap requires it");
    let file = arguments.get_one::<PathBuf>("file").expect("clap requires it");
    let (commands, mistakes) = read(&contents(file)?, app)?;
    if !mistakes.is_empty() {
        mistakes.iter().take(MISTAKES_MAX).for_each(|mistake| complain(mistake));
        let more = mistakes.len().saturating_sub(MISTAKES_MAX);
        let more = if more > 0 { format!(", {more} of them not shown") } else { String::new() };
        return Err(Usage(format!("{} lines are wrong{more}: nothing was imported", mistakes.len())).into());
    }
    let sent = !arguments.get_flag("dry-run");
    if sent {
        let mut query = Query::from_arguments(arguments)?;
        block_on(send(&mut query, &commands))?;
    }
    if arguments.get_flag("json") {
        print_json(&json!({ "app": app, "installations": commands.len(), "imported": sent }))?;
    } else if sent {
        print(&format!("{} installations of {app} are imported\n", commands.len()))?;
    } else {
        print(&format!("{} installations of {app} can be imported; nothing was sent\n", commands.len()))?;
    }
    Ok(Outcome::Done)
}

fn contents(file: &PathBuf) -> anyhow::Result<String> {
    let mut text = String::new();
    let from: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file).map_err(|error| Usage(format!("open {}: {error}", file.display())))?;
        Box::new(opened)
    };
    from.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(|| format!("read {}", file.display()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Usage(format!("{} has more than 256 MiB: split it", file.display())).into());
    }
    Ok(text)
}

/// The commands of a list, and what is wrong with it, by line.
fn read(text: &str, app: &AppName) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    // As spreadsheets write it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let rows = if text.trim_start().starts_with('{') { rows_of_json(text) } else { rows_of_csv(text)? };
    let (mut commands, mut mistakes) = (Vec::new(), Vec::new());
    for (line, row) in rows {
        match row.and_then(|row| as_command(row, app)) {
            Ok(command) => commands.push(command),
            Err(what) => mistakes.push(format!("line {line}: {what}")),
        }
    }
    if commands.is_empty() && mistakes.is_empty() {
        return Err(Usage("the file lists no installation".into()).into());
    }
    Ok((commands, mistakes))
}

type Row = (u64, Result<Map<String, Value>, String>);

fn rows_of_json(text: &str) -> Vec<Row> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| (number, serde_json::from_str(line).map_err(|_| "it is no JSON object".into())))
        .collect()
}

fn rows_of_csv(text: &str) -> anyhow::Result<Vec<Row>> {
    let head = text.lines().next().unwrap_or_default();
    let delimiter = if head.contains(';') && !head.contains(',') { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(text.as_bytes());
    let names = reader.headers().map_err(|error| Usage(format!("the header line cannot be read: {error}")))?.clone();
    let names: Vec<String> = names.iter().map(str::to_lowercase).collect();
    if let Some(unknown) = names.iter().find(|name| !FIELDS.contains(&name.as_str())) {
        let known = FIELDS.join(", ");
        return Err(Usage(format!("the header line has the column `{unknown}`; known are {known}")).into());
    }
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                return (line, Err("it has another number of columns than the header line".into()));
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        let filled = names.iter().zip(&record).filter(|(_, value)| !value.is_empty());
        (line, Ok(filled.map(|(name, value)| (name.clone(), value.into())).collect()))
    };
    Ok(reader.records().map(row).collect())
}

/// The line for the server, with the fingerprint in place of the token.
fn as_command(mut row: Map<String, Value>, app: &AppName) -> Result<String, String> {
    row.retain(|_, value| !value.is_null());
    if let Some(token) = row.remove("application_token") {
        let token = token.as_str().map(str::trim).filter(|token| !token.is_empty());
        let token = token.ok_or("`application_token` is no text")?;
        if row.insert("application_token_sha256".into(), json!(Fingerprint::of(token))).is_some() {
            return Err("it has both `application_token` and `application_token_sha256`".into());
        }
    }
    row.insert("command".into(), "import".into());
    row.insert("app".into(), app.as_str().into());
    let line = Value::Object(row).to_string();
    parse_command(&line)?;
    Ok(line)
}

async fn send(query: &mut Query, commands: &[String]) -> anyhow::Result<()> {
    let bar = bar(commands.len() as u64, "{bar:40} {pos}/{len} installations, {per_sec}{msg}");
    let mut last_of_partitions = BTreeMap::new();
    for lines in commands.chunks(LINES_AT_ONCE) {
        let body = Bytes::from(lines.join("\n"));
        let answer = query.post("/v1/commands", query::NDJSON, body).await?;
        let last = answer["last_of_partitions"].as_object().into_iter().flatten();
        last_of_partitions.extend(last.map(|(partition, id)| (partition.clone(), id.clone())));
        bar.inc(lines.len() as u64);
    }
    bar.set_message(", until they are folded");
    let began = Instant::now();
    for last in last_of_partitions.values().filter_map(Value::as_str) {
        while let Err(error) = query.get("/v1/installations", &wait_for(last)).await {
            let is_late = began.elapsed() >= FOLDED_PATIENCE;
            if is_late || !matches!(&error, QueryError::Problem { title, .. } if title == NOT_YET) {
                return Err(error)
                    .context("all are accepted, but not known to be folded yet; to import again is harmless");
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn wait_for(last: &str) -> [(&'static str, Option<&str>); 3] {
    [("limit", Some("1")), ("after", Some(last)), ("wait", Some(FOLDED_WITHIN))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> (Vec<Value>, Vec<String>) {
        let app = AppName::parse("crm-sync").expect("a name");
        let (commands, mistakes) = read(text, &app).expect("read");
        (commands.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect(), mistakes)
    }

    #[test]
    fn a_list_is_read_as_csv_and_as_json_and_tokens_stay_here() {
        let expected = json!({ "command": "import", "app": "crm-sync", "member_id": "a223", "domain": "firma.bitrix24.ru",
            "application_token_sha256": Fingerprint::of("t0ken") });
        for text in [
            "member_id,application_token,domain\na223,t0ken,firma.bitrix24.ru\n",
            "\u{feff}Member_Id;application_token;domain;version\r\n\"a223\"; t0ken ;firma.bitrix24.ru;\r\n",
            "{\"member_id\":\"a223\",\"application_token\":\"t0ken\",\"domain\":\"firma.bitrix24.ru\",\"version\":null}\n\n",
        ] {
            assert_eq!(read_all(text), (vec![expected.clone()], vec![]), "{text}");
        }
    }

    #[test]
    fn every_wrong_line_is_named_and_no_value_is_repeated() {
        let text = "member_id,application_token,domain\na223,secret1,a.b\na/b,secret2,a.b\na224,,a.b\na225,secret3\n";
        let (commands, mistakes) = read_all(text);
        assert_eq!(commands.len(), 1);
        let lines: Vec<&str> = mistakes.iter().map(|mistake| &mistake[..7]).collect();
        assert_eq!(lines, ["line 3:", "line 4:", "line 5:"], "{mistakes:?}");
        assert!(mistakes.iter().all(|mistake| !mistake.contains("secret")), "{mistakes:?}");
        let app = AppName::parse("crm-sync").expect("a name");
        assert!(read("member,token\na,b\n", &app).is_err_and(|error| error.to_string().contains("`member`")));
        assert!(read("", &app).is_err());
    }
}
