//! Fields nested as PHP nests them: later ones replace earlier ones, whatever they were.
//!
//! Nodes lie in one list, children in one map, and texts in one string: a nested field costs the size of its
//! parts, not a map of its own. A complete tree is a sorted list, in which each node has a range.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use super::name::{self, Name};

/// An event of Bitrix24 has a few dozen nodes, a large one some hundreds.
pub(super) const NODES_MAX: usize = 10_000;

pub(super) const ROOT: Id = 0;

pub(super) type Id = u32;

/// PHP takes a number in its shortest form for an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Index(i64),
    /// Byte for byte.
    Name(Box<[u8]>),
}

impl Key {
    pub(super) fn of(key: &[u8]) -> Self {
        index(key).map_or_else(|| Self::Name(key.into()), Self::Index)
    }

    /// In the order of keys; `index` is what the bytes mean.
    fn cmp_bytes(&self, key: &[u8], index: Option<i64>) -> Ordering {
        match (self, index) {
            (Self::Index(known), Some(index)) => known.cmp(&index),
            (Self::Index(_), None) => Ordering::Less,
            (Self::Name(_), Some(_)) => Ordering::Greater,
            (Self::Name(known), None) => (**known).cmp(key),
        }
    }

    /// Bytes that are not UTF-8 become U+FFFD.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Index(index) => index.to_string().into(),
            Self::Name(name) => String::from_utf8_lossy(name),
        }
    }

    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Index(index) => index.to_string().into_bytes().into(),
            Self::Name(name) => Cow::Borrowed(name),
        }
    }
}

/// What a field is. A form tells texts from fields with keys, JSON says more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    Text,
    Null,
    List,
    Map,
    /// A list or a map: a form does not tell.
    #[default]
    Fields,
}

#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// The children of all lists, each list in one piece.
    entries: Vec<(Key, Id)>,
    texts: String,
    is_full: bool,
}

/// A text, or a list of nodes.
#[derive(Clone, Debug, Default)]
struct Node {
    text: Option<Range<u32>>,
    shape: Shape,
    /// The list's range in the entries.
    below: Range<u32>,
}

impl Default for Tree {
    fn default() -> Self {
        Builder::default().finish()
    }
}

impl Tree {
    /// More nodes than the limit: then the tree is empty.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, list: Id, key: &[u8]) -> Option<Id> {
        let (entries, index) = (self.entries(list), index(key));
        let at = entries.binary_search_by(|(known, _)| known.cmp_bytes(key, index)).ok()?;
        Some(entries[at].1)
    }

    pub fn text(&self, node: Id) -> Option<&str> {
        let Range { start, end } = self.nodes[node as usize].text.clone()?;
        Some(&self.texts[start as usize..end as usize])
    }

    pub fn shape(&self, node: Id) -> Shape {
        self.nodes[node as usize].shape
    }

    /// Indexes first, in their order.
    pub fn below(&self, list: Id) -> impl Iterator<Item = (&Key, Id)> {
        self.entries(list).iter().map(|(key, node)| (key, *node))
    }

    fn entries(&self, list: Id) -> &[(Key, Id)] {
        let Range { start, end } = self.nodes[list as usize].below;
        &self.entries[start as usize..end as usize]
    }
}

#[derive(Debug)]
pub(super) struct Builder {
    nodes: Vec<Building>,
    below: BTreeMap<(Id, Key), Id>,
    /// Replaced texts included.
    texts: String,
    is_full: bool,
    /// The variable of the last name, unless it was removed: fields of one list follow each other.
    last_variable: Option<Id>,
    last_base: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Building {
    text: Option<Range<u32>>,
    shape: Shape,
    count: u32,
    /// The highest index that the list has used.
    last_index: Option<i64>,
}

enum Lost {
    /// The list has used the highest index of all.
    NoIndexLeft,
    Full,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            nodes: vec![Building::default()],
            below: BTreeMap::new(),
            texts: String::new(),
            is_full: false,
            last_variable: None,
            last_base: Vec::new(),
        }
    }
}

impl Builder {
    /// For texts of so many bytes in all.
    pub fn for_texts(bytes: usize) -> Self {
        Self { texts: String::with_capacity(bytes), ..Self::default() }
    }

    /// More nodes than the limit: then some are missing.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Empty if nodes are missing, because a part would look like the whole.
    pub fn finish(self) -> Tree {
        if self.is_full {
            return Tree { is_full: true, ..Self::default().finish() };
        }
        let mut nodes: Vec<Node> = self
            .nodes
            .into_iter()
            .map(|Building { text, shape, .. }| Node { text, shape, below: Range::default() })
            .collect();
        let mut entries = Vec::with_capacity(self.below.len());
        for ((list, key), node) in self.below {
            let at = offset(entries.len());
            let below = &mut nodes[list as usize].below;
            let start = if below.start == below.end { at } else { below.start };
            *below = start..at + 1;
            entries.push((key, node));
        }
        Tree { nodes, entries, texts: self.texts, is_full: false }
    }

    pub fn set(&mut self, name: &Name<'_>, value: &[u8]) {
        let place = match self.too_deep(name) {
            None => self.place(name),
            Some(takes_variable) => {
                if takes_variable {
                    self.remove(ROOT, &Key::of(&name.base));
                }
                return;
            }
        };
        match place {
            Ok(place) => self.put(place, &String::from_utf8_lossy(value)),
            Err(Lost::NoIndexLeft) => {}
            Err(Lost::Full) => self.is_full = true,
        }
    }

    /// Replaces any node of the same key. None if there is no room.
    pub fn replace(&mut self, list: Id, key: Key) -> Option<Id> {
        let Ok(node) = self.named(list, key) else {
            self.is_full = true;
            return None;
        };
        self.clear(node);
        Some(node)
    }

    pub fn put(&mut self, node: Id, text: &str) {
        self.clear(node);
        let from = self.texts.len();
        self.texts.push_str(text);
        let node = &mut self.nodes[node as usize];
        (node.text, node.shape) = (Some(offset(from)..offset(self.texts.len())), Shape::Text);
    }

    /// Of a node without a text.
    pub fn set_shape(&mut self, node: Id, shape: Shape) {
        self.nodes[node as usize].shape = shape;
    }

    /// Removes all nodes below it, too.
    pub fn remove(&mut self, list: Id, key: &Key) {
        self.last_variable = None;
        if self.below.remove(&(list, key.clone())).is_some() {
            self.nodes[list as usize].count -= 1;
        }
    }

    fn is_empty(&self, list: Id) -> bool {
        self.nodes[list as usize].count == 0
    }

    /// The list of a name, with the key there. Creates missing lists. None if the field is lost.
    pub fn list_of(&mut self, name: &Name<'_>) -> Option<(Id, Key)> {
        let (mut list, mut key) = (ROOT, Key::of(&name.base));
        for next in name.keys() {
            let Ok(node) = self.named(list, key) else {
                self.is_full = true;
                return None;
            };
            list = self.open(node);
            key = match next {
                name::Key::Named(key) => Key::of(key),
                name::Key::Next => Key::Index(self.next_index(list)?),
                name::Key::TooDeep => return None,
            };
        }
        Some((list, key))
    }

    /// A text gives way to fields.
    fn open(&mut self, node: Id) -> Id {
        let building = &mut self.nodes[node as usize];
        if matches!(building.shape, Shape::Text | Shape::Null) {
            (building.text, building.shape) = (None, Shape::Fields);
        }
        node
    }

    fn next_index(&self, list: Id) -> Option<i64> {
        self.nodes[list as usize].last_index.map_or(Some(0), |last| last.checked_add(1))
    }

    fn get(&self, list: Id, key: &Key) -> Option<Id> {
        self.below.get(&(list, key.clone())).copied()
    }

    /// Removes the text and all nodes below.
    fn clear(&mut self, node: Id) {
        if !self.is_empty(node) {
            self.last_variable = None;
            let below: Vec<(Id, Key)> = self.below.range(span(node)).map(|(place, _)| place.clone()).collect();
            for place in below {
                self.below.remove(&place);
            }
        }
        self.nodes[node as usize] = Building::default();
    }

    /// Whether a name has more brackets than PHP takes, and if so, whether it removes its variable: not where PHP
    /// stops before, at a list that has used the last index.
    fn too_deep(&self, name: &Name<'_>) -> Option<bool> {
        if !name.may_be_too_deep() || !name.keys().any(|key| key == name::Key::TooDeep) {
            return None;
        }
        let mut known = self.get(ROOT, &Key::of(&name.base));
        for key in name.keys() {
            known = match key {
                name::Key::Named(key) => known.and_then(|list| self.get(list, &Key::of(key))),
                name::Key::Next => {
                    if known.is_some_and(|list| self.nodes[list as usize].last_index == Some(i64::MAX)) {
                        return Some(false);
                    }
                    None
                }
                name::Key::TooDeep => break,
            };
        }
        Some(true)
    }

    /// Creates missing lists.
    fn place(&mut self, name: &Name<'_>) -> Result<Id, Lost> {
        let mut node = self.variable(&name.base)?;
        for key in name.keys() {
            self.open(node);
            node = match key {
                name::Key::Named(key) => self.named(node, Key::of(key))?,
                name::Key::Next => {
                    let index = self.next_index(node).ok_or(Lost::NoIndexLeft)?;
                    self.named(node, Key::Index(index))?
                }
                name::Key::TooDeep => break,
            };
        }
        Ok(node)
    }

    fn variable(&mut self, base: &[u8]) -> Result<Id, Lost> {
        if let Some(variable) = self.last_variable.filter(|_| self.last_base == base) {
            return Ok(variable);
        }
        let variable = self.named(ROOT, Key::of(base))?;
        self.last_variable = Some(variable);
        self.last_base.clear();
        self.last_base.extend_from_slice(base);
        Ok(variable)
    }

    fn named(&mut self, list: Id, key: Key) -> Result<Id, Lost> {
        if let Key::Index(index) = key {
            let last_index = &mut self.nodes[list as usize].last_index;
            *last_index = (*last_index).max(Some(index));
        }
        let next = offset(self.nodes.len());
        let is_full = self.nodes.len() > NODES_MAX;
        match self.below.entry((list, key)) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(_) if is_full => Err(Lost::Full),
            Entry::Vacant(free) => {
                self.nodes.push(Building::default());
                self.nodes[list as usize].count += 1;
                Ok(*free.insert(next))
            }
        }
    }
}

fn span(list: Id) -> Range<(Id, Key)> {
    (list, Key::Index(i64::MIN))..(list + 1, Key::Index(i64::MIN))
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("texts of a body are shorter than 4 GiB")
}

/// None unless PHP takes the key for a number: in its shortest form, without `+`.
fn index(key: &[u8]) -> Option<i64> {
    let digits = key.strip_prefix(b"-").unwrap_or(key);
    let is_short = matches!(digits, [b'1'..=b'9', ..]) || key == b"0";
    is_short.then(|| std::str::from_utf8(key).ok()?.parse().ok())?
}
