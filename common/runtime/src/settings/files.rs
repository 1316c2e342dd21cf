//! Files that settings name, read within a bound.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use primitives::secret::Secret;
use toml::Value as Toml;

use super::SettingsError;

/// More than any file of settings or key.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Without the newline at its end.
pub(super) fn read_secret(name: &str, path: &str) -> Result<Secret, SettingsError> {
    let text = read_text(Path::new(path)).map_err(|error| SettingsError(format!("{name}: read {path}: {error}")))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    secret(name, text.strip_suffix('\r').unwrap_or(text))
}

pub(super) fn secret(name: &str, text: &str) -> Result<Secret, SettingsError> {
    if text.is_empty() {
        return Err(SettingsError(format!("{name} is empty")));
    }
    Ok(Secret::new(text))
}

/// An error does not show a value of another type, which may be a secret.
pub(super) fn text_of(name: &str, given: Option<&Toml>) -> Result<Option<String>, SettingsError> {
    match given {
        None => Ok(None),
        Some(given) => match given.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(SettingsError(format!("{name} in the file takes a text in quotes"))),
        },
    }
}

pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(text)
}
