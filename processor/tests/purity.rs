//! Reads our own sources: the middle is pure, and each outside library has one room.
//!
//! What is forbidden is looked for in code only: comments and texts in quotes may say what they like.

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

/// The middle: what events mean, and what follows from them.
const PURE: [&str; 2] = ["processor/domain/src", "common/bitrix24/src"];

/// Words that have no business in the middle: I/O, clocks, and what waits. Its `Cargo.toml` keeps libraries out.
const IMPURE: [&str; 13] = [
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "now_v7",
    "async",
    "await",
    "println",
];

/// A library of a crate with more than one room, and the only places that may name it.
const ROOMS: &[(&str, &[&str])] = &[
    ("sled", &["processor/src/state/sled.rs"]),
    ("postcard", &["processor/src/state/codec.rs"]),
    ("base64", &["processor/src/query", "processor/src/vault.rs", "processor/src/vault"]),
    ("hpke", &["processor/src/vault/keys.rs"]),
    ("chacha20poly1305", &["processor/src/vault/keys.rs"]),
    (
        "actix_web",
        &[
            "processor/src/query.rs",
            "processor/src/query",
            "processor/src/main.rs",
            "ingress",
            "common/admin/src",
            "cli/src",
        ],
    ),
    (
        "ureq",
        &[
            "ingress/src/admission/source_list/place.rs",
            "processor/src/vouch/server.rs",
            "processor/src/forward/target.rs",
            "cli/src/doctor/public.rs",
        ],
    ),
    ("rustls", &["ingress/http-edge/src", "ingress/src/server", "cli/src/doctor/certificate.rs"]),
    ("command_fds", &["ingress/src/supervisor.rs"]),
    ("fs4", &["common/disk-log/src/storage/real.rs", "processor/src/run/identity.rs"]),
    (
        "rustix",
        &[
            "common/runtime/src/memory.rs",
            "common/runtime/src/private.rs",
            "ingress/http-edge/src/limits.rs",
            "cli/src/doctor/machine.rs",
        ],
    ),
    // Everyone registers metrics; there is one place where a registry is made.
    ("Registry::new_custom", &["common/runtime/src/telemetry.rs"]),
];

/// The programs. What measures and tests them may use what it likes.
const PROGRAMS: [&str; 5] = ["common", "ingress/http-edge/src", "ingress/src", "processor/src", "cli/src"];

#[test]
fn the_middle_does_no_io_reads_no_clock_and_waits_for_nothing() {
    let files: Vec<PathBuf> = PURE.iter().flat_map(|place| sources(&root().join(place))).collect();
    assert!(files.len() > 10, "the middle has moved: {files:?}");
    let found: Vec<String> = files.iter().flat_map(|file| complaints(file, &IMPURE)).collect();
    assert!(found.is_empty(), "the middle is pure no more:\n{}", found.join("\n"));
}

#[test]
fn each_outside_library_is_named_in_its_room_only() {
    let files: Vec<PathBuf> = PROGRAMS.iter().flat_map(|place| sources(&root().join(place))).collect();
    for &(library, rooms) in ROOMS {
        let rooms: Vec<PathBuf> = rooms.iter().map(|room| root().join(room)).collect();
        let (inside, outside): (Vec<_>, Vec<_>) =
            files.iter().partition(|file| rooms.iter().any(|room| file.starts_with(room)));
        assert!(inside.iter().any(|file| !complaints(file, &[library]).is_empty()), "{library} has left {rooms:?}");
        let found: Vec<String> = outside.into_iter().flat_map(|file| complaints(file, &[library])).collect();
        assert!(found.is_empty(), "{library} is named outside of {rooms:?}:\n{}", found.join("\n"));
    }
}

#[test]
fn what_is_forbidden_is_found_in_code_and_nowhere_else() {
    check("use std::fs;", "std::fs", true);
    check("use std::{collections::BTreeMap, fs};", "std::fs", true);
    check("use std::collections::{BTreeMap};\nlet fs = 1;", "std::fs", false);
    check("let at = Timestamp::now();", "Timestamp::now", true);
    check("let at = primitives::time::Timestamp::now();", "Timestamp::now", true);
    check("fn permits(now: Timestamp) {}", "Timestamp::now", false);
    check("let db = sled::open(dir);", "sled", true);
    check("use crate::store::sled::Sled;\nmod sled;", "sled", false);
    check("// async\nlet text = \"async \\\" async\"; /* async /* async */ */", "async", false);
    check("let one = '\"'; async fn f<'a>() {}", "async", true);
    check("let raw = r#\"a \" async\"#;", "async", false);
    check("let asynchronous = 1;", "async", false);
}

fn check(source: &str, forbidden: &str, is_found: bool) {
    assert_eq!(mentions(&words(source), forbidden), is_found, "{forbidden} in {source}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A file, or all Rust files below a folder.
fn sources(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let entries = fs::read_dir(place).unwrap_or_else(|error| panic!("read {}: {error}", place.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.is_dir() || path.extension().is_some_and(|name| name == "rs"))
        .flat_map(|path| sources(&path))
        .collect()
}

/// The forbidden words that a file's code mentions.
fn complaints(file: &Path, forbidden: &[&str]) -> Vec<String> {
    let source = fs::read_to_string(file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()));
    let words = words(&source);
    let found = forbidden.iter().filter(|forbidden| mentions(&words, forbidden));
    found.map(|forbidden| format!("{} mentions {forbidden}", file.display())).collect()
}

/// Whether code mentions a path such as `std::fs`, or a word at the beginning of a path.
fn mentions(words: &[String], forbidden: &str) -> bool {
    let path: Vec<&str> = forbidden.split("::").collect();
    // A crate begins a path, so that `crate::store::sled` is ours; a type may stand behind any path.
    let is_crate = path[0].starts_with(char::is_lowercase);
    let is_ours = |at: usize| is_crate && at > 0 && matches!(words[at - 1].as_str(), "::" | "mod");
    let is_begun = |at: &usize| words[*at] == path[0] && !is_ours(*at);
    let is_there = |at: usize| match path.get(1) {
        None => true,
        Some(next) => names_below(&words[at + 1..]).any(|name| name == *next),
    };
    (0..words.len()).filter(is_begun).any(is_there)
}

/// The next names of a path: one, or those of a group in braces.
fn names_below(behind: &[String]) -> Box<dyn Iterator<Item = &str> + '_> {
    match behind {
        [colons, brace, group @ ..] if colons == "::" && brace == "{" => {
            let (mut depth, mut before) = (1_usize, ",");
            Box::new(group.iter().map_while(move |word| {
                let begins = depth == 1 && before == ",";
                match word.as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                before = word;
                (depth > 0).then_some(if begins { word.as_str() } else { "" })
            }))
        }
        [colons, name, ..] if colons == "::" => Box::new(iter::once(name.as_str())),
        _ => Box::new(iter::empty()),
    }
}

/// Names, `::` and single signs, without comments and texts.
fn words(source: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => comment(rest),
            '"' => text(rest),
            'r' if raw_text(rest).is_some() => raw_text(rest).unwrap_or(rest.len()),
            '\'' => character(rest),
            _ if is_name(first) => rest.find(|sign| !is_name(sign)).unwrap_or(rest.len()),
            _ if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let word = &rest[..taken];
        if is_name(first) && !word.contains('"') || word == "::" || matches!(first, '{' | '}' | ',' | ';') {
            words.push(word.to_owned());
        }
        rest = &rest[taken..];
    }
    words
}

fn is_name(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_'
}

/// How long a comment is that may hold others.
fn comment(source: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < source.len() {
        let step = match &source[at..] {
            rest if rest.starts_with("/*") => {
                depth += 1;
                2
            }
            rest if rest.starts_with("*/") => {
                depth -= 1;
                2
            }
            rest => rest.chars().next().map_or(1, char::len_utf8),
        };
        at += step;
        if depth == 0 {
            return at;
        }
    }
    source.len()
}

fn text(source: &str) -> usize {
    let mut escaped = false;
    for (at, sign) in source.char_indices().skip(1) {
        match sign {
            '"' if !escaped => return at + 1,
            _ => escaped = sign == '\\' && !escaped,
        }
    }
    source.len()
}

/// How long a text such as `r#"…"#` is, if it is one.
fn raw_text(source: &str) -> Option<usize> {
    let hashes = source[1..].chars().take_while(|sign| *sign == '#').count();
    let inside = source[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + inside.find(&end)? + end.len())
}

/// How long a character such as `'"'` is; a lifetime is its quote alone.
fn character(source: &str) -> usize {
    let mut signs = source.char_indices().skip(1);
    match (signs.next(), signs.next()) {
        (Some((_, '\\')), _) => {
            source[2..].char_indices().skip(1).find(|(_, sign)| *sign == '\'').map_or(1, |(at, _)| at + 3)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
