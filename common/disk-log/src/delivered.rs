//! Entries of a log that have been delivered elsewhere, so that they are not delivered again.
//!
//! Saved in one small file, lazily: what is lost of it only causes a second delivery, flagged as such. Segments
//! are deleted after the file that allows it is durable, never before.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::warn;
use uuid::Uuid;

use super::DiskLog;
use super::files::{Files, is_full};

const FILE: &str = "delivered";
const FIRST_LINE: &str = "hookledger delivered 1";

#[derive(Debug)]
pub struct Delivered {
    log: DiskLog,
    offsets: Mutex<Offsets>,
    /// The contents of the file. Held while it is written.
    saved: Mutex<Offsets>,
}

/// All below `watermark`, and some beyond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets {
    watermark: u64,
    /// Start and end of each range beyond the watermark; they neither overlap nor touch.
    ///
    /// Bounded by the entries in flight.
    beyond: BTreeMap<u64, u64>,
}

impl Delivered {
    /// Nothing is delivered if there is no valid file for this log.
    pub fn load(log: &DiskLog) -> io::Result<Self> {
        let (first, end) = log.bounds();
        let saved = Offsets::read(&log.shared.files, &log.dir(), log.identity(), end)?;
        let saved = saved.unwrap_or_else(|| {
            warn!(
                "what is delivered of the disk log in {} cannot be read: all of it is delivered again",
                log.dir().display()
            );
            Offsets::default()
        });
        let mut offsets = saved.clone();
        offsets.raise(first);
        for gap in log.shared.gaps() {
            offsets.add_all(gap);
        }
        Ok(Self { log: log.clone(), offsets: Mutex::new(offsets), saved: Mutex::new(saved) })
    }

    pub fn deliver(&self, offset: u64) {
        self.offsets().add(offset);
    }

    /// Everything below is delivered; the entry at it is not.
    pub fn watermark(&self) -> u64 {
        self.offsets().watermark
    }

    pub fn is_delivered(&self, offset: u64) -> bool {
        self.offsets().contains(offset)
    }

    pub fn undelivered(&self) -> u64 {
        let end = self.log.bounds().1;
        self.offsets().undelivered(end)
    }

    /// Saves durably, then deletes the segments that are delivered as a whole.
    ///
    /// On a full disk they are deleted before the file is written, which makes room: their absence records
    /// as durably that all in them was delivered.
    pub fn save(&self) -> io::Result<()> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let offsets = self.offsets().clone();
        if offsets != *saved {
            let text = offsets.text(self.log.identity());
            let replace = || self.log.shared.files.replace(&self.log.shared.dir, FILE, text.as_bytes());
            match replace() {
                Err(error) if is_full(&error) => {
                    self.log.delete_before(offsets.watermark)?;
                    replace()?;
                }
                done => done?,
            }
            *saved = offsets;
        }
        self.log.delete_before(saved.watermark)
    }

    /// Deleted entries count as delivered.
    fn offsets(&self) -> MutexGuard<'_, Offsets> {
        let first = self.log.bounds().0;
        let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        offsets.raise(first);
        offsets
    }
}

/// Copies the delivered offsets to another log with the same offsets.
pub(super) fn carry(files: &Files, (dir, log): (&Path, Uuid), (to_dir, to_log): (&Path, Uuid)) -> io::Result<()> {
    let text = match files.read_to_string(&dir.join(FILE)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => return Ok(()),
        text => text?,
    };
    let Some(offsets) = Offsets::parse(&text, log) else { return Ok(()) };
    files.replace(to_dir, FILE, offsets.text(to_log).as_bytes())
}

impl Offsets {
    /// None if there is a file that is not valid for this log.
    pub fn read(files: &Files, dir: &Path, log: Uuid, end: u64) -> io::Result<Option<Self>> {
        match files.read_to_string(&dir.join(FILE)) {
            Ok(text) => Ok(Self::parse(&text, log).filter(|offsets| offsets.end() <= end)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Self::default())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn contains(&self, offset: u64) -> bool {
        let before = self.beyond.range(..=offset).next_back();
        offset < self.watermark || before.is_some_and(|(_, end)| offset < *end)
    }

    fn add(&mut self, offset: u64) {
        if !self.contains(offset) {
            self.add_all(offset..offset + 1);
        }
    }

    pub fn add_all(&mut self, stretch: Range<u64>) {
        let (mut start, mut end) = (stretch.start, stretch.end);
        // What it overlaps or touches becomes one with it.
        while let Some((first, last)) = self.beyond.range(..=end).next_back().map(|(first, last)| (*first, *last))
            && last >= start
        {
            (start, end) = (start.min(first), end.max(last));
            self.beyond.remove(&first);
        }
        self.beyond.insert(start, end);
        self.raise(self.watermark);
    }

    pub fn raise(&mut self, watermark: u64) {
        self.watermark = self.watermark.max(watermark);
        while let Some((start, end)) = self.beyond.first_key_value().map(|(start, end)| (*start, *end))
            && start <= self.watermark
        {
            self.watermark = self.watermark.max(end);
            self.beyond.remove(&start);
        }
    }

    pub fn undelivered(&self, end: u64) -> u64 {
        let beyond: u64 = self.beyond.iter().map(|(start, end)| end - start).sum();
        end.saturating_sub(self.watermark).saturating_sub(beyond)
    }

    fn end(&self) -> u64 {
        self.beyond.last_key_value().map_or(self.watermark, |(_, end)| *end)
    }

    /// Human-readable lines; the last one is a checksum of the others.
    fn text(&self, log: Uuid) -> String {
        let mut text = format!("{FIRST_LINE}\nlog {log}\nbelow {}\n", self.watermark);
        for (start, end) in &self.beyond {
            writeln!(text, "from {start} below {end}").expect("a string takes everything");
        }
        let crc = crc32c::crc32c(text.as_bytes());
        text + &format!("crc32c {crc:08x}\n")
    }

    fn parse(text: &str, log: Uuid) -> Option<Self> {
        let (covered, crc) = text.strip_suffix('\n')?.rsplit_once("\ncrc32c ")?;
        let covered = format!("{covered}\n");
        if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(covered.as_bytes()) {
            return None;
        }
        let mut lines = covered.lines();
        let begins_well = lines.next()? == FIRST_LINE && lines.next()? == format!("log {log}");
        let watermark = lines.next()?.strip_prefix("below ")?.parse().ok()?;
        let mut beyond = BTreeMap::new();
        for line in lines {
            let (start, end) = line.strip_prefix("from ")?.split_once(" below ")?;
            beyond.insert(start.parse().ok()?, end.parse().ok()?);
        }
        begins_well.then_some(Self { watermark, beyond })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::sync::atomic::Ordering;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::tests::{log_of, options as small, record};
    use super::*;

    proptest! {
        #[test]
        fn any_order_of_settling_comes_to_the_same_as_a_set(delivered in vec(0..60_u64, 0..80), first in 0..20_u64) {
            let mut offsets = Offsets::default();
            offsets.raise(first);
            let mut set: BTreeSet<u64> = (0..first).collect();
            for offset in delivered {
                offsets.add(offset);
                set.insert(offset);
            }
            for offset in 0..70 {
                prop_assert_eq!(offsets.contains(offset), set.contains(&offset));
            }
            prop_assert_eq!(Some(offsets.watermark), (0..100).find(|offset| !set.contains(offset)));
            let log = Uuid::now_v7();
            prop_assert_eq!(Offsets::parse(&offsets.text(log), log), Some(offsets));
        }
    }

    #[test]
    fn what_was_saved_is_settled_after_a_restart_and_the_rest_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log_of(dir.path(), 6);
        let delivered = Delivered::load(&log).expect("load");
        for offset in [0, 1, 4] {
            delivered.deliver(offset);
        }
        delivered.save().expect("save");
        delivered.deliver(2);
        assert_eq!((delivered.watermark(), delivered.undelivered()), (3, 2));
        drop((delivered, log));

        let log = log_of(dir.path(), 0);
        let delivered = Delivered::load(&log).expect("load");
        assert_eq!((delivered.watermark(), delivered.undelivered()), (2, 3));
        assert!(delivered.is_delivered(4) && !delivered.is_delivered(2) && !delivered.is_delivered(5));
    }

    #[test]
    fn a_damaged_file_or_one_of_another_log_settles_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log_of(dir.path(), 3);
        let good = Offsets { watermark: 2, beyond: BTreeMap::new() };
        let beyond_the_end = Offsets { watermark: 9, ..Offsets::default() };
        let bad = [
            good.text(log.identity()).replace("below 2", "below 3"),
            good.text(Uuid::now_v7()),
            beyond_the_end.text(log.identity()),
            String::new(),
        ];
        for text in bad {
            fs::write(dir.path().join(FILE), text).expect("write");
            assert_eq!(Delivered::load(&log).expect("load").watermark(), 0);
        }
        fs::write(dir.path().join(FILE), [0xff, 0xfe]).expect("write");
        assert_eq!(Delivered::load(&log).expect("load").watermark(), 0);
        fs::write(dir.path().join(FILE), good.text(log.identity())).expect("write");
        assert_eq!(Delivered::load(&log).expect("load").watermark(), 2);
    }

    #[test]
    fn nothing_goes_before_what_is_settled_is_saved_but_where_there_is_no_room_for_that() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, faults) = super::super::storage::faulty::files();
        let log = DiskLog::open_on(files.clone(), dir.path(), small()).expect("open");
        (0..100).for_each(|number| _ = log.append_blocking(vec![record(number)]).expect("append"));
        let delivered = Delivered::load(&log).expect("load");
        (0..60).for_each(|offset| delivered.deliver(offset));

        faults.syncs.store(1, Ordering::SeqCst);
        delivered.save().expect_err("the disk is bad");
        assert_eq!(log.bounds(), (0, 100));
        faults.full.store(true, Ordering::SeqCst);
        delivered.save().expect_err("the disk is full");
        let (first, _) = log.bounds();
        assert!((1..=60).contains(&first), "{first}");
        assert_eq!(delivered.undelivered(), 40);
        drop((delivered, log));

        let log = log_of(dir.path(), 0);
        assert_eq!(Delivered::load(&log).expect("load").watermark(), first);
    }

    #[test]
    fn segments_go_when_all_of_them_is_settled_and_saved() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log_of(dir.path(), 0);
        let delivered = Delivered::load(&log).expect("load");
        while log.bounds().1 < 100 {
            log.append_blocking(vec![record(0); 5]).expect("append");
        }
        (0..50).for_each(|offset| delivered.deliver(offset));
        assert_eq!(log.bounds(), (0, 100));
        delivered.save().expect("save");
        let (first, _) = log.bounds();
        assert!(first > 0 && first <= 50, "{first}");
        assert!(
            log.reader(0)
                .and_then(|mut reader| reader.next())
                .is_ok_and(|next| next.is_some_and(|(at, _)| at == first))
        );
    }
}
