//! The content of a disk, and what may be left of it after a power loss: a random choice among the writes that were not
//! synced.
//!
//! Files consist of pages, pages of sectors. The kernel writes whole pages, of which the disk may have written any
//! sectors. A page in a failed sync counts as clean: whether it reached the disk is open, until it is written and
//! synced again. Names change one by one, in order as on ext4, or in any order.
//!
//! The simulator runs a log on it; the power-loss tests of the disk log repeat the recorded writes of a real log on it.

use std::collections::BTreeMap;

use fastrand::Rng;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// A disk with one directory.
#[derive(Clone, Debug, Default)]
pub struct Medium {
    files: Vec<Image>,
    /// As seen by the kernel.
    names: BTreeMap<String, usize>,
    /// As on the disk, and the changes since.
    names_synced: BTreeMap<String, usize>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Named(String, usize),
    Renamed(String, String, usize),
    Removed(String),
}

#[derive(Clone, Debug, Default)]
struct Image {
    /// The content of the last successful sync.
    synced: Vec<u8>,
    /// The content that a reader sees.
    cached: Vec<u8>,
    /// Lengths since the last successful sync.
    lengths: Vec<usize>,
    pages: BTreeMap<usize, Page>,
}

#[derive(Clone, Debug, Default)]
struct Page {
    /// After each write: any of them may be on the disk.
    versions: Vec<Vec<u8>>,
    /// To be written by the next sync.
    is_dirty: bool,
}

impl Medium {
    /// The names of its files.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// The file of a name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Creates an empty file.
    pub fn create(&mut self, name: &str) -> usize {
        self.files.push(Image::default());
        let file = self.files.len() - 1;
        self.names.insert(name.to_owned(), file);
        self.changes.push(Change::Named(name.to_owned(), file));
        file
    }

    /// The content that a reader sees.
    pub fn bytes(&self, file: usize) -> &[u8] {
        &self.files[file].cached
    }

    /// Cuts a file, or fills it up with zeros.
    pub fn resize(&mut self, file: usize, bytes: usize) {
        self.files[file].resize(bytes);
    }

    /// Writes, not yet synced.
    pub fn write(&mut self, file: usize, at: usize, bytes: &[u8]) {
        self.files[file].write(at, bytes);
    }

    /// A sync that succeeds.
    pub fn sync(&mut self, file: usize) {
        self.files[file].sync();
    }

    /// A sync that fails.
    pub fn fail_sync(&mut self, file: usize) {
        // The kernel marks its pages as clean, although their content is uncertain.
        self.files[file].pages.values_mut().for_each(|page| page.is_dirty = false);
    }

    /// Returns whether the file existed.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(file) = self.names.remove(from) else { return false };
        self.names.insert(to.to_owned(), file);
        self.changes.push(Change::Renamed(from.to_owned(), to.to_owned(), file));
        true
    }

    /// Returns whether the file existed.
    pub fn remove(&mut self, name: &str) -> bool {
        self.changes.push(Change::Removed(name.to_owned()));
        self.names.remove(name).is_some()
    }

    /// Syncs the directory.
    pub fn sync_names(&mut self) {
        self.names_synced = self.names.clone();
        self.changes.clear();
    }

    /// From here on there is what the next boot would find.
    pub fn lose_power(&mut self, random: &mut Rng) {
        let is_torn = random.bool();
        let mut found = Self::default();
        for (name, file) in self.draw_names(random) {
            let bytes = self.files[file].draw(random, is_torn);
            found.files.push(Image { cached: bytes.clone(), synced: bytes, ..Image::default() });
            found.names.insert(name, found.files.len() - 1);
        }
        found.names_synced = found.names.clone();
        *self = found;
    }

    fn draw_names(&self, random: &mut Rng) -> BTreeMap<String, usize> {
        let mut names = self.names_synced.clone();
        let in_order = random.bool();
        let upto = random.usize(..=self.changes.len());
        for (index, change) in self.changes.iter().enumerate() {
            let happened = if in_order { index < upto } else { random.bool() };
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
        for (index, _) in self.pages.iter().filter(|(_, page)| page.is_dirty) {
            let range = index * PAGE..cached.len().min((index + 1) * PAGE);
            if !range.is_empty() {
                self.synced[range.clone()].copy_from_slice(&cached[range]);
            }
        }
        self.pages.retain(|_, page| !page.is_dirty);
        self.lengths.clear();
    }

    fn draw(&self, random: &mut Rng, is_torn: bool) -> Vec<u8> {
        let mut found = self.synced.clone();
        if let Some(length) = self.lengths.get(random.usize(..=self.lengths.len())) {
            // A growing file may have got halfway.
            let grown = length.saturating_sub(found.len());
            let length = if grown > 0 && random.bool() { found.len() + random.usize(..grown) } else { *length };
            found.resize(length, 0);
        }
        for (index, page) in &self.pages {
            let mut version = random.usize(..=page.versions.len());
            for sector in (0..PAGE).step_by(SECTOR) {
                if is_torn && sector > 0 {
                    version = random.usize(..=page.versions.len());
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
