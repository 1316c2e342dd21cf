//! The place of the state: on a disk, or in a simulation.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use crate::state::room::{self, Patience};
use crate::state::{Store, StoreError, Trusts, opening};

/// The suffix of a state that is built beside another one.
const BESIDE: &str = "rebuilding";

pub trait StateDir: Send + Sync {
    /// Opens the state of these logs, or creates it; `patience` decides on a full disk.
    fn open(&self, log: &str, partitions: u32, trusts: Trusts, patience: &Patience) -> Result<Store, StoreError>;

    /// Whether the state can be written.
    fn has_room(&self) -> bool {
        true
    }

    /// Moves the state away; returns a description of its new place.
    fn quarantine(&self) -> anyhow::Result<String>;

    /// Opens the state beside this one, or creates it.
    fn open_beside(&self, log: &str, partitions: u32, trusts: Trusts, patience: &Patience)
    -> Result<Store, StoreError>;

    fn throw_away_beside(&self) -> anyhow::Result<()>;

    /// Quarantines this state, and replaces it by the one beside, which must not be open. After a crash in between,
    /// [`StateDir::open`] finds the one beside.
    fn swap(&self) -> anyhow::Result<()>;
}

impl StateDir for PathBuf {
    fn open(&self, log: &str, partitions: u32, trusts: Trusts, patience: &Patience) -> Result<Store, StoreError> {
        let beside = opening::beside(self, BESIDE);
        if !self.exists() && beside.exists() {
            // A process ended in the middle of a swap. The state is a valid fold, up to any offset.
            let found = |error| StoreError::Rows(format!("put {} in its place: {error}", beside.display()));
            fs::rename(&beside, self).map_err(found)?;
        }
        opening::open_patiently(self, log, partitions, trusts, patience)
    }

    fn has_room(&self) -> bool {
        room::has_room_to_write(self)
    }

    fn quarantine(&self) -> anyhow::Result<String> {
        let aside = opening::quarantine(self).context("quarantine the state")?;
        Ok(aside.display().to_string())
    }

    fn open_beside(
        &self,
        log: &str,
        partitions: u32,
        trusts: Trusts,
        patience: &Patience,
    ) -> Result<Store, StoreError> {
        opening::open_patiently(&opening::beside(self, BESIDE), log, partitions, trusts, patience)
    }

    fn throw_away_beside(&self) -> anyhow::Result<()> {
        opening::throw_away(&opening::beside(self, BESIDE)).context("throw away the state that was begun")
    }

    fn swap(&self) -> anyhow::Result<()> {
        opening::quarantine(self).context("quarantine the old state")?;
        fs::rename(opening::beside(self, BESIDE), self).context("put the new state in its place")
    }
}
