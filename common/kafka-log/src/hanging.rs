//! The Kafka side of [`end_what_hangs`](event_log::hanging::end_what_hangs).

use std::ops::ControlFlow;

use super::reader::Reader;
use super::transaction::Publisher;
use event_log::hanging::{Published, Recovering, Undecided};
use event_log::{Entry, EventLogError, Output, Position};
use runtime::lifecycle::Stop;

/// How far back the newest decided record of a partition is searched: markers and aborted records may follow it.
const SEARCH_BACK: u64 = 2_000;

/// The clients of an event log that is being opened.
pub(super) struct Opening<'a> {
    pub(super) publisher: &'a Publisher,
    pub(super) reader: &'a Reader,
    pub(super) stop: &'a Stop,
}

impl Recovering for Opening<'_> {
    fn undecided(&self) -> Result<Undecided, EventLogError> {
        self.reader.undecided()
    }

    fn newest(&self, published: &Published, visit: &mut dyn FnMut(&Entry)) -> Result<bool, EventLogError> {
        let Published { topic, partition, stable, .. } = *published;
        let (first, _) = self.reader.bounds(topic, partition)?;
        let from = Position { partition, offset: first.max(stable.saturating_sub(SEARCH_BACK)) };
        let mut pass = |entry: Entry| {
            visit(&entry);
            ControlFlow::Continue(())
        };
        self.reader.read(topic, from, stable, &mut pass, &mut || Ok(()))?;
        Ok(from.offset == 0)
    }

    fn open(
        &self,
        published: &Published,
        visit: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<(), EventLogError> {
        self.reader.peek(published.topic, published.place(), visit)
    }

    fn commit(&self, outputs: &[Output]) -> Result<(), EventLogError> {
        self.publisher.publish(outputs, &[], None, self.stop)?;
        Ok(())
    }

    fn abort(&self, outputs: &[Output], read: &[Position]) -> Result<(), EventLogError> {
        self.publisher.abort(outputs, read, self.reader.no_member().as_ref(), self.stop)
    }
}
