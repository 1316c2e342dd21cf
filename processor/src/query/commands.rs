//! `POST /v1/commands`: what an operator says about principals. Commands are events of `raw`, folded like all others.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::{HttpMessage, HttpResponse, web};
use domain::parse_command;
use event_log::{EventId, RawEvent};
use primitives::time::Timestamp;
use serde_json::json;

use super::access::Caller;
use super::context::QueryContext;
use super::problem::Problem;
use super::request::QueryRequest;

/// Lines of one request.
pub const COMMANDS_MAX: usize = 1_000;
pub const COMMANDS_BYTES_MAX: usize = 512 * 1024;
/// A page of another site cannot make a browser send this content type.
const NDJSON: &str = "application/x-ndjson";

/// Takes all lines or none.
pub async fn take(query: QueryRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    if !query.http.content_type().eq_ignore_ascii_case(NDJSON) {
        return Err(Problem::NotNdjson);
    }
    let body = http_edge::receive(&query.http, payload, COMMANDS_BYTES_MAX).await?;
    let events = read(&body.bytes, &query.caller)?;
    drop(body);
    let (accepted, last) = (events.len(), events.last().map(|event| event.id));
    let partitions = query.context.commands.partitions();
    let last_of: BTreeMap<u32, EventId> = events.iter().map(|event| (event.partition(partitions), event.id)).collect();
    append(&query.context, events).await?;
    tracing::info!(accepted, last = last.as_ref().map(EventId::to_string), "took {accepted} commands");
    Ok(HttpResponse::Ok().json(json!({ "accepted": accepted, "last": last, "last_of_partitions": last_of })))
}

/// Returns once all are durable.
pub async fn append(context: &QueryContext, events: Vec<RawEvent>) -> Result<(), Problem> {
    let _permit = context.writes.acquire().await.map_err(|_| Problem::TooManyWait)?;
    let log = Arc::clone(&context.commands);
    let appended = web::block(move || log.append_events(events)).await;
    appended.unwrap_or_else(|error| Err(anyhow::anyhow!("append to raw: {error}"))).map_err(|error| {
        tracing::error!("commands cannot be kept: {error:#}");
        Problem::NotKept
    })
}

/// The commands of a body, one a line; empty lines are skipped.
fn read(body: &[u8], caller: &Caller) -> Result<Vec<RawEvent>, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::Malformed("the body is not UTF-8".into()))?;
    let now = Timestamp::now();
    let mut events = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        if events.len() == COMMANDS_MAX {
            return Err(Problem::Malformed(format!("there are more than {COMMANDS_MAX} lines")));
        }
        let (installation, attest) =
            parse_command(line).map_err(|what| Problem::Malformed(format!("line {number}: {what}")))?;
        caller.must_see(&installation.app)?;
        events.push(attest.into_raw(installation, now));
    }
    if events.is_empty() {
        return Err(Problem::Malformed("the body has no command".into()));
    }
    Ok(events)
}
