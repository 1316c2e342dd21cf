//! Text for a terminal: characters that a terminal obeys, or that hide or reorder others, are shown as escapes.
//!
//! Domains, methods, names of events and errors come from portals and servers that we do not control. Everything
//! that Hookledger prints or logs goes through [`lines`], [`line`] or [`json`].

use std::fmt::Write;

/// Unicode's format characters (general category Cf, Unicode 16), and the two separators that break a line (Zl, Zp).
/// The test `the_table_has_what_the_standard_library_calls_unprintable` compares it with the standard library.
const FORMAT_CHARACTERS: [(char, char); 20] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// A line break is shown as `\n`.
pub fn line(text: &str) -> String {
    escaped(text, |_| false, as_rust)
}

/// Line breaks stay, everything else is as in [`line`].
pub fn lines(text: &str) -> String {
    escaped(text, |char| char == '\n', as_rust)
}

/// One document a line. The meaning stays, since the escapes are JSON's own.
pub fn json(text: &str) -> String {
    escaped(text, |char| char == '\n', as_json)
}

/// Whether a terminal might obey it, hide it, or reorder its neighbours.
fn is_hidden(char: char) -> bool {
    char.is_control() || FORMAT_CHARACTERS.iter().any(|(first, last)| (*first..=*last).contains(&char))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool, escape: impl Fn(&mut String, char)) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if is_hidden(char) && !stays(char) {
            escape(&mut shown, char);
        } else {
            shown.push(char);
        }
    }
    shown
}

fn as_rust(shown: &mut String, char: char) {
    shown.extend(char.escape_default());
}

fn as_json(shown: &mut String, char: char) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        write!(shown, "\\u{unit:04x}").expect("a String takes all");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_obeys_or_hides_is_shown_as_an_escape() {
        for (given, shown) in [
            ("crm.deal.list", "crm.deal.list"),
            ("Сделка № 7, 合同, naïve, 👍", "Сделка № 7, 合同, naïve, 👍"),
            ("evil\x1b[2J\x07", r"evil\u{1b}[2J\u{7}"),
            ("\u{9b}31m, \u{7f}", r"\u{9b}31m, \u{7f}"),
            ("a\r\n\tb", r"a\r\n\tb"),
            ("moc.\u{202e}evil\u{2066}", r"moc.\u{202e}evil\u{2066}"),
            ("zero\u{200b}\u{200d}\u{feff}width\u{ad}", r"zero\u{200b}\u{200d}\u{feff}width\u{ad}"),
            ("two\u{2028}lines\u{2029}", r"two\u{2028}lines\u{2029}"),
            ("tag\u{e0041}", r"tag\u{e0041}"),
        ] {
            assert_eq!(line(given), shown, "{given:?}");
        }
        assert_eq!(lines("one\ntwo\r\n"), "one\ntwo\\r\n");
    }

    #[test]
    fn json_means_the_same_as_before() {
        let document = serde_json::json!({ "de\u{202e}mo": ["\u{9b}2J", "\x1b[2J", "\u{e0041}", "\u{7f}", "№"] });
        let shown = json(&document.to_string());
        assert!(!shown.chars().any(is_hidden), "{shown}");
        assert!(shown.contains(r"\udb40\udc41") && shown.contains('№'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), document);
    }

    #[test]
    fn the_table_has_what_the_standard_library_calls_unprintable() {
        // Debug escapes what cannot be printed, which is more than format characters: unassigned ones, and spaces.
        let unprintable = |char: char| format!("{:?}", format!("a{char}")).starts_with("\"a\\u");
        for (first, last) in FORMAT_CHARACTERS {
            assert!((first..=last).all(unprintable), "{first:?} to {last:?}");
        }
        let general_punctuation = ('\u{2000}'..='\u{206f}').filter(|char| !char.is_whitespace());
        for char in general_punctuation.filter(|char| unprintable(*char)) {
            assert!(is_hidden(char), "{char:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_hidden_is_left_and_once_is_enough(text in any::<String>()) {
            for shown in [line(&text), lines(&text), json(&text)] {
                prop_assert!(!shown.chars().any(|char| is_hidden(char) && char != '\n'));
                prop_assert_eq!(line(&shown.replace('\n', "")), shown.replace('\n', ""));
            }
        }
    }
}
