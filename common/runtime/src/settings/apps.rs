//! The settings of each app.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Value as Toml;

use super::SettingsError;
use super::files::{read_secret, secret, text_of};
use super::names::unknown;
use bitrix24::AppName;
use bitrix24::Trust;
use primitives::path;
use primitives::secret::Secret;

const KEYS: &[&str] = &[
    "paths",
    "path-key",
    "path-key-file",
    "client-id",
    "client-secret",
    "client-secret-file",
    "trust",
    "forward-to",
    "forward-unverified",
];

pub(super) const KEYS_DIR: &str = "path-keys-dir";
pub(super) const SECRETS: &[&str] = &["path-key", "client-secret"];

/// Shorter keys can be guessed by trying.
const PATH_KEY_BYTES_MIN: usize = 16;
/// Longer keys make URLs that Bitrix24 may not take.
const PATH_KEY_BYTES_MAX: usize = 128;

#[derive(Clone, Debug, Default)]
pub struct App {
    /// The basis on which a principal is trusted.
    pub trust: Trust,
    /// Older paths that map to the app's URL, each canonical: [`path::canonical`].
    pub paths: Vec<String>,
    /// A secret segment of the path, in characters that need no escape.
    pub path_key: Option<Secret>,
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    /// The URL of an older handler, whose query may hold a key.
    pub forward_to: Option<Secret>,
    pub forward_unverified: bool,
}

impl App {
    /// Keys and values, secrets hidden.
    pub(super) fn described(&self) -> Vec<(&'static str, String)> {
        let hidden = |key, secret: &Option<Secret>| secret.as_ref().map(|_| (key, "[secret]".to_owned()));
        let paths = (!self.paths.is_empty()).then(|| ("paths", self.paths.join(", ")));
        let client_id = self.client_id.clone().map(|id| ("client-id", id));
        [
            Some(("trust", self.trust.name().to_owned())),
            paths,
            hidden("path-key", &self.path_key),
            client_id,
            hidden("client-secret", &self.client_secret),
            self.forward_to.as_ref().map(|url| ("forward-to", shown_url(url))),
            self.forward_unverified.then(|| ("forward-unverified", "true".to_owned())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The apps of these names, each with the file's `[apps.name]`.
///
/// The names may come from a flag or the environment: they choose among the tables, and may add to them.
/// An app without a key in its table has the one in the file of its name in `keys`, if there is one.
pub(super) fn read(
    names: &[String],
    file: Option<&Toml>,
    keys: Option<&Path>,
) -> Result<BTreeMap<AppName, App>, SettingsError> {
    // Tables of other apps are validated too, so that a mistake is found now.
    let mut tables = BTreeMap::new();
    for (name, table) in file.and_then(Toml::as_table).into_iter().flatten() {
        let name = app_name(name)?;
        let app = read_app(&name, table)?;
        tables.insert(name, app);
    }
    let mut apps = BTreeMap::new();
    for name in names.iter().flat_map(|names| names.split(',')).map(str::trim).filter(|name| !name.is_empty()) {
        let name = app_name(name)?;
        let app = tables.remove(&name).or_else(|| apps.remove(&name)).unwrap_or_default();
        apps.insert(name, app);
    }
    check_paths(&apps)?;
    if let Some(directory) = keys {
        // A missing directory must not open every app.
        check_directory(directory)?;
        for (name, app) in apps.iter_mut().filter(|(_, app)| app.path_key.is_none()) {
            app.path_key = kept_key(directory, name)?;
        }
    }
    Ok(apps)
}

fn check_directory(directory: &Path) -> Result<(), SettingsError> {
    let read = std::fs::read_dir(directory).map(drop);
    read.map_err(|error| SettingsError(format!("{KEYS_DIR}: read {}: {error}", directory.display())))
}

fn kept_key(directory: &Path, name: &AppName) -> Result<Option<Secret>, SettingsError> {
    let file = directory.join(name.as_str());
    if !file.try_exists().is_ok_and(|there| !there) {
        let shown = format!("{KEYS_DIR}, app {name}");
        return read_secret(&shown, &file.to_string_lossy()).and_then(|key| path_key(name, key)).map(Some);
    }
    Ok(None)
}

fn app_name(text: &str) -> Result<AppName, SettingsError> {
    AppName::parse(text).ok_or_else(|| {
        let rule = "up to 63 small letters, digits and dashes, the first no dash";
        SettingsError(format!("apps: `{text}` is no app's name: {rule}; for example `crm-sync`"))
    })
}

fn read_app(name: &AppName, given: &Toml) -> Result<App, SettingsError> {
    let Toml::Table(table) = given else {
        return Err(SettingsError(format!("apps.{name} in the file is no table; for example `[apps.{name}]`")));
    };
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(unknown(&format!("in [apps.{name}]"), key, KEYS));
    }
    let text = |key: &str| text_of(&format!("apps.{name}.{key}"), table.get(key));
    let secret = |key: &str| {
        let (full, file) = (format!("apps.{name}.{key}"), format!("{key}-file"));
        match (text(key)?, text(&file)?) {
            (Some(_), Some(_)) => Err(SettingsError(format!("{full} and {full}-file are both set; one is enough"))),
            (Some(given), None) => secret(&full, &given).map(Some),
            (None, Some(path)) => read_secret(&format!("{full}-file"), &path).map(Some),
            (None, None) => Ok(None),
        }
    };
    Ok(App {
        trust: trust(name, text("trust")?.as_deref())?,
        paths: paths(name, table.get("paths"))?,
        path_key: secret("path-key")?.map(|key| path_key(name, key)).transpose()?,
        client_id: text("client-id")?,
        client_secret: secret("client-secret")?,
        forward_to: text("forward-to")?.map(Secret::new),
        forward_unverified: switch(name, "forward-unverified", table.get("forward-unverified"))?,
    })
}

fn switch(name: &AppName, key: &str, given: Option<&Toml>) -> Result<bool, SettingsError> {
    match given {
        None => Ok(false),
        Some(Toml::Boolean(on)) => Ok(*on),
        Some(_) => Err(SettingsError(format!("apps.{name}.{key} takes true or false"))),
    }
}

/// Without its path and query, which may hold a key.
fn shown_url(url: &Secret) -> String {
    let url = url.reveal();
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?']).map_or(url.len(), |at| host + at);
    let rest = if end < url.len() { "/…" } else { "" };
    // A user name is refused, and not shown.
    if url[..end].contains('@') { "[secret]".to_owned() } else { format!("{}{rest}", &url[..end]) }
}

fn trust(name: &AppName, given: Option<&str>) -> Result<Trust, SettingsError> {
    match given {
        None => Ok(Trust::default()),
        Some("first-install") => Ok(Trust::FirstInstall),
        Some("first-event") => Ok(Trust::FirstEvent),
        Some("known") => Ok(Trust::Known),
        Some(other) => {
            let trusts = "`first-install`, `first-event` or `known`";
            Err(SettingsError(format!("apps.{name}.trust is `{other}`, but it takes {trusts}")))
        }
    }
}

/// Checks the key, without showing it.
fn path_key(name: &AppName, key: Secret) -> Result<Secret, SettingsError> {
    let text = key.reveal();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'.');
    if (PATH_KEY_BYTES_MIN..=PATH_KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(good) {
        return Ok(key);
    }
    let rule = format!("{PATH_KEY_BYTES_MIN} to {PATH_KEY_BYTES_MAX} letters, digits and signs of `-_.~`");
    let example = "openssl rand -hex 16";
    Err(SettingsError(format!("apps.{name}.path-key takes {rule}; `{example}` makes one")))
}

fn paths(name: &AppName, given: Option<&Toml>) -> Result<Vec<String>, SettingsError> {
    let wrong =
        || SettingsError(format!("apps.{name}.paths takes an array of paths; for example `[\"/b24/handler\"]`"));
    let plain = |path: &&str| path.starts_with('/') && !path.contains(['?', '#', ' ', '{', '}']);
    let path = |value: &Toml| {
        let given = value.as_str().filter(plain).ok_or_else(wrong)?;
        let path = path::canonical(given);
        match path.split('/').nth(1) {
            None | Some("") => Err(wrong()),
            Some("v1") => {
                let why = "what begins with /v1/ is Hookledger's own";
                Err(SettingsError(format!("apps.{name}.paths has {given}, but {why}")))
            }
            Some(_) => Ok(path.into_owned()),
        }
    };
    match given {
        None => Ok(Vec::new()),
        Some(Toml::Array(paths)) => paths.iter().map(path).collect(),
        Some(_) => Err(wrong()),
    }
}

fn check_paths(apps: &BTreeMap<AppName, App>) -> Result<(), SettingsError> {
    let mut owners = BTreeMap::new();
    for (name, app) in apps {
        for path in &app.paths {
            if let Some(other) = owners.insert(path, name).filter(|other| *other != name) {
                return Err(SettingsError(format!("apps.{other}.paths and apps.{name}.paths both have {path}")));
            }
        }
    }
    Ok(())
}
