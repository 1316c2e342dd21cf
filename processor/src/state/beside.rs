//! Names beside the state's directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The path beside a state with this suffix.
pub fn beside(dir: &Path, what: &str) -> PathBuf {
    let mut name = OsString::from(dir.as_os_str());
    name.push(".");
    name.push(what);
    name.into()
}
