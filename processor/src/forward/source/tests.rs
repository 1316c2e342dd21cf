use bitrix24::form::Head;
use bytes::Bytes;
use event_log::{LogTail, Visit};
use primitives::time::Timestamp;

use super::*;
use crate::forward::progress::Source;

const LANE: LaneKey = LaneKey { source: Source::Events, partition: 0 };
const ROOM: Room = Room { events: 100, bytes: 1_000 };

/// `raw`, of which the beginning was deleted, and `events`, each with the offset of its request.
struct Log {
    first: u64,
    raw: Vec<Record>,
    events: Vec<Record>,
}

impl Log {
    /// Bodies of 100 bytes; an event for each offset of `raw` that is named, of the portal `m{offset % 3}`.
    fn new(raw: u64, events: &[u64]) -> Self {
        let id = |offset: u64| EventId::from_u128(u128::from(offset) + 1);
        let request = |offset: u64| {
            let app = AppName::parse("crm-sync").expect("a name");
            let body = Bytes::from(vec![b'x'; 100]);
            RawEvent { id: id(offset), ..RawEvent::new(app, Head::default(), body, Timestamp::from_s(1)) }.into_record()
        };
        let event = |offset: &u64| Record {
            key: Some(format!("crm-sync/m{}", offset % 3)),
            value: None,
            headers: vec![
                (header::ID.into(), id(*offset).to_string().into_bytes()),
                (header::TYPE.into(), b"com.bitrix24.onapptest".to_vec()),
                (header::RAW_PARTITION.into(), b"0".to_vec()),
                // The event that released it, perhaps.
                (header::RAW_OFFSET.into(), b"999".to_vec()),
                (header::BODY_PARTITION.into(), b"0".to_vec()),
                (header::BODY_OFFSET.into(), offset.to_string().into_bytes()),
            ],
            at: Timestamp::from_s(1),
        };
        Self { first: 0, raw: (0..raw).map(request).collect(), events: events.iter().map(event).collect() }
    }

    fn reads(&self, from: u64, room: Room, wants: impl Fn(&Installation) -> bool) -> (Vec<(u64, bool)>, u64) {
        let app = AppName::parse("crm-sync").expect("a name");
        let found = read(self, LANE, &app, (from, self.events.len() as u64), room, wants).expect("read");
        (found.events.iter().map(|event| (event.head.offset, event.request.is_some())).collect(), found.until)
    }
}

impl LogQuery for Log {
    fn identity(&self, _: Topic) -> Result<String, EventLogError> {
        Ok(String::new())
    }

    fn bounds(&self, _: Topic) -> Result<Vec<(u64, u64)>, EventLogError> {
        Ok(vec![(self.first, self.raw.len() as u64)])
    }

    fn offsets_at(&self, _: Topic, _: Timestamp) -> Result<Vec<Option<u64>>, EventLogError> {
        Ok(vec![None])
    }

    fn read(&self, topic: Topic, stretches: &[Stretch], visit: Visit<'_>) -> Result<(), EventLogError> {
        let log = if topic == Topic::Raw { &self.raw } else { &self.events };
        for Stretch { partition, from, until } in stretches.iter().copied() {
            assert!(topic != Topic::Raw || from >= self.first, "{from} was deleted");
            for (offset, record) in (0..).zip(log).filter(|(offset, _)| (from..until).contains(offset)) {
                let position = Position { partition, offset };
                if visit(Entry { position, record: record.clone() }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn tail(&self, _: Topic, _: &[u64]) -> Result<Box<dyn LogTail>, EventLogError> {
        unreachable!("nothing is followed")
    }
}

#[test]
fn events_come_with_their_requests_up_to_the_room_for_them() {
    let log = Log::new(30, &(0..30).collect::<Vec<_>>());
    let (events, until) = log.reads(0, ROOM, |_| true);
    assert_eq!((events.len(), until), (10, 10), "1000 bytes");
    assert!(events.iter().all(|(_, has_request)| *has_request));
    assert_eq!(log.reads(10, Room { events: 3, ..ROOM }, |_| true).1, 13);
    let (events, until) = log.reads(0, ROOM, |installation| installation.member_id.as_str() == "m1");
    assert_eq!(until, 30, "bodies of others are not read");
    assert!(events.iter().all(|(offset, has_request)| *has_request == (offset % 3 == 1)), "{events:?}");
}

#[test]
fn requests_of_released_events_lie_further_back_and_each_call_comes_forward() {
    // The first of these releases the others, whose bodies fill the room.
    let log = Log::new(1_000, &[900, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 950]);
    let (mut from, mut seen) = (0, Vec::new());
    while from < 14 {
        let (events, until) = log.reads(from, ROOM, |_| true);
        assert!(until > from, "{from} {events:?}");
        seen.extend(events);
        from = until;
    }
    assert_eq!(seen, (0..14).map(|offset| (offset, true)).collect::<Vec<_>>());
}

#[test]
fn what_raw_no_longer_has_is_lost_and_the_rest_is_read() {
    let mut log = Log::new(10, &[2, 3, 7, 8]);
    log.first = 5;
    // Another event lies there: the topic was made again.
    log.raw.swap(7, 9);
    assert_eq!(log.reads(0, ROOM, |_| true), (vec![(0, false), (1, false), (2, false), (3, true)], 4));
}

#[test]
fn an_installation_is_loaded_from_its_place_on_and_no_further_than_its_queue_takes() {
    let offsets: Vec<u64> = (0..300).collect();
    let log = Log::new(300, &offsets);
    let places = |places: &[(&str, u64)]| -> BTreeMap<Installation, u64> {
        let of = |(member, place): &(&str, u64)| (Installation::parse("crm-sync", member).expect("valid"), *place);
        places.iter().map(of).collect()
    };
    let room = Room { events: 1_000, bytes: 1_000_000 };
    let loads = |named: &[(&str, u64)], end| {
        let found = load(&log, LANE, &places(named), end, room).expect("read");
        (found.events.iter().map(|event| event.head.offset).collect::<Vec<_>>(), found.until)
    };
    assert_eq!(loads(&[("m0", 9), ("m1", 13)], 20), (vec![9, 12, 13, 15, 16, 18, 19], 20));
    let (events, until) = loads(&[("m0", 0)], 300);
    assert_eq!((events.len(), until), (QUEUE_MAX, 3 * QUEUE_MAX as u64));
}
