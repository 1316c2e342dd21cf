//! Attacks that no list has: their parts, sizes, numbers and mixes are drawn from a seed.

use std::ops::RangeInclusive;

use fastrand::Rng;

use super::{APP, Act, Aim, Attack, Door, LARGE_BYTES, event, json_event, question, to_app};
use crate::flood::{Flood, Request};
use crate::http::FORM;
use crate::random::pick;
use crate::swarm::Behaviour;

const KINDS: [&str; 9] = [
    "ONAPPINSTALL",
    "ONAPPINSTALL",
    "ONAPPUNINSTALL",
    "ONAPPUPDATE",
    "ONAPPPAYMENT",
    "ONAPPUSERREADY",
    "ONAPPMETHODCONFIRM",
    "ONCRMCONTACTADD",
    "ONX",
];
/// What is asked, with `{}` for a portal.
const QUESTIONS: [&str; 8] = [
    "/",
    "/v1/installations?limit=1000",
    "/v1/installations?status=installed&domain=missing",
    "/v1/installations?silent_for=1d&limit=1000",
    "/v1/installations/crm-sync/{}",
    "/v1/installations/crm-sync/{}/methods",
    "/v1/installations/crm-sync/{}/history?limit=1000",
    "/v1/installations/crm-sync/{}?after=00000000-0000-7000-8000-000000000000&wait=30s",
];

/// Draws an attack of one to three parts.
pub fn attack(random: &mut Rng, aim: &Aim) -> Attack {
    let (mut acts, mut names) = (Vec::new(), Vec::new());
    for _ in 0..random.usize(1..=3) {
        let (name, door, act) = match random.u8(..10) {
            0 => held(random, aim),
            1 => asked(random, aim),
            _ => sent(random, aim),
        };
        names.push(name);
        acts.push((door, act));
    }
    Attack { name: names.join(", and "), acts, before: None }
}

/// Webhooks of made-up portals.
fn sent(random: &mut Rng, aim: &Aim) -> (String, Door, Act) {
    let members = logarithmic(random, 1..=20_000);
    let tokens = logarithmic(random, 1..=2_000);
    let bytes = logarithmic(random, 10..=LARGE_BYTES as u64);
    let requests_max = logarithmic(random, 500..=100_000);
    let kinds: Vec<&str> = (0..random.usize(1..=4)).map(|_| *pick(random, &KINDS.each_ref())).collect();
    let filler = random.u8(..8);
    let (json, to_known) = (random.bool(), random.u8(..8) == 0);
    let clients = random.usize(1..=8);
    let name = format!(
        "{clients} clients send {requests_max} events {kinds:?} of {members} members and {tokens} tokens, {bytes} bytes \
         of filler {filler}, json {json}, known members {to_known}"
    );
    let (seed, aim) = (random.u64(..), aim.clone());
    let filler = Filler { kind: filler, bytes: usize::try_from(bytes).expect("small") };
    let make = move |number: u64| {
        let mut random = Rng::with_seed(seed ^ number);
        let member = if to_known {
            aim.honest[random.usize(..aim.honest.len())].clone()
        } else {
            aim.member(random.u64(..members))
        };
        let token = aim.token(random.u64(..tokens));
        let kind = kinds[random.usize(..kinds.len())];
        filler.request(&mut random, kind, &member, &token, json)
    };
    (name, Door::Webhooks, Act::Flood(Flood { clients, requests_max, ..Flood::of(make) }))
}

/// Questions, one after the other.
fn asked(random: &mut Rng, aim: &Aim) -> (String, Door, Act) {
    let (path, clients) = (*pick(random, &QUESTIONS.each_ref()), random.usize(1..=8));
    let path = path.replace("{}", &aim.member(0)).replace("30s", "50ms");
    let name = format!("{clients} clients ask {path}");
    let make = move |_| question(path.clone());
    (name, Door::Questions, Act::Flood(Flood { clients, ..Flood::of(make) }))
}

/// Connections that are held.
fn held(random: &mut Rng, aim: &Aim) -> (String, Door, Act) {
    let count = usize::try_from(logarithmic(random, 10..=2_000)).expect("small");
    let path = pick(random, &QUESTIONS.each_ref()).replace("{}", &aim.member(0));
    let (door, webhooks) = if random.bool() { (Door::Questions, false) } else { (Door::Webhooks, true) };
    let path = if webhooks { format!("/v1/events/{APP}") } else { path };
    let (opening, drip) = match random.u8(..4) {
        0 => (format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").repeat(random.usize(1..40)), String::new()),
        1 => {
            (format!("POST {path} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"), "1\r\nx\r\n".to_owned())
        }
        2 => (format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: 60000\r\n\r\n"), "x".to_owned()),
        _ => (format!("GET {path} HTTP/1.1\r\n"), "x: y\r\n".to_owned()),
    };
    let reads = random.bool();
    let first: String = opening.chars().take(100).collect();
    let name = format!("{count} connections at {door:?} say {first:?}… and then {drip:?}, reading {reads}");
    let behaviour = Behaviour { opening: opening.into(), drip: drip.into(), reads, steps_max: usize::MAX };
    (name, door, Act::Hold(count, vec![behaviour]))
}

/// Between two numbers, each order of magnitude as likely as the others.
fn logarithmic(random: &mut Rng, between: RangeInclusive<u64>) -> u64 {
    let bits = |number: u64| u64::BITS - number.leading_zeros();
    let bits = random.u32(bits(*between.start())..=bits(*between.end()));
    let top = 1_u64.checked_shl(bits).unwrap_or(u64::MAX);
    random.u64(top / 2..top).clamp(*between.start(), *between.end())
}

/// What makes a body large.
#[derive(Clone, Copy)]
struct Filler {
    kind: u8,
    bytes: usize,
}

impl Filler {
    fn request(self, random: &mut Rng, kind: &str, member: &str, token: &str, json: bool) -> Request {
        let number = random.u64(..50_000);
        if json {
            let list = |item: &str| format!("[{}]", vec![item; (self.bytes / (item.len() + 1)).max(1)].join(","));
            let filler = match self.kind {
                0 => list("1"),
                1 => list("1e9"),
                2 => list(r#"{"":0}"#),
                3 => list("[[[]]]"),
                4 => list(r#""\u0001""#),
                5 => format!(r#"{{"token":{}}}"#, list("null")),
                6 => format!(r#"{{"token":{}}}"#, list("1")),
                _ => list(r#""x""#),
            };
            let data = format!(
                r#"{{"VERSION":{number},"CONFIRMED":1,"METHOD":"m{}","TOKEN":"{number:020}","STATUS":"P","X":{filler}}}"#,
                number % 9
            );
            return json_event(kind, member, token, &data);
        }
        let filler = match self.kind {
            0 => "\u{1}".repeat(self.bytes),
            1 => "%01".repeat(self.bytes / 3),
            2 => format!("&data{}=", "[]".repeat(63)).repeat(self.bytes / 140),
            3 => "&data[a]=1&data=2".repeat(self.bytes / 17),
            4 => "&data[token][]=".repeat(self.bytes / 15),
            5 => "&data[X][]=1".repeat(self.bytes / 12),
            6 => format!("&auth[scope]={}", "a,".repeat(self.bytes / 2)),
            _ => "x".repeat(self.bytes),
        };
        if random.u8(..50) == 0 {
            // Now and then what is no event at all.
            return to_app(APP, FORM, filler.into_bytes());
        }
        let data = format!(
            "&data[VERSION]={number}&data[CONFIRMED]=1&data[METHOD]=m{}&data[TOKEN]={number:020}&data[STATUS]=P&data[X]={filler}",
            number % 9
        );
        event(kind, member, token, &data)
    }
}
