//! Forms, read by us and by PHP: both see the same fields, whatever the body is.
//!
//! All fields are compared, byte for byte; what is not UTF-8 is compared as we show it, with U+FFFD. JSON is left out,
//! of which PHP makes no form. `HOOKLEDGER_TEST_BODIES` says how many bodies, `HOOKLEDGER_TEST_SEED` from which number on.

use std::collections::BTreeMap;
use std::thread;

use bitrix24::form::Form;
use tests::random::{Rng, number, seed};
use tests::wait::{not_run, report};

use self::interpreter::{Fields, Interpreter, Server};

#[path = "php/bodies.rs"]
mod bodies;
#[path = "php/interpreter.rs"]
mod interpreter;

/// In CI; more by hand.
const BODIES: u64 = 200_000;
/// So many go through a whole web server.
const POSTS: u64 = 2_000;
/// As many fields as there may be in a body.
const FIELDS_MAX: u32 = 1_000_000;
/// What a scan looks at.
const HEAD: [&str; 4] = ["event", "ts", "auth[member_id]", "member_id"];

#[test]
fn php_sees_the_same_fields_in_every_body() {
    if let Some(why) = interpreter::missing() {
        return not_run("forms as PHP reads them", why);
    }
    let (seed, count, honest) = (seed(), number("HOOKLEDGER_TEST_BODIES").unwrap_or(BODIES), bodies::honest());
    let mut php = Interpreter::start(FIELDS_MAX);
    let (mut input, mut output) = php.ends();
    let drawn = |nth: u64| bodies::body(&honest, &mut Rng::with_seed(seed.wrapping_add(nth)));
    let (mut fields, mut with_member, mut different) = (0, 0, None);
    thread::scope(|scope| {
        scope.spawn(move || (0..count).try_for_each(|nth| interpreter::ask(&mut input, &drawn(nth))));
        for nth in 0..count {
            let (body, seen) = (drawn(nth), interpreter::answer(&mut output));
            fields += seen.len();
            with_member += usize::from(seen.contains_key(&b"auth[member_id]"[..]));
            if difference(&body, &seen).is_some() {
                different = Some((body, seed.wrapping_add(nth)));
                // Questions that are still open end with it.
                drop(php);
                break;
            }
        }
    });
    if let Some((body, seed)) = different {
        complain(&body, seed);
    }
    report(&format!("php and we agree on {count} bodies with {fields} fields, {with_member} of them with a member_id"));
    let enough = usize::try_from(count / 10).expect("a count");
    assert!(fields > enough && with_member > enough, "bodies say too little to compare anything");
}

#[test]
fn a_handler_in_php_finds_the_same_fields_in_a_post() {
    if let Some(why) = interpreter::missing() {
        return not_run("forms as PHP's web server reads them", why);
    }
    let (seed, honest, server) = (seed(), bodies::honest(), Server::start());
    for nth in 0..POSTS {
        let body = bodies::body(&honest, &mut Rng::with_seed(seed.wrapping_add(nth)));
        let found = difference(&body, &server.post(&body));
        assert_eq!(found, None, "HOOKLEDGER_TEST_SEED={} {}", seed.wrapping_add(nth), body.escape_ascii());
    }
}

#[test]
fn beyond_a_thousand_fields_php_stops_unless_told_otherwise_and_we_read_on() {
    if let Some(why) = interpreter::missing() {
        return not_run("many fields as PHP reads them", why);
    }
    let named = |nth: u32| format!("n{nth}=x");
    let many = (0..1_500).map(named).chain(["event=late".to_owned()]).collect::<Vec<_>>().join("&");
    assert_eq!(interpreter::parse_str(many.as_bytes(), 1_000).len(), 1_000);
    assert_eq!(difference(many.as_bytes(), &interpreter::parse_str(many.as_bytes(), FIELDS_MAX)), None);
    assert_eq!(Form::scan(many.as_bytes()).text("event"), Some("late"));
}

/// What differs between our reading and PHP's, if anything.
fn difference(body: &[u8], php: &Fields) -> Option<String> {
    // We leave out a byte order mark and line breaks at the end; what is left is read as PHP reads it.
    let is_mended = body.starts_with(b"\xef\xbb\xbf") || body.ends_with(b"\n") || body.ends_with(b"\r");
    let (whole, scanned) = if is_mended {
        (Form::parse_query(body), Form::scan_query(body))
    } else {
        (Form::parse(body), Form::scan(body))
    };
    let ours = whole.flat();
    if body.trim_ascii_start().starts_with(b"{") && ours.keys().next().is_some_and(|name| !name.starts_with('{')) {
        return None;
    }
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let php: BTreeMap<String, String> = php.iter().map(|(name, value)| (text(name), text(value))).collect();
    let head = HEAD.iter().find(|name| scanned.text(name) != php.get(**name).map(String::as_str));
    match head {
        Some(name) => Some(format!("a scan finds {:?} in {name}, PHP {:?}", scanned.text(name), php.get(*name))),
        None => (ours != php).then(|| format!("we see {ours:?}, PHP {php:?}")),
    }
}

/// Fails with the smallest body that still shows the difference.
fn complain(body: &[u8], seed: u64) -> ! {
    let differs = |body: &[u8]| difference(body, &interpreter::parse_str(body, FIELDS_MAX));
    let mut least = body.to_vec();
    let mut step = least.len().div_ceil(2);
    while step > 0 {
        let mut at = 0;
        while at < least.len() {
            let shorter = [&least[..at], &least[(at + step).min(least.len())..]].concat();
            if differs(&shorter).is_some() { least = shorter } else { at += step }
        }
        step /= 2;
    }
    let how = differs(&least).or_else(|| differs(body));
    panic!(
        "HOOKLEDGER_TEST_SEED={seed}: in {}, {}",
        least.escape_ascii(),
        how.as_deref().unwrap_or("something differed once")
    );
}
