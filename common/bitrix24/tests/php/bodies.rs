//! Bodies that a portal, a mistaken program or an attacker might send, each drawn from a number of its own.

use std::fs;
use std::path::Path;

use tests::random::{Rng, pick};

/// The recorded bodies of `tests/payloads`.
pub fn honest() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/payloads");
    let mut paths: Vec<_> = dir.read_dir().expect("payloads").map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "form"));
    paths.sort();
    let bodies: Vec<_> = paths.iter().map(|path| fs::read(path).expect("a payload")).collect();
    assert!(bodies.len() > 10, "the payloads have moved");
    bodies
}

const BASES: [&str; 16] = [
    "event",
    "ts",
    "auth",
    "auth",
    "auth",
    "member_id",
    "data",
    "a",
    "EVENT",
    "Auth",
    "event ",
    "_",
    "au.th",
    "0",
    "7",
    "a]b",
];
const KEYS: [&str; 24] = [
    "member_id",
    "member_id",
    "application_token",
    "domain",
    "",
    "",
    "x",
    "METHOD",
    "0",
    "1",
    "7",
    "07",
    "-5",
    "-0",
    "+3",
    "9223372036854775807",
    "9223372036854775806",
    "9223372036854775808",
    "-9223372036854775808",
    "member.id",
    " member_id",
    "member_id ",
    "a[b",
    "member[id",
];
const VALUES: [&str; 12] =
    ["", "ONAPPINSTALL", "a223c6b3", "1696527000", "x y", "a+b", "%41%zz%4", "%", "%00", "%ff%fe", "%C3%A9", "=a=b"];
/// What may stand anywhere.
const SIGNS: [&[u8]; 34] = [
    b"[",
    b"]",
    b"[",
    b"]",
    b"[]",
    b"[[",
    b"]]",
    b"&",
    b"&&",
    b"=",
    b"%",
    b"+",
    b" ",
    b".",
    b";",
    b"\0",
    b"%00",
    b"\xff",
    b"\xc3\xa9",
    b"\xef\xbb\xbf",
    b"%5B",
    b"%5D",
    b"%5b",
    b"%5d",
    b"%3D",
    b"%26",
    b"%2",
    b"%g1",
    b"%20",
    b"%2E",
    b"%09",
    b"\t",
    b"\n",
    b"m",
];

/// The body of this number.
pub fn body(honest: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut body = match random.usize(..40) {
        0..10 => honest[random.usize(..honest.len())].clone(),
        10..36 => fields(random, 12).join(&b'&'),
        36..39 => signs(random, 60),
        _ => large(random),
    };
    if random.usize(..3) > 0 {
        for _ in 0..=random.usize(..4) {
            harm(&mut body, random);
        }
    }
    body
}

fn fields(random: &mut Rng, max: usize) -> Vec<Vec<u8>> {
    (0..=random.usize(..max)).map(|_| field(random)).collect()
}

fn field(random: &mut Rng) -> Vec<u8> {
    let mut field = pick(random, &[" ", "+", ".", "%20", "", "", "", "", "", "", "", ""]).as_bytes().to_vec();
    field.extend(pick(random, &BASES).bytes());
    for _ in 0..random.usize(..4) {
        let (open, close) =
            pick(random, &[&("[", "]"), &("[", "]"), &("[", "]"), &("%5B", "%5D"), &("[", ""), &("", "]")]);
        let key: &str = pick(random, &KEYS);
        field.extend([*open, key, *close].concat().bytes());
        if random.usize(..12) == 0 {
            field.extend(pick(random, &SIGNS));
        }
    }
    if random.usize(..10) > 0 {
        field.push(b'=');
        field.extend(pick(random, &VALUES).bytes());
    }
    field
}

fn signs(random: &mut Rng, max: usize) -> Vec<u8> {
    let sign = |random: &mut Rng| {
        if random.usize(..4) == 0 { pick(random, &BASES).as_bytes() } else { pick(random, &SIGNS) }
    };
    (0..random.usize(..max)).flat_map(|_| sign(random)).copied().collect()
}

/// Very deep, very long, or very many.
fn large(random: &mut Rng) -> Vec<u8> {
    let mut body = fields(random, 3);
    let base = pick(random, &["auth", "event", "a", "auth[member_id]", "auth[9223372036854775807]=1&auth[]"]);
    let key = pick(random, &["[]", "[a]", "[member_id]", "[0]", "[", "]", "[ ]"]);
    body.push(match random.usize(..8) {
        0..5 => [base, &*key.repeat(60 + random.usize(..10)), "=1"].concat().into_bytes(),
        5 => [base, &*"x.[".repeat(random.usize(..3_000)), "=1"].concat().into_bytes(),
        6 => vec![b'x'; random.usize(..60_000)],
        _ => fields(random, 2_000).join(&b'&'),
    });
    body.extend(fields(random, 3));
    body.join(&b'&')
}

/// Changes something small somewhere.
fn harm(body: &mut Vec<u8>, random: &mut Rng) {
    let at = random.usize(..=body.len());
    let split = |body: &[u8]| body.split(|byte| *byte == b'&').map(<[u8]>::to_vec).collect::<Vec<_>>();
    match random.usize(..12) {
        0..4 => _ = body.splice(at..at, pick(random, &SIGNS).iter().copied()),
        4 => body.truncate(at),
        5 => _ = body.drain(at..(at + random.usize(..4)).min(body.len())),
        6 if at < body.len() => {
            let encoded = format!("%{:02x}", body[at]).into_bytes();
            body.splice(at..=at, encoded);
        }
        7 if at < body.len() => body[at] ^= 0x20,
        8 if at < body.len() => body[at] = random.u8(..),
        9 => {
            let mut fields = split(body);
            let again = fields[random.usize(..fields.len())].clone();
            fields.insert(random.usize(..=fields.len()), again);
            *body = fields.join(&b'&');
        }
        10 => _ = body.splice(0..0, *b"\xef\xbb\xbf"),
        _ => {
            let mut fields = split(body);
            fields.insert(random.usize(..=fields.len()), field(random));
            *body = fields.join(&b'&');
        }
    }
}
