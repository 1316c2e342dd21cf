//! `/v1/rejected`: what was rejected, why, and bringing it in again.

use actix_web::{HttpRequest, HttpResponse, web};
use bitrix24::{AppName, MemberId};
use domain::{Preview, Reason, preview};
use event_log::contract::Topic;
use event_log::{RawEvent, redrive_id};
use primitives::time::{self, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::QueryContext;
use super::access::Caller;
use super::installations::PAGED;
use super::logs::read;
use super::parameters::{AFTER, Parameters, WAIT};
use super::problem::Problem;
use super::wait::After;
use find::{Name, find, raw_record};
use item::Item;
use page::{Cursor, page};

mod find;
mod item;
mod page;
mod redrive;

pub use redrive::redrive;

const FILTERS: [&str; 4] = ["app", "member_id", "reason", "since"];

/// Which rejected events are asked for.
#[derive(Clone, Debug, Default)]
struct Selection {
    app: Option<AppName>,
    member_id: Option<MemberId>,
    reason: Option<Reason>,
    since: Option<Timestamp>,
}

impl Selection {
    fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let reasons = format!("one of {}", Reason::ALL.map(Reason::label).join(", "));
        let since = "a time of RFC 3339 in UTC, such as 2026-01-31T10:00:00Z, or a duration, such as 2h";
        Ok(Self {
            app: parameters.parsed("app", "an app's name", AppName::parse)?,
            member_id: parameters.parsed("member_id", "a portal's member_id", MemberId::parse)?,
            reason: parameters.parsed("reason", &reasons, Reason::parse)?,
            since: parameters.parsed("since", since, time_or_age)?,
        })
    }

    fn has(&self, item: &Item) -> bool {
        self.app.as_ref().is_none_or(|app| item.app.as_ref() == Some(app))
            && self.member_id.as_ref().is_none_or(|member_id| item.member_id.as_ref() == Some(member_id))
            && self.reason.is_none_or(|reason| item.reason == reason.label())
            && self.since.is_none_or(|since| item.received_at >= since)
    }
}

fn time_or_age(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text).or_else(|| time::duration(text).map(|age| Timestamp::now().minus(age)))
}

impl Caller {
    /// An event of an unknown app is for callers that may see every app.
    fn sees_rejected(&self, app: Option<&AppName>) -> bool {
        app.map_or(!self.is_limited(), |app| self.sees(app))
    }
}

/// `GET /v1/rejected`, newest first.
pub async fn list(
    context: web::Data<QueryContext>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let parameters = Parameters::read(&request, &[&FILTERS[..], &PAGED].concat())?;
    let selection = Selection::read(&parameters)?;
    selection.app.as_ref().map_or(Ok(()), |app| caller.must_see(app))?;
    let (limit, cursor) = (parameters.limit()?, parameters.cursor(Cursor::parse)?);
    After::read(&parameters)?.wait(&context).await?;
    let found = read(&context, move |logs| {
        let takes = |item: &Item| selection.has(item) && caller.sees_rejected(item.app.as_ref());
        page(logs, cursor, limit, selection.since, takes)
    });
    let (items, next) = found.await?;
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next": next })))
}

/// An event, with what `raw` still has of it.
#[derive(Serialize)]
struct Shown {
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
pub async fn show(
    context: web::Data<QueryContext>,
    caller: Caller,
    path: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    After::read(&Parameters::read(&request, &[AFTER, WAIT])?)?.wait(&context).await?;
    let name = Name::parse(&path).ok_or(Problem::UnknownRejectedEvent)?;
    let found = read(&context, move |logs| {
        let Some(item) = find(logs, name)?.filter(|item| caller.sees_rejected(item.app.as_ref())) else {
            return Ok(None);
        };
        let first = logs.bounds(Topic::Raw)?;
        let record = raw_record(logs, &first, &item)?;
        let raw = record.as_ref().and_then(|record| RawEvent::from_record(record).ok());
        Ok(Some(Shown {
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
