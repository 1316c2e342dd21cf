//! The simulated disk of a processor: rows that outlive it, and may be torn, damaged or old when it restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use processor::state::room::Patience;
use processor::state::{Row, Rows, Store, StoreError, Trusts};
use processor::state_dir::StateDir;

use crate::baton::{Go, Port};
use crate::being::{Being, INJECTED};
use crate::judge::Checkpoint;
use crate::mutation::Mutation;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const CHECKPOINT: u8 = b'm';

/// A clone is another handle to the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Map>>);

impl Disk {
    /// An independent copy.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.rows().clone())))
    }

    pub fn restore(&self, older: &Self) {
        let rows = older.rows().clone();
        *self.rows() = rows;
    }

    fn take(&self, other: &Self) {
        let rows = std::mem::take(&mut *other.rows());
        *self.rows() = rows;
    }

    pub fn wipe(&self) {
        self.rows().clear();
    }

    /// Changes, adds or removes one random row; returns whether there was one.
    pub fn damage(&self, random: &mut Rng) -> bool {
        let mut rows = self.rows();
        if rows.is_empty() {
            return false;
        }
        let key = rows.keys().nth(random.usize(..rows.len())).cloned().expect("there are so many");
        if random.u32(..4) == 0 {
            rows.remove(&key);
        } else if let Some(byte) = rows.get_mut(&key).and_then(|value| {
            let at = random.usize(..value.len().max(1));
            value.get_mut(at)
        }) {
            *byte ^= 1 << random.u32(..8);
        }
        true
    }

    fn rows(&self) -> MutexGuard<'_, Map> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state directory of one life.
pub struct SimStateDir {
    pub disk: Disk,
    pub beside: Disk,
    pub fold_version: u32,
    pub being: Being,
}

impl SimStateDir {
    fn open_on(&self, disk: &Disk, log: &str, partitions: u32, trusts: Trusts) -> Result<Store, StoreError> {
        let rows = SimRows { disk: disk.clone(), being: self.being.clone() };
        Store::open_as(self.fold_version, Box::new(rows), log, partitions, trusts)
    }
}

impl StateDir for SimStateDir {
    fn open(&self, log: &str, partitions: u32, trusts: Trusts, _: &Patience) -> Result<Store, StoreError> {
        self.being.pause("open the state");
        if self.disk.rows().is_empty() {
            self.disk.take(&self.beside);
        }
        self.open_on(&self.disk, log, partitions, trusts)
    }

    fn quarantine(&self) -> anyhow::Result<String> {
        self.being.pause("quarantine the state");
        let mut world = self.being.world.lock();
        world.note(|| format!("life {} sets its state aside", self.being.life));
        world.judge.counts.quarantined += 1;
        self.disk.wipe();
        Ok("discarded".to_owned())
    }

    fn open_beside(&self, log: &str, partitions: u32, trusts: Trusts, _: &Patience) -> Result<Store, StoreError> {
        self.being.pause("open the state beside");
        self.open_on(&self.beside, log, partitions, trusts)
    }

    fn throw_away_beside(&self) -> anyhow::Result<()> {
        self.being.pause("throw away the state beside");
        self.beside.wipe();
        Ok(())
    }

    fn swap(&self) -> anyhow::Result<()> {
        self.being.pause("quarantine the old state");
        self.disk.wipe();
        self.being.pause("put the new state in its place");
        self.disk.take(&self.beside);
        let mut world = self.being.world.lock();
        world.note(|| format!("life {} has renewed its state", self.being.life));
        world.judge.counts.renewed += 1;
        Ok(())
    }
}

/// The rows of a life.
struct SimRows {
    disk: Disk,
    being: Being,
}

impl SimRows {
    fn fail(&self, what: &str) -> Result<(), StoreError> {
        let Some(mut world) = self.being.world.unless_judged() else { return Ok(()) };
        let rate = world.faults.rows;
        if world.chance(rate) {
            world.note(|| format!("life {}: {what} fails", self.being.life));
            return Err(StoreError::Rows(format!("{what}, {INJECTED}")));
        }
        Ok(())
    }

    fn put(&self, rows: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>) {
        let mut known = self.disk.rows();
        for (key, value) in rows {
            match value {
                Some(value) => known.insert(key, value),
                None => known.remove(&key),
            };
        }
    }

    /// Reports the checkpoints in these rows to the judge.
    fn show(&self, rows: &[(Vec<u8>, Option<Vec<u8>>)]) {
        for (key, value) in rows {
            let (Some(value), Some(partition)) = (value, partition(key)) else { continue };
            let before = self.disk.rows().get(key).map(|row| Checkpoint::read(row));
            let after = Checkpoint::read(value);
            let mut world = self.being.world.lock();
            let line = format!("life {}: applies {partition} to F={} K={:?}", self.being.life, after.facts, after.raw);
            world.note(|| line);
            let world = &mut *world;
            if world.broker.is_open(&self.being.instance, partition, after.facts) {
                world.violate(format!("life {}: applied before it was published", self.being.life));
            }
            if let Err(wrong) = world.judge.applied(&world.broker, partition, before.as_ref(), &after) {
                world.violate(format!("life {}: {wrong}", self.being.life));
            }
        }
    }
}

impl Rows for SimRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.fail("read a row")?;
        Ok(self.disk.rows().get(key).cloned())
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], from: &[u8]) -> Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a> {
        let failed = self.fail("scan rows").err();
        let rows = self.disk.rows();
        let found = rows.range(from.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        let found: Vec<_> = found.map(|(key, value)| Ok((key.clone(), value.clone()))).collect();
        Box::new(failed.map(Err).into_iter().chain(found))
    }

    fn write(&self, mut rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        if self.being.port.pause_or_die("apply") == Go::Die {
            let mut world = self.being.world.lock();
            if world.chance(300) {
                // As after a power loss: some of the rows, in no order.
                world.random.shuffle(&mut rows);
                rows.truncate(world.random.usize(..=rows.len()));
                drop(world);
                self.put(rows);
            }
            Port::die();
        }
        self.fail("write rows before")?;
        self.show(&rows);
        if self.being.world.lock().has(Mutation::LosesRows) {
            rows.retain(|(key, _)| key.first() == Some(&CHECKPOINT));
        }
        self.put(rows);
        self.being.pause("applied");
        self.fail("write rows after")
    }

    fn bytes(&self) -> u64 {
        self.disk.rows().len() as u64
    }
}

fn partition(key: &[u8]) -> Option<u32> {
    let (CHECKPOINT, digits) = key.split_first().map(|(kind, digits)| (*kind, digits))? else { return None };
    digits.try_into().ok().map(u32::from_be_bytes)
}
