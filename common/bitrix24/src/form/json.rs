//! JSON of the same shape as Bitrix24's forms, as if PHP had made a form of it. Read in one pass; unwanted parts are
//! validated and dropped.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::name::{self, DEPTH_MAX, Name};
use super::scan::{AUTH, MEMBER_ID, Scan, TOKEN};
use super::tree::{Builder, Id, Key, ROOT, Shape};
use primitives::secret::Secret;

/// A form spells out every name, JSON does not: with longer ones, a small body would become a large one.
pub(super) const NAME_BYTES_MAX: usize = 128;
/// A number that takes more has a name of a few bytes, such as `1e-300`.
const NUMBER_BYTES_MAX: usize = 32;
/// Larger integers are not exact.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// None unless the body is a JSON object.
pub(super) fn read(body: &[u8]) -> Option<Builder> {
    let mut tree = Builder::default();
    object(body, List { tree: &mut tree, node: ROOT, name_bytes: 0, depth: 0 })?;
    Some(tree)
}

/// None unless the body is a JSON object.
pub(super) fn scan(body: &[u8]) -> Option<Scan> {
    let mut scan = Scan::default();
    object(body, Variables(&mut scan))?;
    Some(scan)
}

/// Succeeds only if the body is a JSON object and nothing else.
fn object<'de>(body: &'de [u8], visitor: impl Visitor<'de, Value = ()>) -> Option<()> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    json.deserialize_map(visitor).and_then(|()| json.end()).ok()
}

/// A key of the body with keys in brackets, as automation tools write what was a form: `auth[member_id]`.
fn flat(key: &str) -> Option<Name<'_>> {
    Name::parse(key.as_bytes()).filter(|name| name.keys().next().is_some())
}

/// Whether a field of this name is left out.
fn is_left_out(key: &str, name: &Name<'_>) -> bool {
    key.len() > NAME_BYTES_MAX || name.keys().any(|key| key == name::Key::TooDeep)
}

/// As PHP writes it; none for a number that is not exact.
fn decimal(number: f64) -> Option<String> {
    let text = number.to_string();
    (number.abs() <= EXACT_MAX && text.len() <= NUMBER_BYTES_MAX).then_some(text)
}

/// Scalars are texts; `null` is absent.
trait Take<'de>: Sized {
    fn text(self, text: Option<&str>);
    fn array<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error>;
    fn object<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error>;
}

struct Any<T>(T);

impl<'de, T: Take<'de>> DeserializeSeed<'de> for Any<T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Take<'de>> Visitor<'de> for Any<T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, yes: bool) -> Result<(), E> {
        self.0.text(Some(if yes { "1" } else { "0" }));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.0.text(Some(&number.to_string()));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.0.text(Some(&number.to_string()));
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.0.text(decimal(number).as_deref());
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.text(Some(text));
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0.text(None);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        self.0.array(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        self.0.object(fields)
    }
}

/// Validates a value as strictly as a full reading does, so that a scan and a reading agree on what is JSON.
struct Nothing;

impl<'de> Take<'de> for Nothing {
    fn text(self, _: Option<&str>) {}

    fn array<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Any(Self))?.is_some() {}
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key_seed(Any(Self))?.is_some() {
            fields.next_value_seed(Any(Self))?;
        }
        Ok(())
    }
}

/// A list to be filled. Fields that are too deep, or have too long a name, are left out.
struct List<'t> {
    tree: &'t mut Builder,
    node: Id,
    name_bytes: usize,
    depth: usize,
}

impl List<'_> {
    /// None if a field of this key is left out.
    fn field(&mut self, key: Key, key_bytes: usize) -> Option<Slot<'_>> {
        let name_bytes = self.name_bytes + key_bytes + "[]".len();
        let is_taken = name_bytes <= NAME_BYTES_MAX && self.depth <= DEPTH_MAX && !self.tree.is_full();
        is_taken.then(|| Slot { tree: self.tree, list: self.node, key, name_bytes, depth: self.depth + 1 })
    }

    fn flat_field(&mut self, key: &str, name: &Name<'_>) -> Option<Slot<'_>> {
        if is_left_out(key, name) || self.tree.is_full() {
            return None;
        }
        let (list, last) = self.tree.list_of(name)?;
        Some(Slot { tree: self.tree, list, key: last, name_bytes: key.len(), depth: name.keys().count() + 1 })
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<String>()? {
            let field = match flat(&key).filter(|_| self.node == ROOT) {
                Some(name) => self.flat_field(&key, &name),
                None => self.field(Key::of(key.as_bytes()), key.len()),
            };
            match field {
                Some(field) => fields.next_value_seed(Any(field))?,
                None => fields.next_value_seed(Any(Nothing))?,
            }
        }
        Ok(())
    }
}

/// The last value of the same key wins.
struct Slot<'t> {
    tree: &'t mut Builder,
    list: Id,
    key: Key,
    name_bytes: usize,
    depth: usize,
}

impl Slot<'_> {
    fn fill<E>(self, shape: Shape, fill: impl FnOnce(List<'_>) -> Result<(), E>) -> Result<(), E> {
        let Self { tree, list, key, name_bytes, depth } = self;
        // Where there is no room, nothing below is taken either.
        let node = tree.replace(list, key).unwrap_or(ROOT);
        tree.set_shape(node, shape);
        fill(List { tree, node, name_bytes, depth })
    }
}

impl<'de> Take<'de> for Slot<'_> {
    fn text(self, text: Option<&str>) {
        let Some(node) = self.tree.replace(self.list, self.key) else { return };
        match text {
            None => self.tree.set_shape(node, Shape::Null),
            Some(text) => self.tree.put(node, text),
        }
    }

    fn array<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.fill(Shape::List, |mut list| {
            for index in 0_i64.. {
                let key_bytes = index.checked_ilog10().map_or(1, |digits| digits as usize + 1);
                let item = match list.field(Key::Index(index), key_bytes) {
                    Some(field) => items.next_element_seed(Any(field))?,
                    None => items.next_element_seed(Any(Nothing))?,
                };
                if item.is_none() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn object<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        self.fill(Shape::Map, |list| list.visit_map(fields))
    }
}

struct Variables<'s>(&'s mut Scan);

impl<'de> Visitor<'de> for Variables<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<String>()? {
            if let Some(name) = flat(&key) {
                self.flat(&key, &name, &mut fields)?;
            } else if key == AUTH {
                self.0.forget_auth();
                fields.next_value_seed(Any(Auth(self.0)))?;
            } else if let Some(variable) = self.0.variable(key.as_bytes()) {
                fields.next_value_seed(Any(Text(variable)))?;
            } else {
                fields.next_value_seed(Any(Nothing))?;
            }
        }
        Ok(())
    }
}

impl Variables<'_> {
    /// The value of a key such as `auth[member_id]`.
    fn flat<'de, A: MapAccess<'de>>(&mut self, key: &str, name: &Name<'_>, fields: &mut A) -> Result<(), A::Error> {
        if is_left_out(key, name) {
            return fields.next_value_seed(Any(Nothing));
        }
        let mut keys = name.keys();
        let (key, is_last) = (keys.next(), keys.next().is_none());
        let is_auth = |wanted: &str| *name.base == *AUTH.as_bytes() && key == Some(name::Key::Named(wanted.as_bytes()));
        if is_auth(MEMBER_ID) {
            self.0.auth_member_id = None;
            if is_last {
                return fields.next_value_seed(Any(Text(&mut self.0.auth_member_id)));
            }
        } else if is_auth(TOKEN) {
            self.0.auth_token = None;
            if is_last {
                return fields.next_value_seed(Any(Token(self.0)));
            }
        } else if let Some(variable) = self.0.variable(&name.base) {
            // A variable with keys has no text.
            *variable = None;
        }
        fields.next_value_seed(Any(Nothing))
    }
}

/// None if the value is not a text.
struct Text<'s>(&'s mut Option<String>);

impl<'de> Take<'de> for Text<'_> {
    fn text(self, text: Option<&str>) {
        *self.0 = text.map(str::to_owned);
    }

    fn array<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        *self.0 = None;
        Nothing.array(items)
    }

    fn object<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        *self.0 = None;
        Nothing.object(fields)
    }
}

/// The token, if the value is a text.
struct Token<'s>(&'s mut Scan);

impl<'de> Take<'de> for Token<'_> {
    fn text(self, text: Option<&str>) {
        self.0.auth_token = text.map(Secret::new);
    }

    fn array<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        self.0.auth_token = None;
        Nothing.array(items)
    }

    fn object<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        self.0.auth_token = None;
        Nothing.object(fields)
    }
}

/// Of `auth` only the `member_id` and the `application_token` are kept.
struct Auth<'s>(&'s mut Scan);

impl<'de> Take<'de> for Auth<'_> {
    fn text(self, _: Option<&str>) {}

    fn array<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        Nothing.array(items)
    }

    fn object<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<String>()? {
            if key == MEMBER_ID {
                fields.next_value_seed(Any(Text(&mut self.0.auth_member_id)))?;
            } else if key == TOKEN {
                fields.next_value_seed(Any(Token(self.0)))?;
            } else {
                fields.next_value_seed(Any(Nothing))?;
            }
        }
        Ok(())
    }
}
