//! A record of `rejected` as answers show it.

use bitrix24::{AppName, MemberId};
use event_log::{Entry, EventId, Position};
use primitives::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Longer reasons are of no version of Hookledger.
const REASON_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// `{partition}-{offset}` of the record in `rejected`.
    #[serde(default)]
    pub place: String,
    pub id: Option<EventId>,
    /// A newer version may have others.
    pub reason: String,
    pub app: Option<AppName>,
    pub member_id: Option<MemberId>,
    pub received_at: Timestamp,
    pub size: u64,
    pub raw: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_of: Option<EventId>,
}

impl Item {
    /// None for a noop record, and for what another program wrote.
    pub fn of(entry: &Entry) -> Option<Self> {
        let item: Self = serde_json::from_slice(entry.record.value.as_deref()?).ok()?;
        let Position { partition, offset } = entry.position;
        let is_label = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let is_known = item.reason.len() <= REASON_BYTES_MAX && item.reason.bytes().all(is_label);
        is_known.then(|| Self { place: format!("{partition}-{offset}"), ..item })
    }
}
