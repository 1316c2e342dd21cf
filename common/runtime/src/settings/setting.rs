//! One setting of a table, and what is wrong with a value.

use primitives::plain;

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Flag `--name`, environment `HOOKLEDGER_NAME`, `name` in the file.
    pub name: &'static str,
    pub help: &'static str,
    pub default: Option<&'static str>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// Must not be shown; `--name-file` and `HOOKLEDGER_NAME_FILE` name a file that holds it.
    Secret,
    Repeated,
    Switch,
}

impl Setting {
    pub const fn new(name: &'static str) -> Self {
        Self { name, help: "", default: None, kind: Kind::Plain }
    }

    #[must_use]
    pub const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    #[must_use]
    pub const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    #[must_use]
    pub const fn secret(self) -> Self {
        Self { kind: Kind::Secret, ..self }
    }

    #[must_use]
    pub const fn repeated(self) -> Self {
        Self { kind: Kind::Repeated, ..self }
    }

    #[must_use]
    pub const fn switch(self) -> Self {
        Self { kind: Kind::Switch, ..self }
    }
}

/// Names the setting and never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

impl SettingsError {
    /// Ends the process as wrong usage does, with the message.
    pub fn exit(&self) -> ! {
        eprintln!("error: {}", plain::lines(&self.0));
        std::process::exit(2)
    }
}
