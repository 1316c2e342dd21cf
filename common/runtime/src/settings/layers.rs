//! Flags over environment over file over default. Unknown names are errors.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use toml::{Table, Value as Toml};

use super::command::{CONFIG, file_name, variable};
use super::files::{read_secret, read_text, secret, text_of};
use super::names::{ANYWHERE, PREFIX, unknown};
use super::value::holds_secret;
use super::{Effective, Kind, Setting, Settings, SettingsError, Source, Value, apps};
use primitives::secret::Secret;

const TEST_PREFIX: &str = "HOOKLEDGER_TEST_";
const BOTH_APPS: &str = ": the file has the list `apps` beside a table `[apps.NAME]`; leave out the list, and give \
                         every app a table, which may be empty";

pub(super) fn merge(
    known: &[Setting],
    matches: &ArgMatches,
    env: &dyn Fn(&str) -> Option<String>,
    env_names: impl IntoIterator<Item = String>,
) -> Result<Settings, SettingsError> {
    let env = |name: &str| env(&variable(name)).filter(|text| !text.is_empty());
    check_variables(known, env_names)?;
    let file = matches.get_one::<String>(CONFIG.name).cloned().or_else(|| env(CONFIG.name));
    let file = file.map(PathBuf::from);
    let table = file.as_deref().map(read_toml).transpose()?.unwrap_or_default();
    if let Some(file) = &file {
        check_keys(known, &table, file)?;
    }

    let mut effective = Vec::new();
    for setting in known.iter().filter(|setting| setting.name != CONFIG.name) {
        let (value, source) = if let Some(value) = from_flags(setting, matches)? {
            (Some(value), Source::Flag)
        } else if let Some(value) = from_environment(setting, &env)? {
            (Some(value), Source::Environment)
        } else if let (Some(file), Some(value)) = (&file, from_file(setting, &table)?) {
            (Some(value), Source::File(file.clone()))
        } else if let Some(default) = setting.default {
            (Some(from_default(setting, default)?), Source::Default)
        } else if setting.kind == Kind::Switch {
            (Some(Value::Switch(false)), Source::Default)
        } else {
            (None, Source::Unset)
        };
        effective.push(Effective { setting: *setting, value, source });
    }
    let secret_files = secret_files(known, matches, &env, file.as_deref(), &table);
    let warnings = seen_by_others(known, matches);
    let mut settings = Settings { effective, apps: BTreeMap::new(), warnings, secret_files };
    if known.iter().any(|setting| setting.name == "apps") {
        let keys = settings.text(apps::KEYS_DIR).map(Path::new);
        settings.apps = apps::read(&settings.all("apps"), table.get("apps"), keys)?;
    }
    Ok(settings)
}

/// The files named by settings, and the file of settings itself if it holds a secret.
fn secret_files(
    known: &[Setting],
    matches: &ArgMatches,
    env: &dyn Fn(&str) -> Option<String>,
    file: Option<&Path>,
    table: &Table,
) -> Vec<PathBuf> {
    let of_table = |table: &Table, name: &str| table.get(name).and_then(Toml::as_str).map(str::to_owned);
    let mut files = Vec::new();
    let mut is_inside = false;
    for setting in known {
        let name = match setting.kind {
            Kind::Secret => file_name(setting.name),
            // A private key, known to settings only by its path.
            Kind::Plain if setting.name == "tls-key-file" => setting.name.to_owned(),
            Kind::Plain | Kind::Repeated | Kind::Switch => continue,
        };
        is_inside |= setting.kind == Kind::Secret && table.contains_key(setting.name);
        let flag = matches.get_one::<String>(&name).cloned();
        files.extend(flag.or_else(|| env(&name)).or_else(|| of_table(table, &name)));
    }
    for app in table.get("apps").and_then(Toml::as_table).into_iter().flat_map(Table::values).filter_map(Toml::as_table)
    {
        for key in apps::SECRETS {
            is_inside |= app.contains_key(*key);
            files.extend(of_table(app, &file_name(key)));
        }
    }
    // The hidden settings of Kafka are passwords.
    let pairs = table.get("kafka-set").and_then(Toml::as_array).into_iter().flatten().filter_map(Toml::as_str);
    is_inside |= pairs.filter_map(|pair| pair.split_once('=')).any(|(key, _)| key.contains("password"));
    let own = file.filter(|_| is_inside).map(Path::to_owned);
    files.into_iter().map(PathBuf::from).chain(own).collect()
}

/// Only those with our prefix.
pub(super) fn process_environment() -> Result<BTreeMap<String, String>, SettingsError> {
    let mut environment = BTreeMap::new();
    for (name, value) in env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let value = value.into_string().map_err(|_| SettingsError(format!("{name} is not UTF-8")))?;
        environment.insert(name.to_owned(), value);
    }
    Ok(environment)
}

fn from_flags(setting: &Setting, matches: &ArgMatches) -> Result<Option<Value>, SettingsError> {
    let one = |name: &str| matches.get_one::<String>(name).cloned();
    Ok(match setting.kind {
        Kind::Plain => one(setting.name).map(Value::Plain),
        Kind::Secret => either(setting, one(setting.name), one(&file_name(setting.name)))?,
        Kind::Repeated => matches.get_many(setting.name).map(|values| Value::Repeated(values.cloned().collect())),
        Kind::Switch => matches.get_flag(setting.name).then_some(Value::Switch(true)),
    })
}

fn seen_by_others(known: &[Setting], matches: &ArgMatches) -> Vec<String> {
    let warning = |setting: &Setting| {
        let (name, variable) = (setting.name, variable(setting.name));
        let (what, remedy) = match setting.kind {
            Kind::Secret if matches.contains_id(name) => (name, format!("{name}-file or the variable {variable}")),
            Kind::Repeated
                if name == "kafka-set" && matches.get_many(name)?.any(|given: &String| holds_secret(given)) =>
            {
                ("a secret in kafka-set", "kafka-set-file".to_owned())
            }
            Kind::Plain | Kind::Secret | Kind::Repeated | Kind::Switch => return None,
        };
        Some(format!("{what} was given as a flag, which every user of this machine can read (`ps`): use {remedy}"))
    };
    known.iter().filter_map(warning).collect()
}

fn from_environment(setting: &Setting, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Value>, SettingsError> {
    let given = env(setting.name);
    Ok(match setting.kind {
        Kind::Plain => given.map(Value::Plain),
        Kind::Secret => either(setting, given, env(&file_name(setting.name)))?,
        Kind::Repeated => given.map(|text| Value::Repeated(at_commas(&text))),
        Kind::Switch => given.map(|text| switch(&variable(setting.name), &text)).transpose()?,
    })
}

fn from_file(setting: &Setting, table: &Table) -> Result<Option<Value>, SettingsError> {
    let name = setting.name;
    let wrong = |what: &str| SettingsError(format!("{name} in the file takes {what}"));
    if setting.kind == Kind::Secret {
        let file = file_name(name);
        return either(setting, text_of(name, table.get(name))?, text_of(&file, table.get(&file))?);
    }
    let Some(given) = table.get(name) else { return Ok(None) };
    let value = match (setting.kind, given) {
        (Kind::Plain, Toml::Integer(number)) => Value::Plain(number.to_string()),
        (Kind::Plain, Toml::String(text)) => Value::Plain(text.clone()),
        (Kind::Switch, Toml::Boolean(on)) => Value::Switch(*on),
        (Kind::Repeated, Toml::Array(values)) => {
            let text = |value: &Toml| value.as_str().map(str::to_owned).ok_or_else(|| wrong("an array of texts"));
            Value::Repeated(values.iter().map(text).collect::<Result<_, _>>()?)
        }
        (Kind::Repeated, Toml::Table(tables)) if name == "apps" => Value::Repeated(tables.keys().cloned().collect()),
        (Kind::Plain | Kind::Secret, _) => return Err(wrong("a text in quotes")),
        (Kind::Switch, _) => return Err(wrong("true or false")),
        (Kind::Repeated, _) => return Err(wrong("an array of texts")),
    };
    Ok(Some(value))
}

fn from_default(setting: &Setting, default: &str) -> Result<Value, SettingsError> {
    Ok(match setting.kind {
        Kind::Plain => Value::Plain(default.to_owned()),
        Kind::Secret => Value::Secret(Secret::new(default)),
        Kind::Repeated => Value::Repeated(at_commas(default)),
        Kind::Switch => switch(setting.name, default)?,
    })
}

fn either(setting: &Setting, given: Option<String>, file: Option<String>) -> Result<Option<Value>, SettingsError> {
    let name = setting.name;
    let secret = match (given, file) {
        (Some(_), Some(_)) => return Err(SettingsError(format!("{name} and {name}-file are both set; one is enough"))),
        (Some(text), None) => secret(name, &text)?,
        (None, Some(path)) => read_secret(&file_name(name), &path)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(Value::Secret(secret)))
}

fn switch(name: &str, text: &str) -> Result<Value, SettingsError> {
    match text {
        "true" | "1" => Ok(Value::Switch(true)),
        "false" | "0" => Ok(Value::Switch(false)),
        _ => Err(SettingsError(format!("{name} is `{text}`, but it takes `true` or `false`"))),
    }
}

fn at_commas(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn read_toml(path: &Path) -> Result<Table, SettingsError> {
    let shown = path.display();
    let text = read_text(path).map_err(|error| SettingsError(format!("read the settings file {shown}: {error}")))?;
    text.parse().map_err(|error: toml::de::Error| {
        // Its Display shows the line, which may hold a secret.
        let before = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..before].split(|byte| *byte == b'\n').count();
        let is_table = text.lines().nth(line - 1).is_some_and(|line| line.trim_start().starts_with("[apps"));
        let hint = if is_table && text.lines().any(is_list_of_apps) { BOTH_APPS } else { "" };
        SettingsError(format!("the settings file {shown} is no TOML in line {line}: {}{hint}", error.message()))
    })
}

fn is_list_of_apps(line: &str) -> bool {
    line.trim_start().strip_prefix("apps").is_some_and(|rest| rest.trim_start().starts_with('='))
}

fn check_variables(known: &[Setting], given: impl IntoIterator<Item = String>) -> Result<(), SettingsError> {
    let names: Vec<String> = names(known).map(|name| variable(&name)).collect();
    let is_known = |name: &String| names.contains(name) || ANYWHERE.iter().any(|known| variable(known) == *name);
    let mut ours = given.into_iter().filter(|name| name.starts_with(PREFIX) && !name.starts_with(TEST_PREFIX));
    match ours.find(|name| !is_known(name)) {
        Some(name) => Err(unknown("in the environment", &name, &names)),
        None => Ok(()),
    }
}

fn check_keys(known: &[Setting], table: &Table, file: &Path) -> Result<(), SettingsError> {
    let names: Vec<String> = names(known).filter(|name| name != CONFIG.name).collect();
    let is_known = |name: &str| names.iter().any(|known| known == name) || ANYWHERE.contains(&name);
    match table.keys().find(|name| *name == CONFIG.name || !is_known(name)) {
        Some(name) => Err(unknown(&format!("in {}", file.display()), name, &names)),
        None => Ok(()),
    }
}

fn names(known: &[Setting]) -> impl Iterator<Item = String> {
    let files = known.iter().filter(|setting| setting.kind == Kind::Secret).map(|setting| file_name(setting.name));
    known.iter().map(|setting| setting.name.to_owned()).chain(files).chain([CONFIG.name.to_owned()])
}
