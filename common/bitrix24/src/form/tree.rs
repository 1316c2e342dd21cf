//! Fields nested as PHP nests them: later ones replace earlier ones, whatever they were.
//!
//! Nodes lie in one list, what is below them in one map, and texts in one string: a nested field costs the size of its
//! parts, not a map of its own. A tree that is complete is a sorted list, in which each node has a range.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::ops::Range;

use super::name::{self, Name};

/// More nodes are not built; an event of Bitrix24 has a few dozen, a large one some hundreds.
pub(super) const NODES_MAX: usize = 10_000;

/// The list of all variables.
pub(super) const ROOT: Id = 0;

/// A node's place in the list.
pub(super) type Id = u32;

/// What a node is called in its list. PHP takes a number in its shortest form for an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A number of 64 bits.
    Index(i64),
    /// Anything else, byte for byte.
    Name(Box<[u8]>),
}

impl Key {
    pub(super) fn of(key: &[u8]) -> Self {
        index(key).map_or_else(|| Self::Name(key.into()), Self::Index)
    }

    /// Its bytes, as they were written.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Index(index) => index.to_string().into_bytes().into(),
            Self::Name(name) => Cow::Borrowed(name),
        }
    }
}

impl fmt::Display for Key {
    /// What is not UTF-8 is shown with U+FFFD.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => f.write_str(&String::from_utf8_lossy(name)),
        }
    }
}

/// The fields of a body. Every list has a text somewhere below it.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// What is in lists, each list in one piece.
    entries: Vec<(Key, Id)>,
    texts: String,
    is_full: bool,
}

/// What has a name: a text, or a list of more.
#[derive(Clone, Debug, Default)]
struct Node {
    text: Option<Range<u32>>,
    /// Where in the entries its list lies.
    below: Range<u32>,
}

impl Default for Tree {
    fn default() -> Self {
        Builder::default().finish()
    }
}

impl Tree {
    /// Whether there were more nodes than are built: then there are none.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// The node of this key in a list.
    pub fn get(&self, list: Id, key: &Key) -> Option<Id> {
        let entries = self.entries(list);
        let at = entries.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        Some(entries[at].1)
    }

    /// A node's text; none if it is a list.
    pub fn text(&self, node: Id) -> Option<&str> {
        let Range { start, end } = self.nodes[node as usize].text.clone()?;
        Some(&self.texts[start as usize..end as usize])
    }

    /// What is in a list: indexes first, in their order.
    pub fn below(&self, list: Id) -> impl Iterator<Item = (&Key, Id)> {
        self.entries(list).iter().map(|(key, node)| (key, *node))
    }

    fn entries(&self, list: Id) -> &[(Key, Id)] {
        let Range { start, end } = self.nodes[list as usize].below;
        &self.entries[start as usize..end as usize]
    }
}

/// A tree that is being built.
#[derive(Debug)]
pub(super) struct Builder {
    nodes: Vec<Building>,
    below: BTreeMap<(Id, Key), Id>,
    /// All texts, also those that were replaced.
    texts: String,
    is_full: bool,
}

/// A node of it.
#[derive(Clone, Debug, Default)]
struct Building {
    text: Option<Range<u32>>,
    /// How much is in its list.
    count: u32,
    /// The highest index that the list has had.
    last_index: Option<i64>,
}

/// Why a field is not taken.
enum Lost {
    /// The list has had the highest index that there is.
    NoIndexLeft,
    /// There is no room for another node.
    Full,
}

impl Default for Builder {
    fn default() -> Self {
        Self { nodes: vec![Building::default()], below: BTreeMap::new(), texts: String::new(), is_full: false }
    }
}

impl Builder {
    /// Whether there were more nodes than are built: then some are missing.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// The tree; an empty one if something is missing, because a part would look like the whole.
    pub fn finish(self) -> Tree {
        if self.is_full {
            return Tree { is_full: true, ..Self::default().finish() };
        }
        let mut nodes: Vec<Node> =
            self.nodes.into_iter().map(|node| Node { text: node.text, below: Range::default() }).collect();
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

    /// Sets a field of a form.
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

    /// Makes a node in a list, in the place of one that has this key. None if there is no room for it.
    pub fn replace(&mut self, list: Id, key: Key) -> Option<Id> {
        let Ok(node) = self.named(list, key) else {
            self.is_full = true;
            return None;
        };
        self.clear(node);
        Some(node)
    }

    /// Makes a node a text.
    pub fn put(&mut self, node: Id, text: &str) {
        self.clear(node);
        let from = self.texts.len();
        self.texts.push_str(text);
        self.nodes[node as usize].text = Some(offset(from)..offset(self.texts.len()));
    }

    /// Takes a node out of a list, with all below it.
    pub fn remove(&mut self, list: Id, key: &Key) {
        if self.below.remove(&(list, key.clone())).is_some() {
            self.nodes[list as usize].count -= 1;
        }
    }

    /// Whether nothing is in a list.
    pub fn is_empty(&self, list: Id) -> bool {
        self.nodes[list as usize].count == 0
    }

    fn get(&self, list: Id, key: &Key) -> Option<Id> {
        self.below.get(&(list, key.clone())).copied()
    }

    /// What is left of a node that is made something else: nothing.
    fn clear(&mut self, node: Id) {
        if !self.is_empty(node) {
            let below: Vec<(Id, Key)> = self.below.range(span(node)).map(|(place, _)| place.clone()).collect();
            for place in below {
                self.below.remove(&place);
            }
        }
        self.nodes[node as usize] = Building::default();
    }

    /// Whether a name has more brackets than PHP takes, and if so, whether it takes its variable away: not where PHP
    /// gives up before, at a list that has had every index.
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

    /// Makes lists on the way where there are none.
    fn place(&mut self, name: &Name<'_>) -> Result<Id, Lost> {
        let mut node = self.named(ROOT, Key::of(&name.base))?;
        for key in name.keys() {
            self.nodes[node as usize].text = None;
            node = match key {
                name::Key::Named(key) => self.named(node, Key::of(key))?,
                name::Key::Next => {
                    let last = self.nodes[node as usize].last_index;
                    let index = last.map_or(Some(0), |last| last.checked_add(1)).ok_or(Lost::NoIndexLeft)?;
                    self.named(node, Key::Index(index))?
                }
                name::Key::TooDeep => break,
            };
        }
        Ok(node)
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

/// All that may be in a list.
fn span(list: Id) -> Range<(Id, Key)> {
    (list, Key::Index(i64::MIN))..(list + 1, Key::Index(i64::MIN))
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("texts of a body are shorter than 4 GiB")
}

/// The number that a key is, if PHP takes it for one: in its shortest form, without `+`.
fn index(key: &[u8]) -> Option<i64> {
    let digits = key.strip_prefix(b"-").unwrap_or(key);
    let is_short = matches!(digits, [b'1'..=b'9', ..]) || key == b"0";
    is_short.then(|| std::str::from_utf8(key).ok()?.parse().ok())?
}
