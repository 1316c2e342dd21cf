//! `hookledger vault`: makes keys, and seals what is kept to the first one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};
use processor::config::VAULT_KEY;
use processor::vault::rekey::{Rekeyed, rekey};
use processor::vault::{Vault, VaultKeys, make_key_file};
use runtime::lifecycle::Stop;
use runtime::settings::{Setting, Settings, SettingsError};
use serde_json::json;

use crate::arguments;
use crate::logs::{own_logs, settings as log_settings};
use crate::outcome::{Outcome, Usage};
use crate::output::print_answer;
use crate::state::{State, settings_of};

/// In the data-dir of a standalone that has no other key.
pub const FILE: &str = "vault.key";

pub fn command() -> Command {
    Command::new("vault")
        .about("Makes a key for the vault, and seals what is kept to the first key")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("keygen")
                .about("Makes a file with a new key, for vault-key-file")
                .after_help("Keep a copy of the file elsewhere: without it, what is in the vault cannot be opened.")
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .required(true)
                        .value_parser(clap::value_parser!(PathBuf))
                        .help("The file, which must not exist"),
                )
                .arg(arguments::json()),
        )
        .subcommand(
            runtime::settings::command("rekey", "Seals every entry of the vault to the first key", &settings())
                .after_help(
                    "For a new key: put its line before the old one in the file, restart the processors, stop them, \
                     run this, and start them; then the old line can go. An entry that no key opens stays as it is.\n\n\
                     No processor of the group may own a partition. Works on Kafka, or, where kafka is not set, on the \
                     disk logs of a standalone in data-dir, which must not be running.",
                )
                .arg(arguments::json()),
        )
}

pub fn run(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    match arguments.subcommand().expect("clap requires a subcommand") {
        ("keygen", arguments) => keygen(arguments),
        (_, arguments) => run_rekey(arguments),
    }
}

fn keygen(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let file = arguments.get_one::<PathBuf>("file").expect("clap requires it");
    let id = make_key_file(file).with_context(|| format!("make {}", file.display()))?;
    let answer = json!({ "file": file.display().to_string(), "id": id });
    print_answer(arguments, &answer, || {
        format!("The key {id} is in {}. Keep a copy of it elsewhere.", file.display())
    })?;
    Ok(Outcome::Done)
}

fn settings() -> Vec<Setting> {
    log_settings().into_iter().chain([VAULT_KEY]).collect()
}

fn run_rekey(arguments: &ArgMatches) -> anyhow::Result<Outcome> {
    let settings = settings_of(&settings(), arguments)?;
    let stop = Stop::on_signals().context("listen for signals")?;
    let data_dir = settings.path("data-dir")?;
    let is_standalone = settings.kafka()?.is_none();
    let vault = Vault::new(keys(&settings, is_standalone.then_some(&data_dir))?);
    let _lock = is_standalone.then(|| State::take(&settings)).transpose()?;
    let mut event_log = own_logs(&settings, &data_dir, &stop)?;
    let Rekeyed { sealed, unchanged, unopened } = rekey(&mut *event_log, &vault).context("seal the vault again")?;
    let id = &vault.keys().ids()[0];
    let answer = json!({ "key": id, "sealed": sealed, "unchanged": unchanged, "unopened": unopened });
    print_answer(arguments, &answer, || {
        let mut text = format!("{sealed} entries are sealed to the key {id} now, and {unchanged} were.");
        for (why, number) in &unopened {
            let _ = write!(text, "\n{number} entries stay as they are: {why}.");
        }
        text
    })?;
    Ok(if unopened.is_empty() { Outcome::Done } else { Outcome::Failed })
}

/// Those of the setting, or of a standalone's own file.
fn keys(settings: &Settings, data_dir: Option<&PathBuf>) -> anyhow::Result<VaultKeys> {
    let wrong = |why: String| SettingsError(format!("vault-key {why}"));
    match (settings.secret("vault-key"), data_dir) {
        (Some(text), _) => Ok(VaultKeys::parse(text.reveal()).map_err(wrong)?),
        (None, Some(data_dir)) => read(&data_dir.join(FILE)),
        (None, None) => Err(Usage("vault-key-file is not set, so there is no vault".into()).into()),
    }
}

pub fn read(file: &Path) -> anyhow::Result<VaultKeys> {
    Ok(VaultKeys::read(file).map_err(|why| SettingsError(format!("{} {why}", file.display())))?)
}
