//! The bodies of a history's events, and its commands, for one installation.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Step;
use crate::portal::{Encoding, Event, FORM, JSON, Portal, Token, digits};
use crate::urlencode;

/// A plain number in a history counts seconds from here: all of its events are younger than an hour.
const BEFORE_NOW_S: u64 = 30 * 60;

/// The installation that plays a history.
#[derive(Clone, Debug)]
pub struct Cast {
    pub app: String,
    pub member_id: String,
    /// The time at which the first event is sent.
    pub now_s: u64,
}

#[derive(Clone, Debug)]
pub enum Message {
    Webhook {
        /// The body as a tree.
        body: Value,
    },
    /// A line for `POST /v1/commands`.
    Command(String),
}

impl Cast {
    /// Everything that a step sends, in order.
    pub fn messages(&self, step: &Step) -> Vec<Message> {
        let names = (1..=step.principals).map(|number| match step.principals {
            1 => step.who.clone(),
            _ => format!("{}{number}", step.who),
        });
        names.flat_map(|who| vec![self.message(&who, step); step.times]).collect()
    }

    /// The `application_token` of a principal.
    pub fn application_token(&self, who: &str) -> String {
        digits(&format!("application_token of {who} at {}", self.member_id), 32)
    }

    /// An access token that a decision is about.
    pub fn access_token(&self, name: &str) -> String {
        digits(&format!("access token {name} at {}", self.member_id), 70)
    }

    fn message(&self, who: &str, step: &Step) -> Message {
        if step.is_command() { self.command(who, step) } else { Message::Webhook { body: self.body(who, step) } }
    }

    fn command(&self, who: &str, step: &Step) -> Message {
        let command = if step.kind == "import" { "import" } else { "trust" };
        let token = self.application_token(who);
        let mut line =
            json!({"command": command, "app": self.app, "member_id": self.member_id, "application_token": token});
        if step.kind == "revoke" {
            line["revoke"] = json!(true);
        }
        for (name, value) in &step.fields {
            line[name] = json!(if name == "installed_at" { self.since(value) } else { value.clone() });
        }
        Message::Command(line.to_string())
    }

    fn body(&self, who: &str, step: &Step) -> Value {
        let field = |name: &str| step.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        let mut portal = Portal::of(self.member_id.clone());
        portal.application_token = Token::new(self.application_token(who));
        portal.domain = field("domain").unwrap_or_else(|| "firma.bitrix24.com".to_owned());
        let version = field("version").unwrap_or_else(|| "1".to_owned());
        let event = match step.kind.as_str() {
            "install" => Event::Install { version },
            "update" => Event::Update { version, previous_version: "1".to_owned() },
            "uninstall" => Event::Uninstall { clean: field("clean").as_deref() == Some("1") },
            "payment" => {
                Event::Payment { code: "crm.sync".to_owned(), version, status: "S".to_owned(), days: Some(30) }
            }
            "grant" | "deny" => Event::MethodConfirm {
                method: field("method").unwrap_or_else(|| "user.get".to_owned()),
                token: Token::new(self.access_token(&field("token").unwrap_or_else(|| "T".to_owned()))),
                confirmed: step.kind == "grant",
            },
            "ready" => portal.user_ready(),
            "contact" => Event::Crm { name: "ONCRMCONTACTADD", id: 7 },
            other => panic!("no event {other}"),
        };
        let ts = self.ts(&step.at);
        let body = portal.body(&event, ts.unwrap_or_default(), Encoding::Json);
        let mut body: Value = serde_json::from_slice(&body).expect("our own JSON");
        body["ts"] = match (ts, step.at.as_str()) {
            (Some(ts), _) => json!(ts),
            (None, "none") => Value::Null,
            (None, text) => json!(text),
        };
        for (name, value) in &step.fields {
            if let Some(path) = path(name, &step.kind) {
                body[path[0]][path[1]] = if value == "-" { Value::Null } else { json!(expanded(value)) };
            }
        }
        without_nulls(&mut body);
        body
    }

    /// A time of a history in RFC 3339.
    pub fn since(&self, at: &str) -> String {
        let at = UNIX_EPOCH + Duration::from_secs(self.ts(at).expect("a time"));
        humantime::format_rfc3339_millis(at).to_string()
    }

    /// A number of seconds, or a duration before or after now; `None` if the event has no readable time.
    fn ts(&self, at: &str) -> Option<u64> {
        let duration = |text| humantime::parse_duration(text).ok().map(|duration: Duration| duration.as_secs());
        match at.split_at(1) {
            _ if at == "now" => Some(self.now_s),
            ("-", before) => duration(before).map(|s| self.now_s - s),
            ("+", after) => duration(after).map(|s| self.now_s + s),
            _ => at.parse::<u64>().ok().map(|s| self.now_s - BEFORE_NOW_S + s),
        }
    }
}

impl Message {
    /// Content type and body, as a form or as JSON.
    pub fn webhook(body: &Value, as_json: bool) -> (&'static str, Vec<u8>) {
        if as_json {
            return (JSON, body.to_string().into_bytes());
        }
        let mut form = String::new();
        write(&mut form, "", body);
        (FORM, form.into_bytes())
    }
}

/// Where a field that a history names lies in the body; `None` for those that make the event.
fn path<'a>(name: &'a str, kind: &str) -> Option<[&'a str; 2]> {
    Some(match name {
        "version" => ["data", "VERSION"],
        "language" => ["data", "LANGUAGE_ID"],
        "licence" if kind == "payment" => ["data", "STATUS"],
        "licence" => ["auth", "status"],
        "application_token" | "client_endpoint" | "server_endpoint" | "scope" | "member_id" => ["auth", name],
        "domain" => ["auth", "domain"],
        "method" | "token" | "clean" => return None,
        _ => ["data", name],
    })
}

/// `x*300` is 300 times `x`; `%01` is a control character.
fn expanded(value: &str) -> String {
    let times = value.rsplit_once('*').and_then(|(text, times)| Some(text.repeat(times.parse().ok()?)));
    times.unwrap_or_else(|| value.replace("%01", "\u{1}"))
}

fn without_nulls(tree: &mut Value) {
    if let Value::Object(fields) = tree {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(without_nulls);
    }
}

fn write(form: &mut String, name: &str, tree: &Value) {
    let inner = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}[{key}]") };
    match tree {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| write(form, &inner(key), value)),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                write(form, &inner(&index.to_string()), item);
            }
        }
        Value::Null => {}
        Value::String(_) | Value::Number(_) | Value::Bool(_) => {
            let text = tree.as_str().map_or_else(|| tree.to_string(), str::to_owned);
            let and = if form.is_empty() { "" } else { "&" };
            let pair = [and, &urlencode::encoded(name), "=", &urlencode::encoded(&text)].concat();
            form.push_str(&pair);
        }
    }
}
