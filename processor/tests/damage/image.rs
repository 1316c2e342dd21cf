//! A state directory as bytes: copied, damaged, and mixed of two moments as a power loss mixes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

/// What a disk writes whole or not at all.
const PAGE_BYTES: usize = 4096;

/// Files by their path below the directory.
#[derive(Clone, Default)]
pub struct Image(BTreeMap<PathBuf, Vec<u8>>);

impl Image {
    /// What lies there now. Files that come and go meanwhile are there or not.
    pub fn of(dir: &Path) -> Self {
        let mut image = Self::default();
        image.add(dir, Path::new(""));
        image
    }

    fn add(&mut self, dir: &Path, below: &Path) {
        for entry in fs::read_dir(dir.join(below)).into_iter().flatten().flatten() {
            let path = below.join(entry.file_name());
            if entry.path().is_dir() {
                self.add(dir, &path);
            } else if let Ok(bytes) = fs::read(entry.path()) {
                self.0.insert(path, bytes);
            }
        }
    }

    /// Writes it out as a directory.
    pub fn lay_out(&self, dir: &Path) {
        fs::create_dir_all(dir).expect("a directory");
        for (path, bytes) in &self.0 {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().expect("below the directory")).expect("a directory");
            fs::write(path, bytes).expect("written");
        }
    }

    /// Harms one file in one of many ways, and says which.
    pub fn harm(&mut self, random: &mut Rng) -> String {
        let paths: Vec<PathBuf> =
            self.0.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(path, _)| path.clone()).collect();
        let path = &paths[random.usize(..paths.len())];
        let bytes = self.0.get_mut(path).expect("it is there");
        // Most of a file of sled is room for later.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
        let (from, length) = (random.usize(..used), random.usize(1..=used.min(2 * PAGE_BYTES)));
        let to = bytes.len().min(from + length);
        let what = match random.u32(..16) {
            0 => {
                bytes.truncate(from);
                format!("cut off at {from}")
            }
            1 => {
                bytes[from..to].fill(0);
                format!("zeroes from {from} to {to}")
            }
            2 => {
                bytes[from..to].iter_mut().for_each(|byte| *byte = random.u8(..));
                format!("anything from {from} to {to}")
            }
            3 => {
                let moved = random.usize(..used);
                let length = length.min(bytes.len() - from.max(moved));
                bytes.copy_within(moved..moved + length, from);
                format!("{length} bytes of {moved} at {from}")
            }
            4 => {
                bytes.extend((0..length).map(|_| random.u8(..)));
                format!("{length} bytes more")
            }
            5 => {
                self.0.remove(path);
                "gone".to_owned()
            }
            _ => {
                let flips = if random.bool() { 1 } else { random.usize(2..=64) };
                for _ in 0..flips {
                    bytes[random.usize(..used)] ^= 1 << random.u32(..8);
                }
                format!("{flips} bits, the first near {from}")
            }
        };
        format!("{}: {what}", path.display())
    }

    /// What a disk may hold that had all of `before` when it was last synced and was being brought to `self`: of
    /// every page either version, of every file either length, and new and removed files or not.
    pub fn torn(&self, before: &Self, random: &mut Rng) -> Self {
        let mut torn = Self::default();
        // Now nearly all is there, now nearly nothing.
        let odds = random.u32(1..100);
        let newer = |random: &mut Rng| random.u32(..100) < odds;
        for path in self.0.keys().chain(before.0.keys()).collect::<BTreeSet<_>>() {
            let (old, new) = (before.0.get(path), self.0.get(path));
            if (old.is_none() || new.is_none()) && newer(random) != new.is_some() {
                continue;
            }
            let (old, new) = (old.map_or(&[][..], Vec::as_slice), new.or(old).map_or(&[][..], Vec::as_slice));
            let length = if newer(random) || old.is_empty() { new.len() } else { old.len() };
            let mut bytes = vec![0; length];
            for (number, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
                let from = number * PAGE_BYTES;
                let source = if newer(random) { new } else { old };
                let there = source.get(from..source.len().min(from + page.len())).unwrap_or_default();
                page[..there.len()].copy_from_slice(there);
            }
            torn.0.insert(path.clone(), bytes);
        }
        torn
    }
}
