//! `/v1/feed` and `/v1/stream`: the verified events of all partitions, behind a cursor.
//!
//! Readers that keep up share one [`tail`], which follows the log into a [`ring`] in memory. For those that are further
//! behind, [`page`] reads the log itself, one of them at a time. Whatever a reader does, it holds one answer in memory.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use event_log::LogQuery;
use http_edge::Peer;
use primitives::time::Timestamp;
use prometheus::Registry;
use runtime::lifecycle::Stop;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::access::Caller;
use super::context::QueryContext;
use super::log_reads::{TIME_OR_AGE, read_logs, time_or_age};
use super::parameters::{AFTER, Parameters, WAIT};
use super::problem::Problem;
use cursor::Cursor;
use event::Filter;
use page::{Amount, Page, PageError, Start};
use readers::{Reader, Readers};
use tail::Tail;

mod cursor;
mod event;
#[cfg(test)]
pub(super) mod memory_log;
mod page;
mod readers;
mod ring;
mod stream;
mod tail;

pub use page::CursorFault;
pub use stream::{EventStream, stream};

const SINCE: &str = "since";
/// How far a caller's clock may be ahead.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5 * 60);

/// Limits of the feed, from the settings.
#[derive(Clone, Copy, Debug)]
pub struct FeedLimits {
    /// Readers that wait or are streamed to.
    pub readers: usize,
    /// Bytes of events in an answer, exceeded by the last event only.
    pub answer_bytes: usize,
    /// How long a stream lasts; then the reader connects again.
    pub stream_time: Duration,
}

#[derive(Clone)]
pub struct Feed {
    limits: FeedLimits,
    tail: Arc<Tail>,
    readers: Readers,
    /// The permit to read the log for the feed: other queries about logs have room beside it.
    place: Arc<Semaphore>,
    stop: Stop,
    _end: Arc<End>,
}

/// Ends the tail with the last feed.
struct End(Arc<Tail>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Feed {
    /// At most four fifths of `connections_max` may read, so that others are answered.
    pub fn new(
        logs: Arc<dyn LogQuery>,
        mut limits: FeedLimits,
        connections_max: usize,
        registry: &Registry,
        stop: Stop,
    ) -> Self {
        limits.readers = limits.readers.min((connections_max * 4 / 5).max(1));
        let tail = Tail::new(logs, stop.clone());
        let readers = Readers::new(Arc::clone(&tail), limits.readers);
        let readers = runtime::telemetry::registered(registry, Ok(readers));
        let end = Arc::new(End(Arc::clone(&tail)));
        Self { limits, tail, readers, place: Arc::new(Semaphore::new(1)), stop, _end: end }
    }

    /// The next page behind `start`: from memory if it reaches back so far, else from the log.
    async fn page(
        &self,
        context: &QueryContext,
        start: &Start,
        filter: &Filter,
        amount: Amount,
    ) -> Result<Page, Problem> {
        if let Start::At(cursor) = start
            && let Some(page) = self.tail.ring().as_ref().and_then(|ring| ring.page(cursor, filter, amount))
        {
            return Ok(page);
        }
        let _place = self.place.acquire().await.map_err(|_| Problem::NotReadable)?;
        let (start, filter) = (start.clone(), filter.clone());
        read_logs(context, move |logs| page::page(logs, &start, &filter, amount)).await
    }

    /// A page with an event, or the last one before the deadline or a stop.
    async fn next(
        &self,
        context: &QueryContext,
        mut start: Start,
        filter: &Filter,
        amount: Amount,
        waiting: Option<Waiting<'_>>,
    ) -> Result<Page, Problem> {
        let mut changes = self.tail.changes();
        loop {
            changes.mark_unchanged();
            let page = self.page(context, &start, filter, amount).await?;
            let Some(Waiting { reader, until, peer }) = &waiting else { return Ok(page) };
            reader.is_at(&page.next.lanes);
            if !page.events.is_empty() || Instant::now() >= *until || self.stop.requested() {
                return Ok(page);
            }
            if page.is_end {
                tokio::select! {
                    // The tail lives as long as the feed.
                    _ = timeout_at(*until, changes.changed()) => {}
                    () = self.stop.wait() => {}
                    // Most often it is gone, and its place is free.
                    () = closed(peer.as_ref()) => return Ok(page),
                }
            }
            start = Start::At(page.next);
        }
    }

    /// For a page, which is a reader like others.
    pub fn watch(&self) -> Result<Watch, Problem> {
        let (reader, changes) = (self.readers.enter()?, self.tail.changes());
        Ok(Watch {
            _reader: reader,
            changes,
            ends_at: Instant::now() + self.limits.stream_time,
            stop: self.stop.clone(),
        })
    }

    /// How far the log reaches back, as it was a short while ago.
    async fn reach(&self, context: &QueryContext) -> Result<Option<Timestamp>, Problem> {
        if let Some(reach) = self.tail.reach() {
            return Ok(reach.to);
        }
        let _place = self.place.acquire().await.map_err(|_| Problem::NotReadable)?;
        if let Some(reach) = self.tail.reach() {
            return Ok(reach.to);
        }
        let tail = Arc::clone(&self.tail);
        read_logs(context, move |_| tail.look().map_err(PageError::from)).await.map(|reach| reach.to)
    }
}

/// A reader that waits for an event.
struct Waiting<'a> {
    reader: &'a Reader,
    until: Instant,
    peer: Option<Peer>,
}

async fn closed(peer: Option<&Peer>) {
    match peer {
        Some(peer) => peer.closed().await,
        None => std::future::pending().await,
    }
}

/// Tells that there may be new events, for as long as a stream lasts.
pub struct Watch {
    _reader: Reader,
    changes: watch::Receiver<u64>,
    ends_at: Instant,
    stop: Stop,
}

impl Watch {
    pub async fn changed(&mut self) {
        tokio::select! {
            // The tail lives as long as the feed.
            _ = timeout_at(self.ends_at, self.changes.changed()) => {}
            () = self.stop.wait() => {}
        }
    }

    pub fn is_over(&self) -> bool {
        self.stop.requested() || Instant::now() >= self.ends_at
    }
}

impl Start {
    fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let cursor = parameters.parsed(
            AFTER,
            "the `next` of an earlier answer, or the id of an event of a stream",
            Cursor::parse,
        )?;
        let since = parameters.parsed(SINCE, TIME_OR_AGE, time_or_age)?;
        if since.is_some_and(|since| since > Timestamp::now().plus(CLOCK_SKEW_MAX)) {
            return Err(Problem::Malformed("since lies in the future".into()));
        }
        match (cursor, since) {
            (Some(_), Some(_)) => Err(Problem::Malformed("after and since exclude each other".into())),
            (Some(cursor), None) => Ok(Self::At(cursor)),
            (None, Some(since)) => Ok(Self::Since(since)),
            (None, None) => Ok(Self::Oldest),
        }
    }
}

/// `GET /v1/feed`
pub async fn list(
    context: web::Data<QueryContext>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let names = [&Filter::NAMES[..], &[AFTER, SINCE, "limit", WAIT]].concat();
    let parameters = Parameters::read(&request, &names)?;
    let (filter, start) = (Filter::read(&parameters, caller)?, Start::read(&parameters)?);
    let (limit, wait) = (parameters.limit()?, parameters.wait()?.unwrap_or_default());
    let feed = &context.feed;
    let amount = Amount { events: limit, bytes: feed.limits.answer_bytes };
    let reader = if wait.is_zero() { None } else { Some(feed.readers.enter()?) };
    let until = Instant::now() + wait;
    let peer = request.extensions().get::<Peer>().cloned();
    let waiting = reader.as_ref().map(|reader| Waiting { reader, until, peer });
    let page = feed.next(&context, start, &filter, amount, waiting).await?;
    let reach = feed.reach(&context).await?;
    Ok(HttpResponse::Ok().content_type(header::ContentType::json()).body(answer(&page, reach)))
}

/// The values of the records stand in it as they are.
fn answer(page: &Page, reach: Option<Timestamp>) -> Vec<u8> {
    let values: Vec<&[u8]> = page.events.iter().map(|event| &event.value[..]).collect();
    let rest = format!("],\"next\":\"{}\",\"reaches_back_to\":{}}}", page.next, json!(reach));
    [b"{\"events\":[", &values.join(&b","[..])[..], rest.as_bytes()].concat()
}

impl From<PageError> for Problem {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Log(error) => error.into(),
            PageError::Cursor(fault) => Self::Cursor(fault),
        }
    }
}
