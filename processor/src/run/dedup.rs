//! Second copies: only records that ingress marked as resent can be any, and only for these we look back.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use event_log::EventId;
use event_log::contract::{Topic, header};
use event_log::{Entry, EventLog, EventLogError, Position};
use primitives::time::Timestamp;

/// So many ids are remembered for each partition; beyond it the look back begins anew.
const IDS_MAX: usize = 1_000_000;
/// After so many records without a resent one the memory is given back.
const QUIET_RECORDS: u64 = 100_000;

/// Remembers the ids of the stretches of `raw` in which first copies can lie.
#[derive(Default)]
pub struct Dedup(BTreeMap<u32, Stretch>);

/// A stretch of one partition of `raw`, all of whose ids are known.
struct Stretch {
    from: u64,
    until: u64,
    /// First copies that are as young as this lie within the stretch, if they are before `until`.
    since: Timestamp,
    ids: HashSet<EventId>,
    last_resent: u64,
}

impl Dedup {
    /// Whether a resent record at `position` has a first copy before it. `received_at` is the same in both.
    pub fn has_first_copy(
        &mut self,
        event_log: &mut dyn EventLog,
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
                // Retention took where we wanted to begin: what is left is all that there is to look at.
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

    /// Takes note of a record that goes by, so that it need not be read again.
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

    /// Forgets everything, as after a change of owners.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

fn id_of(entry: &Entry) -> Option<EventId> {
    let id = std::str::from_utf8(entry.record.header(header::ID)?).ok()?;
    EventId::parse_str(id).ok()
}
