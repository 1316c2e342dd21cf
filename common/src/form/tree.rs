//! Fields nested as PHP nests them: later ones replace earlier ones, whatever they were.

use std::collections::BTreeMap;

use super::name::{Key, Name};

/// What has a name: a text, or a list of more. The root is the list of all variables.
#[derive(Debug, Default)]
pub(super) struct Node {
    text: Option<String>,
    below: BTreeMap<Vec<u8>, Node>,
    /// The highest index that the list has had.
    last_index: Option<i64>,
}

/// Why a field is not taken.
enum Lost {
    /// It has too many brackets: PHP drops the whole variable then.
    TooDeep,
    /// The list has had the highest index that there is.
    NoIndexLeft,
}

impl Node {
    /// A text.
    pub fn text(text: String) -> Self {
        Self { text: Some(text), ..Self::default() }
    }

    /// Sets a field of a form below this one, the root.
    pub fn set(&mut self, name: &Name<'_>, value: String) {
        match self.place(name) {
            Ok(place) => *place = Self::text(value),
            Err(Lost::TooDeep) => _ = self.below.remove(&*name.base),
            Err(Lost::NoIndexLeft) => {}
        }
    }

    /// Puts a node into this list. The last one of the same key wins.
    pub fn insert(&mut self, key: String, node: Self) {
        self.below.insert(key.into_bytes(), node);
    }

    /// Visits every text below this node, the root, with its full name.
    pub fn visit(self, visit: &mut impl FnMut(String, String)) {
        for (base, node) in self.below {
            node.visit_as(base, visit);
        }
    }

    fn visit_as(self, name: Vec<u8>, visit: &mut impl FnMut(String, String)) {
        for (key, node) in self.below {
            node.visit_as([&name, &b"["[..], &key, &b"]"[..]].concat(), visit);
        }
        if let Some(text) = self.text {
            visit(super::text(name), text);
        }
    }

    /// Makes lists on the way where there are none. Nothing is left of it where the field is lost: what is too deep
    /// takes its variable along, and a list that has had every index is no new one.
    fn place(&mut self, name: &Name<'_>) -> Result<&mut Self, Lost> {
        let mut node = self.named(&name.base);
        for key in name.keys() {
            node.text = None;
            node = match key {
                Key::Named(key) => node.named(key),
                Key::Next => node.next().ok_or(Lost::NoIndexLeft)?,
                Key::TooDeep => return Err(Lost::TooDeep),
            };
        }
        Ok(node)
    }

    fn named(&mut self, key: &[u8]) -> &mut Self {
        self.last_index = self.last_index.max(index(key));
        self.below.entry(key.to_owned()).or_default()
    }

    fn next(&mut self) -> Option<&mut Self> {
        let index = self.last_index.map_or(Some(0), |last| last.checked_add(1))?;
        self.last_index = Some(index);
        Some(self.below.entry(index.to_string().into_bytes()).or_default())
    }
}

/// The number that a key is, if PHP takes it for one: in its shortest form, without `+`.
fn index(key: &[u8]) -> Option<i64> {
    let digits = key.strip_prefix(b"-").unwrap_or(key);
    let is_short = matches!(digits, [b'1'..=b'9', ..]) || key == b"0";
    is_short.then(|| std::str::from_utf8(key).ok()?.parse().ok())?
}
