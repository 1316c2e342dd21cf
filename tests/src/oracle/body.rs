//! Bodies, read simply: names with brackets, and values.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Longer words of a portal about itself are not kept.
const TEXT_BYTES_MAX: usize = 8 * 1024;
const SCOPES_MAX: usize = 1024;

/// What names a secret, in lower case and without anything but letters and digits.
const SECRETS: [&str; 5] = ["token", "secret", "password", "authid", "refreshid"];
/// Shorter ones are hidden in their own place only.
const SECRET_BYTES_MIN: usize = 16;

const LIFECYCLE: [&str; 6] =
    ["ONAPPINSTALL", "ONAPPUPDATE", "ONAPPUNINSTALL", "ONAPPPAYMENT", "ONAPPMETHODCONFIRM", "ONAPPUSERREADY"];

/// The fields of a body.
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Reads a form or JSON.
    pub fn read(body: &[u8]) -> Self {
        let mut fields = BTreeMap::new();
        if let Ok(json) = serde_json::from_slice(body) {
            flatten(String::new(), &json, &mut fields);
        } else {
            let text = String::from_utf8_lossy(body);
            let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
            fields.extend(pairs.map(|(name, value)| (decoded(name), decoded(value))));
        }
        Self(fields)
    }

    /// The value of a field, unless it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the event is about the app itself.
    pub fn is_lifecycle(&self) -> bool {
        self.get("event").is_some_and(|event| LIFECYCLE.contains(&event))
    }

    /// Whether nothing is missing without which the event means nothing.
    pub fn is_whole(&self) -> bool {
        if self.get("event").is_none() {
            return self.is_call();
        }
        if self.get("event") != Some("ONAPPMETHODCONFIRM") {
            return true;
        }
        let name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        self.get("data[METHOD]").is_some_and(name)
            && self.get("data[TOKEN]").is_some()
            && matches!(self.get("data[CONFIRMED]"), Some("0" | "1"))
    }

    /// Whether it is a call of a robot or a page, which has no `event`.
    pub fn is_call(&self) -> bool {
        let has = |name: &str| self.get(name).is_some();
        let is_page = has("member_id") && (has("AUTH_ID") || has("APPLICATION_TOKEN") || has("PLACEMENT"));
        !has("event") && (has("auth[member_id]") || is_page)
    }

    /// Whether data were to be removed; `null` where that was not said.
    pub fn clean(&self) -> Value {
        match self.get("data[CLEAN]") {
            Some("1" | "true") => json!(true),
            Some("0" | "false") => json!(false),
            _ => Value::Null,
        }
    }

    /// Whether an install was finished and the app is active; older portals could say that it is not.
    pub fn is_complete(&self) -> bool {
        let is_no = |name: &str| matches!(self.get(name), Some("N" | "false" | "0"));
        !is_no("data[INSTALLED]") && !is_no("data[ACTIVE]")
    }

    /// How the portal describes itself, by names of the installation record; `null` for what cannot be shown.
    pub fn profile(&self) -> Vec<(&'static str, Value)> {
        let licence = if self.get("event") == Some("ONAPPPAYMENT") { "data[STATUS]" } else { "auth[status]" };
        let texts = [
            ("client_endpoint", "auth[client_endpoint]"),
            ("server_endpoint", "auth[server_endpoint]"),
            ("version", "data[VERSION]"),
            ("licence", licence),
            ("language", "data[LANGUAGE_ID]"),
        ];
        let mut profile = Vec::new();
        // The data of other events mean something else.
        let means = |field: &&str| field.starts_with("auth[") || self.is_lifecycle();
        for (name, field) in texts.into_iter().filter(|(_, field)| means(field)) {
            if let Some(text) = self.get(field) {
                let text = if name.ends_with("endpoint") { plain(text) } else { Some(text.to_owned()) };
                let kept = text.filter(|text| text.len() <= TEXT_BYTES_MAX && self.is_harmless(text));
                profile.push((name, json!(kept)));
            }
        }
        if let Some(scope) = self.get("auth[scope]") {
            let scopes: Vec<_> = scope.split([',', ' ']).filter(|scope| !scope.is_empty()).collect();
            let fits = scope.len() <= TEXT_BYTES_MAX && scopes.len() <= SCOPES_MAX && self.is_harmless(scope);
            profile.push(("scope", if fits { json!(scopes) } else { Value::Null }));
        }
        // This event alone gives the authorisation server's domain.
        let called = self.get("auth[client_endpoint]").and_then(|url| url.split('/').nth(2));
        let named = self.get("auth[domain]").filter(|_| self.get("event") != Some("ONAPPUSERREADY"));
        let portal = |host: &str| host.to_lowercase().replace(".bitrix24.com", ".bitrix24.ru");
        let is_same = |called: &&str| named.is_none_or(|named| portal(called) == portal(named));
        if let Some(domain) = called.filter(is_same).or(named) {
            let is_kept =
                domain.len() <= TEXT_BYTES_MAX && !domain.contains(['/', '@', '?', '#']) && self.is_harmless(domain);
            profile.push(("domain", if is_kept { json!(domain.to_lowercase()) } else { Value::Null }));
        }
        profile
    }

    /// Whether a text can be printed and holds no secret of this body.
    fn is_harmless(&self, text: &str) -> bool {
        let letters = |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let is_secret = |name: &str| SECRETS.iter().any(|secret| letters(name).contains(secret));
        let mut secrets = self.0.iter().filter(|(name, value)| value.len() >= SECRET_BYTES_MIN && is_secret(name));
        !text.chars().any(char::is_control) && !secrets.any(|(_, secret)| text.contains(secret.as_str()))
    }
}

/// An endpoint without user, password, query and fragment.
fn plain(url: &str) -> Option<String> {
    let parts: Vec<&str> = url.split(['?', '#']).next()?.splitn(4, '/').collect();
    let [scheme, "", authority, path @ ..] = parts.as_slice() else { return None };
    let host = authority.split('@').next_back().filter(|host| !host.is_empty())?;
    let path = path.first().map_or(String::new(), |path| format!("/{path}"));
    matches!(*scheme, "http:" | "https:").then(|| format!("{scheme}//{host}{path}"))
}

fn flatten(name: String, value: &Value, fields: &mut BTreeMap<String, String>) {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}[{part}]") };
    match value {
        Value::Object(inner) => inner.iter().for_each(|(part, value)| flatten(below(part), value, fields)),
        Value::Array(inner) => {
            inner.iter().enumerate().for_each(|(index, value)| flatten(below(&index.to_string()), value, fields));
        }
        Value::String(text) => {
            fields.insert(name, text.clone());
        }
        Value::Number(_) | Value::Bool(_) | Value::Null => {
            fields.insert(name, value.to_string());
        }
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = [bytes.next().expect("two digits"), bytes.next().expect("two digits")];
                u8::from_str_radix(std::str::from_utf8(&pair).expect("ASCII"), 16).expect("hex")
            }
            _ => byte,
        });
    }
    String::from_utf8(decoded).expect("UTF-8")
}
