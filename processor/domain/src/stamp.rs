//! When something became true, and which of two events is later.

use std::time::Duration;

use event_log::EventId;
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a portal's clock may be ahead. Nobody can claim a later time.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// A total order: Bitrix24's time, then the time of receipt, then the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Bitrix24's `ts`, at most [`AHEAD_MAX`] after the receipt; the time of receipt if `ts` is missing or unreadable.
    pub occurred_at: Timestamp,
    /// When ingress had read the body.
    pub received_at: Timestamp,
    pub id: EventId,
}

impl Stamp {
    pub fn new(ts: Option<Timestamp>, received_at: Timestamp, id: EventId) -> Self {
        let occurred_at = ts.map_or(received_at, |ts| ts.min(received_at.plus(AHEAD_MAX)));
        Self { occurred_at, received_at, id }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest<T> {
    pub since: Stamp,
    pub value: T,
}

impl<T> Latest<T> {
    /// Replaces the known value if `newer` became true later.
    ///
    /// Total, idempotent and independent of order: neither redelivery nor reordering changes a record.
    pub(crate) fn join(known: &mut Option<Self>, newer: Self) {
        if known.as_ref().is_none_or(|known| known.since < newer.since) {
            *known = Some(newer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_occurred_more_than_five_minutes_after_its_receipt() {
        let received_at = Timestamp::from_s(1_000_000);
        let occurred_at =
            |ts: u64| Stamp::new(Some(Timestamp::from_s(ts)), received_at, EventId::nil()).occurred_at.s();
        assert_eq!(occurred_at(5), 5);
        assert_eq!(occurred_at(1_000_000 + 300), 1_000_300);
        assert_eq!(occurred_at(1_000_000 + 301), 1_000_300);
        assert_eq!(occurred_at(u64::MAX), 1_000_300);
        assert_eq!(Stamp::new(None, received_at, EventId::nil()).occurred_at, received_at);
    }
}
