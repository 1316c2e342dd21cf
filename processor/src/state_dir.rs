//! Where the state lies between two lives of the loop: on a disk, or in a simulated world.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use crate::state::room::{self, Patience};
use crate::state::{Store, StoreError, Trusts, opening};

/// What the state that is made beside another one is called, behind that one's name.
pub const BESIDE: &str = "rebuilding";

/// A place for one state.
pub trait StateDir: Send + Sync {
    /// Opens the state that lies here for these logs, or begins a new one; waits like this where there is no room.
    fn open(&self, log: &str, partitions: u32, trusts: Trusts, patience: &Patience) -> Result<Store, StoreError>;

    /// Whether the state can be written to.
    fn has_room(&self) -> bool {
        true
    }

    /// Moves what lies here out of the way; returns where it is now, in words.
    fn quarantine(&self) -> anyhow::Result<String>;

    /// Opens the state that is made beside the one that lies here, or begins it.
    fn open_beside(&self, log: &str, partitions: u32, trusts: Trusts, patience: &Patience)
    -> Result<Store, StoreError>;

    /// Throws away what lies beside.
    fn throw_away_beside(&self) -> anyhow::Result<()>;

    /// Sets aside what lies here, and puts what lies beside in its place. Nobody has the latter open. After an end in
    /// between, what lies beside is what [`StateDir::open`] finds.
    fn swap(&self) -> anyhow::Result<()>;
}

/// A directory, with sled in it.
impl StateDir for PathBuf {
    fn open(&self, log: &str, partitions: u32, trusts: Trusts, patience: &Patience) -> Result<Store, StoreError> {
        let beside = opening::beside(self, BESIDE);
        if !self.exists() && beside.exists() {
            // A process ended between the two steps of a swap. However far it goes, it is the fold up to there.
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
