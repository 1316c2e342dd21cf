//! What a client is for, and the settings of librdkafka that follow.

use rdkafka::config::ClientConfig;

use super::{RECORD_BYTES_MAX, TRANSACTION_TIMEOUT};

/// More than a caller hands over before it waits, so that the client's queue is never the limit.
const QUEUE_RECORDS_MAX: u32 = 100_000;
const QUEUE_KIB_MAX: u32 = 128 * 1024;

/// The interval of the raw producer's statistics, from which [`connect`](crate::RawProducer::connect) learns the
/// producer id.
const STATISTICS_INTERVAL_MS: u32 = 250;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Role<'a> {
    /// Sends each record of `raw` once, in order, without a timeout.
    RawProducer,
    /// Publishes derived records and offsets, all or none.
    Transactional {
        /// Stable for an instance: it fences its former process.
        id: &'a str,
    },
    Member {
        group: &'a str,
        /// The static member id; without one the member leaves the group when it ends.
        instance: Option<&'a str>,
    },
    /// Reads committed records of partitions that it names itself.
    Follower {
        /// Required by librdkafka; nothing is ever committed with it.
        group: &'a str,
    },
    Reader {
        group: &'a str,
    },
    /// Reads a few records for a query.
    Query,
    /// Queries offsets, open transactions included.
    Uncommitted,
    Peeker,
    Admin,
}

impl Role<'_> {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RawProducer => "raw producer",
            Self::Transactional { .. } => "transactional producer",
            Self::Member { .. } => "group member",
            Self::Follower { .. } => "follower",
            Self::Reader { .. } => "reader",
            Self::Query => "query",
            Self::Uncommitted => "offsets",
            Self::Peeker => "peeker",
            Self::Admin => "admin",
        }
    }

    pub(super) fn set(self, config: &mut ClientConfig) {
        match self {
            Self::RawProducer => {
                produce(config);
                // A record stays in the queue until Kafka has it.
                config.set("message.timeout.ms", "0");
                config.set("statistics.interval.ms", STATISTICS_INTERVAL_MS.to_string());
            }
            Self::Transactional { id } => {
                produce(config);
                config.set("transactional.id", id);
                config.set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
            }
            Self::Member { group, instance } => {
                consume(config, group);
                if let Some(instance) = instance {
                    config.set("group.instance.id", instance);
                }
                config.set("group.protocol", "classic");
                // With cooperative-sticky and static members, partitions can stay without an owner for ever.
                config.set("partition.assignment.strategy", "range");
                config.set("session.timeout.ms", "10000");
                config.set("heartbeat.interval.ms", "2000");
                // New partitions are noticed soon, not after five minutes.
                config.set("topic.metadata.refresh.interval.ms", "30000");
            }
            Self::Follower { group } => consume(config, group),
            Self::Reader { group } => {
                consume(config, group);
                config.set("enable.partition.eof", "true");
                // The end of a partition is reported when a fetch comes back empty.
                config.set("fetch.wait.max.ms", "10");
            }
            Self::Query => {
                Self::Reader { group: "hookledger-query" }.set(config);
                // A query reads a stretch, and the client reads ahead.
                config.set("fetch.message.max.bytes", "262144");
                config.set("queued.max.messages.kbytes", "1024");
            }
            Self::Uncommitted => {
                config.set("isolation.level", "read_uncommitted");
                config.set("allow.auto.create.topics", "false");
            }
            Self::Peeker => {
                consume(config, "hookledger-peeker");
                config.set("isolation.level", "read_uncommitted");
                config.set("enable.partition.eof", "true");
            }
            Self::Admin => {}
        }
    }
}

fn produce(config: &mut ClientConfig) {
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config.set("linger.ms", "0");
    config.set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string());
    config.set("queue.buffering.max.kbytes", QUEUE_KIB_MAX.to_string());
    config.set("message.max.bytes", RECORD_BYTES_MAX.to_string());
    // A query for a deleted topic would create it with the broker's defaults.
    config.set("allow.auto.create.topics", "false");
}

fn consume(config: &mut ClientConfig, group: &str) {
    config.set("group.id", group);
    config.set("isolation.level", "read_committed");
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    // A missing offset is for an operator to decide about, never skipped.
    config.set("auto.offset.reset", "error");
    config.set("allow.auto.create.topics", "false");
    config.set("check.crcs", "true");
    // The default waits a whole second after a moment with a full local queue.
    config.set("fetch.queue.backoff.ms", "10");
    // Newly assigned partitions wait behind the fetch in flight.
    config.set("fetch.wait.max.ms", "100");
    config.set("queued.max.messages.kbytes", "16384");
}
