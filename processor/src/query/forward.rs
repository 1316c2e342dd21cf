//! `/v1/forward`: what waits to be forwarded, and an operator's word about it.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use bitrix24::{AppName, MemberId};
use event_log::EventId;
use serde_json::json;

use super::installations::PAGED;
use super::parameters::Body;
use super::problem::Problem;
use super::request::{QueryRequest, block};
use super::wait::After;
use crate::forward::{Action, Cursor, Forwarding, List, Ordered, Selection, State};

const FILTERS: [&str; 3] = ["app", "member_id", "state"];

/// `GET /v1/forward`
pub async fn list(query: QueryRequest) -> Result<HttpResponse, Problem> {
    let parameters = query.parameters(&[&FILTERS[..], &PAGED].concat())?;
    let states = format!("one of {}", State::ALL.map(State::name).join(", "));
    let state = |text: &str| State::ALL.into_iter().find(|state| state.name() == text);
    let selection = Selection {
        app: parameters.parsed("app", "an app's name", AppName::parse)?,
        member_id: parameters.parsed("member_id", "a portal's member_id", MemberId::parse)?,
        state: parameters.parsed("state", &states, state)?,
    };
    selection.app.as_ref().map_or(Ok(()), |app| query.caller.must_see(app))?;
    After::read(&parameters)?.wait(&query.context).await?;
    let (limit, cursor) = (parameters.limit()?, parameters.cursor(Cursor::parse)?);
    let QueryRequest { context, caller, .. } = query;
    let Some(forwarding) = context.forwarding.clone() else { return Ok(HttpResponse::Ok().json(List::default())) };
    let list = block(
        &context.scans,
        || Problem::NotReadable,
        move || forwarding.list(&selection, |app| caller.sees(app), cursor.as_ref(), limit),
    );
    Ok(HttpResponse::Ok().json(list.await?))
}

/// `POST /v1/forward/retry`
pub async fn retry(query: QueryRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    order(query, payload, Action::Retry).await
}

/// `POST /v1/forward/skip`: the event is named, so that no other one is skipped.
pub async fn skip(query: QueryRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    order(query, payload, Action::Skip).await
}

async fn order(query: QueryRequest, payload: web::Payload, action: Action) -> Result<HttpResponse, Problem> {
    let body = Body::read(&query.http, payload, &["app", "member_id", "id"]).await?;
    let installation = body.installation()?;
    query.caller.must_see(&installation.app)?;
    let parse = |text: &str| EventId::parse_str(text).ok();
    let id = match (body.text("id")?, action) {
        (None, Action::Retry) => None,
        _ => Some(body.required("id", "the id of the event that waits", parse)?),
    };
    let context = query.context;
    let forwarding: Arc<Forwarding> = context.forwarding.clone().ok_or(Problem::NotForwarded)?;
    let work = move || forwarding.order(&installation, id, action);
    match block(&context.writes, || Problem::TooManyWait, work).await? {
        Ok(Ordered::Kept(id)) => Ok(HttpResponse::Accepted().json(json!({ "id": id, "action": action }))),
        Ok(Ordered::Unknown) => Err(Problem::NotForwarded),
        Err(error) => {
            tracing::error!("an order about forwarding cannot be kept: {error:#}");
            Err(Problem::NotKept)
        }
    }
}
