//! Who reads the feed now: how many may, and how far they are behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts};

use super::cursor::Lane;
use super::tail::Tail;
use crate::query::problem::Problem;

/// Those that wait for events. They share one tail of the log.
#[derive(Clone)]
pub struct Readers {
    tail: Arc<Tail>,
    limit: usize,
    present: Arc<Mutex<Present>>,
    count: IntGauge,
    lag: IntGauge,
}

#[derive(Default)]
struct Present {
    next: u64,
    /// Where each is, as far as that is known.
    lanes: BTreeMap<u64, Vec<Lane>>,
}

impl Readers {
    pub fn new(tail: Arc<Tail>, limit: usize) -> Self {
        let gauge =
            |name: &str, help: &str| IntGauge::with_opts(Opts::new(name, help)).expect("names in the code are valid");
        let count = gauge("feed_readers", "Readers of the feed: streams, and queries that wait for an event.");
        let lag = gauge("feed_lag_events", "How many events the slowest reader of the feed is behind.");
        Self { tail, limit, present: Arc::default(), count, lag }
    }

    /// Until it is dropped, the tail goes on.
    pub fn enter(&self) -> Result<Reader, Problem> {
        let mut present = self.present();
        if present.lanes.len() >= self.limit {
            return Err(Problem::TooManyReaders);
        }
        let id = present.next;
        present.next += 1;
        present.lanes.insert(id, Vec::new());
        drop(present);
        self.tail.enter();
        Ok(Reader { readers: self.clone(), id })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Readers {
    fn desc(&self) -> Vec<&Desc> {
        [self.count.desc(), self.lag.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let present = self.present();
        self.count.set(number(present.lanes.len() as u64));
        self.lag.set(number(present.lanes.values().map(|lanes| self.tail.behind(lanes)).max().unwrap_or(0)));
        drop(present);
        [self.count.collect(), self.lag.collect()].concat()
    }
}

pub struct Reader {
    readers: Readers,
    id: u64,
}

impl Reader {
    /// It has come to here.
    pub fn is_at(&self, lanes: &[Lane]) {
        if let Some(known) = self.readers.present().lanes.get_mut(&self.id) {
            known.clear();
            known.extend_from_slice(lanes);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.present().lanes.remove(&self.id);
        self.readers.tail.leave();
    }
}
