//! Deduplication: only records that ingress marked as resent can be duplicates, and only these are looked up.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use event_log::contract::{Topic, header};
use event_log::{Entry, EventId, EventLogError, LogReader, Position};
use primitives::time::Timestamp;

/// Ids per partition; above it the stretch is read again.
const IDS_MAX: usize = 1_000_000;
/// Records without a resent one after which the memory is freed.
const QUIET_RECORDS: u64 = 100_000;

/// The ids of the stretches of `raw` that may hold first copies.
#[derive(Default)]
pub struct Dedup(BTreeMap<u32, Stretch>);

/// A stretch of one partition of `raw`, all of whose ids are known.
struct Stretch {
    from: u64,
    until: u64,
    /// First copies received since then lie within the stretch, if they are before `until`.
    since: Timestamp,
    ids: HashSet<EventId>,
    last_resent: u64,
}

impl Dedup {
    /// Whether a resent record at `position` has a first copy before it. `received_at` is the same in both.
    pub fn has_first_copy(
        &mut self,
        event_log: &mut dyn LogReader,
        position: Position,
        received_at: Timestamp,
        id: EventId,
    ) -> Result<bool, EventLogError> {
        let Position { partition, offset } = position;
        let known = self.0.remove(&partition).filter(|known| known.ids.len() <= IDS_MAX && known.until <= offset);
        let mut stretch = match known {
            Some(known) if known.since <= received_at => known,
            Some(_) | None => {
                let from = event_log.offset_at(partition, received_at)?.min(offset);
                Stretch { from, until: from, since: received_at, ids: HashSet::new(), last_resent: offset }
            }
        };
        while stretch.until < offset {
            let from = Position { partition, offset: stretch.until };
            let read = event_log.read(Topic::Raw, from, offset, &mut |entry| {
                stretch.ids.extend(id_of(&entry));
                ControlFlow::Continue(())
            });
            if let Err(error) = read {
                let (first, _) = event_log.bounds(Topic::Raw, partition)?;
                if !matches!(error, EventLogError::Fatal(_)) || first <= stretch.until {
                    return Err(error);
                }
                // Retention removed the beginning: only the rest can be checked.
                stretch.until = first.min(offset);
                continue;
            }
            stretch.until = offset;
        }
        stretch.last_resent = offset;
        let found = stretch.from < stretch.until && stretch.ids.contains(&id);
        self.0.insert(partition, stretch);
        Ok(found)
    }

    /// Notes a record that was read anyway.
    pub fn pass(&mut self, position: Position, id: EventId) {
        let Some(stretch) = self.0.get_mut(&position.partition) else {
            return;
        };
        if position.offset.saturating_sub(stretch.last_resent) > QUIET_RECORDS {
            self.0.remove(&position.partition);
        } else if stretch.until == position.offset {
            stretch.ids.insert(id);
            stretch.until += 1;
        }
    }

    pub fn forget(&mut self) {
        self.0.clear();
    }
}

fn id_of(entry: &Entry) -> Option<EventId> {
    let id = std::str::from_utf8(entry.record.header(header::ID)?).ok()?;
    EventId::parse_str(id).ok()
}
