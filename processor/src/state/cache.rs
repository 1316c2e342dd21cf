//! Caches: recently used installations, and a filter of known facts.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bitrix24::Installation;
use event_log::EventId;

use domain::InstallationState;

/// Approximate limit.
const INSTALLATIONS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Rounded-up sizes of an empty installation, a principal, and its decisions and held events.
const INSTALLATION_BYTES: usize = 2_000;
const PRINCIPAL_BYTES: usize = 2_000;
const DECISION_BYTES: usize = 480;
const HELD_BYTES: usize = 48;

/// Installations, with random eviction: facts are often read again in rounds, where the least recently used
/// installation is the next one needed.
#[derive(Default)]
pub struct Cache {
    installations: HashMap<Installation, (usize, Arc<InstallationState>)>,
    places: Vec<Installation>,
    bytes: usize,
    chance: u64,
}

impl Cache {
    pub fn get(&self, installation: &Installation) -> Option<Arc<InstallationState>> {
        self.installations.get(installation).map(|(_, state)| state.clone())
    }

    pub fn take(&mut self, installation: &Installation) -> Option<Arc<InstallationState>> {
        let (place, state) = self.installations.remove(installation)?;
        self.places.swap_remove(place);
        if let Some(moved) = self.places.get(place) {
            self.installations.get_mut(moved).expect("each place has its state").0 = place;
        }
        self.bytes -= bytes(&state);
        Some(state)
    }

    /// May evict others.
    pub fn put(&mut self, installation: Installation, state: Arc<InstallationState>) {
        self.take(&installation);
        let new = bytes(&state);
        if new > INSTALLATIONS_BYTES_MAX / 16 {
            return;
        }
        while self.bytes + new > INSTALLATIONS_BYTES_MAX {
            // Knuth's linear congruential generator; any would do.
            self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let places = self.places.len() as u64;
            let place = usize::try_from((self.chance >> 33) % places).expect("below the number of places");
            let gone = self.places[place].clone();
            self.take(&gone);
        }
        self.bytes += new;
        self.installations.insert(installation.clone(), (self.places.len(), state));
        self.places.push(installation);
    }
}

fn bytes(state: &InstallationState) -> usize {
    let principal = |known: &domain::Principal| {
        PRINCIPAL_BYTES + known.decisions.by_key().len() * DECISION_BYTES + known.held.len() * HELD_BYTES
    };
    INSTALLATION_BYTES + state.principals.values().map(principal).sum::<usize>()
}

/// 4 MiB: a false positive in one of a hundred lookups at 3 million facts, in one of five at 10 million.
const WORDS: usize = 512 * 1024;
const PROBES: u64 = 4;

/// A Bloom filter of known facts, filled when the state is opened: new facts need no read from disk.
pub struct Heard(Vec<u64>);

impl Default for Heard {
    fn default() -> Self {
        Self(vec![0; WORDS])
    }
}

impl Heard {
    pub fn add(&mut self, installation: &Installation, id: EventId) {
        for (word, bit) in places(installation, id) {
            self.0[word] |= bit;
        }
    }

    /// `false` is certain.
    pub fn may_have(&self, installation: &Installation, id: EventId) -> bool {
        places(installation, id).all(|(word, bit)| self.0[word] & bit != 0)
    }
}

fn places(installation: &Installation, id: EventId) -> impl Iterator<Item = (usize, u64)> {
    let mut hasher = DefaultHasher::new();
    (installation, id).hash(&mut hasher);
    let hash = hasher.finish();
    let (one, other) = (hash, hash.rotate_left(32) | 1);
    (0..PROBES).map(move |probe| {
        let bit = one.wrapping_add(probe.wrapping_mul(other)) % (WORDS as u64 * 64);
        (usize::try_from(bit / 64).expect("below the number of words"), 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use primitives::secret::Fingerprint;

    use super::*;
    use domain::Principal;

    fn installation(number: usize) -> Installation {
        Installation::parse("crm-sync", &format!("member{number}")).expect("valid")
    }

    /// An installation that takes about a hundredth of the cache.
    fn state() -> InstallationState {
        let principals = INSTALLATIONS_BYTES_MAX / 100 / PRINCIPAL_BYTES;
        let principal = |number: usize| (Fingerprint::of(&number.to_string()), Principal::default());
        InstallationState { principals: (0..principals).map(principal).collect(), ..InstallationState::default() }
    }

    #[test]
    fn portals_are_kept_as_they_were_put_and_no_more_than_fit() {
        let mut cache = Cache::default();
        for number in 0..250 {
            cache.put(installation(number), Arc::new(state()));
            assert!(cache.bytes <= INSTALLATIONS_BYTES_MAX);
        }
        let there: Vec<usize> = (0..250).filter(|number| cache.get(&installation(*number)).is_some()).collect();
        assert!((90..=100).contains(&there.len()), "{}", there.len());
        for number in there {
            assert_eq!(cache.take(&installation(number)), Some(Arc::new(state())));
            assert_eq!(cache.take(&installation(number)), None);
        }
        assert_eq!((cache.bytes, cache.places.len()), (0, 0));
    }

    #[test]
    fn what_was_told_may_be_there_and_hardly_anything_else() {
        let mut heard = Heard::default();
        let id = |number: u128| EventId::from_u128(number);
        (0..10_000).for_each(|number| heard.add(&installation(1), id(number)));
        assert!((0..10_000).all(|number| heard.may_have(&installation(1), id(number))));
        let in_vain = (10_000..20_000).filter(|number| heard.may_have(&installation(1), id(*number))).count();
        assert!(in_vain < 10, "{in_vain}");
    }
}
