use std::sync::Arc;

use actix_web::{HttpResponse, web};
use bitrix24::{AppName, Installation};
use event_log::contract::partition_of_installation;
use primitives::secret::Fingerprint;
use primitives::time::Timestamp;
use serde_json::json;

use super::access::Caller;
use super::filter::{self, Filter};
use super::parameters::{AFTER, WAIT};
use super::problem::Problem;
use super::request::{QueryRequest, block};
use crate::state::{Store, StoreError};
use domain::{InstallationRecord, InstallationState, Method};

/// Installations scanned per response; the cursor continues behind them.
const SCANNED_MAX: usize = 20_000;
/// Parameters of paged queries.
pub(super) const PAGED: [&str; 4] = ["limit", "cursor", AFTER, WAIT];

/// `GET /v1/installations`
pub async fn list(query: QueryRequest) -> Result<HttpResponse, Problem> {
    let parameters = query.parameters(&[&filter::NAMES[..], &PAGED].concat())?;
    let filter = Filter::read(&parameters)?;
    filter.app.as_ref().map_or(Ok(()), |app| query.caller.must_see(app))?;
    let (limit, last) = (parameters.limit()?, parameters.cursor(installation_cursor)?);
    let store = query.store(&parameters).await?;
    let (context, caller) = (query.context, query.caller);
    let listed = block(&context.scans, || Problem::NotOpen, move || page(&store, &caller, &filter, last, limit));
    let (items, next) = listed.await??;
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next": next })))
}

/// `GET /v1/installations/{app}/{member_id}`
pub async fn show(query: QueryRequest, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let store = query.store(&query.parameters(&[AFTER, WAIT])?).await?;
    let (installation, state) = find(&store, &query.caller, &path)?;
    Ok(HttpResponse::Ok().json(record(&store, &installation, &state)))
}

/// `GET /v1/installations/{app}/{member_id}/methods`: decisions by method and token.
pub async fn methods(query: QueryRequest, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let parameters = query.parameters(&PAGED)?;
    let (limit, behind) = (parameters.limit()?, parameters.cursor(method_cursor)?);
    let store = query.store(&parameters).await?;
    let (installation, state) = find(&store, &query.caller, &path)?;
    let verdict = state.verdict(store.trust(&installation.app));
    let items = state.decisions_by(&verdict, behind.as_ref(), limit);
    let next = items.last().filter(|_| items.len() == limit);
    let next = next.map(|last| format!("{}/{}", last.method, last.token));
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next": next })))
}

/// The installations behind the cursor that pass the filter, and the next cursor.
pub(super) fn page(
    store: &Store,
    caller: &Caller,
    filter: &Filter,
    mut last: Option<Installation>,
    limit: usize,
) -> Result<(Vec<InstallationRecord>, Option<String>), Problem> {
    let mut items = Vec::new();
    let now = Timestamp::now();
    // Installations of other apps are neither looked at nor named by a cursor.
    let apps: Option<Vec<&AppName>> = match &filter.app {
        Some(app) => Some(vec![app]),
        None => caller.apps().map(Iterator::collect),
    };
    for _ in 0..SCANNED_MAX {
        let Some(installation) = next(store, apps.as_deref(), last.as_ref())? else {
            return Ok((items, None));
        };
        let state = store.installation(&installation)?;
        let record = record(store, &installation, &state);
        last = Some(installation);
        if filter.passes(&record, now) {
            items.push(record);
            if items.len() == limit {
                break;
            }
        }
    }
    Ok((items, last.map(|last| last.to_string())))
}

/// The next installation of these apps, which are in order; of any app without.
fn next(
    store: &Store,
    apps: Option<&[&AppName]>,
    last: Option<&Installation>,
) -> Result<Option<Installation>, StoreError> {
    let Some(apps) = apps else { return store.next_installation(last) };
    for app in apps.iter().filter(|app| last.is_none_or(|last| ***app >= last.app)) {
        if let Some(found) = store.next_of_app(app, last)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

pub(super) fn find(
    store: &Store,
    caller: &Caller,
    path: &(String, String),
) -> Result<(Installation, Arc<InstallationState>), Problem> {
    let installation = Installation::parse(&path.0, &path.1).ok_or(Problem::UnknownInstallation)?;
    caller.must_see(&installation.app)?;
    let state = store.installation(&installation)?;
    if state.principals.is_empty() { Err(Problem::UnknownInstallation) } else { Ok((installation, state)) }
}

fn record(store: &Store, installation: &Installation, state: &InstallationState) -> InstallationRecord {
    state.record(
        installation,
        partition_of_installation(installation, store.partitions()),
        store.rules(&installation.app),
    )
}

pub(super) fn installation_cursor(text: &str) -> Option<Installation> {
    let (app, member_id) = text.split_once('/')?;
    Installation::parse(app, member_id)
}

fn method_cursor(text: &str) -> Option<(Method, Fingerprint)> {
    let (method, token) = text.split_once('/')?;
    Some((Method::parse(method)?, Fingerprint::parse(token)?))
}
