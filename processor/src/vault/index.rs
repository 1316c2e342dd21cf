//! Where the entries of the vault lie in its topic or log: a thread follows it from its beginning.
//!
//! Memory holds an offset and the beginning of a hash of each key. Entries themselves are read when they are asked for.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::VaultKey;
use event_log::contract::{NOOP, Topic, partition_of_installation};
use event_log::{Entry, EventLogError, LogQuery, Stretch};
use primitives::secret::Fingerprint;
use runtime::lifecycle::Stop;
use tracing::{error, warn};

use super::{Vault, entry_of};

const POLL_WAIT: Duration = Duration::from_millis(100);
/// So many polls without a record: a client that connects has none either.
const QUIET_POLLS: u32 = 20;
const RETRY_WAIT: Duration = Duration::from_millis(300);

/// Of a hash of the key: two keys share it with a chance that can be neglected, and the record names its key.
type Hash = [u8; 16];

pub struct VaultIndex {
    logs: Arc<dyn LogQuery>,
    places: Mutex<Places>,
    changed: Condvar,
    stop: Stop,
}

#[derive(Default)]
struct Places {
    offsets: HashMap<Hash, u64>,
    partitions: u32,
    /// Everything was read that was there at the beginning.
    is_read: bool,
}

impl VaultIndex {
    /// Starts the thread.
    pub fn start(logs: Arc<dyn LogQuery>, vault: &Arc<Vault>, stop: Stop) -> anyhow::Result<Arc<Self>> {
        let index = Arc::new(Self { logs, places: Mutex::default(), changed: Condvar::new(), stop });
        let (followed, vault) = (Arc::clone(&index), Arc::clone(vault));
        thread::Builder::new().name("vault".into()).spawn(move || followed.run(&vault))?;
        Ok(index)
    }

    fn run(&self, vault: &Vault) {
        let mut is_told = false;
        while !self.stop.requested() {
            if let Err(error) = self.follow(vault) {
                // The logs of a standalone process are opened after it.
                let is_first = !std::mem::replace(&mut is_told, true);
                if !is_first {
                    warn!("the vault cannot be read, and is read again: {error}");
                }
                *self.places() = Places::default();
                self.stop.sleep(RETRY_WAIT);
            }
        }
    }

    fn follow(&self, vault: &Vault) -> Result<(), EventLogError> {
        let bounds = self.logs.bounds(Topic::Vault)?;
        self.places().partitions = u32::try_from(bounds.len()).unwrap_or(u32::MAX);
        let mut tail = self.logs.tail(Topic::Vault, &bounds.iter().map(|(first, _)| *first).collect::<Vec<_>>())?;
        let (mut missing, mut quiet) = (MissingKeys::default(), 0);
        while !self.stop.requested() {
            let entries = tail.next(POLL_WAIT)?;
            let mut places = self.places();
            for entry in &entries {
                places.take(entry);
                missing.take(entry, vault);
            }
            quiet = if entries.is_empty() { quiet + 1 } else { 0 };
            if quiet >= QUIET_POLLS && !std::mem::replace(&mut places.is_read, true) {
                missing.tell();
            }
            drop(places);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// The value of the record of this key, once it is the wanted one; waits up to `wait`. None if there is none.
    pub fn read(
        &self,
        key: &VaultKey,
        wait: Duration,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Bytes>, EventLogError> {
        let until = Instant::now() + wait;
        let mut tried = None;
        loop {
            let mut places = self.places();
            let (offset, is_read, partitions) = (places.get(key), places.is_read, places.partitions);
            if offset == tried {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return if is_read {
                        Ok(None)
                    } else {
                        Err(EventLogError::Reopen("the vault is being read".into()))
                    };
                }
                places = self.changed.wait_timeout(places, left).unwrap_or_else(PoisonError::into_inner).0;
                drop(places);
                continue;
            }
            drop(places);
            tried = offset;
            if let Some(offset) = offset {
                let partition = partition_of_installation(&key.installation, partitions);
                if let Some(value) = self.record(key, partition, offset)?.filter(|value| is_wanted(value)) {
                    return Ok(Some(value));
                }
            }
        }
    }

    /// None if compaction has removed it for a newer one.
    fn record(&self, key: &VaultKey, partition: u32, offset: u64) -> Result<Option<Bytes>, EventLogError> {
        let (mut found, name) = (None, key.to_string());
        let stretch = Stretch { partition, from: offset, until: offset + 1 };
        self.logs.read(Topic::Vault, &[stretch], &mut |entry| {
            if entry.record.key.as_deref() == Some(&name) {
                found = entry.record.value;
            }
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn get(&self, key: &VaultKey) -> Option<u64> {
        self.offsets.get(&hash(&key.to_string())).copied()
    }

    fn take(&mut self, entry: &Entry) {
        match (entry.record.key.as_deref(), &entry.record.value) {
            (None | Some(NOOP), _) => {}
            (Some(key), Some(_)) => {
                self.offsets.insert(hash(key), entry.position.offset);
            }
            (Some(key), None) => {
                self.offsets.remove(&hash(key));
            }
        }
    }
}

fn hash(key: &str) -> Hash {
    let fingerprint = Fingerprint::of(key);
    fingerprint.as_bytes()[..16].try_into().expect("16 bytes")
}

/// The newest entries that no key at hand opens, by the key that they are sealed to.
#[derive(Default)]
struct MissingKeys(BTreeMap<String, std::collections::HashSet<Hash>>);

impl MissingKeys {
    fn take(&mut self, entry: &Entry, vault: &Vault) {
        let Some(key) = entry.record.key.as_deref() else { return };
        let hash = hash(key);
        for others in self.0.values_mut() {
            others.remove(&hash);
        }
        let sealed = entry.record.value.as_deref().and_then(entry_of);
        if let Some(sealed) = sealed.filter(|sealed| !vault.keys().ids().contains(&sealed.key)) {
            self.0.entry(sealed.key).or_default().insert(hash);
        }
    }

    fn tell(&self) {
        for (key, entries) in self.0.iter().filter(|(_, entries)| !entries.is_empty()) {
            error!(
                key,
                entries = entries.len(),
                "{} entries of the vault are sealed to the key {key}, which is not in vault-key: they cannot be handed \
                 out. Add that key as a further line of the file",
                entries.len()
            );
        }
    }
}
