//! The state directory for maintenance commands: found, and locked against processors.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use processor::run::identity::Identity;
use processor::state::{Store, Trusts};
use runtime::settings::{Setting, Settings, SettingsError};
use runtime::telemetry;

use crate::outcome::Usage;
use crate::output::table;

/// Locked against processors while it lives.
pub struct State {
    pub dir: PathBuf,
    pub data_dir: PathBuf,
    /// Affects what is counted.
    pub trusts: Trusts,
    _lock: Identity,
}

impl State {
    /// The processor's directory below `data-dir`, which must exist.
    pub fn take(settings: &Settings) -> anyhow::Result<Self> {
        let data_dir = settings.path("data-dir")?;
        let dir = data_dir.join("processor");
        if !dir.is_dir() {
            let dir = dir.display();
            return Err(Usage(format!("there is no directory {dir}: name a processor's data-dir")).into());
        }
        // With an explicit name, so that none is created and kept.
        let lock = Identity::take(&dir, Some("hookledger"));
        let lock = lock.map_err(|error| Usage(format!("{error:#}: stop that processor first")))?;
        let trusts = Trusts::new(settings.apps().iter().map(|(name, app)| (name.clone(), app.trust)));
        Ok(Self { dir: dir.join("state"), data_dir, trusts, _lock: lock })
    }
}

/// Reads the settings of a command, and starts its log lines.
pub fn settings_of(known: &[Setting], arguments: &ArgMatches) -> anyhow::Result<Settings> {
    let settings = Settings::from_matches_and_process(known, arguments)?;
    telemetry::init_logs(settings.log_format()?);
    settings.warn();
    Ok(settings)
}

pub fn setting_names() -> [&'static str; 3] {
    ["data-dir", "apps", "log-format"]
}

/// Positions and digests, a line for each partition.
pub fn described(store: &Store) -> String {
    let row = |partition: u32| {
        let checkpoint = store.checkpoint(partition);
        let raw = checkpoint.raw.map_or_else(|| "-".to_owned(), |raw| raw.to_string());
        [partition.to_string(), checkpoint.facts.to_string(), raw, store.digest(partition)]
    };
    let installations: i64 = store.counts().installations.values().sum();
    let total = format!("{installations} installations, folded from {}\n", store.log());
    table(["partition", "facts", "raw", "digest"], (0..store.partitions()).map(row)) + &total
}

pub fn is_missing(dir: &Path) -> anyhow::Error {
    SettingsError(format!("kafka is not set, and there are no disk logs in {}", dir.display())).into()
}
