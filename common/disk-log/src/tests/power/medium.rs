//! The recorded writes of a log, repeated on a [`medium::Medium`], which then loses its power.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::super::storage::faulty::Act;
use ::tests::medium;
use ::tests::random::Rng;

#[derive(Clone, Default)]
pub(super) struct Medium {
    medium: medium::Medium,
    /// Files by inode.
    files: HashMap<u64, usize>,
}

impl Medium {
    /// The directory as it is, all of it synced.
    pub fn of(dir: &Path) -> Self {
        let mut medium = Self::default();
        for entry in fs::read_dir(dir).expect("list") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name of ours");
            let file = medium.create(entry.metadata().expect("there").ino(), &name);
            medium.medium.write(file, 0, &fs::read(entry.path()).expect("read"));
            medium.medium.sync(file);
        }
        medium.medium.sync_names();
        medium
    }

    fn create(&mut self, inode: u64, name: &str) -> usize {
        let file = self.medium.create(name);
        self.files.insert(inode, file);
        file
    }

    /// Repeats an operation of the log.
    pub fn apply(&mut self, act: &Act) {
        let (medium, files) = (&mut self.medium, &self.files);
        let small = |bytes: u64| usize::try_from(bytes).expect("small");
        match act {
            Act::Made { node, name } => _ = self.create(*node, name),
            Act::Zeroed { node, bytes } | Act::Cut { node, bytes } => medium.resize(files[node], small(*bytes)),
            Act::Wrote { node, at, bytes } => medium.write(files[node], small(*at), bytes),
            Act::Synced { node } => medium.sync(files[node]),
            Act::NotSynced { node } => medium.fail_sync(files[node]),
            Act::Renamed { from, to } => assert!(medium.rename(from, to), "{from} is not there"),
            Act::Removed { name } => _ = medium.remove(name),
            Act::SyncedDir => medium.sync_names(),
            Act::NotSyncedDir | Act::Answered { .. } | Act::Delivered { .. } | Act::Saved { .. } => {}
        }
    }

    /// Writes into a directory what the next boot would find.
    pub fn lose_power(&self, random: &mut Rng, dir: &Path) {
        let mut left = self.medium.clone();
        left.lose_power(random);
        for name in left.names() {
            let file = left.find(&name).expect("it was named");
            fs::write(dir.join(&name), left.bytes(file)).expect("write");
        }
    }
}
