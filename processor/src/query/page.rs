//! Pages for people: what came in, what became of it, and what needs a decision.
//!
//! All of it is HTML from here. A small script fetches a page again when something happened, and replaces what has
//! changed; nothing needs it. The pages change nothing: they show the commands that do.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use bitrix24::{AppName, MemberId};
use primitives::secret::Fingerprint;

use super::installations::{find, installation_cursor};
use super::newest::Cursor;
use super::problem::Problem;
use super::request::QueryRequest;
use html::Html;
use row::Became;

mod html;
mod installation;
mod installations;
pub mod latest;
mod list;
pub mod live;
mod overview;
mod row;
pub mod surroundings;

/// Only the script and the style of this server, and connections to it.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");
const ICON: &str = include_str!("page/page.svg");

/// `GET /`
pub async fn overview(query: QueryRequest) -> HttpResponse {
    answer(async move {
        query.parameters(&[])?;
        overview::page(&query.context, &query.caller).await
    })
    .await
}

/// `GET /events`
pub async fn events(query: QueryRequest) -> HttpResponse {
    answer(async move {
        let parameters = query.parameters(&list::PARAMETERS)?.without_empty();
        let selection = list::Selection {
            app: parameters.parsed("app", "an app's name", AppName::parse)?,
            member_id: parameters.parsed("member_id", "a portal's member_id", MemberId::parse)?,
            name: parameters.parsed("event", "the name of an event, or a reason", list::parse_name)?,
            became: parameters.parsed("became", "passed-on, unverified or rejected", Became::parse)?,
        };
        selection.app.as_ref().map_or(Ok(()), |app| query.caller.must_see(app))?;
        let cursor = parameters.cursor(Cursor::parse)?;
        list::page(&query.context, query.caller, selection, cursor).await
    })
    .await
}

/// `GET /installations`
pub async fn installations(query: QueryRequest) -> HttpResponse {
    answer(async move {
        let parameters = query.parameters(&installations::PARAMETERS)?.without_empty();
        let cursor = parameters.cursor(installation_cursor)?;
        installations::page(&query.context, query.caller, parameters, cursor).await
    })
    .await
}

/// `GET /installations/{app}/{member_id}`
pub async fn installation(query: QueryRequest, path: web::Path<(String, String)>) -> HttpResponse {
    answer(async move {
        query.parameters(&[])?;
        let store = query.context.store()?;
        let (installation, state) = find(&store, &query.caller, &path)?;
        installation::page(&query.context, query.caller, store, installation, state).await
    })
    .await
}

async fn answer(page: impl Future<Output = Result<Html, Problem>>) -> HttpResponse {
    let (mut response, html) = match page.await {
        Ok(html) => (HttpResponse::Ok().finish(), html),
        // Status and headers are those of every other query.
        Err(problem) => (problem.error_response(), refused(&problem)),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, CONTENT_POLICY.parse().expect("ASCII"));
    headers.insert(actix_web::http::header::CONTENT_TYPE, "text/html; charset=utf-8".parse().expect("ASCII"));
    response.set_body(html.end()).map_into_boxed_body()
}

fn refused(problem: &Problem) -> Html {
    let mut html = Html::begin("This cannot be shown", "", None);
    html.paragraph("alert bad", &problem.to_string()).raw("<p>").link("/", "Back to the overview").raw("</p>\n");
    html
}

pub async fn script(request: HttpRequest) -> HttpResponse {
    file(&request, SCRIPT, "text/javascript; charset=utf-8")
}

pub async fn style(request: HttpRequest) -> HttpResponse {
    file(&request, STYLE, "text/css; charset=utf-8")
}

pub async fn icon(request: HttpRequest) -> HttpResponse {
    file(&request, ICON, "image/svg+xml")
}

/// A browser asks each time whether it has changed: processors of two versions may stand behind one name.
fn file(request: &HttpRequest, content: &'static str, content_type: &str) -> HttpResponse {
    let tag = format!("\"{}\"", &Fingerprint::of(content).to_string()[..16]);
    let is_known = request.headers().get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((CACHE_CONTROL, "no-cache")).insert_header((ETAG, tag));
    if is_known { response.finish() } else { response.content_type(content_type).body(content) }
}
