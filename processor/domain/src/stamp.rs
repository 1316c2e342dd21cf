//! When something became true, and which of two things did later.

use std::time::Duration;

use event_log::EventId;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A `ts` further ahead of its receipt than this was not read off a working clock.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a raw event lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The partition, in every topic.
    pub partition: u32,
    /// The place in `raw`.
    pub offset: u64,
}

/// When something became true: what the portal said, then what we saw, then the id, so that no two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Bitrix24's `ts`, or the receipt where there is none that could be true.
    pub occurred_at: Timestamp,
    /// When ingress had read the body.
    pub received_at: Timestamp,
    /// The event's id.
    pub id: EventId,
}

impl Stamp {
    /// The stamp of an event, given what it says about its own time.
    pub fn new(ts: Option<Timestamp>, received_at: Timestamp, id: EventId) -> Self {
        let occurred_at = ts.filter(|ts| *ts <= received_at.plus(AHEAD_MAX)).unwrap_or(received_at);
        Self { occurred_at, received_at, id }
    }
}

/// A value and when it became true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest<T> {
    /// When.
    pub since: Stamp,
    /// What.
    pub value: T,
}

impl<T> Latest<T> {
    /// Puts `newer` in the place of what is known, if it became true later.
    ///
    /// Total, idempotent and indifferent to order: neither redelivery nor reordering changes a record.
    pub fn join(known: &mut Option<Self>, newer: Self) {
        if known.as_ref().is_none_or(|known| known.since < newer.since) {
            *known = Some(newer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_from_the_far_future_is_the_time_of_receipt() {
        let received_at = Timestamp::from_s(1_000_000);
        let occurred_at =
            |ts: u64| Stamp::new(Some(Timestamp::from_s(ts)), received_at, EventId::nil()).occurred_at.s();
        assert_eq!(occurred_at(5), 5);
        assert_eq!(occurred_at(1_000_000 + 86_400), 1_086_400);
        assert_eq!(occurred_at(1_000_000 + 86_401), 1_000_000);
        assert_eq!(Stamp::new(None, received_at, EventId::nil()).occurred_at, received_at);
    }
}
