//! `/v1/rejected`: what was rejected, why, and bringing it in again.

use actix_web::{HttpResponse, web};
use domain::{Preview, preview};
use event_log::contract::Topic;
use event_log::{LogQuery, RawEvent, redrive_id};
use primitives::time::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::installations::PAGED;
use super::log_reads::{ReadFailure, read_logs};
use super::newest::{Cursor, Range, newest};
use super::parameters::{AFTER, WAIT};
use super::problem::Problem;
use super::request::QueryRequest;
use super::wait::After;
use find::{Name, find, raw_record};
use selection::{FILTERS, Selection};

mod find;
mod item;
mod redrive;
mod selection;

pub use item::Item;
pub use redrive::redrive;

/// `GET /v1/rejected`, newest first.
pub async fn list(query: QueryRequest) -> Result<HttpResponse, Problem> {
    let parameters = query.parameters(&[&FILTERS[..], &PAGED].concat())?;
    let selection = Selection::read(&parameters)?;
    selection.app.as_ref().map_or(Ok(()), |app| query.caller.must_see(app))?;
    let (limit, cursor) = (parameters.limit()?, parameters.cursor(Cursor::parse)?);
    After::read(&parameters)?.wait(&query.context).await?;
    let QueryRequest { context, caller, .. } = query;
    let found = read_logs(&context, move |logs| {
        let takes = |item: &Item| selection.has(item) && caller.sees_rejected(item.app.as_ref());
        page(logs, cursor, limit, selection.since, takes)
    });
    let (items, next) = found.await?;
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next": next })))
}

/// Up to `limit` items behind the cursor that the filter takes, and the cursor behind them; none at the end.
fn page(
    logs: &dyn LogQuery,
    cursor: Option<Cursor>,
    limit: usize,
    since: Option<Timestamp>,
    takes: impl FnMut(&Item) -> bool,
) -> Result<(Vec<Item>, Option<String>), ReadFailure> {
    let range = Range { topics: &[Topic::Rejected], partition: None, cursor, since, limit };
    newest(logs, &range, |_, entry| Item::of(entry), takes)
}

/// An event, with what `raw` still has of it.
#[derive(Serialize)]
struct RejectedEvent {
    #[serde(flatten)]
    item: Item,
    /// The id that the event has, or would have, when it is brought in again.
    redrive_id: Option<event_log::EventId>,
    /// Whether `raw` still has the body.
    in_raw: bool,
    content_type: Option<String>,
    preview: Option<Preview>,
}

/// `GET /v1/rejected/{id}`
pub async fn show(query: QueryRequest, path: web::Path<String>) -> Result<HttpResponse, Problem> {
    After::read(&query.parameters(&[AFTER, WAIT])?)?.wait(&query.context).await?;
    let QueryRequest { context, caller, .. } = query;
    let name = Name::parse(&path).ok_or(Problem::UnknownRejectedEvent)?;
    let found = read_logs(&context, move |logs| {
        let Some(item) = find(logs, name)?.filter(|item| caller.sees_rejected(item.app.as_ref())) else {
            return Ok::<_, ReadFailure>(None);
        };
        let first = logs.bounds(Topic::Raw)?;
        let record = raw_record(logs, &first, &item)?;
        let raw = record.as_ref().and_then(|record| RawEvent::from_record(record).ok());
        Ok(Some(RejectedEvent {
            redrive_id: item.redrive_of.or(item.id).map(redrive_id),
            in_raw: record.is_some(),
            content_type: raw.as_ref().and_then(|raw| media_type(raw.content_type.as_deref()?)),
            preview: raw.as_ref().and_then(preview),
            item,
        }))
    });
    Ok(HttpResponse::Ok().json(found.await?.ok_or(Problem::UnknownRejectedEvent)?))
}

/// Without parameters, which may be anything. A secret has digits, and a media type that matters here has none.
fn media_type(content_type: &str) -> Option<String> {
    let name = content_type.split(';').next()?.trim();
    let is_sign = |byte: u8| byte.is_ascii_alphabetic() || b"/+-.".contains(&byte);
    name.bytes().all(is_sign).then(|| name.to_ascii_lowercase())
}
