//! Events that waited for their teller to be believed, read again from `raw`.
//!
//! Many installs often come one after the other, each with events that wait for it: what the next ones need is read in
//! the same pass, within a limit of bytes.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use common::contract::{Topic, header};
use common::event::Installation;
use common::log::{Entry, Ledger, LedgerError, Position};

use crate::processor::Failure;
use crate::store::Store;

/// What is read ahead takes about as much memory at most.
const AHEAD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Records that are not needed are read over, rather than left out by another request, up to this number.
const GAP_RECORDS_MAX: u64 = 500;

/// Events of one batch that waited. Where an event is gone from `raw`, there is none.
#[derive(Default)]
pub struct HeldEvents<'e> {
    /// The batch itself: what is released often waited only for a moment.
    here: HashMap<Position, &'e Entry>,
    read: HashMap<Position, Option<Entry>>,
    bytes: usize,
}

impl<'e> HeldEvents<'e> {
    /// Nothing was read yet.
    pub fn new(batch: &'e [Entry]) -> Self {
        let here = batch.iter().map(|entry| (entry.position, entry)).collect();
        Self { here, ..Self::default() }
    }

    /// Makes sure that the events at these offsets are here; `next` are the records behind the one that releases them.
    pub fn fetch(
        &mut self,
        ledger: &mut dyn Ledger,
        store: &Store,
        partition: u32,
        released: &[u64],
        next: &[&Entry],
    ) -> Result<(), Failure> {
        let is_missing = |held: &Self, offset: u64| {
            let at = Position { partition, offset };
            !held.here.contains_key(&at) && !held.read.contains_key(&at)
        };
        if !released.iter().any(|offset| is_missing(self, *offset)) {
            return Ok(());
        }
        // Where there is no room, what was read ahead for others is read again when it is needed.
        if self.bytes >= AHEAD_BYTES_MAX {
            self.read.clear();
            self.bytes = 0;
        }
        let mut wanted: BTreeSet<u64> = released.iter().copied().filter(|offset| is_missing(self, *offset)).collect();
        let mut ahead = 0;
        for installation in next.iter().filter_map(|entry| about_to_install(entry, partition)) {
            if ahead >= AHEAD_BYTES_MAX {
                break;
            }
            for (offset, held) in store.portal(&installation)?.tellers.values().flat_map(|known| &known.waiting) {
                if ahead < AHEAD_BYTES_MAX && is_missing(self, *offset) && wanted.insert(*offset) {
                    ahead += held.bytes as usize;
                }
            }
        }
        Ok(self.read(ledger, partition, &wanted)?)
    }

    /// An event that was fetched.
    pub fn get(&self, at: Position) -> Option<&Entry> {
        self.here.get(&at).copied().or_else(|| self.read.get(&at)?.as_ref())
    }

    fn read(&mut self, ledger: &mut dyn Ledger, partition: u32, wanted: &BTreeSet<u64>) -> Result<(), LedgerError> {
        let mut rest: Vec<u64> = wanted.iter().copied().collect();
        while let Some(&next) = rest.first() {
            let (first, _) = ledger.bounds(Topic::Raw, partition)?;
            let gone = rest.iter().take_while(|offset| **offset < first).count();
            if gone > 0 {
                let gone = rest.drain(..gone);
                self.read.extend(gone.map(|offset| (Position { partition, offset }, None)));
                continue;
            }
            let near = rest.windows(2).take_while(|pair| pair[1] - pair[0] <= GAP_RECORDS_MAX).count() + 1;
            let until = rest[near - 1] + 1;
            let mut found = Vec::new();
            let read = ledger.read(Topic::Raw, Position { partition, offset: next }, until, &mut |entry| {
                if wanted.contains(&entry.position.offset) {
                    found.push(entry);
                }
                ControlFlow::Continue(())
            });
            match read {
                Ok(()) => {}
                // Retention took it between the question and the read.
                Err(LedgerError::Broken(_)) if ledger.bounds(Topic::Raw, partition)?.0 > next => continue,
                Err(error) => return Err(error),
            }
            self.read.extend(rest.drain(..near).map(|offset| (Position { partition, offset }, None)));
            for entry in found {
                self.bytes += entry.record.size();
                self.read.insert(entry.position, Some(entry));
            }
        }
        Ok(())
    }
}

/// The installation of an install that lies in this partition.
fn about_to_install(entry: &Entry, partition: u32) -> Option<Installation> {
    let is_install = entry.record.header(header::TYPE) == Some(b"com.bitrix24.onappinstall");
    let (app, member_id) = entry.record.key.as_deref()?.split_once('/')?;
    (is_install && entry.position.partition == partition).then(|| Installation::parse(app, member_id)).flatten()
}
