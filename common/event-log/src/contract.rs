//! The topics as one table, and the partition of a key: the contract with subscribers.

use std::borrow::Cow;
use std::time::Duration;

use bitrix24::Installation;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Bodies as received. Deleted after a while, holds secrets.
    Raw,
    /// One fact a record. Kept for ever, without secrets.
    Facts,
    /// Every event whose principal is trusted, once.
    Events,
    /// Events whose principal is not trusted.
    Unverified,
    /// Installation records, newest by key.
    Installations,
    /// Method-permission records, newest by key.
    Permissions,
    /// The reason why an event was rejected, and the position of its body.
    Rejected,
    /// The newest tokens of trusted principals, sealed.
    Vault,
    /// How far events were forwarded to handlers: see [`Self::follows_from_raw`].
    Forward,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All records, for this long.
    Delete(Duration),
    /// The newest of each key, for ever.
    Compact,
    /// The newest of each key, for this long.
    CompactAndDelete(Duration),
}

pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long tombstones in compacted topics can be read: state that was offline for longer is read again.
pub const TOMBSTONES_KEPT: Duration = DAY.saturating_mul(7);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Of `raw` and `unverified`.
    pub raw: Duration,
    pub events: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { raw: DAY.saturating_mul(14), events: DAY.saturating_mul(30) }
    }
}

impl Topic {
    pub const ALL: [Self; 9] = [
        Self::Raw,
        Self::Facts,
        Self::Events,
        Self::Unverified,
        Self::Installations,
        Self::Permissions,
        Self::Rejected,
        Self::Vault,
        Self::Forward,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Facts => "facts",
            Self::Events => "events",
            Self::Unverified => "unverified",
            Self::Installations => "installations",
            Self::Permissions => "permissions",
            Self::Rejected => "rejected",
            Self::Vault => "vault",
            Self::Forward => "forward",
        }
    }

    /// Whether its records are published in the transactions of the fold.
    pub fn follows_from_raw(self) -> bool {
        !matches!(self, Self::Raw | Self::Forward)
    }

    pub fn policy(self, retention: Retention) -> Policy {
        match self {
            Self::Raw | Self::Unverified => Policy::Delete(retention.raw),
            Self::Events => Policy::Delete(retention.events),
            Self::Rejected => Policy::Delete(DAY.saturating_mul(90)),
            Self::Facts | Self::Installations | Self::Vault | Self::Forward => Policy::Compact,
            Self::Permissions => Policy::CompactAndDelete(DAY.saturating_mul(7)),
        }
    }
}

/// Borrowed, if it is one of [`header`].
pub type HeaderName = Cow<'static, str>;

/// Names of record headers: the binary mode of `CloudEvents`, and our own behind `hl_`.
pub mod header {
    pub const SPEC_VERSION: &str = "ce_specversion";
    /// The event's UUID, given by ingress, the same in every topic.
    pub const ID: &str = "ce_id";
    /// `/{app}/{member_id}`.
    pub const SOURCE: &str = "ce_source";
    /// `com.bitrix24.{event in lower case}`.
    pub const TYPE: &str = "ce_type";
    /// Bitrix24's `ts`, else the time of receipt.
    pub const TIME: &str = "ce_time";
    /// Of the body in `raw`; `application/json` in every derived topic.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The query of the request's URL, where it had one.
    pub const QUERY: &str = "hl_query";
    /// The compression of the body, which is therefore not read.
    pub const COMPRESSION: &str = "hl_compression";
    /// W3C trace context as it came in.
    pub const TRACEPARENT: &str = "traceparent";
    pub const TRACESTATE: &str = "tracestate";
    /// When ingress had read the body, RFC 3339.
    pub const RECEIVED: &str = "hl_received";
    /// The sender's address.
    pub const SOURCE_ADDRESS: &str = "hl_source_address";
    /// `1` where a crash made ingress hand a record over a second time.
    pub const RESENT: &str = "hl_resent";
    /// The id of the event that an operator brought in again with this record.
    pub const REDRIVE_OF: &str = "hl_redrive_of";
    /// When that was, RFC 3339.
    pub const REDRIVEN: &str = "hl_redriven";
    /// `1` where ingress refused the sender, which is in no source list: kept, but not folded.
    pub const UNKNOWN_SOURCE: &str = "hl_unknown_source";
    /// The partition of the raw event that a derived record was made from.
    pub const RAW_PARTITION: &str = "hl_raw_partition";
    pub const RAW_OFFSET: &str = "hl_raw_offset";
    /// The place of the raw event itself, where another one released it.
    pub const BODY_PARTITION: &str = "hl_body_partition";
    pub const BODY_OFFSET: &str = "hl_body_offset";
    /// What a record is that is no `CloudEvent`.
    pub const KIND: &str = "hl_type";
    pub const REASON: &str = "hl_reason";
    /// `missing`, `other` or `surplus`: the record follows from no new event, but corrects what an audit found.
    pub const CORRECTION: &str = "hl_correction";

    /// Those that most records have.
    const USUAL: [&str; 12] = [
        SPEC_VERSION,
        ID,
        SOURCE,
        TYPE,
        TIME,
        RECEIVED,
        CONTENT_TYPE,
        SOURCE_ADDRESS,
        RAW_PARTITION,
        RAW_OFFSET,
        KIND,
        QUERY,
    ];

    /// A name that was read; a usual one is not copied.
    pub fn name(text: &str) -> super::HeaderName {
        let usual = USUAL.into_iter().find(|usual| *usual == text);
        usual.map_or_else(|| text.to_owned().into(), Into::into)
    }
}

/// The key and the type of a noop record. Where Kafka accepted a commit but did not apply it to a partition, a noop
/// record carries the commit there (see [`hanging`](crate::hanging)). It may lie in any topic that is published.
pub const NOOP: &str = "noop";
pub const NOOP_TYPE: &str = "com.hookledger.noop";

/// The same in every topic.
pub fn partition_of_installation(installation: &Installation, partitions: u32) -> u32 {
    partition_of(&installation.to_string(), partitions)
}

/// The same in every topic: murmur2 as Kafka's Java client computes it.
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    (murmur2(key.as_bytes()) & 0x7fff_ffff) % partitions.max(1)
}

/// Austin Appleby's `MurmurHash2` with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).expect("a key is shorter than 4 GiB");
    let mut hash = 0x9747_b28c_u32 ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("4 bytes")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_the_java_client() {
        // The vectors of Apache Kafka's own UtilsTest.
        let vectors: [(&str, i32); 5] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (text, hash) in vectors {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }

    #[test]
    fn a_key_has_one_partition_below_the_number_of_partitions() {
        for partitions in [1, 6, 7] {
            assert!(partition_of("crm-sync/a223c6b3710f85df22e9377d6c4f7553", partitions) < partitions);
        }
    }
}
