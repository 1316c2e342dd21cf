//! `/page/changes`: tells a page that something happened, as server-sent events without content.
//!
//! The page then fetches itself. So nothing is rendered twice, and a stream costs next to nothing, however much comes in.

use std::time::Duration;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::query::context::QueryContext;
use crate::query::feed::{EventStream, Watch};
use crate::query::parameters::Parameters;
use crate::query::problem::Problem;

/// Between two messages.
const PAUSE: Duration = Duration::from_secs(1);
/// Without a change, too: other processors may have rejected or held something.
const TICK: Duration = Duration::from_secs(5);
const BEGIN: Bytes = Bytes::from_static(b"retry: 2000\n\n");
const CHANGED: Bytes = Bytes::from_static(b"data: changed\n\n");

/// `GET /page/changes`
pub async fn changes(context: web::Data<QueryContext>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    Parameters::read(&request, &[])?;
    let watch = context.feed.watch()?;
    let mut response = HttpResponse::Ok();
    response.content_type("text/event-stream").insert_header(("x-accel-buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let (sender, receiver) = mpsc::channel(1);
    actix_web::rt::spawn(run(context, watch, sender));
    Ok(response.body(EventStream(receiver)))
}

/// Until the reader is gone, the time is over, or the process stops.
async fn run(context: web::Data<QueryContext>, mut watch: Watch, sender: mpsc::Sender<Bytes>) {
    let gone = sender.clone();
    let send_all = async {
        let mut message = BEGIN;
        while sender.send(message).await.is_ok() {
            // From now on, also what is folded meanwhile.
            let folded = context.recent_events.changed();
            sleep(PAUSE).await;
            let changed = async {
                tokio::select! { () = watch.changed() => {}, () = folded => {} }
            };
            // At the tick, the page looks for itself.
            timeout_at(Instant::now() + TICK, changed).await.ok();
            if watch.is_over() {
                return;
            }
            message = CHANGED;
        }
    };
    tokio::select! {
        () = gone.closed() => {}
        () = send_all => {}
    }
}
