//! What may be on a disk after the power was lost: a choice among all that was asked of it and not synced.
//!
//! Files are made of pages, pages of sectors. The kernel writes whole pages, of which the disk may have
//! written any sectors. A page that a failed sync covered counts as clean: whether it reached the disk stays
//! open, until it is written to and synced once more. Names in the directory change one by one, in order
//! as on ext4, or in no order at all.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::super::storage::faulty::Act;
use ::tests::random::Rng;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// A disk with one directory.
#[derive(Clone, Default)]
pub(super) struct Medium {
    files: Vec<Image>,
    /// As the kernel sees it now.
    inodes: HashMap<u64, usize>,
    names: BTreeMap<String, usize>,
    /// As it is on the disk, and what was asked for since.
    names_synced: BTreeMap<String, usize>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Named(String, usize),
    Renamed(String, String, usize),
    Removed(String),
}

/// A file.
#[derive(Clone, Default)]
struct Image {
    /// What the last good sync made certain.
    synced: Vec<u8>,
    /// What a reader sees.
    cached: Vec<u8>,
    /// Lengths since the last good sync.
    lengths: Vec<usize>,
    pages: BTreeMap<usize, Page>,
}

/// A page that was written to.
#[derive(Clone, Default)]
struct Page {
    /// As it was after each write: any of them may be on the disk.
    versions: Vec<Vec<u8>>,
    /// To be written by the next sync.
    is_dirty: bool,
}

impl Medium {
    /// The directory as it is, all of it synced.
    pub fn of(dir: &Path) -> Self {
        let mut medium = Self::default();
        for entry in fs::read_dir(dir).expect("list") {
            let entry = entry.expect("an entry");
            let synced = fs::read(entry.path()).expect("read");
            let inode = entry.metadata().expect("there").ino();
            let name = entry.file_name().into_string().expect("a name of ours");
            let file = medium.add(inode, Image { cached: synced.clone(), synced, ..Image::default() });
            medium.names.insert(name.clone(), file);
            medium.names_synced.insert(name, file);
        }
        medium
    }

    fn add(&mut self, inode: u64, image: Image) -> usize {
        self.files.push(image);
        self.inodes.insert(inode, self.files.len() - 1);
        self.files.len() - 1
    }

    /// Does what was asked of the disk.
    pub fn apply(&mut self, act: &Act) {
        match act {
            Act::Made { node, name } => {
                let file = self.add(*node, Image::default());
                self.names.insert(name.clone(), file);
                self.changes.push(Change::Named(name.clone(), file));
            }
            Act::Zeroed { node, bytes } | Act::Cut { node, bytes } => {
                self.file(*node).resize(usize::try_from(*bytes).expect("small"));
            }
            Act::Wrote { node, at, bytes } => self.file(*node).write(usize::try_from(*at).expect("small"), bytes),
            Act::Synced { node } => self.file(*node).sync(),
            Act::NotSynced { node } => self.file(*node).fail(),
            Act::Renamed { from, to } => {
                let file = self.names.remove(from).expect("it was there");
                self.names.insert(to.clone(), file);
                self.changes.push(Change::Renamed(from.clone(), to.clone(), file));
            }
            Act::Removed { name } => {
                self.names.remove(name);
                self.changes.push(Change::Removed(name.clone()));
            }
            Act::SyncedDir => {
                self.names_synced = self.names.clone();
                self.changes.clear();
            }
            Act::NotSyncedDir | Act::Answered { .. } | Act::Delivered { .. } | Act::Saved { .. } => {}
        }
    }

    fn file(&mut self, inode: u64) -> &mut Image {
        let file = self.inodes[&inode];
        &mut self.files[file]
    }

    /// Pulls the plug: writes into a directory what somebody finds who starts the machine again.
    pub fn lose_power(&self, dice: &mut Rng, dir: &Path) {
        let is_torn = dice.bool();
        for (name, file) in self.draw_names(dice) {
            fs::write(dir.join(name), self.files[file].draw(dice, is_torn)).expect("write");
        }
    }

    fn draw_names(&self, dice: &mut Rng) -> BTreeMap<String, usize> {
        let mut names = self.names_synced.clone();
        let in_order = dice.bool();
        let upto = dice.usize(..=self.changes.len());
        for (index, change) in self.changes.iter().enumerate() {
            let happened = if in_order { index < upto } else { dice.bool() };
            if !happened {
                continue;
            }
            match change {
                Change::Named(name, file) => _ = names.insert(name.clone(), *file),
                Change::Renamed(from, to, file) => {
                    if names.get(from) == Some(file) {
                        names.remove(from);
                    }
                    names.insert(to.clone(), *file);
                }
                Change::Removed(name) => _ = names.remove(name),
            }
        }
        names
    }
}

impl Image {
    fn resize(&mut self, length: usize) {
        self.cached.resize(length, 0);
        self.lengths.push(length);
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if end > self.cached.len() {
            self.resize(end);
        }
        self.cached[at..end].copy_from_slice(bytes);
        for page in at / PAGE..end.div_ceil(PAGE) {
            let now = self.cached[page * PAGE..self.cached.len().min((page + 1) * PAGE)].to_vec();
            let page = self.pages.entry(page).or_default();
            page.versions.push(now);
            page.is_dirty = true;
        }
    }

    fn sync(&mut self) {
        let cached = &self.cached;
        self.synced.resize(cached.len(), 0);
        for (index, page) in self.pages.iter().filter(|(_, page)| page.is_dirty) {
            let range = index * PAGE..cached.len().min((index + 1) * PAGE);
            if !range.is_empty() && !page.versions.is_empty() {
                self.synced[range.clone()].copy_from_slice(&cached[range]);
            }
        }
        self.pages.retain(|_, page| !page.is_dirty);
        self.lengths.clear();
    }

    /// The kernel takes its pages for clean, although nobody knows what became of them.
    fn fail(&mut self) {
        self.pages.values_mut().for_each(|page| page.is_dirty = false);
    }

    fn draw(&self, dice: &mut Rng, is_torn: bool) -> Vec<u8> {
        let mut found = self.synced.clone();
        if let Some(length) = self.lengths.get(dice.usize(..=self.lengths.len())) {
            // A file that grows may have got halfway.
            let grown = length.saturating_sub(found.len());
            let length = if grown > 0 && dice.bool() { found.len() + dice.usize(..grown) } else { *length };
            found.resize(length, 0);
        }
        for (index, page) in &self.pages {
            let mut version = dice.usize(..=page.versions.len());
            for sector in (0..PAGE).step_by(SECTOR) {
                if is_torn && sector > 0 {
                    version = dice.usize(..=page.versions.len());
                }
                let Some(version) = page.versions.get(version) else { continue };
                let at = index * PAGE + sector;
                let end = found.len().min(at + SECTOR).min(index * PAGE + version.len());
                if at < end {
                    found[at..end].copy_from_slice(&version[sector..end - index * PAGE]);
                }
            }
        }
        found
    }
}
