//! The changes of one installation in one step: the states before and after, and the rows that differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitrix24::Installation;
use event_log::EventId;
use primitives::secret::Fingerprint;

use super::{Store, StoreError, codec, keys, lock};
use domain::{Change, Fact, HeldDetails, HeldEvent, InstallationState, Principal};

pub struct Changeset<'a> {
    store: &'a Store,
    installation: &'a Installation,
    pub before: Arc<InstallationState>,
    pub after: InstallationState,
    facts: BTreeMap<EventId, Known<'a>>,
    /// The facts of held events: the row before, and after.
    held_facts: BTreeMap<(Fingerprint, u64), [Option<Vec<u8>>; 2]>,
    /// A fact was replaced: the effects of the old one have to go.
    is_stale: bool,
}

struct Known<'a> {
    row: Option<Vec<u8>>,
    old: Option<Fact>,
    new: Option<&'a Fact>,
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

    /// Joins a change. Of two facts with one key the higher revision wins, in any order.
    pub fn make(&mut self, change: &'a Change) -> Result<(), StoreError> {
        let fact = match change {
            Change::Fact(fact) => fact,
            Change::Held(held, HeldDetails { fact, .. }) => {
                self.hold(held, fact.as_deref())?;
                self.after.apply(change);
                return Ok(());
            }
            Change::NoLongerHeld(held) => {
                let known = self.after.principals.get(&held.principal);
                if known.and_then(|known| known.held.get(&held.offset)).is_some_and(|held| held.has_fact) {
                    self.hold(held, None)?;
                }
                self.after.apply(change);
                return Ok(());
            }
            Change::Heard(..) => {
                self.after.apply(change);
                return Ok(());
            }
        };
        let id = fact.stamp.id;
        if !self.facts.contains_key(&id) {
            let (row, old) = self.store.read_fact(self.installation, id)?.unzip();
            self.facts.insert(id, Known { row, old, new: None });
        }
        let known = self.facts.get_mut(&id).expect("inserted above");
        match known.new.or(known.old.as_ref()) {
            None => {
                known.new = Some(fact);
                self.after.apply(change);
                lock(&self.store.heard).add(self.installation, id);
            }
            Some(before) if fact.replaces(before) => {
                known.new = Some(fact);
                self.is_stale = true;
            }
            Some(_) => {}
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

    /// Reports each row that differs: its key, its value before, its value after.
    pub fn differences(
        &mut self,
        put: &mut impl FnMut(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
    ) -> Result<(), StoreError> {
        if self.is_stale {
            self.after = self.folded_again()?;
        }
        let (about, codec) = (self.installation, self.store.codec);
        for (id, known) in &mut self.facts {
            if let Some(new) = known.new {
                put(keys::fact(about, *id), known.row.take(), Some(codec.encode_fact(new)));
            }
        }
        for ((principal, offset), [old, new]) in std::mem::take(&mut self.held_facts) {
            if old != new {
                put(keys::held_fact(about, principal, offset), old, new);
            }
        }
        if self.before.heard_at != self.after.heard_at {
            let [old, new] = [self.before.heard_at, self.after.heard_at].map(|at| at.map(|at| codec.encode(&at)));
            put(keys::heard_at(about), old, new);
        }
        let (empty, all) = (Principal::default(), [&*self.before, &self.after]);
        let principals: BTreeSet<Fingerprint> = all.iter().flat_map(|state| state.principals.keys().copied()).collect();
        for principal in principals {
            let [before, after] = all.map(|state| state.principals.get(&principal));
            if before == after {
                continue;
            }
            let claims = [before, after].map(|known| known.map(|known| &known.claims));
            if claims[0] != claims[1] {
                let [old, new] = claims.map(|claims| claims.map(|claims| codec.encode(claims)));
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

    /// The join of the current facts, in the order of `raw`, and held events, as if the replaced facts had never
    /// existed.
    fn folded_again(&self) -> Result<InstallationState, StoreError> {
        let mut facts: Vec<Fact> =
            self.facts.values().filter_map(|known| known.new.or(known.old.as_ref()).cloned()).collect();
        let prefix = keys::facts(self.installation);
        for row in self.store.rows.scan(&prefix, &prefix) {
            let fact = self.store.codec.fact(self.installation, &row?.1)?;
            if !self.facts.contains_key(&fact.stamp.id) {
                facts.push(fact);
            }
        }
        facts.sort_by_key(|fact| (fact.raw.offset, fact.stamp.id));
        let mut state = self.after.only_held();
        for fact in facts {
            state.apply(&Change::Fact(Box::new(fact)));
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
