//! The changes of one installation in one step: the states before and after, and the rows that differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitrix24::Installation;
use event_log::EventId;
use primitives::secret::Fingerprint;

use super::digest::Digest;
use super::places::{Place, Places};
use super::{Store, StoreError, codec, keys, lock};
use domain::{Change, Fact, HeldDetails, HeldEvent, InstallationState, Principal};

pub struct Changeset<'a> {
    store: &'a Store,
    pub installation: &'a Installation,
    pub before: Arc<InstallationState>,
    pub after: InstallationState,
    facts: BTreeMap<EventId, Known<'a>>,
    /// The facts of held events: the row before, and after.
    held_facts: BTreeMap<(Fingerprint, u64), [Option<Vec<u8>>; 2]>,
    /// A fact was replaced: the effects of the old one have to go.
    is_stale: bool,
}

/// What a step writes, and the digest behind it.
pub struct Written {
    pub digest: Digest,
    pub rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Written {
    fn put(&mut self, key: Vec<u8>, old: Option<&[u8]>, new: Option<Vec<u8>>) {
        self.digest.replace(&key, old, new.as_deref());
        self.rows.push((key, new));
    }
}

/// What is known of a fact by its id.
#[derive(Default)]
struct Known<'a> {
    old: Option<Place>,
    new: Option<(&'a Fact, u64)>,
    /// It has the revision of the old one, which has to be read for the two to be compared.
    rival: Option<(&'a Fact, u64)>,
}

impl<'a> Changeset<'a> {
    pub fn new(store: &'a Store, installation: &'a Installation) -> Result<Self, StoreError> {
        let before = match lock(&store.cache).take(installation) {
            Some(state) => state,
            None => Arc::new(store.read_installation(installation)?),
        };
        let after = InstallationState::clone(&before);
        Ok(Self {
            store,
            installation,
            before,
            after,
            facts: BTreeMap::new(),
            held_facts: BTreeMap::new(),
            is_stale: false,
        })
    }

    /// Joins a change that lies at `offset` in `facts`.
    pub fn make(&mut self, change: &'a Change, offset: u64) -> Result<(), StoreError> {
        match change {
            Change::Fact(fact) => return self.add(change, fact, offset),
            Change::Held(held, HeldDetails { fact, .. }) => self.hold(held, fact.as_deref())?,
            Change::NoLongerHeld(held) => {
                let known = self.after.principals.get(&held.principal);
                if known.and_then(|known| known.held.get(&held.offset)).is_some_and(|held| held.has_fact) {
                    self.hold(held, None)?;
                }
            }
            Change::Heard(..) | Change::Vault(..) => {}
        }
        self.after.apply(change);
        Ok(())
    }

    /// Of two facts with one key the higher revision wins, in any order. Of two copies the later one is kept: compaction
    /// removes the other.
    fn add(&mut self, change: &'a Change, fact: &'a Fact, offset: u64) -> Result<(), StoreError> {
        let id = fact.stamp.id;
        if !self.facts.contains_key(&id) {
            let old = self.store.place(self.installation, id)?;
            self.facts.insert(id, Known { old, ..Known::default() });
        }
        let known = self.facts.get_mut(&id).expect("inserted above");
        let wins = |over: &Fact| fact.replaces(over) || fact == over;
        match (known.new, known.old) {
            (Some((before, _)), _) => {
                if wins(before) {
                    self.is_stale |= fact != before;
                    known.new = Some((fact, offset));
                }
            }
            (None, Some(old)) if old.offset == offset || fact.revision < old.revision => {}
            (None, Some(old)) if fact.revision > old.revision => {
                known.new = Some((fact, offset));
                self.is_stale = true;
            }
            (None, Some(_)) => {
                if known.rival.is_none_or(|(rival, _)| wins(rival)) {
                    known.rival = Some((fact, offset));
                }
            }
            (None, None) => {
                known.new = Some((fact, offset));
                self.after.apply(change);
                lock(&self.store.heard).add(self.installation, id);
            }
        }
        Ok(())
    }

    /// The offsets of facts that have to be read again: all other facts of the installation, if one is corrected.
    pub fn unread(&self) -> Result<Vec<u64>, StoreError> {
        if !self.is_stale && self.facts.values().all(|known| known.rival.is_none()) {
            return Ok(Vec::new());
        }
        let places = self.store.places(self.installation, None, usize::MAX)?;
        Ok(places.into_iter().filter(|place| !self.is_replaced(place)).map(|place| place.offset).collect())
    }

    fn is_replaced(&self, place: &Place) -> bool {
        self.facts.get(&place.id).is_some_and(|known| known.new.is_some())
    }

    /// Decides with the facts that were read again. One that the log no longer has was erased, or replaced behind this
    /// step.
    pub fn decide(&mut self, read: &BTreeMap<u64, Fact>) -> Result<(), StoreError> {
        for known in self.facts.values_mut().filter(|known| known.new.is_none()) {
            let (Some((rival, offset)), Some(old)) = (known.rival, known.old) else { continue };
            let is_copy = read.get(&old.offset).is_some_and(|old| old == rival);
            if is_copy || read.get(&old.offset).is_none_or(|old| rival.replaces(old)) {
                known.new = Some((rival, offset));
                self.is_stale |= !is_copy;
            }
        }
        if self.is_stale {
            self.after = self.folded_again(read)?;
        }
        Ok(())
    }

    fn hold(&mut self, held: &HeldEvent, fact: Option<&Fact>) -> Result<(), StoreError> {
        let HeldEvent { principal, offset, .. } = held;
        if !self.held_facts.contains_key(&(*principal, *offset)) {
            let old = self.store.rows.get(&keys::held_fact(self.installation, *principal, *offset))?;
            self.held_facts.insert((*principal, *offset), [old, None]);
        }
        let known = self.held_facts.get_mut(&(*principal, *offset)).expect("inserted above");
        known[1] = fact.map(|fact| self.store.codec.encode_fact(fact));
        Ok(())
    }

    /// Adds each row that differs.
    pub fn differences(&mut self, written: &mut Written) -> Result<(), StoreError> {
        self.place_facts(written)?;
        let (about, codec) = (self.installation, self.store.codec);
        let mut put = |key: Vec<u8>, old: Option<Vec<u8>>, new: Option<Vec<u8>>| written.put(key, old.as_deref(), new);
        for ((principal, offset), [old, new]) in std::mem::take(&mut self.held_facts) {
            if old != new {
                put(keys::held_fact(about, principal, offset), old, new);
            }
        }
        if self.before.heard_at != self.after.heard_at {
            let [old, new] = [self.before.heard_at, self.after.heard_at].map(|at| at.map(|at| codec.encode(&at)));
            put(keys::heard_at(about), old, new);
        }
        compare(&self.before.vault, &self.after.vault, |(principal, kind), old, new| {
            let [old, new] = [old, new].map(|entry| entry.map(|entry| codec.encode(entry)));
            put(keys::vault(about, *principal, *kind), old, new);
        });
        let (empty, all) = (Principal::default(), [&*self.before, &self.after]);
        let principals: BTreeSet<Fingerprint> = all.iter().flat_map(|state| state.principals.keys().copied()).collect();
        for principal in principals {
            let [before, after] = all.map(|state| state.principals.get(&principal));
            if before == after {
                continue;
            }
            let claims = [before, after].map(|known| known.map(|known| &known.claims));
            if claims[0] != claims[1] {
                let [old, new] = claims.map(|claims| claims.map(|claims| codec.encode_claims(claims)));
                put(keys::claims(about, principal), old, new);
            }
            let [before, after] = [before, after].map(|known| known.unwrap_or(&empty));
            compare(before.decisions.by_key(), after.decisions.by_key(), |(method, token), old, new| {
                let key = keys::decision(about, principal, method, *token);
                put(key, old.map(|latest| codec.encode(latest)), new.map(|latest| codec.encode(latest)));
            });
            compare(&before.held, &after.held, |offset, old, new| {
                let rows = [old, new].map(|held| held.map(|held| codec::encode_held(*held)));
                let [old, new] = rows;
                put(keys::held(about, principal, *offset), old, new);
            });
        }
        Ok(())
    }

    fn place_facts(&self, written: &mut Written) -> Result<(), StoreError> {
        let mut places = Places::new(self.store, self.installation);
        for (id, known) in &self.facts {
            let Some((fact, offset)) = known.new else { continue };
            let new = Place { id: *id, offset, revision: fact.revision };
            let key = keys::places(self.installation, *id);
            written.digest.replace(&key, known.old.map(|old| old.encode()).as_deref(), Some(&new.encode()));
            places.put(new)?;
        }
        places.changed(|key, row| written.rows.push((key, Some(row))));
        Ok(())
    }

    /// The join of the current facts, in the order of `raw`, and held events, as if the replaced facts had never
    /// existed.
    fn folded_again(&self, read: &BTreeMap<u64, Fact>) -> Result<InstallationState, StoreError> {
        let mut facts: Vec<&Fact> = self.facts.values().filter_map(|known| Some(known.new?.0)).collect();
        for place in self.store.places(self.installation, None, usize::MAX)? {
            if self.is_replaced(&place) {
                continue;
            }
            let Some(fact) = read.get(&place.offset) else { continue };
            if (&fact.installation, fact.stamp.id) != (self.installation, place.id) {
                let why = format!("facts hold another fact at {} than that of {}", place.offset, place.id);
                return Err(StoreError::Damaged(why));
            }
            facts.push(fact);
        }
        facts.sort_by_key(|fact| (fact.raw.offset, fact.stamp.id));
        let mut state = self.after.only_held();
        for fact in facts {
            state.apply(&Change::Fact(Box::new(fact.clone())));
        }
        Ok(state)
    }
}

/// Reports each key whose value differs.
fn compare<K: Ord, V: PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    mut differs: impl FnMut(&K, Option<&V>, Option<&V>),
) {
    for (key, old) in before {
        let new = after.get(key);
        if new != Some(old) {
            differs(key, Some(old), new);
        }
    }
    for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        differs(key, None, Some(new));
    }
}
