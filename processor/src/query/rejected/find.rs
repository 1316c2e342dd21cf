//! One rejected event, and its record in `raw`.

use std::ops::ControlFlow;
use std::time::Duration;

use event_log::contract::{Topic, header};
use event_log::{EventId, LogQuery, Position, Record, Stretch, made_at};

use super::item::Item;
use crate::query::log_reads::ReadFailure;

/// Records looked at for one id, of all partitions together.
const SCANNED_MAX: u64 = 10_000;
/// A record has the time of receipt, and its id is made at about that time.
const SLACK: Duration = Duration::from_secs(10);

/// What names a rejected event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Id(EventId),
    /// Its place in `rejected`, `{partition}-{offset}`.
    Place(Position),
}

impl Name {
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(id) = EventId::parse_str(text) {
            return Some(Self::Id(id));
        }
        let (partition, offset) = text.split_once('-')?;
        Some(Self::Place(Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? }))
    }
}

/// By its place at once; by its id among the records that came at the id's time or later.
pub fn find(logs: &dyn LogQuery, name: Name) -> Result<Option<Item>, ReadFailure> {
    let bounds = logs.bounds(Topic::Rejected)?;
    let (stretches, id) = match name {
        Name::Place(Position { partition, offset }) => {
            let known = bounds.get(partition as usize).filter(|(first, end)| (*first..*end).contains(&offset));
            let stretch = Stretch { partition, from: offset, until: offset.saturating_add(1) };
            (known.map(|_| stretch).into_iter().collect(), None)
        }
        Name::Id(id) => (stretches(logs, &bounds, id)?, Some(id)),
    };
    let mut found = None;
    logs.read(Topic::Rejected, &stretches, &mut |entry| {
        found = Item::of(&entry).filter(|item| id.is_none() || item.id == id);
        if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

fn stretches(logs: &dyn LogQuery, bounds: &[(u64, u64)], id: EventId) -> Result<Vec<Stretch>, ReadFailure> {
    let Some(at) = made_at(id) else { return Ok(Vec::new()) };
    let begins = logs.offsets_at(Topic::Rejected, at.minus(SLACK))?;
    let each = (SCANNED_MAX / (bounds.len() as u64).max(1)).max(1);
    let stretch = |((partition, (first, end)), begin): ((u32, &(u64, u64)), Option<u64>)| {
        let from = begin?.max(*first);
        (from < *end).then(|| Stretch { partition, from, until: from.saturating_add(each).min(*end) })
    };
    Ok((0..).zip(bounds).zip(begins).filter_map(stretch).collect())
}

/// The event's record; none if `raw` has it no longer. `bounds` are those of `raw`.
pub fn raw_record(logs: &dyn LogQuery, bounds: &[(u64, u64)], item: &Item) -> Result<Option<Record>, ReadFailure> {
    let Position { partition, offset } = item.raw;
    if !bounds.get(partition as usize).is_some_and(|(first, end)| (*first..*end).contains(&offset)) {
        return Ok(None);
    }
    let stretch = Stretch { partition, from: offset, until: offset.saturating_add(1) };
    let mut found = None;
    logs.read(Topic::Raw, &[stretch], &mut |entry| {
        if entry.position == item.raw {
            found = Some(entry.record);
        }
        ControlFlow::Break(())
    })?;
    let id = item.id.map(|id| id.to_string().into_bytes());
    // A topic that was made again has other records at the same places.
    Ok(found.filter(|record| id.is_none_or(|id| record.header(header::ID) == Some(&id[..]))))
}
