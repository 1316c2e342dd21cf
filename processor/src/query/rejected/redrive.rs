//! `POST /v1/rejected/redrive`: rejected events come into `raw` once more, and are folded like all others.

use actix_web::{HttpResponse, web};
use domain::{Reason, interpret};
use event_log::contract::Topic;
use event_log::{EventId, LogQuery, RawEvent};
use primitives::time::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::find::{Name, find, raw_record};
use super::item::Item;
use super::page;
use super::selection::{FILTERS, Selection};
use crate::query::access::Caller;
use crate::query::commands::append;
use crate::query::context::QueryContext;
use crate::query::log_reads::{ReadFailure, read_logs};
use crate::query::newest::Cursor;
use crate::query::parameters::{Body, wrong};
use crate::query::problem::Problem;
use crate::query::request::QueryRequest;
use crate::state::Store;

const IDS: &str = "ids";
const FIELDS: [&str; 7] = [IDS, "app", "member_id", "reason", "since", "limit", "cursor"];
/// Each may cost a search.
pub const IDS_MAX: usize = 20;
const LIMIT_MAX: usize = 100;
/// Bodies in memory; exceeded only by the last one.
const BODIES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It is in `raw` once more.
    Redriven,
    /// `raw` does not have it any longer.
    Gone,
    /// There is no such rejected event.
    Unknown,
    /// Ingress did not write it, so there is no request.
    NotARawEvent,
    /// It gave way while it was held, and would be held again: its principal is not trusted.
    Untrusted,
}

#[derive(Serialize)]
struct RedriveItem {
    /// As it was named, or as a list shows it.
    id: Option<String>,
    place: Option<String>,
    outcome: Outcome,
    /// The id under which it is folded.
    redrive_id: Option<EventId>,
}

/// What a request names.
enum Asked {
    Names(Vec<(String, Name)>),
    Page { selection: Selection, limit: usize, cursor: Option<Cursor> },
}

pub async fn redrive(query: QueryRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let body = Body::read(&query.http, payload, &FIELDS).await?;
    let asked = asked(&body, &query.caller)?;
    drop(body);
    let QueryRequest { context, caller, .. } = query;
    let found = read_logs(&context, move |logs| items(logs, asked, &caller));
    let (mut items, next) = found.await?;
    // As they came.
    items.sort_by_key(|(_, item)| item.as_ref().map(|item| item.received_at));
    let (mut results, mut last) = (Vec::new(), None);
    let mut rest = items.into_iter();
    while rest.len() > 0 {
        let batch = batch(&context, rest).await?;
        rest = batch.rest;
        last = batch.events.last().map(|event| event.id).or(last);
        if !batch.events.is_empty() {
            append(&context, batch.events).await?;
        }
        results.extend(batch.results);
    }
    let redriven = results.iter().filter(|item| item.outcome == Outcome::Redriven).count();
    tracing::info!(
        redriven,
        of = results.len(),
        last = last.as_ref().map(EventId::to_string),
        "redrove rejected events"
    );
    Ok(HttpResponse::Ok().json(json!({ "items": results, "redriven": redriven, "last": last, "next": next })))
}

fn asked(body: &Body, caller: &Caller) -> Result<Asked, Problem> {
    let parameters = body.parameters(&FIELDS[1..])?;
    let has_filter = FILTERS.iter().any(|name| parameters.text(name).is_some());
    let Some(ids) = body.texts(IDS)? else {
        if !has_filter {
            return Err(Problem::Malformed("name what to redrive: ids, or app, member_id, reason or since".to_owned()));
        }
        let selection = Selection::read(&parameters)?;
        selection.app.as_ref().map_or(Ok(()), |app| caller.must_see(app))?;
        let limit = |text: &str| text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit = parameters.parsed("limit", "a whole number from 1 to 100", limit)?.unwrap_or(LIMIT_MAX);
        return Ok(Asked::Page { selection, limit, cursor: parameters.cursor(Cursor::parse)? });
    };
    if let Some(other) = FIELDS[1..].iter().find(|name| parameters.text(name).is_some()) {
        return Err(Problem::Malformed(format!("{other} does not go together with ids")));
    }
    let takes = format!("1 to {IDS_MAX} ids of events, or their places in rejected, such as 0-15");
    let names = ids.iter().map(|text| Name::parse(text).map(|name| ((*text).to_owned(), name)));
    let names: Option<Vec<_>> = names.collect();
    let names = names.filter(|names| (1..=IDS_MAX).contains(&names.len()));
    Ok(Asked::Names(names.ok_or_else(|| wrong(IDS, &takes))?))
}

type Named = (Option<String>, Option<Item>);

fn items(logs: &dyn LogQuery, asked: Asked, caller: &Caller) -> Result<(Vec<Named>, Option<String>), ReadFailure> {
    let (selection, limit, cursor) = match asked {
        Asked::Names(names) => {
            let find = |(text, name)| {
                let found = find(logs, name)?.filter(|item| caller.sees_rejected(item.app.as_ref()));
                Ok((Some(text), found))
            };
            return Ok((names.into_iter().map(find).collect::<Result<_, ReadFailure>>()?, None));
        }
        Asked::Page { selection, limit, cursor } => (selection, limit, cursor),
    };
    let takes = |item: &Item| {
        // The first one is in the list, too, and a refused sender is let in by name only.
        let is_first = item.redrive_of.is_none();
        let unknown_source = Reason::UnknownSource;
        let is_named = selection.reason == Some(unknown_source) || item.reason != unknown_source.label();
        selection.has(item) && caller.sees_rejected(item.app.as_ref()) && is_first && is_named
    };
    let (items, next) = page(logs, cursor, limit, selection.since, takes)?;
    Ok((items.into_iter().map(|item| (item.id.map(|id| id.to_string()), Some(item))).collect(), next))
}

struct RedriveBatch {
    events: Vec<RawEvent>,
    results: Vec<RedriveItem>,
    rest: std::vec::IntoIter<Named>,
}

/// Reads bodies up to the limit of memory.
async fn batch(context: &QueryContext, mut rest: std::vec::IntoIter<Named>) -> Result<RedriveBatch, Problem> {
    let store = context.store()?;
    read_logs(context, move |logs| {
        let (bounds, now) = (logs.bounds(Topic::Raw)?, Timestamp::now());
        let (mut events, mut results, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < BODIES_BYTES_MAX {
            let Some((id, item)) = rest.next() else { break };
            let (event, outcome) = match &item {
                None => (None, Outcome::Unknown),
                Some(item) => match raw_record(logs, &bounds, item)?.map(|record| RawEvent::from_record(&record)) {
                    None => (None, Outcome::Gone),
                    Some(Err(_)) => (None, Outcome::NotARawEvent),
                    Some(Ok(raw)) if is_held_again(&store, item, &raw)? => (None, Outcome::Untrusted),
                    Some(Ok(raw)) => (Some(raw.redriven(now)), Outcome::Redriven),
                },
            };
            let redrive_id = event.as_ref().map(|event| event.id);
            results.push(RedriveItem { id, place: item.map(|item| item.place), outcome, redrive_id });
            bytes += event.as_ref().map_or(0, |event| event.body.len());
            events.extend(event);
        }
        Ok::<_, ReadFailure>(RedriveBatch { events, results, rest })
    })
    .await
}

/// Whether an event that gave way would be held again, in place of another one.
fn is_held_again(store: &Store, item: &Item, raw: &RawEvent) -> Result<bool, ReadFailure> {
    let event = match interpret(raw, item.raw) {
        Ok(event) if item.reason == Reason::GaveWay.label() => event,
        Ok(_) | Err(_) => return Ok(false),
    };
    let state = store.installation(&event.installation)?;
    Ok(!state.verdict(store.trust(&event.installation.app)).trusts(event.principal))
}
