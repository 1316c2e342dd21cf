//! Bodies that a portal, a mistaken program or somebody hostile might send, each drawn from a number of its own.

use std::fs;
use std::path::Path;

use tests::random::Random;

/// The recorded bodies of `tests/payloads`.
pub fn honest() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/payloads");
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
pub fn body(honest: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut body = match random.below(40) {
        0..10 => honest[random.below(honest.len())].clone(),
        10..36 => fields(random, 12).join(&b'&'),
        36..39 => signs(random, 60),
        _ => large(random),
    };
    if !random.one_in(3) {
        for _ in 0..=random.below(4) {
            harm(&mut body, random);
        }
    }
    body
}

fn fields(random: &mut Random, max: usize) -> Vec<Vec<u8>> {
    (0..=random.below(max)).map(|_| field(random)).collect()
}

fn field(random: &mut Random) -> Vec<u8> {
    let mut field = random.pick(&[" ", "+", ".", "%20", "", "", "", "", "", "", "", ""]).as_bytes().to_vec();
    field.extend(random.pick(&BASES).bytes());
    for _ in 0..random.below(4) {
        let (open, close) =
            random.pick(&[&("[", "]"), &("[", "]"), &("[", "]"), &("%5B", "%5D"), &("[", ""), &("", "]")]);
        let key: &str = random.pick(&KEYS);
        field.extend([*open, key, *close].concat().bytes());
        if random.one_in(12) {
            field.extend(random.pick(&SIGNS));
        }
    }
    if !random.one_in(10) {
        field.push(b'=');
        field.extend(random.pick(&VALUES).bytes());
    }
    field
}

fn signs(random: &mut Random, max: usize) -> Vec<u8> {
    let sign = |random: &mut Random| {
        if random.one_in(4) { random.pick(&BASES).as_bytes() } else { random.pick(&SIGNS) }
    };
    (0..random.below(max)).flat_map(|_| sign(random)).copied().collect()
}

/// Very deep, very long, or very many.
fn large(random: &mut Random) -> Vec<u8> {
    let mut body = fields(random, 3);
    let base = random.pick(&["auth", "event", "a", "auth[member_id]", "auth[9223372036854775807]=1&auth[]"]);
    let key = random.pick(&["[]", "[a]", "[member_id]", "[0]", "[", "]", "[ ]"]);
    body.push(match random.below(8) {
        0..5 => [base, &*key.repeat(60 + random.below(10)), "=1"].concat().into_bytes(),
        5 => [base, &*"x.[".repeat(random.below(3_000)), "=1"].concat().into_bytes(),
        6 => vec![b'x'; random.below(60_000)],
        _ => fields(random, 2_000).join(&b'&'),
    });
    body.extend(fields(random, 3));
    body.join(&b'&')
}

/// Changes something small somewhere.
fn harm(body: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(body.len() + 1);
    let split = |body: &[u8]| body.split(|byte| *byte == b'&').map(<[u8]>::to_vec).collect::<Vec<_>>();
    match random.below(12) {
        0..4 => _ = body.splice(at..at, random.pick(&SIGNS).iter().copied()),
        4 => body.truncate(at),
        5 => _ = body.drain(at..(at + random.below(4)).min(body.len())),
        6 if at < body.len() => {
            let encoded = format!("%{:02x}", body[at]).into_bytes();
            body.splice(at..=at, encoded);
        }
        7 if at < body.len() => body[at] ^= 0x20,
        8 if at < body.len() => body[at] = u8::try_from(random.below(256)).expect("a byte"),
        9 => {
            let mut fields = split(body);
            let again = fields[random.below(fields.len())].clone();
            fields.insert(random.below(fields.len() + 1), again);
            *body = fields.join(&b'&');
        }
        10 => _ = body.splice(0..0, *b"\xef\xbb\xbf"),
        _ => {
            let mut fields = split(body);
            fields.insert(random.below(fields.len() + 1), field(random));
            *body = fields.join(&b'&');
        }
    }
}
