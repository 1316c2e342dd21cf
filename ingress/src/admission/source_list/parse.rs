//! Parses a list: Bitrix24's JSON, or plain lines. It is valid as a whole or not at all.

use anyhow::{Context, anyhow, bail, ensure};
use serde_json::Value;

use http_edge::networks::Networks;

const SHOWN_CHARS_MAX: usize = 60;

/// The networks of a list, and its number of entries.
///
/// `{"nodes": ["3.217.33.54", …]}`, an array alone, or a line for each entry with `#` before comments.
/// An entry is an address or a network. Any other entry makes the list invalid: its meaning is unknown, and a sender
/// missing from the list would be refused.
pub fn parse(bytes: &[u8]) -> anyhow::Result<(Networks, usize)> {
    let text = std::str::from_utf8(bytes).context("it is not UTF-8")?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let entries = if text.starts_with(['{', '[']) { of_json(text)? } else { of_lines(text) };
    ensure!(!entries.is_empty(), "it is empty");
    let networks = Networks::parse(entries.iter().map(String::as_str)).map_err(|wrong| {
        let shown: String = wrong.chars().take(SHOWN_CHARS_MAX).collect();
        anyhow!("`{}` is neither an address nor a network", shown.escape_debug())
    })?;
    Ok((networks, entries.len()))
}

fn of_json(text: &str) -> anyhow::Result<Vec<String>> {
    let value: Value = serde_json::from_str(text).context("it is no JSON")?;
    let nodes = value.get("nodes").unwrap_or(&value);
    let Value::Array(nodes) = nodes else { bail!("it has no `nodes`, and is no array") };
    let text = |node: &Value| node.as_str().map(|text| text.trim().to_owned());
    nodes.iter().map(text).collect::<Option<_>>().context("not all of its nodes are texts")
}

fn of_lines(text: &str) -> Vec<String> {
    let line = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
    text.lines().map(line).filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_may_be_bitrix24s_json_or_plain_lines() {
        for (list, entries) in [
            (r#"{"nodes":["3.217.33.54","52.29.163.104"]}"#, 2),
            ("\u{feff} {\"nodes\": [\"3.217.33.54\"], \"updated\": 5}\n", 1),
            (r#"["3.217.33.54", "2001:db8::/32"]"#, 2),
            ("# ours\r\n3.217.33.54 # the first\r\n\r\n52.29.163.0/24", 2),
        ] {
            let (networks, count) = parse(list.as_bytes()).expect("a list");
            assert_eq!(count, entries, "{list}");
            assert!(networks.contains([3, 217, 33, 54].into()) && !networks.contains([3, 217, 33, 53].into()));
        }
    }

    #[test]
    fn garbage_is_no_list() {
        for (garbage, why) in [
            ("", "empty"),
            ("# nothing yet\n", "empty"),
            (r#"{"nodes":[]}"#, "empty"),
            ("[]", "empty"),
            (r#"{"nodes":["3.217.33.54","#, "no JSON"),
            (r#"{"nodes":{}}"#, "no `nodes`"),
            (r#"{"addresses":["3.217.33.54"]}"#, "no `nodes`"),
            (r#"{"nodes":["3.217.33.54",5]}"#, "not all"),
            (r#"{"nodes":["3.217.33.54","dl.bitrix24.com"]}"#, "`dl.bitrix24.com` is neither"),
            ("<html><title>Log in</title></html>", "`<html>"),
            ("3.217.33.54\n3.217.33", "`3.217.33` is neither"),
            ("3.217.33.54, 52.29.163.104", "is neither"),
        ] {
            let error = parse(garbage.as_bytes()).expect_err(garbage);
            assert!(format!("{error:#}").contains(why), "{garbage}: {error:#}");
        }
        assert!(parse(b"3.217.33.54\n\xff").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn every_address_of_a_list_is_in_it(addresses in prop::collection::vec(any::<[u8; 4]>(), 1..50)) {
            let texts: Vec<_> = addresses.iter().map(|address| std::net::IpAddr::from(*address).to_string()).collect();
            let json = serde_json::json!({ "nodes": texts }).to_string();
            for list in [json, texts.join("\n")] {
                let (networks, count) = parse(list.as_bytes()).expect("a list");
                prop_assert_eq!(count, addresses.len());
                prop_assert!(addresses.iter().all(|address| networks.contains((*address).into())));
            }
        }
    }
}
