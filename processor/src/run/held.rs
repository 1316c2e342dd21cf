//! Held events, read again from `raw`.
//!
//! Installs and attestations often come in series, each with events held until then: the events that the next ones
//! release are read in the same pass. Recently held events are cached, since most are held for a moment only. Memory is limited.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use bitrix24::Installation;
use event_log::contract::{Topic, header};
use event_log::{Entry, EventLogError, LogReader, Position};

use crate::run::failure::Failure;
use crate::state::Store;

/// Approximate limit of the cache, and of the read-ahead.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Assumed cost of one event that is read ahead.
const READ_OVER_BYTES: usize = 64 * 1024;
/// Size of the entry for an event that is gone.
const GONE_BYTES: usize = 64;
/// Gaps up to this size are read over rather than split into two requests.
const GAP_RECORDS_MAX: u64 = 500;

/// A cache: entries may be dropped at any time.
#[derive(Default)]
pub struct HeldEvents {
    /// `None` if the event is gone from `raw`.
    kept: HashMap<Position, Option<Entry>>,
    bytes: usize,
}

impl HeldEvents {
    pub fn keep(&mut self, entry: &Entry) {
        self.make_room();
        self.bytes += entry.record.size();
        self.kept.insert(entry.position, Some(entry.clone()));
    }

    pub fn forget(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }

    fn make_room(&mut self) {
        if self.bytes >= KEPT_BYTES_MAX {
            self.forget();
        }
    }

    /// Loads the events at these offsets; `next` are the records behind the one that releases them.
    pub fn fetch(
        &mut self,
        event_log: &mut dyn LogReader,
        store: &Store,
        partition: u32,
        released: &[u64],
        next: &[&Entry],
    ) -> Result<(), Failure> {
        let is_missing = |held: &Self, offset: u64| !held.kept.contains_key(&Position { partition, offset });
        if !released.iter().any(|offset| is_missing(self, *offset)) {
            return Ok(());
        }
        self.make_room();
        let mut wanted: BTreeSet<u64> = released.iter().copied().filter(|offset| is_missing(self, *offset)).collect();
        let mut ahead = 0;
        for installation in next.iter().filter_map(|entry| about_to_release(entry, partition)) {
            if ahead >= KEPT_BYTES_MAX {
                break;
            }
            for (offset, held) in store.installation(&installation)?.principals.values().flat_map(|known| &known.held) {
                if ahead < KEPT_BYTES_MAX && is_missing(self, *offset) && wanted.insert(*offset) {
                    ahead += held.bytes as usize + READ_OVER_BYTES;
                }
            }
        }
        Ok(self.read(event_log, partition, &wanted)?)
    }

    pub fn get(&self, at: Position) -> Option<&Entry> {
        self.kept.get(&at)?.as_ref()
    }

    fn read(
        &mut self,
        event_log: &mut dyn LogReader,
        partition: u32,
        wanted: &BTreeSet<u64>,
    ) -> Result<(), EventLogError> {
        let mut rest: Vec<u64> = wanted.iter().copied().collect();
        while let Some(&next) = rest.first() {
            let (first, _) = event_log.bounds(Topic::Raw, partition)?;
            let gone = rest.iter().take_while(|offset| **offset < first).count();
            if gone > 0 {
                self.bytes += gone * GONE_BYTES;
                let gone = rest.drain(..gone);
                self.kept.extend(gone.map(|offset| (Position { partition, offset }, None)));
                continue;
            }
            let near = rest.windows(2).take_while(|pair| pair[1] - pair[0] <= GAP_RECORDS_MAX).count() + 1;
            let until = rest[near - 1] + 1;
            let mut found = Vec::new();
            let read = event_log.read(Topic::Raw, Position { partition, offset: next }, until, &mut |entry| {
                if wanted.contains(&entry.position.offset) {
                    found.push(entry);
                }
                ControlFlow::Continue(())
            });
            match read {
                Ok(()) => {}
                // Retention removed it between the two calls.
                Err(EventLogError::Fatal(_)) if event_log.bounds(Topic::Raw, partition)?.0 > next => continue,
                Err(error) => return Err(error),
            }
            self.bytes += near * GONE_BYTES;
            self.kept.extend(rest.drain(..near).map(|offset| (Position { partition, offset }, None)));
            for entry in found {
                self.bytes += entry.record.size();
                self.kept.insert(entry.position, Some(entry));
            }
        }
        Ok(())
    }
}

fn about_to_release(entry: &Entry, partition: u32) -> Option<Installation> {
    let kind = entry.record.header(header::TYPE)?;
    let releases = kind == b"com.bitrix24.onappinstall" || kind == b"com.hookledger.attest";
    let (app, member_id) = entry.record.key.as_deref()?.split_once('/')?;
    (releases && entry.position.partition == partition).then(|| Installation::parse(app, member_id)).flatten()
}
