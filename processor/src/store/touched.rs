//! One installation in one step: what was known, what is known behind it, and the rows that differ.

use std::collections::{BTreeMap, BTreeSet};

use common::event::{EventId, Installation};
use common::secret::Fingerprint;

use super::{Store, StoreError, keys};
use crate::domain::{Change, Fact, Portal, Teller};

/// An installation that a step changes.
pub struct Touched<'a> {
    store: &'a Store,
    installation: &'a Installation,
    /// As its rows are.
    pub before: Portal,
    /// As they will be.
    pub after: Portal,
    facts: BTreeMap<EventId, Known<'a>>,
    /// A fact was replaced: what the old one said has to go.
    is_stale: bool,
}

/// A fact that the step brings or meets.
struct Known<'a> {
    row: Option<Vec<u8>>,
    old: Option<Fact>,
    new: Option<&'a Fact>,
}

impl<'a> Touched<'a> {
    /// Not changed yet.
    pub fn new(store: &'a Store, installation: &'a Installation) -> Result<Self, StoreError> {
        let before = match store.warm().take(installation) {
            Some(portal) => portal,
            None => store.read_portal(installation)?,
        };
        let after = before.clone();
        Ok(Self { store, installation, before, after, facts: BTreeMap::new(), is_stale: false })
    }

    /// Joins a change. Of two facts with one key only one holds, whichever comes first.
    pub fn make(&mut self, change: &'a Change) -> Result<(), StoreError> {
        let Change::Told(fact) = change else {
            self.after.apply(change);
            return Ok(());
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
                self.store.heard().add(self.installation, id);
            }
            Some(before) if fact.replaces(before) => {
                known.new = Some(fact);
                self.is_stale = true;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Tells of each row that differs: its key, what it holds, what it is to hold.
    pub fn differences(
        &mut self,
        put: &mut impl FnMut(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
    ) -> Result<(), StoreError> {
        if self.is_stale {
            self.after = self.folded_again()?;
        }
        let (about, form) = (self.installation, self.store.form);
        for (id, known) in &mut self.facts {
            if let Some(new) = known.new {
                put(keys::fact(about, *id), known.row.take(), Some(form.encode_fact(new)));
            }
        }
        let (empty, all) = (Teller::default(), [&self.before, &self.after]);
        let tellers: BTreeSet<Fingerprint> = all.iter().flat_map(|portal| portal.tellers.keys().copied()).collect();
        for teller in tellers {
            let [before, after] = all.map(|portal| portal.tellers.get(&teller));
            if before == after {
                continue;
            }
            let claims = [before, after].map(|known| known.map(|known| &known.claims));
            if claims[0] != claims[1] {
                let [old, new] = claims.map(|claims| claims.map(|claims| form.encode(claims)));
                put(keys::claims(about, teller), old, new);
            }
            let [before, after] = [before, after].map(|known| known.unwrap_or(&empty));
            compare(&before.decisions, &after.decisions, |(method, token), old, new| {
                let key = keys::decision(about, teller, method, *token);
                put(key, old.map(|latest| form.encode(latest)), new.map(|latest| form.encode(latest)));
            });
            let row = |id: &EventId| id.as_bytes().to_vec();
            compare(&before.waiting, &after.waiting, |offset, old, new| {
                put(keys::waiting(about, teller, *offset), old.map(row), new.map(row));
            });
        }
        Ok(())
    }

    /// The join of all facts that hold, and what waits. Facts are indifferent to order, so this is what would have
    /// come of them had the replaced ones never been there.
    fn folded_again(&self) -> Result<Portal, StoreError> {
        let mut portal = self.after.waiting();
        let mut tell = |fact: &Fact| portal.apply(&Change::Told(Box::new(fact.clone())));
        for known in self.facts.values() {
            known.new.or(known.old.as_ref()).into_iter().for_each(&mut tell);
        }
        let prefix = keys::facts(self.installation);
        for row in self.store.rows.scan(&prefix, &prefix) {
            let fact = self.store.form.fact(self.installation, &row?.1)?;
            if !self.facts.contains_key(&fact.stamp.id) {
                tell(&fact);
            }
        }
        Ok(portal)
    }
}

/// Tells of each key whose value differs.
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
