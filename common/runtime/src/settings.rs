//! Settings: read once, by flag, environment or file; secrets cannot be printed; units are part of values.
//!
//! A program has one table of [`Setting`]s, put together from the tables that programs share ([`PROCESS`],
//! [`KAFKA`], [`admin_listen`]) and its own. A flag wins over the environment, the environment over the
//! file, the file over the default. An empty variable counts as none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use crate::private;
use bitrix24::AppName;
use event_log::contract::DAY;
use primitives::plain;
use primitives::secret::Secret;

mod apps;
mod command;
mod files;
mod kafka;
mod layers;
mod names;
mod setting;
mod shared;
mod value;

pub use apps::App;
pub use command::command;
pub use kafka::KafkaSettings;
pub use setting::{Kind, Setting, SettingsError};
pub use shared::{KAFKA, PROCESS, TRUSTED_PROXIES, admin_listen};
use value::{Effective, Source, Value};

/// Longer is a mistake, and could not be added to a point in time.
const DURATION_MAX: Duration = DAY.saturating_mul(36_500);

#[derive(Clone, Default)]
pub struct Settings {
    /// In the order of the program's table.
    effective: Vec<Effective>,
    apps: BTreeMap<AppName, App>,
    /// Sentences about settings that work and should be changed.
    warnings: Vec<String>,
    secret_files: Vec<PathBuf>,
}

/// `arguments` begin with the program's name. `--help` and `--version` are errors here, with the text to show.
pub fn read(
    program: &str,
    about: &str,
    known: &[Setting],
    args: impl IntoIterator<Item = OsString>,
    env: &dyn Fn(&str) -> Option<String>,
    env_names: impl IntoIterator<Item = String>,
) -> Result<Settings, SettingsError> {
    let matches = command(program, about, known)
        .try_get_matches_from(args)
        .map_err(|error| SettingsError(error.to_string().trim_end().to_owned()))?;
    Settings::from_matches(known, &matches, env, env_names)
}

/// Reads the settings of this process, or ends it: with 0 after `--help` and `--version`, with 2 and a
/// message after an error.
pub fn read_from_process(program: &str, about: &str, known: &[Setting]) -> Settings {
    let matches = command(program, about, known).try_get_matches().unwrap_or_else(|error| error.exit());
    Settings::from_matches_and_process(known, &matches).unwrap_or_else(|error| error.exit())
}

impl Settings {
    /// From the matches of [`command`] with the same table, also where it is a subcommand.
    pub(crate) fn from_matches(
        known: &[Setting],
        matches: &clap::ArgMatches,
        env: &dyn Fn(&str) -> Option<String>,
        env_names: impl IntoIterator<Item = String>,
    ) -> Result<Self, SettingsError> {
        layers::merge(known, matches, env, env_names)
    }

    pub fn from_matches_and_process(known: &[Setting], matches: &clap::ArgMatches) -> Result<Self, SettingsError> {
        let env = layers::process_environment()?;
        Self::from_matches(known, matches, &|name| env.get(name).cloned(), env.keys().cloned())
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Plain(text) => Some(text),
            Value::Secret(_) | Value::Repeated(_) | Value::Switch(_) => None,
        }
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::Repeated(values)) => values.clone(),
            Some(Value::Plain(_) | Value::Secret(_) | Value::Switch(_)) | None => Vec::new(),
        }
    }

    pub fn on(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Switch(true)))
    }

    pub fn secret(&self, name: &str) -> Option<Secret> {
        match self.value(name)? {
            Value::Secret(secret) => Some(secret.clone()),
            Value::Plain(_) | Value::Repeated(_) | Value::Switch(_) => None,
        }
    }

    /// With its unit, such as `300ms`.
    pub fn duration(&self, name: &str) -> Result<Duration, SettingsError> {
        let parse = |text: &str| humantime::parse_duration(text).ok().filter(|wait| *wait <= DURATION_MAX);
        self.parsed(name, parse, "a duration with its unit", "300ms` or `14d")
    }

    /// With its unit, such as `64KiB`; in bytes.
    pub fn size(&self, name: &str) -> Result<u64, SettingsError> {
        // Bytesize takes a bare number for bytes.
        let has_unit = |text: &str| text.ends_with(|last: char| last.is_ascii_alphabetic());
        let parse = |text: &str| text.parse().ok().filter(|_| has_unit(text)).map(|size: ByteSize| size.as_u64());
        self.parsed(name, parse, "a size with its unit", "64KiB")
    }

    pub fn address(&self, name: &str) -> Result<SocketAddr, SettingsError> {
        self.parsed(name, |text| text.parse().ok(), "an IP address with a port", "127.0.0.1:8080")
    }

    pub fn number(&self, name: &str) -> Result<Option<u32>, SettingsError> {
        match self.text(name) {
            Some(_) => self.parsed(name, |text| text.parse().ok(), "a whole number", "6").map(Some),
            None => Ok(None),
        }
    }

    pub fn path(&self, name: &str) -> Result<PathBuf, SettingsError> {
        let parse = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        self.parsed(name, parse, "a path", "./hookledger-data")
    }

    /// Empty means any name.
    pub fn apps(&self) -> &BTreeMap<AppName, App> {
        &self.apps
    }

    /// Names that mean nothing here, and secret files that others may read.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().cloned().chain(self.exposed())
    }

    fn exposed(&self) -> impl Iterator<Item = String> {
        self.secret_files.iter().filter_map(|file| private::exposed(file))
    }

    /// The effective settings, one a line with their sources, secrets hidden.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for Effective { setting, value, source } in &self.effective {
            let shown = value.as_ref().map_or_else(String::new, Value::shown);
            writeln!(text, "{} = {shown}  # {source}", setting.name).expect("a String takes all");
        }
        for (name, app) in &self.apps {
            for (key, shown) in app.described() {
                writeln!(text, "apps.{name}.{key} = {shown}").expect("a String takes all");
            }
        }
        for warning in self.warnings() {
            writeln!(text, "# warning: {warning}").expect("a String takes all");
        }
        plain::lines(&text)
    }

    pub fn warn(&self) {
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
    }

    fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        what: &str,
        example: &str,
    ) -> Result<T, SettingsError> {
        let Some(given) = self.text(name) else {
            return Err(SettingsError(format!("{name} is not set; it takes {what}, for example `{example}`")));
        };
        parse(given).ok_or_else(|| {
            let source = self.find(name).map_or(&Source::Unset, |found| &found.source);
            SettingsError(format!("{name} is `{given}` ({source}), but it takes {what}; for example `{example}`"))
        })
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.find(name)?.value.as_ref()
    }

    fn find(&self, name: &str) -> Option<&Effective> {
        self.effective.iter().find(|effective| effective.setting.name == name)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

#[cfg(test)]
mod tests;
