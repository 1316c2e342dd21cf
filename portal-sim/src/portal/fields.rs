//! A body's fields in their order, encoded as PHP's form encoder does, or as JSON.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::urlencode;

#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(&'static str, Value)>);

/// In a form all of them are texts.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Number(u64),
    List(Vec<u64>),
    Map(Fields),
}

impl Fields {
    #[must_use]
    pub fn text(self, name: &'static str, text: &str) -> Self {
        self.with(name, Value::Text(text.to_owned()))
    }

    #[must_use]
    pub fn number(self, name: &'static str, number: u64) -> Self {
        self.with(name, Value::Number(number))
    }

    /// A form cannot hold an empty list: the field is missing.
    #[must_use]
    pub fn list(self, name: &'static str, items: &[u64]) -> Self {
        self.with(name, Value::List(items.to_owned()))
    }

    #[must_use]
    pub fn map(self, name: &'static str, fields: Self) -> Self {
        self.with(name, Value::Map(fields))
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.0.push((name, value));
        self
    }

    /// As PHP's `http_build_query` writes them, which encodes `brackets`.
    pub fn to_form(&self, brackets: [&str; 2]) -> String {
        let mut form = String::with_capacity(1024);
        self.write(&mut form, "", brackets);
        form
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }

    /// Writes `name=value` pairs; names below `path` stand in brackets.
    fn write(&self, form: &mut String, path: &str, brackets @ [open, close]: [&str; 2]) {
        for (name, value) in &self.0 {
            let name = urlencode::encoded(name);
            let name = if path.is_empty() { name } else { format!("{path}{open}{name}{close}") };
            match value {
                Value::Text(text) => pair(form, &name, text),
                Value::Number(number) => pair(form, &name, &number.to_string()),
                Value::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        pair(form, &format!("{name}{open}{index}{close}"), &item.to_string());
                    }
                }
                Value::Map(fields) => fields.write(form, &name, brackets),
            }
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            match value {
                Value::Text(text) => map.serialize_entry(name, text)?,
                Value::Number(number) => map.serialize_entry(name, number)?,
                Value::List(items) => map.serialize_entry(name, items)?,
                Value::Map(fields) => map.serialize_entry(name, fields)?,
            }
        }
        map.end()
    }
}

fn pair(form: &mut String, name: &str, value: &str) {
    if !form.is_empty() {
        form.push('&');
    }
    form.push_str(name);
    form.push('=');
    urlencode::append(form, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_written_as_php_writes_them() {
        let fields = Fields::default()
            .text("a", "x y~é&=+")
            .map("b", Fields::default().list("l", &[1, 2]).list("none", &[]).number("n", 7));
        let form = "a=x+y%7E%C3%A9%26%3D%2B&b%5Bl%5D%5B0%5D=1&b%5Bl%5D%5B1%5D=2&b%5Bn%5D=7";
        assert_eq!(fields.to_form(["%5B", "%5D"]), form);
        assert_eq!(fields.to_form(["[", "]"]), form.replace("%5B", "[").replace("%5D", "]"));
        let json = r#"{"a":"x y~é&=+","b":{"l":[1,2],"none":[],"n":7}}"#;
        assert_eq!(fields.to_json(), json.as_bytes());
    }
}
