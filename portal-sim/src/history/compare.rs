//! What is known at the end, beside what is expected.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Cast, Expected};

/// What a system knows about an installation, in the JSON of its queries.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub record: Value,
    /// The items of `/methods`.
    pub methods: Vec<Value>,
    /// The answers of `/check`, in the order of [`Expected::asks`].
    pub answers: Vec<Value>,
}

impl Expected {
    /// Everything that differs, a line each.
    pub fn differences(&self, cast: &Cast, seen: &Seen) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, seen: &Value, expected: Value| {
            if *seen != expected {
                differences.push(format!("{what} is {seen}, not {expected}"));
            }
        };
        let record = &seen.record;
        compare("status", &record["status"], json!(self.status));
        let contested = if self.contested { json!(true) } else { Value::Null };
        compare("contested", &record["contested"], contested);
        compare("cleaned", &record["cleaned"], self.cleaned.map_or(Value::Null, Value::Bool));
        let trusted = record["trusted"].as_array().into_iter().flatten();
        let mut trusted: Vec<Value> = trusted.map(|known| json!([known["principal"], known["basis"]])).collect();
        let principal = |(who, basis): &(String, String)| json!([fingerprint(&cast.application_token(who)), basis]);
        let mut expected: Vec<Value> = self.trusted.iter().map(principal).collect();
        trusted.sort_by_key(Value::to_string);
        expected.sort_by_key(Value::to_string);
        compare("trusted", &json!(trusted), json!(expected));
        for (field, value) in &self.shows {
            let list = || json!(value.split(',').collect::<Vec<_>>());
            let expected = match (field.as_str(), value.as_str()) {
                (_, "-") => Value::Null,
                ("scope" | "omitted", _) => list(),
                ("since", at) => json!(cast.since(at)),
                _ => json!(value),
            };
            compare(field, &record[field], expected);
        }
        let decision = |item: &Value| json!([item["method"], item["token"], item["decision"]]);
        let mut methods: Vec<Value> = seen.methods.iter().map(decision).collect();
        let expected = self.methods.iter().map(|(asked, decision)| {
            let (method, token) = cast.asked(asked);
            json!([method, fingerprint(&token), decision])
        });
        let mut expected: Vec<Value> = expected.collect();
        methods.sort_by_key(Value::to_string);
        expected.sort_by_key(Value::to_string);
        compare("methods", &json!(methods), json!(expected));
        for ((asked, expected), answer) in self.asks.iter().zip(&seen.answers) {
            let reason = if expected == "granted" { "decision" } else { "reason" };
            compare(asked, &answer[reason], json!(expected));
        }
        differences
    }
}

impl Cast {
    /// The method and the access token that `method/token` names.
    pub fn asked(&self, asked: &str) -> (String, String) {
        let (method, token) = asked.split_once('/').expect("method/token");
        (method.to_owned(), self.access_token(token))
    }
}

/// The SHA-256 of a secret.
fn fingerprint(secret: &str) -> String {
    format!("{:x}", Sha256::digest(secret))
}
