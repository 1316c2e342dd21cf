//! Human-readable output: lines and aligned columns, without terminal escapes.
//!
//! [`show`] is the only way to stdout and stderr for all commands, so that no text of a portal or a server
//! bypasses [`primitives::plain`].

use std::fmt::Write as _;
use std::io::{self, Write};
use std::iter;

use clap::ArgMatches;
use indicatif::{ProgressBar, ProgressStyle};
use primitives::plain;
use serde_json::{Value, json};

pub fn print(text: &str) -> anyhow::Result<()> {
    show(io::stdout().lock(), &plain::lines(text))?;
    Ok(())
}

pub fn print_json(document: &Value) -> anyhow::Result<()> {
    print_json_live(document).map(drop)
}

/// Prints a line of something that goes on. Returns whether anybody reads it.
pub fn print_live(line: &str) -> anyhow::Result<bool> {
    Ok(show(io::stdout().lock(), &format!("{}\n", plain::line(line)))?)
}

/// As [`print_live`], for programs.
pub fn print_json_live(document: &Value) -> anyhow::Result<bool> {
    Ok(show(io::stdout().lock(), &plain::json(&format!("{document}\n")))?)
}

pub fn complain(line: &str) {
    // A closed stderr cannot be reported anywhere.
    let _ = show(io::stderr().lock(), &format!("{}\n", plain::line(line)));
}

/// A reader that has gone, as `head` does, is no failure. Returns whether it is there.
fn show(mut to: impl Write, harmless: &str) -> io::Result<bool> {
    match to.write_all(harmless.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        shown => Ok(shown.is_ok()),
    }
}

/// One page of a list, as JSON or as rows of these columns, and how to get the next.
pub fn print_page<const N: usize>(
    as_json: bool,
    columns: [&str; N],
    items: &[Value],
    next: Option<&str>,
) -> anyhow::Result<()> {
    if as_json {
        return print_json(&json!({ "items": items, "next": next }));
    }
    print(&table_of(columns, items))?;
    if let Some(next) = next {
        complain(&format!("There are more: --cursor {next}"));
    }
    Ok(())
}

/// The answer to a question, as JSON or as one line.
pub fn print_answer(arguments: &ArgMatches, answer: &Value, line: impl FnOnce() -> String) -> anyhow::Result<()> {
    if arguments.get_flag("json") { print_json(answer) } else { print(&(line() + "\n")) }
}

/// A row for each item, with its fields of these names.
pub fn table_of<const N: usize>(columns: [&str; N], items: &[Value]) -> String {
    table(columns, items.iter().map(|item| columns.map(|column| shown(&item[column]))))
}

pub fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = iter::once(header.map(str::to_owned)).chain(rows).map(|row| row.to_vec()).collect();
    aligned(&rows)
}

pub fn row(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}

/// Shows how far a command is. Hidden by indicatif unless stderr is a terminal.
pub fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    ProgressBar::new(length).with_style(style)
}

/// Each column is as wide as its widest cell, except the last.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain::line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Unknown values are a dash.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name} {}", shown(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["app".into(), "status".into()], vec!["crm-sync".into(), "installed".into()]];
        assert_eq!(aligned(&rows), "app       status\ncrm-sync  installed\n");
    }

    #[test]
    fn a_portal_cannot_command_the_terminal() {
        let rows = [vec!["evil\x1b[2J\n.com".into(), "x".into()], vec!["moc.\u{202e}live\u{200b}".into(), "y".into()]];
        let shown = "evil\\u{1b}[2J\\n.com       x\nmoc.\\u{202e}live\\u{200b}  y\n";
        assert_eq!(aligned(&rows), shown);
        assert_eq!(plain::lines(&aligned(&rows)), shown, "what is harmless stays as it is when it is printed");
    }

    /// A command that prints by itself would come past the one door.
    #[test]
    fn no_command_has_a_way_of_its_own_to_the_terminal() {
        let mut dirs = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut read = 0;
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
                if entry.is_dir() {
                    dirs.push(entry);
                    continue;
                }
                let source = std::fs::read_to_string(&entry).expect("a source");
                let ways = ["println!", "print!(", "eprint", "stdout().", "stderr().", "stdout())", "stderr())"];
                // To ask whether it is a terminal is to print nothing.
                let source = source.replace("stderr().is_terminal()", "").replace("stdout().is_terminal()", "");
                let found = ways.iter().find(|way| source.contains(**way));
                assert!(entry.ends_with("output.rs") || found.is_none(), "{} has {found:?}", entry.display());
                read += 1;
            }
        }
        assert!(read > 10, "only {read} sources were found");
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        assert_eq!(shown(&json!(null)), "-");
        assert_eq!(shown(&json!(["crm", "user"])), "crm, user");
        assert_eq!(shown(&json!({"partition": 3, "offset": 1042})), "offset 1042, partition 3");
    }
}
