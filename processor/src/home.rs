//! Where the state lies between two lives of the loop: on a disk, or in a simulated world.

use std::path::PathBuf;

use anyhow::Context;

use crate::store::{Store, StoreError, Trusts, opening};

/// A place for one state.
pub trait Home: Send + Sync {
    /// Opens the state that lies here for these logs, or begins a new one.
    fn open(&self, log: &str, partitions: u32, trusts: Trusts) -> Result<Store, StoreError>;

    /// Moves what lies here out of the way; returns where it is now, in words.
    fn set_aside(&self) -> anyhow::Result<String>;
}

/// A directory, with sled in it.
impl Home for PathBuf {
    fn open(&self, log: &str, partitions: u32, trusts: Trusts) -> Result<Store, StoreError> {
        opening::open(self, log, partitions, trusts)
    }

    fn set_aside(&self) -> anyhow::Result<String> {
        let aside = opening::set_aside(self).context("set the state aside")?;
        Ok(aside.display().to_string())
    }
}
