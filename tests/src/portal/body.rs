//! Fields as the bytes of a body, in every form seen on the wire.

use std::fmt::Write;

use serde_json::{Map, Value};

/// As a form: names with brackets, which some senders encode.
pub fn form(fields: &[(String, String)], encode_brackets: bool) -> Vec<u8> {
    let pair = |(name, value): &(String, String)| {
        let name = if encode_brackets { encoded(name) } else { name.clone() };
        format!("{name}={}", encoded(value))
    };
    fields.iter().map(pair).collect::<Vec<_>>().join("&").into_bytes()
}

/// As JSON of the same shape; digits between brackets make lists.
pub fn json(fields: &[(String, String)]) -> Vec<u8> {
    let mut whole = Value::Object(Map::new());
    for (name, value) in fields {
        let mut place = &mut whole;
        for part in name.split(['[', ']']).filter(|part| !part.is_empty()) {
            place = if let Ok(index) = part.parse::<usize>() {
                if !place.is_array() {
                    *place = Value::Array(Vec::new());
                }
                let list = place.as_array_mut().expect("made a list above");
                list.resize(list.len().max(index + 1), Value::Null);
                &mut list[index]
            } else {
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                place.as_object_mut().expect("made an object above").entry(part).or_insert(Value::Null)
            };
        }
        *place = Value::String(value.clone());
    }
    serde_json::to_vec(&whole).expect("JSON")
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            _ => write!(encoded, "%{byte:02X}").expect("a String takes all"),
        }
    }
    encoded
}
