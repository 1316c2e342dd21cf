use std::sync::Arc;

use actix_web::{HttpResponse, web};
use bitrix24::Installation;
use event_log::EventId;
use event_log::contract::partition_of_installation;
use primitives::secret::Fingerprint;
use serde::Deserialize;
use serde_json::json;

use super::QueryContext;
use super::problem::Problem;
use super::wait::After;
use crate::state::Store;
use domain::{InstallationRecord, InstallationState, Method};

const LIMIT_MAX: usize = 1_000;
const LIMIT: usize = 100;
/// Installations scanned per response; the cursor continues behind them.
const SCANNED_MAX: usize = 20_000;

#[derive(Debug, Deserialize)]
pub struct Filter {
    app: Option<String>,
    status: Option<String>,
    domain: Option<String>,
    #[serde(default, deserialize_with = "super::wait::wait")]
    silent_for: Option<std::time::Duration>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub async fn list(
    context: web::Data<QueryContext>,
    filter: web::Query<Filter>,
    after: web::Query<After>,
) -> Result<HttpResponse, Problem> {
    after.wait(&context).await?;
    let store = context.store()?;
    // The scan continues after a disconnect, so it holds the permit itself.
    let place = Arc::clone(&context.scans).acquire_owned().await.map_err(|_| Problem::NotOpen)?;
    let listed = web::block(move || {
        let _place = place;
        page(&store, &filter)
    })
    .await;
    let (items, next) = listed.map_err(|_| Problem::NotOpen)??;
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next": next })))
}

pub async fn show(
    context: web::Data<QueryContext>,
    path: web::Path<(String, String)>,
    after: web::Query<After>,
) -> Result<HttpResponse, Problem> {
    after.wait(&context).await?;
    let store = context.store()?;
    let (installation, state) = find(&store, &path)?;
    Ok(HttpResponse::Ok().json(record(&store, &installation, &state)))
}

#[derive(Debug, Deserialize)]
pub struct Stretch {
    limit: Option<usize>,
    cursor: Option<EventId>,
}

/// `GET /v1/installations/{app}/{member_id}/history`: facts of every principal, oldest first.
pub async fn history(
    context: web::Data<QueryContext>,
    path: web::Path<(String, String)>,
    stretch: web::Query<Stretch>,
    after: web::Query<After>,
) -> Result<HttpResponse, Problem> {
    after.wait(&context).await?;
    let store = context.store()?;
    let (installation, _) = find(&store, &path)?;
    let limit = limit(stretch.limit);
    let facts = store.history(&installation, stretch.cursor, limit)?;
    let next = facts.last().filter(|_| facts.len() == limit).map(|fact| fact.stamp.id);
    Ok(HttpResponse::Ok().json(json!({ "items": facts, "next": next })))
}

#[derive(Debug, Deserialize)]
pub struct Methods {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /v1/installations/{app}/{member_id}/methods`: decisions by method and token.
pub async fn methods(
    context: web::Data<QueryContext>,
    path: web::Path<(String, String)>,
    methods: web::Query<Methods>,
    after: web::Query<After>,
) -> Result<HttpResponse, Problem> {
    after.wait(&context).await?;
    let store = context.store()?;
    let (installation, state) = find(&store, &path)?;
    let behind = methods.cursor.as_deref().map(method_cursor).transpose()?;
    let limit = limit(methods.limit);
    let verdict = state.verdict(store.trust(&installation.app));
    let items = state.decisions_by(&verdict, behind.as_ref(), limit);
    let next = items.last().filter(|_| items.len() == limit);
    let next = next.map(|last| format!("{}/{}", last.method, last.token));
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next": next })))
}

/// The installations behind the cursor that pass the filter, and the next cursor.
fn page(store: &Store, filter: &Filter) -> Result<(Vec<InstallationRecord>, Option<String>), Problem> {
    let limit = limit(filter.limit);
    let mut last = match &filter.cursor {
        Some(cursor) => Some(cursor_of(cursor)?),
        None => None,
    };
    let mut items = Vec::new();
    let now = primitives::time::Timestamp::now();
    for _ in 0..SCANNED_MAX {
        let Some(installation) = store.next_installation(last.as_ref())? else {
            return Ok((items, None));
        };
        let record = record(store, &installation, &*store.installation(&installation)?);
        last = Some(installation);
        if passes(filter, &record, now) {
            items.push(record);
            if items.len() == limit {
                break;
            }
        }
    }
    Ok((items, last.map(|last| last.to_string())))
}

fn passes(filter: &Filter, record: &InstallationRecord, now: primitives::time::Timestamp) -> bool {
    let same = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| is == Some(wanted));
    let silent = filter
        .silent_for
        .is_none_or(|silent_for| record.last_heard_at.is_none_or(|heard| now.since(heard) >= silent_for));
    same(&filter.app, Some(record.installation.app.as_str()))
        && same(&filter.status, Some(record.status.label()))
        && same(&filter.domain, record.profile.domain.as_deref())
        && silent
}

fn find(store: &Store, path: &(String, String)) -> Result<(Installation, Arc<InstallationState>), Problem> {
    let installation = Installation::parse(&path.0, &path.1).ok_or(Problem::UnknownInstallation)?;
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

fn cursor_of(text: &str) -> Result<Installation, Problem> {
    let malformed = || Problem::Malformed("cursor is not one that was given as next".into());
    let (app, member_id) = text.split_once('/').ok_or_else(malformed)?;
    Installation::parse(app, member_id).ok_or_else(malformed)
}

fn method_cursor(text: &str) -> Result<(Method, Fingerprint), Problem> {
    let parsed =
        text.split_once('/').and_then(|(method, token)| Some((Method::parse(method)?, Fingerprint::parse(token)?)));
    parsed.ok_or_else(|| Problem::Malformed("cursor is not one that was given as next".into()))
}

fn limit(wanted: Option<usize>) -> usize {
    wanted.unwrap_or(LIMIT).clamp(1, LIMIT_MAX)
}
