//! Bodies, read simply: names with brackets, and values. For tests.

use std::collections::BTreeMap;

use serde_json::Value;

pub fn fields(body: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    if let Ok(json) = serde_json::from_slice(body) {
        flatten(String::new(), &json, &mut fields);
    } else {
        let text = std::str::from_utf8(body).expect("ASCII");
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        fields.extend(pairs.map(|(name, value)| (decoded(name), decoded(value))));
    }
    fields
}

fn flatten(name: String, value: &Value, fields: &mut BTreeMap<String, String>) {
    let mut below = |part: &str, value: &Value| {
        flatten(if name.is_empty() { part.to_owned() } else { format!("{name}[{part}]") }, value, fields);
    };
    match value {
        Value::Object(inner) => inner.iter().for_each(|(part, value)| below(part, value)),
        Value::Array(inner) => inner.iter().enumerate().for_each(|(index, value)| below(&index.to_string(), value)),
        Value::String(text) => drop(fields.insert(name, text.clone())),
        Value::Number(_) | Value::Bool(_) | Value::Null => drop(fields.insert(name, value.to_string())),
    }
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two hex digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("UTF-8")
}
