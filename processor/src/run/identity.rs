//! The identity of this processor: a name in the state directory, locked for the lifetime of the process.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use event_log::EventId;
use fs4::fs_std::FileExt;
use runtime::private;

pub struct Identity {
    id: String,
    /// Released when the process ends.
    _lock: File,
}

impl Identity {
    /// Locks the directory; fails if another process has it. The id is `wanted`, or generated once and stored.
    pub fn take(dir: &Path, wanted: Option<&str>) -> anyhow::Result<Self> {
        private::make_dir(dir).with_context(|| format!("make the directory {}", dir.display()))?;
        let path = dir.join("lock");
        let lock = private::lock_file(&path).with_context(|| format!("open {}", path.display()))?;
        if !FileExt::try_lock_exclusive(&lock).with_context(|| format!("lock {}", path.display()))? {
            bail!("another processor uses {}: each needs a directory of its own", dir.display());
        }
        let id = match wanted {
            Some(wanted) => wanted.to_owned(),
            None => kept(dir)?,
        };
        Ok(Self { id, _lock: lock })
    }

    /// The static member id of the group, and the transactional id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// The stored id, generated at the first start.
fn kept(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("instance-id");
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(id) = EventId::parse_str(text.trim())
    {
        return Ok(id.to_string());
    }
    let id = EventId::now_v7().to_string();
    let new = dir.join("instance-id.new");
    let mut file = private::file().truncate(true).open(&new).with_context(|| format!("make {}", new.display()))?;
    file.write_all(id.as_bytes()).and_then(|()| file.sync_all()).context("write the instance id")?;
    fs::rename(&new, &path).context("keep the instance id")?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once_and_the_directory_has_one_user() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Identity::take(dir.path(), None).expect("taken");
        assert!(Identity::take(dir.path(), None).is_err());
        let id = first.id().to_owned();
        drop(first);
        assert_eq!(Identity::take(dir.path(), None).expect("taken again").id(), id);
    }
}
