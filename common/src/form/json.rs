//! JSON of the same shape as Bitrix24's forms, as if PHP had made a form of it.

use serde_json::{Map, Number, Value};

use super::name::DEPTH_MAX;
use super::tree::Node;

/// A form spells out every name, JSON does not: with longer ones, a small body would become a large one.
pub(super) const NAME_BYTES_MAX: usize = 128;
/// Beyond it a number may not be the one that was written.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The wanted variables of a body, if it is a JSON object.
pub(super) fn read(body: &[u8], wanted: impl Fn(&str) -> bool) -> Option<Node> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let variables = fields.into_iter().map(|(key, value)| (mended(&key), value));
    Some(list(variables.filter(|(variable, _)| wanted(variable)), 0, 0))
}

/// What a value becomes below a name of so many bytes: scalars are texts, `null` is not there.
fn node(value: Value, name_bytes: usize, depth: usize) -> Option<Node> {
    match value {
        Value::Null => None,
        Value::Bool(yes) => Some(Node::text(if yes { "1" } else { "0" }.to_owned())),
        Value::Number(number) => text(&number).map(Node::text),
        Value::String(text) => Some(Node::text(text)),
        Value::Array(items) => {
            let items = items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item));
            Some(list(items, name_bytes, depth))
        }
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (mended(&key), value));
            Some(list(fields, name_bytes, depth))
        }
    }
}

/// What is too deep, or has too long a name, is not there.
fn list(fields: impl Iterator<Item = (String, Value)>, name_bytes: usize, depth: usize) -> Node {
    let mut list = Node::default();
    for (key, value) in fields {
        let name_bytes = name_bytes + key.len() + "[]".len();
        if name_bytes <= NAME_BYTES_MAX
            && depth <= DEPTH_MAX
            && let Some(node) = node(value, name_bytes, depth + 1)
        {
            list.insert(key, node);
        }
    }
    list
}

/// A bracket in a key would be one in the field's name.
fn mended(key: &str) -> String {
    key.replace(['[', ']'], "_")
}

/// A number as PHP writes it; none where it cannot be told what was written.
fn text(number: &Number) -> Option<String> {
    if number.is_i64() || number.is_u64() {
        return Some(number.to_string());
    }
    number.as_f64().filter(|number| number.abs() <= EXACT_MAX).map(|number| number.to_string())
}
