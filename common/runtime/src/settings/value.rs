//! A setting's value and its source, in the form that may be shown.

use std::fmt;
use std::path::PathBuf;

use super::Setting;
use primitives::secret::Secret;

#[derive(Clone)]
pub(super) struct Effective {
    pub(super) setting: Setting,
    pub(super) value: Option<Value>,
    pub(super) source: Source,
}

#[derive(Clone)]
pub(super) enum Value {
    Plain(String),
    Secret(Secret),
    Repeated(Vec<String>),
    Switch(bool),
}

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
    /// Hidden if it is a secret.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Secret(_) => "[secret]".into(),
            Self::Repeated(values) => values.iter().map(|value| without_secret(value)).collect::<Vec<_>>().join(", "),
            Self::Switch(on) => on.to_string(),
        }
    }
}

/// Whether the key of a `key=value` sounds like a secret; librdkafka has several such.
pub(super) fn holds_secret(given: &str) -> bool {
    const TELLTALES: [&str; 7] = ["password", "secret", "key", "token", "jaas", "oauthbearer.config", "credential"];
    let key = given.split_once('=').map(|(key, _)| key.to_ascii_lowercase());
    // The path of a file is no secret.
    let is_telling =
        |key: &str| !key.trim_end().ends_with(".location") && TELLTALES.iter().any(|word| key.contains(word));
    key.as_deref().is_some_and(is_telling)
}

fn without_secret(given: &str) -> String {
    match given.split_once('=') {
        Some((key, _)) if holds_secret(given) => format!("{key}=[secret]"),
        _ => given.to_owned(),
    }
}
