//! The client that records are sent with.

use event_log::Record;
use kafka_log::{Fault, RawProducer, SendError};

/// librdkafka, or a simulated client.
pub trait Client: Send + Sync + 'static {
    /// Never blocks.
    fn send(&self, partition: u32, record: &Record, ticket: u64) -> Result<(), SendError>;
    fn fatal(&self) -> Option<(Fault, String)>;
    /// Makes a failed producer report the records that it holds; with `in_flight` also unanswered ones.
    fn give_up(&self, in_flight: bool);
}

impl Client for RawProducer {
    fn send(&self, partition: u32, record: &Record, ticket: u64) -> Result<(), SendError> {
        self.send(partition, record, ticket)
    }

    fn fatal(&self) -> Option<(Fault, String)> {
        self.fatal()
    }

    fn give_up(&self, in_flight: bool) {
        self.give_up(in_flight);
    }
}
