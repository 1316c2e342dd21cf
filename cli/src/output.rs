//! What people read: lines, aligned columns, and nothing that a terminal would obey.
//!
//! Domains, methods and errors come from portals and servers that we do not control, so control
//! characters never reach the terminal.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;

/// Writes to stdout. A reader that has gone, as `head` does, is no failure.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a JSON document to stdout, for programs.
pub fn print_json(document: &Value) -> anyhow::Result<()> {
    print(&format!("{document}\n"))
}

/// Writes a line to stderr.
pub fn complain(line: &str) {
    // There is nobody left to tell when stderr is gone.
    let _ = writeln!(io::stderr(), "{}", harmless(line));
}

/// Rows as columns, each as wide as its widest cell, the last one as it is.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| harmless(cell)).collect()).collect();
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

/// A value of a document as a person reads it; what is not known is a dash.
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

/// The text without control characters, which a terminal might take for orders.
pub fn harmless(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
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
        assert_eq!(aligned(&[vec!["evil\x1b[2J\n.com".into()]]), "evil\u{fffd}[2J\u{fffd}.com\n");
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        assert_eq!(shown(&json!(null)), "-");
        assert_eq!(shown(&json!(["crm", "user"])), "crm, user");
        assert_eq!(shown(&json!({"partition": 3, "offset": 1042})), "offset 1042, partition 3");
    }
}
