//! `GET /v1/stream`: the feed as server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::Method;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use bytes::{BufMut, Bytes, BytesMut};
use http_edge::Peer;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::event::Filter;
use super::page::{Amount, Page, Start};
use super::readers::Reader;
use super::{Feed, SINCE, Waiting, closed};
use crate::query::access::Caller;
use crate::query::context::QueryContext;
use crate::query::parameters::{AFTER, Parameters, wrong};
use crate::query::problem::Problem;

/// A proxy ends a connection on which nothing is said for a minute or so.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// When the reader connects again after the end of a stream.
const RECONNECT_MS: u64 = 1_000;
/// Events read at once, and bytes sent at once, exceeded by the last event only.
const EVENTS_MAX: usize = 1_000;
const CHUNK_BYTES_MAX: usize = 32 * 1024;
const RETRY_WAIT: Duration = Duration::from_secs(1);
const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /v1/stream`
pub async fn stream(
    context: web::Data<QueryContext>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::read(&request, &[&Filter::NAMES[..], &[AFTER, SINCE]].concat())?;
    let filter = Filter::read(&parameters, caller)?;
    let start = match last_event_id(&request)? {
        // A browser that connects again asks with the same URL.
        Some(start) => start,
        None => Start::read(&parameters)?,
    };
    let feed = context.feed.clone();
    let reader = feed.readers.enter()?;
    let amount = Amount { events: EVENTS_MAX, bytes: feed.limits.answer_bytes };
    // A cursor that cannot be gone on with is refused before the stream begins.
    let page = feed.next(&context, start, &filter, amount, None).await?;
    let reach = feed.reach(&context).await?.map_or_else(String::new, |reach| reach.to_string());
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        .insert_header(("hl-reaches-back-to", reach))
        // Nginx would keep events back until its buffer is full.
        .insert_header(("x-accel-buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let (sender, receiver) = mpsc::channel(1);
    let ends_at = Instant::now() + feed.limits.stream_time;
    let streaming = Streaming { context, feed, filter, amount, reader, ends_at, sender };
    let peer = request.extensions().get::<Peer>().cloned();
    actix_web::rt::spawn(streaming.run(page, peer));
    Ok(response.body(EventStream(receiver)))
}

fn last_event_id(request: &HttpRequest) -> Result<Option<Start>, Problem> {
    let Some(id) = request.headers().get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else { return Ok(None) };
    let cursor = id.to_str().ok().and_then(super::Cursor::parse);
    cursor.map(|cursor| Some(Start::At(cursor))).ok_or_else(|| wrong("Last-Event-ID", "the id of an event of a stream"))
}

struct Streaming {
    context: web::Data<QueryContext>,
    feed: Feed,
    filter: Filter,
    amount: Amount,
    reader: Reader,
    ends_at: Instant,
    sender: mpsc::Sender<Bytes>,
}

/// The reader is gone.
struct Gone;

impl Streaming {
    /// Until the reader is gone, the time is over, the process stops, or no reader could go on.
    async fn run(self, first: Page, peer: Option<Peer>) {
        let gone = self.sender.clone();
        tokio::select! {
            () = gone.closed() => {}
            () = closed(peer.as_ref()) => {}
            _ = self.send_all(first) => {}
        }
    }

    async fn send_all(&self, first: Page) -> Result<(), Gone> {
        // A reader that goes before the first event goes on here, also where it began by a time.
        self.send(format!("retry: {RECONNECT_MS}\nid: {}\n\n", first.begin).into()).await?;
        let (mut page, mut heartbeat_at) = (first, Instant::now() + HEARTBEAT_EVERY);
        loop {
            self.send_page(&page).await?;
            let now = Instant::now();
            if self.feed.stop.requested() || now >= self.ends_at {
                return Ok(());
            }
            if now >= heartbeat_at {
                // The cursor moves, too, where no event passes the filter.
                self.send(format!(": heartbeat\nid: {}\n\n", page.next).into()).await?;
                heartbeat_at = now + HEARTBEAT_EVERY;
            }
            let until = heartbeat_at.min(self.ends_at);
            let waiting = Some(Waiting { reader: &self.reader, until, peer: None });
            page.events.clear();
            let start = Start::At(page.next.clone());
            match self.feed.next(&self.context, start, &self.filter, self.amount, waiting).await {
                Ok(next) => page = next,
                // The next request is told why.
                Err(Problem::Cursor(_)) => return Ok(()),
                Err(_) => sleep(RETRY_WAIT).await,
            }
        }
    }

    async fn send_page(&self, page: &Page) -> Result<(), Gone> {
        let (mut at, mut chunk) = (page.begin.clone(), BytesMut::new());
        for event in &page.events {
            at.lanes[event.partition as usize].saw(event.mark);
            chunk.put(format!("id: {at}\ndata: ").as_bytes());
            chunk.put(&event.value[..]);
            chunk.put(&b"\n\n"[..]);
            if chunk.len() >= CHUNK_BYTES_MAX {
                self.send(chunk.split().freeze()).await?;
            }
        }
        if chunk.is_empty() { Ok(()) } else { self.send(chunk.freeze()).await }
    }

    /// Waits until the reader has taken what was sent before.
    async fn send(&self, chunk: Bytes) -> Result<(), Gone> {
        self.sender.send(chunk).await.map_err(|_| Gone)
    }
}

/// The body of the answer.
pub struct EventStream(pub mpsc::Receiver<Bytes>);

impl MessageBody for EventStream {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(Ok))
    }
}
