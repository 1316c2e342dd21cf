//! `GET /`: pages for people. What came in, what was rejected, and who is to be trusted.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_SECURITY_POLICY;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bitrix24::{AppName, Installation, MemberId};
use primitives::time::Timestamp;
use sha2::{Digest, Sha256};

use super::access::Caller;
use super::context::QueryContext;
use super::filter::Filter;
use super::installations::{find, installation_cursor, page};
use super::parameters::wrong;
use super::problem::Problem;
use super::request::{QueryRequest, block};
use html::{Html, STYLE};

mod html;
mod overview;
mod principals;

/// Installations on one page.
const LISTED: usize = 50;
/// Installations on the first page.
const NEWEST: usize = 20;
const PARAMETERS: [&str; 4] = ["app", "member_id", "list", "cursor"];

/// Allows only the page's own style: no scripts, files, forms or frames.
static CONTENT_POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// A list of installations that an operator has to decide about.
#[derive(Clone, Copy)]
enum List {
    Untrusted,
    Contested,
}

impl List {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "untrusted" => Some(Self::Untrusted),
            "contested" => Some(Self::Contested),
            _ => None,
        }
    }
}

/// `/?app=&member_id=` shows one installation, `/?list=` some of them, `/` what came in.
pub async fn show(query: QueryRequest) -> Result<HttpResponse, Problem> {
    let parameters = query.parameters(&PARAMETERS)?;
    let app = parameters.parsed("app", "an app's name", AppName::parse)?;
    let member_id = parameters.parsed("member_id", "a portal's member_id", MemberId::parse)?;
    let list = parameters.parsed("list", "untrusted or contested", List::parse)?;
    let cursor = parameters.cursor(installation_cursor)?;
    let QueryRequest { context, caller, .. } = query;
    let html = match (app, member_id, list) {
        (Some(app), Some(member_id), None) => one(&context, &caller, &Installation { app, member_id })?,
        (None, None, Some(list)) => some(&context, caller, list, cursor).await?,
        (None, None, None) if cursor.is_some() => return Err(wrong("cursor", "a list beside it")),
        (None, None, None) => overview(&context, &caller)?,
        (Some(_), None, _) => return Err(wrong("app", "a member_id beside it")),
        (None, Some(_), _) => return Err(wrong("member_id", "an app beside it")),
        (Some(_), Some(_), Some(_)) => return Err(wrong("list", "no installation beside it")),
    };
    let mut answer = HttpResponse::Ok();
    answer.content_type("text/html; charset=utf-8").insert_header((CONTENT_SECURITY_POLICY, CONTENT_POLICY.as_str()));
    Ok(answer.body(html.end()))
}

/// A token that is limited to apps sees their events only, and no numbers, which are of all apps.
fn overview(context: &QueryContext, caller: &Caller) -> Result<Html, Problem> {
    let store = context.store()?;
    let mut html = Html::begin_reloading();
    if !caller.is_limited() {
        overview::numbers(&mut html, &store.counts());
    }
    let newest = store.newest_untrusted(NEWEST, |installation| caller.sees(&installation.app));
    principals::newest(&mut html, &store, &newest)?;
    let mut rejected = context.recent_events.rejected(Timestamp::now());
    rejected.retain(|(app, _), _| app.as_ref().map_or(!caller.is_limited(), |app| caller.sees(app)));
    overview::rejected(&mut html, &rejected);
    let mut recent = context.recent_events.recent();
    if caller.is_limited() {
        recent.retain(|event| caller.sees(&event.app));
    }
    overview::recent(&mut html, &recent);
    Ok(html)
}

fn one(context: &QueryContext, caller: &Caller, installation: &Installation) -> Result<Html, Problem> {
    let store = context.store()?;
    let path = (installation.app.to_string(), installation.member_id.to_string());
    let (installation, state) = find(&store, caller, &path)?;
    let mut html = Html::begin();
    principals::one(&mut html, &store, &installation, &state);
    Ok(html)
}

async fn some(
    context: &QueryContext,
    caller: Caller,
    list: List,
    cursor: Option<Installation>,
) -> Result<Html, Problem> {
    let store = context.store()?;
    let listed = block(
        &context.scans,
        || Problem::NotOpen,
        move || {
            let (filter, title, name) = match list {
                List::Untrusted => (Filter::untrusted(), "No principal is trusted", "untrusted"),
                List::Contested => (Filter::contested(), "More than one principal claims these", "contested"),
            };
            let (records, next) = page(&store, &caller, &filter, cursor, LISTED)?;
            let mut html = Html::begin();
            html.title(title);
            let installations: Vec<Installation> = records.into_iter().map(|record| record.installation).collect();
            principals::some(&mut html, &store, &installations)?;
            if let Some(next) = next {
                html.link(&format!("/?list={name}&cursor={next}"), "more");
            }
            Ok(html)
        },
    );
    listed.await?
}
