//! Reads all rows of a state, when it is opened.

use bitrix24::Installation;
use domain::InstallationState;
use event_log::EventId;
use event_log::contract::partition_of_installation;

use super::cache::Heard;
use super::codec::{self, Codec};
use super::counts::Counts;
use super::digest::Digest;
use super::untrusted::Untrusted;
use super::{Rows, StoreError, Trusts, keys, places};

pub(super) fn add_row(state: &mut InstallationState, codec: Codec, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    match keys::part(key).ok_or_else(malformed)? {
        keys::Part::Claims(principal) => {
            *state.principals.entry(principal).or_default().claims = codec.claims(value)?;
        }
        keys::Part::Decision(principal, method, token) => {
            let latest = codec.decision(value)?;
            state.principals.entry(principal).or_default().decisions.join((method, token), latest);
        }
        keys::Part::Held(principal, offset) => {
            state.principals.entry(principal).or_default().held.insert(offset, codec::held(value)?);
        }
        keys::Part::Vault(principal, kind) => {
            state.vault.insert((principal, kind), codec.vault_entry(value)?);
        }
        keys::Part::HeardAt => state.heard_at = Some(codec.timestamp(value)?),
        keys::Part::Places(_) | keys::Part::NewestPlaces => {}
    }
    Ok(())
}

pub(super) fn malformed() -> StoreError {
    StoreError::Damaged("a key is malformed".to_owned())
}

pub(super) struct Known {
    pub digests: Vec<Digest>,
    pub counts: Counts,
    pub heard: Heard,
    pub untrusted: Vec<Untrusted>,
}

/// Reads every row. An invalid one is damage.
pub(super) fn read_all(rows: &dyn Rows, codec: Codec, partitions: u32, trusts: &Trusts) -> Result<Known, StoreError> {
    let (digests, counts) = (vec![Digest::default(); partitions as usize], Counts::default());
    let untrusted = (0..partitions).map(|_| Untrusted::default()).collect();
    let mut known = Known { digests, counts, heard: Heard::default(), untrusted };
    let mut current: Option<Current> = None;
    for row in rows.scan(b"", b"") {
        let (key, value) = row?;
        if key == keys::OWNER || keys::is_checkpoint(&key, partitions) {
            continue;
        }
        // Rows of one installation are adjacent.
        if current.as_ref().is_none_or(|current| !key.starts_with(&current.prefix)) {
            let new = Current::of(&key, partitions)?;
            if let Some(past) = current.replace(new) {
                past.count(&mut known, trusts);
            }
        }
        let Some(current) = &mut current else { continue };
        let rest = &key[current.prefix.len()..];
        if key.starts_with(keys::INSTALLATIONS) && keys::has_places(rest) {
            current.read_places(rest, &value, &mut known)?;
            continue;
        }
        known.digests[current.partition as usize].replace(&key, None, Some(&value));
        if key.starts_with(keys::INSTALLATIONS) {
            add_row(&mut current.state, codec, rest, &value)?;
        }
    }
    if let Some(past) = current {
        past.count(&mut known, trusts);
    }
    Ok(known)
}

/// The installation whose rows are being read.
struct Current {
    prefix: Vec<u8>,
    installation: Installation,
    partition: u32,
    state: InstallationState,
    /// The last event id in the rows of places so far.
    last: Option<EventId>,
}

impl Current {
    fn of(key: &[u8], partitions: u32) -> Result<Self, StoreError> {
        let installation = keys::installation(key).ok_or_else(malformed)?;
        let prefix = match key.first() {
            Some(kind) if keys::FACTS_ONCE.contains(kind) => keys::facts_once(&installation),
            Some(kind) if keys::HELD_FACTS.contains(kind) => keys::all_held_facts(&installation),
            Some(_) | None => keys::installation_rows(&installation),
        };
        Ok(Self {
            prefix,
            partition: partition_of_installation(&installation, partitions),
            state: InstallationState::default(),
            last: None,
            installation,
        })
    }

    /// The digest is of places, not of rows, which depend on the order of arrival.
    fn read_places(&mut self, key: &[u8], row: &[u8], known: &mut Known) -> Result<(), StoreError> {
        let places = places::decode(row)?;
        let (first, last) = (places.first().map(|place| place.id), places.last().map(|place| place.id));
        let is_misnamed = matches!(keys::part(key).ok_or_else(malformed)?, keys::Part::Places(id) if last != Some(id));
        if is_misnamed || (self.last.is_some() && first <= self.last) {
            return Err(malformed());
        }
        self.last = last;
        for place in places {
            let key = keys::places(&self.installation, place.id);
            known.digests[self.partition as usize].replace(&key, None, Some(&place.encode()));
            known.heard.add(&self.installation, place.id);
        }
        Ok(())
    }

    fn count(&self, known: &mut Known, trusts: &Trusts) {
        known.counts.add(&self.state, trusts.of(&self.installation.app), 1);
        let untrusted = &mut known.untrusted[self.partition as usize];
        untrusted.replace(&self.installation, None, Untrusted::heard(&self.state));
    }
}
