//! `GET /v1/installations/{app}/{member_id}/history`: facts of every principal, oldest first.
//!
//! The state knows where they lie in `facts`, and they are read from there.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use bitrix24::Installation;
use event_log::contract::{Topic, partition_of_installation};
use event_log::{EventId, EventLogError, LogQuery, Stretch};
use serde_json::json;

use super::installations::{PAGED, find};
use super::log_reads::{ReadFailure, read_logs};
use super::problem::Problem;
use super::request::QueryRequest;
use crate::run::facts::{READ_ALONG_MAX, fact};
use crate::state::{Place, Store};
use domain::Fact;

/// A page ends early after so many reads from different parts of the log, or so many records, or this time.
const READS_MAX: usize = 100;
const RECORDS_MAX: u64 = 20_000;
/// Records of one read.
const STRETCH_MAX: u64 = 5_000;
const READ_TIME: Duration = Duration::from_secs(5);

pub async fn show(query: QueryRequest, path: web::Path<(String, String)>) -> Result<HttpResponse, Problem> {
    let parameters = query.parameters(&PAGED)?;
    let (limit, behind) = (parameters.limit()?, parameters.cursor(|text| EventId::parse_str(text).ok())?);
    let store = query.store(&parameters).await?;
    let (installation, _) = find(&store, &query.caller, &path)?;
    if store.is_outdated() {
        return Err(Problem::Outdated);
    }
    let found = read_logs(&query.context, move |logs| page(logs, &store, &installation, behind, limit));
    let (items, next) = found.await?;
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next": next })))
}

/// The newest facts, the newest first: few, however many there are.
pub(super) fn newest(
    logs: &dyn LogQuery,
    store: &Store,
    installation: &Installation,
) -> Result<Vec<Fact>, ReadFailure> {
    let places = store.newest_places(installation)?;
    let (mut facts, _) = read(logs, store, installation, &places)?;
    facts.reverse();
    Ok(facts)
}

/// Facts behind the cursor, and the next cursor. Those that `facts` no longer have are left out: they were erased, or
/// they were corrected and the state has yet to read the correction.
fn page(
    logs: &dyn LogQuery,
    store: &Store,
    installation: &Installation,
    behind: Option<EventId>,
    limit: usize,
) -> Result<(Vec<Fact>, Option<EventId>), ReadFailure> {
    let places = store.places(installation, behind, limit + 1)?;
    let shown = &places[..places.len().min(limit)];
    let (items, last) = read(logs, store, installation, shown)?;
    let is_end = places.len() <= limit && last == places.last().map(|place| place.id);
    Ok((items, last.filter(|_| !is_end)))
}

/// The facts at these places, and the id of the last place that was read.
fn read(
    logs: &dyn LogQuery,
    store: &Store,
    installation: &Installation,
    places: &[Place],
) -> Result<(Vec<Fact>, Option<EventId>), ReadFailure> {
    if places.is_empty() {
        return Ok((Vec::new(), None));
    }
    let partition = partition_of_installation(installation, store.partitions());
    let (first, end) = logs.bounds(Topic::Facts)?.get(partition as usize).copied().unwrap_or_default();
    let (began, mut reads, mut records) = (Instant::now(), 0, 0);
    let (mut items, mut last) = (Vec::new(), None);
    let mut rest = places;
    while !rest.is_empty() {
        let (near, from, until) = near(rest);
        let (from, until) = (from.max(first), until.min(end));
        records += until.saturating_sub(from);
        if last.is_some() && (reads >= READS_MAX || records > RECORDS_MAX || began.elapsed() >= READ_TIME) {
            break;
        }
        reads += 1;
        items.extend(facts_at(logs, Stretch { partition, from, until }, installation, near)?);
        last = near.last().map(|place| place.id);
        rest = &rest[near.len()..];
    }
    Ok((items, last))
}

/// The first places that lie near each other in `facts`, and the stretch that has them.
fn near(places: &[Place]) -> (&[Place], u64, u64) {
    let (mut low, mut high) = (places[0].offset, places[0].offset);
    let is_near = |place: &&Place| {
        let offset = place.offset;
        let is_along = offset.saturating_add(READ_ALONG_MAX) >= low && offset <= high.saturating_add(READ_ALONG_MAX);
        let (lower, higher) = (low.min(offset), high.max(offset));
        let is_near = is_along && higher - lower < STRETCH_MAX;
        if is_near {
            (low, high) = (lower, higher);
        }
        is_near
    };
    let near = places.iter().take_while(is_near).count();
    (&places[..near], low, high + 1)
}

/// The facts at these places, in their order.
fn facts_at(
    logs: &dyn LogQuery,
    stretch: Stretch,
    installation: &Installation,
    places: &[Place],
) -> Result<Vec<Fact>, EventLogError> {
    if stretch.from >= stretch.until {
        return Ok(Vec::new());
    }
    let mut wanted: Vec<&Place> = places.iter().collect();
    wanted.sort_by_key(|place| place.offset);
    let (mut facts, mut failed) = (Vec::new(), None);
    logs.read(Topic::Facts, &[stretch], &mut |entry| {
        let Ok(index) = wanted.binary_search_by_key(&entry.position.offset, |place| place.offset) else {
            return ControlFlow::Continue(());
        };
        match fact(&entry) {
            Ok(fact) => {
                let is_it = |fact: &Fact| (&fact.installation, fact.stamp.id) == (installation, wanted[index].id);
                facts.extend(fact.filter(is_it));
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)?;
    facts.sort_by_key(|fact| fact.stamp.id);
    Ok(facts)
}
