//! Where the state lies between two lives of the loop: on a disk, or in a simulated world.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::store::sled::Sled;
use crate::store::{Store, StoreError, Trusts};

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
        Store::open(Box::new(Sled::open(self)?), log, partitions, trusts)
    }

    fn set_aside(&self) -> anyhow::Result<String> {
        let aside = self.with_extension("set-aside");
        remove_dir(&aside).context("remove what was set aside before")?;
        if self.exists() {
            std::fs::rename(self, &aside).context("set the state aside")?;
        }
        Ok(aside.display().to_string())
    }
}

fn remove_dir(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
