//! A file that holds a token. A token is no argument: other users of the machine could read it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use clap::Arg;
use primitives::secret::Secret;

use crate::arguments;
use crate::outcome::Usage;

/// More than any token.
pub const TOKEN_BYTES_MAX: u64 = 4_096;

pub fn argument() -> Arg {
    arguments::path("token-file", "FILE", "A file that holds the token")
}

/// Without the whitespace around it.
pub fn read(file: &Path) -> anyhow::Result<Secret> {
    let opened = File::open(file).map_err(|error| Usage(format!("open {}: {error}", file.display())))?;
    let mut text = String::new();
    opened.take(TOKEN_BYTES_MAX).read_to_string(&mut text).context("read the token")?;
    match text.trim() {
        "" => Err(Usage(format!("{} holds no token", file.display())).into()),
        token => Ok(Secret::new(token)),
    }
}
