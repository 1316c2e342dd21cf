//! What a stranger can send who knows the URL of one app: attacks as data, each for a bounded time and rate.
//!
//! A stranger invents portals, tokens and apps at will. What it sends is well-formed as far as ingress can tell.
//! Clients that break HTTP itself are those of `swarm` and of `tests/attacks.rs`.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::flood::{Flood, Request};
use crate::http::{FORM, JSON};
use crate::swarm::Behaviour;

pub mod random;

/// The app whose URL the stranger knows.
pub const APP: &str = "crm-sync";
/// The bytes that a stranger adds to a body that it wants to be large, below the default of `body-limit`.
pub const LARGE_BYTES: usize = 60_000;
/// A request with a body of this size is read at once, however many there are.
const SMALL_BYTES: usize = 3_500;

/// Which port is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The one that faces the internet.
    Webhooks,
    /// Questions: on loopback, where a stranger is another user of the machine, or a page in a browser on it.
    Questions,
    /// Health and metrics: the same.
    Admin,
}

/// What is done at a port.
#[derive(Clone)]
pub enum Act {
    /// Requests, each answered before the next.
    Flood(Flood),
    /// So many connections that are held, each behaving in one of these ways.
    Hold(usize, Vec<Behaviour>),
}

/// Everything that is done at once.
#[derive(Clone)]
pub struct Attack {
    /// What it is.
    pub name: String,
    /// What is done where.
    pub acts: Vec<(Door, Act)>,
    /// Before that: sent as fast as it is answered.
    pub before: Option<Flood>,
}

/// What the stranger knows, and may choose.
#[derive(Clone, Debug, Default)]
pub struct Aim {
    /// Different in each run, so that what is made up is new.
    pub run: u64,
    /// The ids of portals that are installed: a stranger may know one.
    pub honest: Vec<String>,
    /// A portal that is to be installed after the attack.
    pub awaited: String,
    /// The longest body that ingress takes.
    pub body_bytes_max: usize,
}

impl Aim {
    /// The id of a portal that the stranger made up.
    pub fn member(&self, number: u64) -> String {
        format!("{:012x}{number:020x}", self.run)
    }

    /// A token that the stranger made up.
    pub fn token(&self, number: u64) -> String {
        format!("{number:020x}{:012x}", self.run)
    }

    /// The id of an honest portal.
    fn known(&self, number: u64) -> &str {
        &self.honest[usize::try_from(number).unwrap_or_default() % self.honest.len()]
    }

    fn flood(&self, name: &str, make: fn(&Self, u64) -> Request) -> Attack {
        let aim = self.clone();
        Attack::flood(name, move |number| make(&aim, number))
    }
}

/// An event in a form; `data` is more of the form, such as `&data[VERSION]=1`.
pub fn event(kind: &str, member: &str, token: &str, data: &str) -> Request {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let body = format!(
        "event={kind}&ts={now}{data}&auth[domain]=made-up.bitrix24.com\
         &auth[client_endpoint]=https://made-up.bitrix24.com/rest/&auth[member_id]={member}&auth[application_token]={token}"
    );
    to_app(APP, FORM, body.into_bytes())
}

/// An event in JSON.
pub fn json_event(kind: &str, member: &str, token: &str, data: &str) -> Request {
    let auth = json!({ "member_id": member, "application_token": token });
    to_app(APP, JSON, format!(r#"{{"event":"{kind}","data":{data},"auth":{auth}}}"#).into_bytes())
}

/// A body for any app.
pub fn to_app(app: &str, content_type: &'static str, body: Vec<u8>) -> Request {
    Request { path: format!("/v1/events/{app}"), body: Some((content_type, body)) }
}

/// A question.
pub fn question(path: impl Into<String>) -> Request {
    Request { path: path.into(), body: None }
}

/// An install.
pub fn install(member: &str, token: &str) -> Request {
    event("ONAPPINSTALL", member, token, "&data[VERSION]=1&data[LANGUAGE_ID]=de")
}

/// The uninstall of an app.
pub fn uninstall(member: &str, token: &str) -> Request {
    event("ONAPPUNINSTALL", member, token, "&data[CLEAN]=1")
}

/// A new contact of the CRM, with so many bytes of it.
pub fn contact(member: &str, token: &str, bytes: usize) -> Request {
    event("ONCRMCONTACTADD", member, token, &format!("&data[FIELDS][X]={}", "x".repeat(bytes)))
}

/// A decision about a method, for a token of that number.
pub fn decision(member: &str, token: &str, number: u64) -> Request {
    let data = format!("&data[TOKEN]={number:070x}&data[METHOD]=user.get.{}&data[CONFIRMED]=1", number % 7);
    event("ONAPPMETHODCONFIRM", member, token, &data)
}

/// A value that is a list of as many of these JSON items as fit.
fn list_of(item: &str, bytes: usize) -> String {
    let count = bytes / (item.len() + 1);
    format!("[{}]", vec![item; count.max(1)].join(","))
}

/// All attacks by name, for this aim.
pub fn attacks(aim: &Aim) -> Vec<Attack> {
    [about_few(aim), masses(aim), bodies(aim), at_questions(aim)].concat()
}

impl Attack {
    fn flood(name: &str, make: impl Fn(u64) -> Request + Send + Sync + 'static) -> Self {
        let acts = vec![(Door::Webhooks, Act::Flood(Flood::of(make)))];
        Self { name: name.to_owned(), acts, before: None }
    }

    fn questions(name: &str, make: impl Fn(u64) -> Request + Send + Sync + 'static) -> Self {
        let acts = vec![(Door::Questions, Act::Flood(Flood::of(make)))];
        Self { name: name.to_owned(), acts, before: None }
    }

    fn hold(name: &str, door: Door, count: usize, behaviours: Vec<Behaviour>) -> Self {
        Self { name: name.to_owned(), acts: vec![(door, Act::Hold(count, behaviours))], before: None }
    }

    /// No more requests than these.
    fn at_most(mut self, requests: u64) -> Self {
        self.floods(|flood| flood.requests_max = requests);
        self
    }

    /// At the end these.
    fn then(mut self, requests: impl IntoIterator<Item = Request>) -> Self {
        let finale: Vec<Request> = requests.into_iter().collect();
        self.floods(|flood| flood.finale.clone_from(&finale));
        self
    }

    /// Before it these.
    fn after(mut self, requests: u64, make: impl Fn(u64) -> Request + Send + Sync + 'static) -> Self {
        self.before = Some(Flood { requests_max: requests, ..Flood::of(make) });
        self
    }

    fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.floods(|flood| flood.headers.push((name, value.to_owned())));
        self
    }

    fn floods(&mut self, change: impl Fn(&mut Flood)) {
        for (_, act) in &mut self.acts {
            if let Act::Flood(flood) = act {
                change(flood);
            }
        }
    }
}

/// Much about few portals: what waits, decisions, principals, comings and goings.
fn about_few(aim: &Aim) -> Vec<Attack> {
    let installs = |count: u64| (0..count).map(|n| install(&aim.member(n), &aim.token(n))).collect::<Vec<_>>();
    vec![
        aim.flood("20 made-up portals with 100 held events of 60 KB, then all install", |aim, n| {
            contact(&aim.member(n / 100), &aim.token(n / 100), LARGE_BYTES)
        })
        .at_most(2_000)
        .then(installs(20)),
        aim.flood("100 made-up portals with 100 small held events, then all install", |aim, n| {
            contact(&aim.member(n / 100), &aim.token(n / 100), 100)
        })
        .at_most(10_000)
        .then(installs(100)),
        aim.flood("12,000 decisions of one made-up portal", |aim, n| match n {
            0 => install(&aim.member(0), &aim.token(0)),
            n => decision(&aim.member(0), &aim.token(0), n),
        })
        .at_most(12_000),
        aim.flood("decisions of one made-up portal, which then uninstalls and is another one's", |aim, n| match n {
            0 => install(&aim.member(0), &aim.token(0)),
            n => decision(&aim.member(0), &aim.token(n % 2), n),
        })
        .at_most(6_000)
        .then([uninstall(&aim.member(0), &aim.token(0)), install(&aim.member(0), &aim.token(1))]),
        aim.flood("made-up tokens before a real portal's install", |aim, n| contact(&aim.awaited, &aim.token(n), 10))
            .at_most(1_000),
        aim.flood("made-up tokens that each tell of an install of one portal", |aim, n| {
            install(&aim.member(0), &aim.token(n))
        })
        .at_most(4_000),
        aim.flood("made-up tokens that each tell of an install of an honest portal", |aim, n| {
            install(aim.known(n), &aim.token(n))
        })
        .at_most(4_000),
        aim.flood("30 made-up tokens that install and uninstall one portal in turn", |aim, n| {
            let token = aim.token(n % 30);
            if (n / 30).is_multiple_of(2) { install(&aim.member(0), &token) } else { uninstall(&aim.member(0), &token) }
        }),
        aim.flood("one made-up portal that installs and uninstalls", |aim, n| {
            let (member, token) = (aim.member(0), aim.token(0));
            if n.is_multiple_of(2) { install(&member, &token) } else { uninstall(&member, &token) }
        }),
        aim.flood("one made-up portal with very many facts", |aim, n| match n {
            0 => install(&aim.member(0), &aim.token(0)),
            n => event("ONAPPUPDATE", &aim.member(0), &aim.token(0), &format!("&data[VERSION]={n}")),
        }),
        aim.flood("waiting events under made-up tokens of honest portals", |aim, n| {
            contact(aim.known(n), &aim.token(n % 31), 100)
        }),
        aim.flood("the ends of time", |aim, n| {
            let ts = ["0", "18446744073709551615", "-1", "253402300799", "9999999999999999999999"];
            let ts = ts[usize::try_from(n % 5).expect("below 5")];
            let mut request = decision(&aim.member(n % 9), &aim.token(n % 9), n);
            if let Some((_, body)) = &mut request.body {
                body.extend_from_slice(format!("&ts={ts}").as_bytes());
            }
            request
        }),
    ]
}

/// Masses of portals, events and junk.
fn masses(aim: &Aim) -> Vec<Attack> {
    vec![
        aim.flood("very many made-up installations", |aim, n| install(&aim.member(n), &aim.token(n))),
        aim.flood("very many made-up portals that are never installed", |aim, n| {
            contact(&aim.member(n), &aim.token(n), 10)
        }),
        aim.flood("large events of made-up portals that are never installed", |aim, n| {
            contact(&aim.member(n % 50), &aim.token(n % 50), LARGE_BYTES)
        }),
        aim.flood("large events of a made-up portal that is installed", |aim, n| match n {
            0 => install(&aim.member(0), &aim.token(0)),
            _ => contact(&aim.member(0), &aim.token(0), LARGE_BYTES),
        }),
        aim.flood("small events of a made-up portal that is installed", |aim, n| match n {
            0 => install(&aim.member(0), &aim.token(0)),
            _ => contact(&aim.member(0), &aim.token(0), 10),
        }),
        aim.flood("one event again and again", |aim, _| install(&aim.member(0), &aim.token(0)))
            .with_header("ce_id", "01a204a6-3a0d-743a-b9d4-81c0603493bf")
            .with_header("hl_resent", "1")
            .with_header("traceparent", &"0".repeat(255)),
        aim.flood("bodies that are neither event nor portal", |_, n| {
            to_app(APP, FORM, format!("hello={n}&{}", "x".repeat(LARGE_BYTES)).into_bytes())
        }),
        aim.flood("events without a token", |aim, n| {
            to_app(APP, FORM, format!("event=ONX&auth[member_id]={}", aim.member(n)).into_bytes())
        }),
        aim.flood("apps that do not exist, or did not before", |aim, n| {
            let mut request = install(&aim.member(n), &aim.token(n));
            request.path = format!("/v1/events/a{:x}-{n}", aim.run);
            request
        }),
    ]
}

/// Bodies that are more than they seem to be.
fn bodies(aim: &Aim) -> Vec<Attack> {
    let large = move |data: String| {
        let aim = aim.clone();
        move |n: u64| json_event("ONX", &aim.member(n % 50), &aim.token(n % 50), &data)
    };
    let form = |data: String| {
        let aim = aim.clone();
        move |n: u64| event("ONX", &aim.member(n % 50), &aim.token(n % 50), &data)
    };
    let room = aim.body_bytes_max.saturating_sub(1_000);
    let secrets = (0..64).fold(String::new(), |mut text, n| {
        write!(text, r#""token{n}":"{n:08}","#).expect("a String takes all");
        text
    });
    let numbers = list_of("1", LARGE_BYTES);
    let profile = {
        let aim = aim.clone();
        move |n: u64| {
            let scopes = "crm,".repeat(10_000);
            let domain = "d".repeat(250);
            let data = format!(
                "&data[VERSION]={}&auth[scope]={scopes}&auth[server_endpoint]=https://{domain}/&auth[status]={domain}",
                "\\".repeat(256)
            );
            event("ONAPPINSTALL", &aim.member(n % 500), &aim.token(n % 500), &data)
        }
    };
    let fields = (0..4_000).fold(String::new(), |mut text, n| {
        write!(text, "&data[f{n}]=").expect("a String takes all");
        text
    });
    vec![
        Attack::flood("bodies of 0x01", form(format!("&data[X]={}", "\u{1}".repeat(room)))),
        Attack::flood("lists under a secret name", large(format!(r#"{{"token":{}}}"#, list_of("1", room)))),
        Attack::flood("JSON of 30,000 numbers", large(numbers.clone())),
        Attack::flood("JSON of 30,000 numbers and 64 secrets", large(format!(r#"{{{secrets}"x":{numbers}}}"#))),
        Attack::flood("JSON of objects in lists", large(list_of(r#"{"":0}"#, LARGE_BYTES))),
        Attack::flood("JSON of numbers, each request as small as those that never wait", {
            let aim = aim.clone();
            let data = list_of("1", SMALL_BYTES);
            move |n| match n {
                0..50 => install(&aim.member(n), &aim.token(n)),
                n => json_event("ONX", &aim.member(n % 50), &aim.token(n % 50), &data),
            }
        }),
        Attack::flood(
            "JSON that is nested as deep as it may be",
            large(list_of(&format!("{}1{}", r#"{"":"#.repeat(60), "}".repeat(60)), LARGE_BYTES)),
        ),
        Attack::flood("brackets in brackets", form(format!("&data{}=", "[]".repeat(63)).repeat(450))),
        Attack::flood("brackets that are never closed", form(format!("&data{}=1", "[".repeat(LARGE_BYTES)))),
        Attack::flood("one field again and again", form("&data[a]=1&data=2".repeat(LARGE_BYTES / 17))),
        Attack::flood("very many fields", form(fields)),
        Attack::flood("what is no text", {
            let aim = aim.clone();
            move |n| {
                let mut request = contact(&aim.member(n % 50), &aim.token(n % 50), 0);
                if let Some((_, body)) = &mut request.body {
                    body.extend_from_slice(b"&data[X]=");
                    body.resize(LARGE_BYTES, 0xff);
                }
                request
            }
        }),
        Attack::flood("huge scopes, domains and versions", profile),
    ]
}

/// What can be asked of a port without tokens, and what can be held at one with tokens.
fn at_questions(aim: &Aim) -> Vec<Attack> {
    let says =
        |opening: String| Behaviour { opening: opening.into(), drip: Vec::new(), reads: true, steps_max: usize::MAX };
    let member = aim.member(0);
    let lived = {
        let aim = aim.clone();
        move |n: u64| match n {
            0 => install(&aim.member(0), &aim.token(0)),
            n => decision(&aim.member(0), &aim.token(0), n),
        }
    };
    let many = {
        let aim = aim.clone();
        move |n: u64| install(&aim.member(n), &aim.token(n))
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    let post = |fields: &str| {
        format!("POST /v1/check HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{fields}\r\n")
    };
    let check =
        json!({ "app": APP, "member_id": member, "method": "never.asked", "token": "t", "wait": "30s" }).to_string();
    let waiting_check = post(&format!("content-length: {}\r\n", check.len())) + &check;
    let history = format!("/v1/installations/{APP}/{member}/history?limit=1000");
    let never = "00000000-0000-7000-8000-000000000000";
    let unread = |path: &str| Behaviour { reads: false, ..says(get(path).repeat(20)) };
    let checked = aim.clone();
    vec![
        Attack::hold("bodies of questions that never end", Door::Questions, 4_000, {
            vec![Behaviour { drip: b"1\r\nx\r\n".to_vec(), ..says(post("transfer-encoding: chunked\r\n")) }]
        }),
        Attack::hold("bodies at the admin port that never end", Door::Admin, 400, {
            let opening = "POST /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
            vec![Behaviour { drip: b"1\r\nx\r\n".to_vec(), ..says(opening) }]
        }),
        Attack::hold("checks that wait", Door::Questions, 1_000, vec![says(waiting_check)]).after(3_000, lived.clone()),
        Attack::hold("questions that wait for an event that never comes", Door::Questions, 1_000, {
            vec![says(get(&format!("/v1/installations?after={never}&wait=30s")))]
        }),
        Attack::hold("large answers that are not read", Door::Questions, 400, {
            vec![unread("/v1/installations?limit=1000"), unread(&history)]
        })
        .after(3_000, many.clone()),
        Attack::questions("lists of what is not there", |n| {
            question(format!("/v1/installations?limit=1000&domain=missing-{n}"))
        })
        .after(3_000, many),
        Attack::questions("histories and methods of one portal", {
            let member = member.clone();
            move |n| {
                let part = if n.is_multiple_of(2) { "methods" } else { "history?limit=1000" };
                question(format!("/v1/installations/{APP}/{member}/{part}"))
            }
        })
        .after(3_000, lived),
        Attack::questions("checks", move |n| {
            let body = json!({ "app": APP, "member_id": checked.member(n % 50), "method": "user.get", "token": n.to_string() });
            Request { path: "/v1/check".to_owned(), body: Some((JSON, body.to_string().into_bytes())) }
        }),
        Attack::questions("the page for people", |_| question("/")),
    ]
}
