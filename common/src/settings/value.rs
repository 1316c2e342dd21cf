//! A setting's value and where it came from, as they may be shown.

use std::fmt;
use std::path::PathBuf;

use super::Setting;
use crate::secret::Secret;

/// One setting as it stands after all layers.
#[derive(Clone)]
pub(super) struct Effective {
    pub(super) setting: Setting,
    pub(super) value: Option<Value>,
    pub(super) source: Source,
}

/// A value as its kind has it.
#[derive(Clone)]
pub(super) enum Value {
    Plain(String),
    Secret(Secret),
    Repeated(Vec<String>),
    Switch(bool),
}

/// Where a value came from.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    Flag,
    Environment,
    File(PathBuf),
    Default,
    Unset,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
            Self::Unset => f.write_str("not set"),
        }
    }
}

impl Value {
    /// The value, hidden where it is a secret.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Secret(_) => "[secret]".into(),
            Self::Repeated(values) => values.iter().map(|value| without_secret(value)).collect::<Vec<_>>().join(", "),
            Self::Switch(on) => on.to_string(),
        }
    }
}

/// A `key=value` whose key sounds like a secret without its value; librdkafka has several such.
fn without_secret(given: &str) -> String {
    const TELLTALES: [&str; 7] = ["password", "secret", "key", "token", "jaas", "oauthbearer.config", "credential"];
    match given.split_once('=') {
        Some((key, _)) if TELLTALES.iter().any(|telltale| key.to_ascii_lowercase().contains(telltale)) => {
            format!("{key}=[secret]")
        }
        _ => given.to_owned(),
    }
}
