//! Events that an operator brings in again from `raw`: the same request, to be understood once more.

use bitrix24::form::{Head, Request};

use crate::raw_event::{EventId, RawEvent, Redrive};
use primitives::time::Timestamp;

/// The version of the UUID of a redriven event. RFC 9562 leaves the meaning of version 8 to the application.
const VERSION: u8 = 8;
/// Of the ids that ingress makes.
const INGRESS_VERSION: u8 = 7;

/// The id of an event that is brought in again: that of the event with another version. It is the same each time, so
/// that the second time is recognised, and sorts as the event does.
pub fn redrive_id(of: EventId) -> EventId {
    with_version(of, VERSION)
}

/// The event that was brought in again under this id.
pub fn redriven_from(id: EventId) -> Option<EventId> {
    is_redriven(id).then(|| with_version(id, INGRESS_VERSION))
}

fn with_version(id: EventId, version: u8) -> EventId {
    let mut bytes = id.into_bytes();
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    EventId::from_bytes(bytes)
}

/// When ingress made an event's id, which is when it had received the event. A redriven event has the time of the first.
pub fn made_at(id: EventId) -> Option<Timestamp> {
    let is_timed = [INGRESS_VERSION, VERSION].map(usize::from).contains(&id.get_version_num());
    is_timed.then(|| Timestamp::from_ms(u64::try_from(id.as_u128() >> 80).unwrap_or_default()))
}

pub fn is_redriven(id: EventId) -> bool {
    id.get_version_num() == usize::from(VERSION)
}

impl RawEvent {
    /// The same request, received at the same time, named as this version of Hookledger names it.
    ///
    /// An operator has decided: that its sender was in no source list counts no more.
    #[must_use]
    pub fn redriven(self, at: Timestamp) -> Self {
        let of = self.redrive.map_or(self.id, |redrive| redrive.of);
        let (id, redrive) = (redrive_id(of), Some(Redrive { of, at }));
        let mut event = Self { id, redrive, unknown_source: false, resent: false, ..self };
        // The names in a compressed body are not read, and a command has none.
        if !event.is_command && event.compression.is_none() {
            let Head { member_id, kind, occurred_at } = Request::parse(&event.body, event.query.as_deref()).head();
            (event.member_id, event.kind, event.occurred_at) = (member_id, kind, occurred_at);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use bitrix24::AppName;
    use bytes::Bytes;

    use super::*;

    fn event() -> RawEvent {
        let body = Bytes::from_static(b"event=ONAPPTEST&auth[member_id]=a223&ts=5");
        let app = AppName::parse("crm-sync").expect("a name");
        RawEvent { unknown_source: true, ..RawEvent::new(app, Head::default(), body, Timestamp::from_s(7)) }
    }

    #[test]
    fn an_event_has_one_id_however_often_it_is_redriven() {
        let event = event();
        let first = event.clone().redriven(Timestamp::from_s(8));
        assert_eq!(first.clone().redriven(Timestamp::from_s(9)).id, first.id);
        assert_eq!(first.redrive, Some(Redrive { of: event.id, at: Timestamp::from_s(8) }));
        assert!(is_redriven(first.id) && !is_redriven(event.id));
        assert_eq!((redriven_from(first.id), redriven_from(event.id)), (Some(event.id), None));
        assert_ne!(redrive_id(EventId::now_v7()), redrive_id(event.id));
        assert_eq!(made_at(first.id), made_at(event.id));
        assert!(made_at(event.id).is_some_and(|at| at <= Timestamp::now()) && made_at(EventId::nil()).is_none());
    }

    #[test]
    fn the_request_stays_as_it_came_and_is_named_anew() {
        let event = event();
        let again = event.clone().redriven(Timestamp::from_s(8));
        assert_eq!((&again.body, again.received_at), (&event.body, event.received_at));
        assert_eq!(again.key().as_deref(), Some("crm-sync/a223"), "this version finds the portal");
        assert_eq!((again.kind.as_deref(), again.occurred_at), (Some("onapptest"), Some(Timestamp::from_s(5))));
        assert!(!again.unknown_source, "an operator has decided");
    }
}
