//! What may be shown of a body: its fields as a tree again, without secrets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::form::Form;
use serde_json::{Map, Value};

/// What stands where a secret stood.
const SECRET: &str = "[secret]";
/// What is harmless of `auth`, and all that is passed on of it.
const AUTH_SHOWN: [&str; 9] = [
    "domain",
    "client_endpoint",
    "server_endpoint",
    "scope",
    "status",
    "user_id",
    "member_id",
    "expires",
    "expires_in",
];
/// A name that holds one of these, in lower case and without separators, names a secret.
const SECRET_NAMES: [&str; 6] = ["token", "secret", "password", "authid", "refreshid", "signature"];
/// Shorter values are not looked for elsewhere: they would be found everywhere.
const SECRET_BYTES_MIN: usize = 8;
/// Each secret is looked for in all values and keys; an event has a handful.
const SECRETS_MAX: usize = 64;

/// `data` and `auth`, fit to be seen.
pub struct Redacted {
    pub data: Value,
    pub auth: Value,
}

/// Takes `data` and the harmless part of `auth`. A value is hidden where its name says so, and wherever it holds a
/// value that was hidden elsewhere in the same body. Nothing is shown of a body with more secrets than any event has.
pub fn redact(form: &Form) -> Redacted {
    let fields: Vec<_> = form.iter().map(|(name, value)| (name, value, names_secret(name))).collect();
    let is_hidden = |(_, value, is_secret): &&(_, &str, bool)| *is_secret && value.len() >= SECRET_BYTES_MIN;
    let hidden: BTreeSet<&str> = fields.iter().filter(is_hidden).map(|(_, value, _)| *value).collect();
    if hidden.len() > SECRETS_MAX {
        return Redacted { data: Value::String(SECRET.to_owned()), auth: Value::Object(Map::new()) };
    }
    let shown = |text: &str| {
        let holds_secret = hidden.iter().any(|secret| text.contains(secret));
        if holds_secret { SECRET.to_owned() } else { text.to_owned() }
    };
    let mut data = Branch::default();
    let mut auth = Map::new();
    // A field's name may hold a secret as well as its value may. Many names share their keys.
    let mut keys_shown: HashMap<&str, String> = HashMap::new();
    for (name, value, is_secret) in &fields {
        let value = || if *is_secret { SECRET.to_owned() } else { shown(value) };
        if let Some(path) = name.strip_prefix("data[") {
            let keys = path.trim_end_matches(']').split("][");
            let mut keys = keys.map(|key| keys_shown.entry(key).or_insert_with(|| shown(key)).clone());
            data.insert(&mut keys, value());
        } else if let Some(key) = name.strip_prefix("auth[").and_then(|key| key.strip_suffix(']'))
            && AUTH_SHOWN.contains(&key)
        {
            auth.insert(key.to_owned(), Value::String(value()));
        }
    }
    Redacted { data: data.into_value(), auth: Value::Object(auth) }
}

fn names_secret(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

/// A tree of fields.
#[derive(Default)]
struct Branch {
    value: Option<String>,
    below: BTreeMap<String, Branch>,
}

impl Branch {
    fn insert(&mut self, keys: &mut dyn Iterator<Item = String>, value: String) {
        match keys.next() {
            Some(key) => self.below.entry(key).or_default().insert(keys, value),
            None => self.value = Some(value),
        }
    }

    /// Keys `0..n` make a list, as they did before the form was encoded.
    fn into_value(self) -> Value {
        if let Some(value) = self.value {
            return Value::String(value);
        }
        let count = self.below.len();
        let is_list = count > 0 && (0..count).all(|index| self.below.contains_key(&index.to_string()));
        if is_list {
            let mut below = self.below;
            let item = |index: usize| below.remove(&index.to_string()).map_or(Value::Null, Self::into_value);
            return Value::Array((0..count).map(item).collect());
        }
        Value::Object(self.below.into_iter().map(|(key, branch)| (key, branch.into_value())).collect())
    }
}
