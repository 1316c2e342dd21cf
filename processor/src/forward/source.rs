//! Reads what is to be forwarded: records of `events` or `unverified`, and the requests that they name in `raw`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bitrix24::{AppName, Installation};
use event_log::contract::{Topic, header};
use event_log::{Entry, EventId, EventLogError, LogQuery, Position, RawEvent, Record, Stretch};

use super::lane::{Event, QUEUE_MAX, Room};
use super::progress::Head;
use super::request::Request;
use super::schedule::LaneKey;

/// Records that one call looks at.
const SCANNED_MAX: u64 = 1_000;
/// Records of `raw` that are read in vain between two that are wanted, rather than beginning again.
const GAP_MAX: u64 = 200;
const TYPE_PREFIX: &str = "com.bitrix24.";

/// Events up to an offset.
pub struct Found {
    pub events: Vec<Event>,
    pub until: u64,
}

/// An event, and where its request lies in `raw`.
struct Named {
    installation: Installation,
    head: Head,
    /// None for an event whose request is not wanted.
    raw: Option<Position>,
}

/// The next events of an app, from an offset on.
pub fn read(
    logs: &dyn LogQuery,
    lane: LaneKey,
    app: &AppName,
    (from, end): (u64, u64),
    room: Room,
    wants: impl Fn(&Installation) -> bool,
) -> Result<Found, EventLogError> {
    let until = end.min(from.saturating_add(SCANNED_MAX));
    let (mut named, mut wanted, mut stopped) = (Vec::new(), 0, until);
    visit(logs, lane, from, until, |entry| {
        let Some(mut event) = Named::of(&entry).filter(|event| event.installation.app == *app) else {
            return ControlFlow::Continue(());
        };
        if wanted >= room.events {
            stopped = entry.position.offset;
            return ControlFlow::Break(());
        }
        if wants(&event.installation) {
            wanted += 1;
        } else {
            event.raw = None;
        }
        named.push(event);
        ControlFlow::Continue(())
    })?;
    with_requests(logs, named, stopped, room.bytes)
}

/// The next events of installations, each from its place on.
pub fn load(
    logs: &dyn LogQuery,
    lane: LaneKey,
    places: &BTreeMap<Installation, u64>,
    end: u64,
    room: Room,
) -> Result<Found, EventLogError> {
    let Some(from) = places.values().min().copied() else { return Ok(Found { events: Vec::new(), until: 0 }) };
    let until = end.min(from.saturating_add(SCANNED_MAX));
    let (mut named, mut stopped) = (Vec::new(), until);
    let mut counts: BTreeMap<Installation, usize> = BTreeMap::new();
    visit(logs, lane, from, until, |entry| {
        let is_wanted =
            |event: &Named| places.get(&event.installation).is_some_and(|place| *place <= event.head.offset);
        let Some(event) = Named::of(&entry).filter(is_wanted) else { return ControlFlow::Continue(()) };
        let count = counts.entry(event.installation.clone()).or_default();
        if named.len() >= room.events || *count >= QUEUE_MAX {
            stopped = entry.position.offset;
            return ControlFlow::Break(());
        }
        *count += 1;
        named.push(event);
        ControlFlow::Continue(())
    })?;
    with_requests(logs, named, stopped, room.bytes)
}

fn visit(
    logs: &dyn LogQuery,
    lane: LaneKey,
    from: u64,
    until: u64,
    mut visit: impl FnMut(Entry) -> ControlFlow<()>,
) -> Result<(), EventLogError> {
    logs.read(lane.source.topic(), &[Stretch { partition: lane.partition, from, until }], &mut visit)
}

/// Reads requests up to a limit of bytes, exceeded only by the last one. Events beyond it are left for the next call.
fn with_requests(logs: &dyn LogQuery, named: Vec<Named>, until: u64, bytes_max: usize) -> Result<Found, EventLogError> {
    let mut wanted: Vec<Position> = named.iter().filter_map(|event| event.raw).collect();
    wanted.sort_unstable();
    let first = if wanted.is_empty() { Vec::new() } else { logs.bounds(Topic::Raw)? };
    let is_there =
        |place: &Position| first.get(place.partition as usize).is_some_and(|(first, _)| place.offset >= *first);
    wanted.retain(is_there);
    let mut found: BTreeMap<Position, Record> = BTreeMap::new();
    let (mut bytes, mut read_until) = (0, None);
    for stretch in stretches(&wanted) {
        logs.read(Topic::Raw, &[stretch], &mut |entry| {
            if wanted.binary_search(&entry.position).is_err() {
                return ControlFlow::Continue(());
            }
            if bytes >= bytes_max {
                read_until.get_or_insert(entry.position);
                return ControlFlow::Break(());
            }
            bytes += entry.record.value.as_ref().map_or(0, bytes::Bytes::len);
            found.insert(entry.position, entry.record);
            ControlFlow::Continue(())
        })?;
        if read_until.is_some() {
            break;
        }
    }
    let mut events = Vec::new();
    for Named { installation, head, raw } in named {
        // In the order of events, those of `raw` may go back: what one stands behind is not read is left, too.
        if let Some(place) = raw.filter(|place| read_until.is_some_and(|until| *place >= until)) {
            if !events.is_empty() {
                return Ok(Found { until: head.offset, events });
            }
            // Each call comes forward.
            let stretch = Stretch { partition: place.partition, from: place.offset, until: place.offset + 1 };
            logs.read(Topic::Raw, &[stretch], &mut |entry| {
                found.insert(entry.position, entry.record);
                ControlFlow::Break(())
            })?;
        }
        let request = raw.and_then(|place| request(&found.remove(&place)?, head.id));
        events.push(Event { installation, head, request });
    }
    Ok(Found { events, until })
}

/// None if another event lies there: the topic was made again.
fn request(record: &Record, id: EventId) -> Option<Arc<Request>> {
    let raw = RawEvent::from_record(record).ok().filter(|raw| raw.id == id)?;
    Some(Arc::new(raw.into()))
}

/// Few stretches that have all places, which are sorted.
fn stretches(places: &[Position]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for Position { partition, offset } in places.iter().copied() {
        match stretches.last_mut() {
            Some(last) if last.partition == partition && offset <= last.until.saturating_add(GAP_MAX) => {
                last.until = offset + 1;
            }
            Some(_) | None => stretches.push(Stretch { partition, from: offset, until: offset + 1 }),
        }
    }
    stretches
}

impl Named {
    /// None for a noop record, and for what another program wrote.
    fn of(entry: &Entry) -> Option<Self> {
        let record = &entry.record;
        let text = |name: &str| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let (app, member_id) = record.key.as_deref()?.split_once('/')?;
        let number = |own: &'static str, usual: &'static str| text(own).or_else(|| text(usual));
        let partition = number(header::BODY_PARTITION, header::RAW_PARTITION)?.parse().ok()?;
        let offset = number(header::BODY_OFFSET, header::RAW_OFFSET)?.parse().ok()?;
        let id = EventId::parse_str(text(header::ID)?).ok()?;
        let kind = text(header::TYPE)?.strip_prefix(TYPE_PREFIX)?.to_owned();
        let received_at = event_log::made_at(id).unwrap_or(record.at);
        Some(Self {
            installation: Installation::parse(app, member_id)?,
            head: Head { offset: entry.position.offset, id, kind, received_at },
            raw: Some(Position { partition, offset }),
        })
    }
}

#[cfg(test)]
mod tests;
