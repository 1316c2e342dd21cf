//! `POST /v1/verify`: is this the portal's token? And who speaks for an installation.

use actix_web::{HttpRequest, HttpResponse, web};
use bitrix24::{AppName, Installation, MemberId};
use primitives::secret::{Fingerprint, Secret};
use serde_json::json;

use super::QueryContext;
use super::access::Caller;
use super::installations::{PAGED, find};
use super::parameters::{AFTER, Body, Parameters, WAIT};
use super::problem::Problem;
use super::wait::After;

const FIELDS: [&str; 3] = ["app", "member_id", "application_token"];

/// Bitrix24's has 32.
const TOKEN_BYTES_MAX: usize = 128;

/// The token is only used for its fingerprint.
pub async fn verify(
    context: web::Data<QueryContext>,
    caller: Caller,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    let after = After::read(&Parameters::read(&request, &[AFTER, WAIT])?)?;
    let body = Body::read(&request, payload, &FIELDS).await?;
    let app = body.required("app", "an app's name", AppName::parse)?;
    let member_id = body.required("member_id", "a portal's member_id", MemberId::parse)?;
    let token = body.required("application_token", "a text of 1 to 128 bytes", |text| {
        (1..=TOKEN_BYTES_MAX).contains(&text.len()).then(|| Secret::new(text))
    })?;
    drop(body);
    caller.must_see(&app)?;
    after.wait(&context).await?;
    let store = context.store()?;
    let installation = Installation { app, member_id };
    let state = store.installation(&installation)?;
    let trust = store.trust(&installation.app);
    Ok(HttpResponse::Ok().json(state.verify(trust, Fingerprint::of(token.reveal()))))
}

/// `GET /v1/installations/{app}/{member_id}/principals`, in the order of their fingerprints.
pub async fn principals(
    context: web::Data<QueryContext>,
    caller: Caller,
    path: web::Path<(String, String)>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::read(&request, &PAGED)?;
    let (limit, behind) = (parameters.limit()?, parameters.cursor(Fingerprint::parse)?);
    After::read(&parameters)?.wait(&context).await?;
    let store = context.store()?;
    let (installation, state) = find(&store, &caller, &path)?;
    let mut items = state.principal_records(store.trust(&installation.app), behind);
    let is_end = items.len() <= limit;
    items.truncate(limit);
    let next = items.last().filter(|_| !is_end).map(|last| last.principal);
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next": next })))
}
