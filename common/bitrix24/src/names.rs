//! Names of apps, portals and installations, valid by construction.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An app's name, as it stands in the handler's URL: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName(String);

impl AppName {
    pub fn parse(text: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=63).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-');
        valid.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A portal's `member_id`: up to 64 letters, digits, `-`, `_` and `.`, so that it can stand in keys and paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberId(String);

impl MemberId {
    pub fn parse(text: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let valid = (1..=64).contains(&text.len()) && text.bytes().all(good) && text.bytes().any(|byte| byte != b'.');
        valid.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text).ok_or(concat!("not ", $what))
            }
        }
    };
}

text!(AppName, "an app's name");
text!(MemberId, "a member_id");

/// One app on one portal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Installation {
    pub app: AppName,
    pub member_id: MemberId,
}

impl Installation {
    pub fn parse(app: &str, member_id: &str) -> Option<Self> {
        Some(Self { app: AppName::parse(app)?, member_id: MemberId::parse(member_id)? })
    }
}

impl fmt::Display for Installation {
    /// The record key: `{app}/{member_id}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.member_id)
    }
}

/// The principal of an installation that is trusted without an attestation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The first in the log that sent an event, once it reported an install.
    #[default]
    FirstInstall,
    /// The first in the log that sent an event.
    FirstEvent,
    /// None.
    Known,
}

impl Trust {
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstInstall => "first-install",
            Self::FirstEvent => "first-event",
            Self::Known => "known",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_mistaken_for_something_else_are_none() {
        for app in ["", "-a", "CRM", "a/b", "a b", "a.b", &"a".repeat(64)] {
            assert_eq!(AppName::parse(app), None, "{app}");
        }
        for member_id in ["", ".", "..", "a/b", "a b", "é", &"a".repeat(65)] {
            assert_eq!(MemberId::parse(member_id), None, "{member_id}");
        }
    }
}
