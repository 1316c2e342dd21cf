//! The state on disk: the fold of `facts` up to an offset. A cache that may be deleted.
//!
//! The only way to change it is [`Store::apply`], which takes changes and the offset behind them, and writes rows,
//! offset and digest in one atomic batch. Owner, follower and rebuild share it. The facts themselves stay in `facts`: the
//! state knows their places. Below are rows of bytes ([`Rows`]), in sled or, for tests, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bitrix24::{AppName, Installation, Trust};
use event_log::EventId;
use serde::{Deserialize, Serialize};

use cache::{Cache, Heard};
use changeset::{Changeset, Written};
use codec::Codec;
pub use counts::{Counts, PrincipalState};
use digest::Digest;
use domain::{Change, EndpointHosts, Fact, HeldEvent, InstallationState, Rules};
use loading::{add_row, malformed, read_all};
pub use places::{FactLog, Place};
use untrusted::Untrusted;

mod beside;
mod cache;
mod changeset;
mod codec;
mod counts;
mod crash_marker;
mod digest;
mod keys;
mod loading;
pub mod memory;
pub mod opening;
mod places;
pub mod room;
pub mod sled;
mod untrusted;
pub mod watchdog;
mod write_behind;

/// Rows of bytes, ordered by key.
pub trait Rows: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The rows whose keys begin with `prefix`, from `from` on, in order.
    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a>;

    /// Writes all rows or none; a row without a value is removed.
    fn write(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError>;

    fn write_patiently(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        self.write(rows)
    }

    /// Size on disk.
    fn bytes(&self) -> u64;

    /// Rows may be buffered, and written in parts, until [`Rows::finish_bulk_load`].
    fn begin_bulk_load(&self) {}

    fn finish_bulk_load(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

pub type Row = (Vec<u8>, Vec<u8>);

/// State is never repaired: it is quarantined and folded again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Rows cannot be read or written.
    #[error("reach the state: {0}")]
    Rows(String),
    /// Nothing was written, because the disk is full.
    #[error("there is no room for the state")]
    NoRoom,
    /// The stored rows are not the written ones.
    #[error("the state is damaged: {0}")]
    Damaged(String),
    /// The state was folded from other logs, or by another version.
    #[error("the state belongs to {0}")]
    Foreign(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `F`: the next offset of `facts`.
    pub facts: u64,
    /// `K`: the next offset of `raw`, by the newest progress record.
    pub raw: Option<u64>,
    /// The id of the log, by its progress records.
    pub log: Option<EventId>,
    /// The event before `K`, if it has an id: `raw` must still hold it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<EventId>,
    /// The first offset of `facts` in this fold: above 0 only if an operator has accepted that.
    #[serde(default, skip_serializing_if = "is_the_first")]
    pub begin: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_the_first(offset: &u64) -> bool {
    *offset == 0
}

/// The content of a progress record, for the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progressed {
    /// `K`.
    pub raw: u64,
    pub log: EventId,
    /// The event before `K`.
    pub last: Option<EventId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    log: String,
    partitions: u32,
    fold_version: u32,
}

/// Raised when the same facts would now fold into other rows. State of an older version keeps answering, marked as
/// stale, until facts are read again.
pub const FOLD_VERSION: u32 = 5;

/// The trust setting of each app, and the endpoint hosts of records.
#[derive(Clone, Debug, Default)]
pub struct Trusts(BTreeMap<AppName, Trust>, EndpointHosts);

impl Trusts {
    /// Apps without a setting trust the first principal that reported an install.
    pub fn new(trusts: impl IntoIterator<Item = (AppName, Trust)>) -> Self {
        Self(trusts.into_iter().collect(), EndpointHosts::default())
    }

    #[must_use]
    pub(crate) fn with_endpoint_hosts(self, hosts: EndpointHosts) -> Self {
        Self(self.0, hosts)
    }

    pub fn of(&self, app: &AppName) -> Trust {
        self.0.get(app).copied().unwrap_or_default()
    }
}

/// The state. Any thread may read; one applies.
pub struct Store {
    rows: Box<dyn Rows>,
    log: String,
    codec: Codec,
    is_outdated: bool,
    trusts: Trusts,
    partitions: u32,
    checkpoints: Mutex<Vec<(Checkpoint, Digest)>>,
    counts: Mutex<Counts>,
    cache: Mutex<Cache>,
    heard: Mutex<Heard>,
    untrusted: Mutex<Vec<Untrusted>>,
    /// Held while rows are written that have to be read together.
    writing: RwLock<()>,
}

impl Store {
    /// Opens the state of these logs, or creates it. Reads every row and compares digests.
    pub fn open(rows: Box<dyn Rows>, log: &str, partitions: u32, trusts: Trusts) -> Result<Self, StoreError> {
        Self::open_as(FOLD_VERSION, rows, log, partitions, trusts)
    }

    /// Opens it as another version would, for tests.
    pub fn open_as(
        fold_version: u32,
        rows: Box<dyn Rows>,
        log: &str,
        partitions: u32,
        trusts: Trusts,
    ) -> Result<Self, StoreError> {
        let mut owner = Owner { log: log.to_owned(), partitions, fold_version };
        match rows.get(keys::OWNER)? {
            None => {
                // The owner row is written first: without it there must be no other.
                if rows.scan(b"", b"").next().transpose()?.is_some() {
                    return Err(StoreError::Damaged("the owner row is missing".to_owned()));
                }
                rows.write(vec![(keys::OWNER.to_vec(), Some(json(&owner)))])?;
            }
            Some(stored) => {
                let stored: Owner = read_json(&stored)?;
                if (&stored.log, stored.partitions) != (&owner.log, partitions) || stored.fold_version > fold_version {
                    return Err(StoreError::Foreign(format!("{stored:?}, not to {owner:?}")));
                }
                owner = stored;
            }
        }
        let codec = Codec::of(owner.fold_version);
        let known = read_all(&*rows, codec, partitions, &trusts)?;
        let mut checkpoints = Vec::new();
        for (partition, digest) in (0..partitions).zip(known.digests) {
            let stored = match rows.get(&keys::checkpoint(partition))? {
                Some(row) => read_json(&row)?,
                None => StoredCheckpoint::of(&Checkpoint::default(), Digest::default()),
            };
            if stored.digest != digest::seal(digest, &stored.checkpoint) {
                return Err(StoreError::Damaged(format!("the digest of partition {partition} does not match")));
            }
            checkpoints.push((stored.checkpoint, digest));
        }
        Ok(Self {
            rows,
            codec,
            is_outdated: owner.fold_version < fold_version,
            log: owner.log,
            trusts,
            partitions,
            checkpoints: Mutex::new(checkpoints),
            counts: Mutex::new(known.counts),
            cache: Mutex::default(),
            heard: Mutex::new(known.heard),
            untrusted: Mutex::new(known.untrusted),
            writing: RwLock::default(),
        })
    }

    /// The log and the number of partitions that these rows belong to.
    pub fn whose(rows: &dyn Rows) -> Result<Option<(String, u32)>, StoreError> {
        let Some(stored) = rows.get(keys::OWNER)? else { return Ok(None) };
        read_json(&stored).map(|Owner { log, partitions, .. }| Some((log, partitions)))
    }

    pub fn log(&self) -> &str {
        &self.log
    }

    /// Whether an older version folded this: it answers queries, and takes no changes.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    pub fn checkpoint(&self, partition: u32) -> Checkpoint {
        lock(&self.checkpoints).get(partition as usize).map(|(checkpoint, _)| checkpoint.clone()).unwrap_or_default()
    }

    pub fn trust(&self, app: &AppName) -> Trust {
        self.trusts.of(app)
    }

    pub fn rules(&self, app: &AppName) -> Rules<'_> {
        Rules { trust: self.trust(app), endpoint_hosts: &self.trusts.1 }
    }

    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Applies changes, each with its offset in `facts`, that end before `facts` in this partition: rows, offset and
    /// digest in one batch. Where one corrects a fact, the other facts of its installation are read from `log`.
    pub fn apply<'c, L: FactLog>(
        &self,
        partition: u32,
        changes: impl IntoIterator<Item = (&'c Change, u64)>,
        progressed: Option<Progressed>,
        facts: u64,
        log: &mut L,
    ) -> Result<(), L::Error> {
        if self.is_outdated {
            return Err(StoreError::Foreign("an older version of the fold".to_owned()).into());
        }
        let (mut changesets, mut unread) = (Vec::new(), BTreeSet::new());
        for (installation, changes) in by_installation(changes) {
            let mut changeset = Changeset::new(self, installation)?;
            for (change, offset) in changes {
                changeset.make(change, offset)?;
            }
            unread.extend(changeset.unread()?);
            changesets.push(changeset);
        }
        let read = if unread.is_empty() { BTreeMap::new() } else { log.read(partition, &unread)? };
        let (mut checkpoint, digest) = self.known(partition);
        let mut written = Written { digest, rows: Vec::new() };
        let mut counts = self.counts();
        let mut states = Vec::new();
        for mut changeset in changesets {
            changeset.decide(&read)?;
            changeset.differences(&mut written)?;
            let Changeset { installation, before, after, .. } = changeset;
            let trust = self.trust(&installation.app);
            counts.add(&before, trust, -1);
            counts.add(&after, trust, 1);
            states.push((installation.clone(), Untrusted::heard(&before), after));
        }
        checkpoint.facts = facts;
        if let Some(Progressed { raw, log, last }) = progressed {
            (checkpoint.raw, checkpoint.log, checkpoint.last) = (Some(raw), Some(log), last);
        }
        let Written { digest, mut rows } = written;
        rows.push(StoredCheckpoint::row(partition, &checkpoint, digest));
        {
            let _writing = self.writing.write().unwrap_or_else(PoisonError::into_inner);
            self.rows.write(rows)?;
        }
        lock(&self.checkpoints)[partition as usize] = (checkpoint, digest);
        *lock(&self.counts) = counts;
        let (mut cache, mut untrusted) = (lock(&self.cache), lock(&self.untrusted));
        for (installation, heard_before, state) in states {
            untrusted[partition as usize].replace(&installation, heard_before, Untrusted::heard(&state));
            cache.put(installation, Arc::new(state));
        }
        Ok(())
    }

    /// Installations of a partition without facts, above `limit` for each app: up to `most`, the least recently active.
    pub fn surplus(&self, partition: u32, limit: usize, most: usize) -> Vec<Installation> {
        lock(&self.untrusted).get(partition as usize).map_or_else(Vec::new, |known| known.surplus(limit, most))
    }

    /// Installations without facts that were heard of last, of all partitions alike: up to `most`.
    pub fn newest_untrusted(&self, most: usize, takes: impl Fn(&Installation) -> bool) -> Vec<Installation> {
        untrusted::newest(&lock(&self.untrusted), most, takes)
    }

    /// Starts an empty partition at this offset of `facts`.
    pub fn begin(&self, partition: u32, facts: u64) -> Result<(), StoreError> {
        let (checkpoint, digest) = self.known(partition);
        let checkpoint = Checkpoint { facts, begin: facts, ..checkpoint };
        self.rows.write(vec![StoredCheckpoint::row(partition, &checkpoint, digest)])?;
        lock(&self.checkpoints)[partition as usize] = (checkpoint, digest);
        Ok(())
    }

    fn known(&self, partition: u32) -> (Checkpoint, Digest) {
        lock(&self.checkpoints)[partition as usize].clone()
    }

    /// Buffers rows and writes them in order, which is many times as fast, until [`Store::finish_bulk_load`]: only for
    /// an empty state. If the process ends before, the state is damaged and rebuilt.
    pub(crate) fn begin_bulk_load(&self) {
        self.rows.begin_bulk_load();
    }

    pub(crate) fn finish_bulk_load(&self) -> Result<(), StoreError> {
        self.rows.finish_bulk_load()
    }

    /// Empty if nothing is known.
    pub fn installation(&self, installation: &Installation) -> Result<Arc<InstallationState>, StoreError> {
        // Queries hold the lock of the cache for no longer than this.
        let cache = lock(&self.cache).get(installation);
        cache.map_or_else(|| self.read_installation(installation).map(Arc::new), Ok)
    }

    fn read_installation(&self, installation: &Installation) -> Result<InstallationState, StoreError> {
        let prefix = keys::installation_rows(installation);
        let mut state = InstallationState::default();
        for row in self.rows.scan(&prefix, &prefix) {
            let (key, value) = row?;
            let part = &key[prefix.len()..];
            if keys::has_places(part) {
                break;
            }
            add_row(&mut state, self.codec, part, &value)?;
        }
        Ok(state)
    }

    pub(crate) fn held_fact(&self, held: &HeldEvent) -> Result<Option<Fact>, StoreError> {
        let row = self.rows.get(&keys::held_fact(&held.installation, held.principal, held.offset))?;
        row.map(|row| self.codec.fact(&held.installation, &row)).transpose()
    }

    /// The next installation behind `after`, in order of app and portal.
    pub fn next_installation(&self, after: Option<&Installation>) -> Result<Option<Installation>, StoreError> {
        self.next_with(keys::INSTALLATIONS, after)
    }

    /// The same among the installations of an app.
    pub fn next_of_app(&self, app: &AppName, after: Option<&Installation>) -> Result<Option<Installation>, StoreError> {
        self.next_with(&keys::installations_of(app), after.filter(|after| after.app == *app))
    }

    fn next_with(&self, prefix: &[u8], after: Option<&Installation>) -> Result<Option<Installation>, StoreError> {
        let from = after.map_or_else(|| prefix.to_vec(), |after| keys::behind_all(keys::installation_rows(after)));
        let row = self.rows.scan(prefix, &from).next();
        row.map(|row| keys::installation(&row?.0).ok_or_else(malformed)).transpose()
    }

    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    pub fn bytes(&self) -> u64 {
        self.rows.bytes()
    }

    /// The digest of all rows and of `F`: equal on every processor at the same `F`.
    ///
    /// Excludes `K`, which an owner may know before `facts` do.
    pub fn digest(&self, partition: u32) -> String {
        let at = |checkpoint: &Checkpoint| Checkpoint { facts: checkpoint.facts, ..Checkpoint::default() };
        let checkpoint = lock(&self.checkpoints);
        checkpoint
            .get(partition as usize)
            .map(|(checkpoint, digest)| digest::seal(*digest, &at(checkpoint)))
            .unwrap_or_default()
    }
}

#[derive(Serialize, Deserialize)]
struct StoredCheckpoint {
    #[serde(flatten)]
    checkpoint: Checkpoint,
    digest: String,
}

impl StoredCheckpoint {
    fn of(checkpoint: &Checkpoint, digest: Digest) -> Self {
        Self { digest: digest::seal(digest, checkpoint), checkpoint: checkpoint.clone() }
    }

    fn row(partition: u32, checkpoint: &Checkpoint, digest: Digest) -> (Vec<u8>, Option<Vec<u8>>) {
        (keys::checkpoint(partition), Some(json(&Self::of(checkpoint, digest))))
    }
}

fn by_installation<'c>(
    changes: impl IntoIterator<Item = (&'c Change, u64)>,
) -> BTreeMap<&'c Installation, Vec<(&'c Change, u64)>> {
    let mut sorted: BTreeMap<&Installation, Vec<_>> = BTreeMap::new();
    for (change, offset) in changes {
        sorted.entry(change.installation()).or_default().push((change, offset));
    }
    sorted
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows in a form that every version can read.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have a JSON form")
}

fn read_json<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Damaged(format!("a row cannot be read: {error}")))
}

#[cfg(test)]
mod tests;
