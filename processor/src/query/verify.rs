//! `POST /v1/verify`: is this the portal's token? And who speaks for an installation.

use actix_web::{HttpResponse, web};
use primitives::secret::{Fingerprint, Secret};
use serde_json::json;

use super::installations::{PAGED, find};
use super::parameters::{AFTER, Body, WAIT};
use super::problem::Problem;
use super::request::QueryRequest;
use super::wait::After;

const FIELDS: [&str; 3] = ["app", "member_id", "application_token"];

/// Bitrix24's has 32.
const TOKEN_BYTES_MAX: usize = 128;

/// The token is only used for its fingerprint.
pub async fn verify(query: QueryRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let after = After::read(&query.parameters(&[AFTER, WAIT])?)?;
    let body = Body::read(&query.http, payload, &FIELDS).await?;
    let installation = body.installation()?;
    let token = body.required("application_token", "a text of 1 to 128 bytes", |text| {
        (1..=TOKEN_BYTES_MAX).contains(&text.len()).then(|| Secret::new(text))
    })?;
    drop(body);
    query.caller.must_see(&installation.app)?;
    after.wait(&query.context).await?;
    let store = query.context.store()?;
    let state = store.installation(&installation)?;
    let trust = store.trust(&installation.app);
    Ok(HttpResponse::Ok().json(state.verify(trust, Fingerprint::of(token.reveal()))))
}

/// `GET /v1/installations/{app}/{member_id}/principals`, in the order of their fingerprints.
pub async fn principals(query: QueryRequest, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let parameters = query.parameters(&PAGED)?;
    let (limit, behind) = (parameters.limit()?, parameters.cursor(Fingerprint::parse)?);
    let store = query.store(&parameters).await?;
    let (installation, state) = find(&store, &query.caller, &path)?;
    let mut items = state.principal_records(store.trust(&installation.app), behind);
    let is_end = items.len() <= limit;
    items.truncate(limit);
    let next = items.last().filter(|_| !is_end).map(|last| last.principal);
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next": next })))
}
