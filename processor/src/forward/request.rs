//! A request as it came, for the handler that it is forwarded to.

use bytes::Bytes;
use event_log::RawEvent;
use primitives::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub received_at: Timestamp,
    pub body: Bytes,
    pub content_type: Option<String>,
    pub query: Option<String>,
    /// The compression of the body, which is forwarded as it came.
    pub compression: Option<String>,
}

impl From<RawEvent> for Request {
    fn from(raw: RawEvent) -> Self {
        let RawEvent { received_at, body, content_type, query, compression, .. } = raw;
        Self { received_at, body, content_type, query, compression }
    }
}
