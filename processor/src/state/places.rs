//! Where the facts of an installation lie in `facts`.
//!
//! A row holds up to [`PLACES_MAX`] places in the order of their event ids. Ids grow with time, so nearly every place is
//! added to the newest row, whose key is fixed; each other row is named by the last id in it. A fact costs one row,
//! however many facts its installation has.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use bitrix24::Installation;
use event_log::EventId;

use super::loading::malformed;
use super::{Store, StoreError, codec, keys, lock};
use domain::{Fact, Revision};

/// Places per row.
const PLACES_MAX: usize = 64;
/// Places that leave the newest row once it is full. The others stay, since the next event may be a little older.
const PLACES_MOVED: usize = 48;
/// The revision that takes no bytes. With another one, rows have another form.
const PLAIN: Revision = Revision { interpretation: 3, correction: 0 };

/// Where a fact lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub id: EventId,
    /// In `facts`.
    pub offset: u64,
    pub revision: Revision,
}

/// Reads facts again, where one of them is corrected.
pub trait FactLog {
    type Error: From<StoreError>;

    /// The facts at these offsets; those that the log no longer has are left out.
    fn read(&mut self, partition: u32, offsets: &BTreeSet<u64>) -> Result<BTreeMap<u64, Fact>, Self::Error>;
}

impl Place {
    /// The form of a place behind its id.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.append_to(Vec::new())
    }

    fn append_to(&self, bytes: Vec<u8>) -> Vec<u8> {
        let Revision { interpretation, correction } = self.revision;
        let revision = (self.revision != PLAIN).then_some((interpretation, correction));
        codec::append_place((self.offset, revision), bytes)
    }
}

fn encode(places: &[Place]) -> Vec<u8> {
    places.iter().fold(Vec::with_capacity(places.len() * 24), |mut row, place| {
        row.extend_from_slice(place.id.as_bytes());
        place.append_to(row)
    })
}

/// A row has a place at least, and ids in order.
pub(super) fn decode(row: &[u8]) -> Result<Vec<Place>, StoreError> {
    let damaged = || StoreError::Damaged("a row of places cannot be read".to_owned());
    let (mut places, mut rest) = (Vec::<Place>::new(), row);
    while let Some((id, behind)) = rest.split_at_checked(16) {
        let id = EventId::from_slice(id).map_err(|_| damaged())?;
        let ((offset, revision), behind) = codec::take_place(behind).ok_or_else(damaged)?;
        let revision = revision.map_or(PLAIN, |(interpretation, correction)| Revision { interpretation, correction });
        if places.last().is_some_and(|last| last.id >= id) {
            return Err(damaged());
        }
        places.push(Place { id, offset, revision });
        rest = behind;
    }
    if rest.is_empty() && !places.is_empty() { Ok(places) } else { Err(damaged()) }
}

impl Store {
    /// The place of a fact; `None` is certain.
    pub fn place(&self, installation: &Installation, id: EventId) -> Result<Option<Place>, StoreError> {
        if !lock(&self.heard).may_have(installation, id) {
            return Ok(None);
        }
        let (prefix, from) = (keys::installation_rows(installation), keys::places(installation, id));
        let Some(row) = self.rows.scan(&prefix, &from).next().transpose()? else { return Ok(None) };
        let places = decode(&row.1)?;
        Ok(find(&places, id).ok().map(|index| places[index]))
    }

    pub(crate) fn has_fact(&self, installation: &Installation, id: EventId) -> Result<bool, StoreError> {
        Ok(self.place(installation, id)?.is_some())
    }

    /// The places of facts behind `after`, in the order of their event ids. A state of an older version has none.
    pub fn places(
        &self,
        installation: &Installation,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        // Places move from row to row.
        let _unchanged = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        let prefix = keys::installation_rows(installation);
        let from =
            after.map_or_else(|| keys::first_places(installation), |id| keys::behind(keys::places(installation, id)));
        let mut places = Vec::new();
        for row in self.rows.scan(&prefix, &from) {
            let row = decode(&row?.1)?;
            places.extend(row.into_iter().filter(|place| after.is_none_or(|after| after < place.id)));
            if places.len() >= limit {
                break;
            }
        }
        places.truncate(limit);
        Ok(places)
    }

    /// The newest places, in the order of their event ids: few, however many there are.
    pub fn newest_places(&self, installation: &Installation) -> Result<Vec<Place>, StoreError> {
        let row = self.rows.get(&keys::newest_places(installation))?;
        row.map_or_else(|| Ok(Vec::new()), |row| decode(&row))
    }
}

fn find(places: &[Place], id: EventId) -> Result<usize, usize> {
    places.binary_search_by_key(&id, |place| place.id)
}

/// The places of one installation in one step: the rows that it needs, with its changes.
pub struct Places<'a> {
    store: &'a Store,
    installation: &'a Installation,
    /// `None` until it was read.
    newest: Option<PlacesRow>,
    /// Other rows that were read, by their last ids.
    others: BTreeMap<EventId, PlacesRow>,
}

#[derive(Default)]
struct PlacesRow {
    places: Vec<Place>,
    has_changed: bool,
}

impl<'a> Places<'a> {
    pub fn new(store: &'a Store, installation: &'a Installation) -> Self {
        Self { store, installation, newest: None, others: BTreeMap::new() }
    }

    pub fn put(&mut self, place: Place) -> Result<(), StoreError> {
        let row = self.row(place.id)?;
        match find(&row.places, place.id) {
            Ok(index) => row.places[index] = place,
            Err(index) => row.places.insert(index, place),
        }
        row.has_changed = true;
        Ok(())
    }

    /// The row that has the id, or would have it.
    fn row(&mut self, id: EventId) -> Result<&mut PlacesRow, StoreError> {
        let (rows, installation) = (&self.store.rows, self.installation);
        let newest = match &mut self.newest {
            Some(newest) => newest,
            unread => {
                let row = rows.get(&keys::newest_places(installation))?;
                let places = row.map_or_else(|| Ok(Vec::new()), |row| decode(&row))?;
                unread.insert(PlacesRow { places, has_changed: false })
            }
        };
        let is_in = |row: &PlacesRow| row.places.first().is_none_or(|first| first.id <= id);
        if is_in(newest) {
            return Ok(newest);
        }
        let known = self.others.range(id..).next().filter(|(_, row)| is_in(row)).map(|(last, _)| *last);
        let last = if let Some(last) = known {
            last
        } else {
            let (prefix, from) = (keys::installation_rows(installation), keys::places(installation, id));
            let Some((key, row)) = rows.scan(&prefix, &from).next().transpose()? else { return Ok(newest) };
            let Some(keys::Part::Places(last)) = keys::part(&key[prefix.len()..]) else { return Ok(newest) };
            if let Entry::Vacant(unread) = self.others.entry(last) {
                unread.insert(PlacesRow { places: decode(&row)?, has_changed: false });
            }
            last
        };
        self.others.get_mut(&last).ok_or_else(malformed)
    }

    /// Reports each row that has changed. Full rows are split.
    pub fn changed(self, mut put: impl FnMut(Vec<u8>, Vec<u8>)) {
        let installation = self.installation;
        let mut put_full = |places: &[Place]| {
            let last = places.last().expect("a row has a place");
            put(keys::places(installation, last.id), encode(places));
        };
        for PlacesRow { places, .. } in self.others.values().filter(|row| row.has_changed) {
            let rows = places.len().div_ceil(PLACES_MAX);
            places.chunks(places.len().div_ceil(rows)).for_each(&mut put_full);
        }
        if let Some(newest) = self.newest.filter(|newest| newest.has_changed) {
            let mut rest = &newest.places[..];
            while rest.len() > PLACES_MAX {
                let (moved, stay) = rest.split_at(PLACES_MOVED);
                put_full(moved);
                rest = stay;
            }
            put(keys::newest_places(installation), encode(rest));
        }
    }
}

#[cfg(test)]
mod tests;
