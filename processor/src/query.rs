//! The query API, and pages for people.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::HttpServiceFactory;
use actix_web::http::{Method, header};
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, FromRequest, Handler, HttpResponse, Resource, Responder, web};
use admin::Connections;
use anyhow::Context;
use http_edge::networks::Networks;
use http_edge::{Limits, Options, listener};
use prometheus::Registry;
use runtime::lifecycle::Stop;

use commands::COMMANDS_BYTES_MAX;
use problem::Problem;
use tokens::Scope;

mod access;
mod check;
mod commands;
mod context;
pub mod feed;
mod filter;
mod forward;
pub mod handout;
mod history;
mod installations;
mod log_reads;
mod newest;
pub mod page;
mod parameters;
mod problem;
mod rejected;
mod request;
mod stale;
pub mod tokens;
mod verify;
mod wait;

pub use context::QueryContext;

/// Memory for all bodies, beyond the preallocated first part of each.
pub const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a shutdown waits for queries in flight.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
const WORKERS: usize = 2;
/// Responses are data: a browser that shows one must not load, run or frame anything.
const CONTENT_POLICY: (&str, &str) = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");

/// Binds the query server. Returns its address, and a future that serves until stopped.
pub fn serve(
    listen: SocketAddr,
    limits: Limits,
    context: QueryContext,
    registry: &Registry,
    stop: Stop,
) -> anyhow::Result<(SocketAddr, impl Future<Output = io::Result<()>> + use<>)> {
    let listener = listener::bind(listen).with_context(|| format!("listen for questions on {listen}"))?;
    let options = Options {
        name: "queries",
        workers: WORKERS,
        limits,
        body_bytes_max: COMMANDS_BYTES_MAX,
        trusted_proxies: Networks::default(),
        proxy_protocol: false,
        tls: None,
        keep_alive: true,
        retire: false,
        answer_wait_max: ANSWER_WAIT_MAX,
        observer: Arc::new(Connections::new(registry, "query")),
    };
    let app = move || {
        App::new()
            .app_data(web::Data::new(context.clone()))
            .wrap(from_fn(stale::mark))
            .wrap(from_fn(access::guard))
            .wrap(headers())
            .configure(routes)
    };
    http_edge::serve(listener, options, app, stop)
}

fn headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add(("Cache-Control", "no-store"))
        .add(("X-Content-Type-Options", "nosniff"))
        .add(("Referrer-Policy", "no-referrer"))
        .add(("Cross-Origin-Resource-Policy", "same-origin"))
        .add(CONTENT_POLICY)
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(read("/", page::overview))
        .service(read("/events", page::events))
        .service(read("/installations", page::installations))
        .service(read("/installations/{app}/{member_id}", page::installation))
        .service(read("/page/changes", page::live::changes))
        .service(read("/page.js", page::script))
        .service(read("/page.css", page::style))
        .service(read("/page.svg", page::icon))
        .service(read("/v1/installations", installations::list))
        .service(read("/v1/installations/{app}/{member_id}", installations::show))
        .service(read("/v1/installations/{app}/{member_id}/history", history::show))
        .service(read("/v1/installations/{app}/{member_id}/methods", installations::methods))
        .service(read("/v1/installations/{app}/{member_id}/principals", verify::principals))
        .service(post("/v1/check", Scope::Read, check::check))
        .service(post("/v1/verify", Scope::Read, verify::verify))
        .service(post("/v1/tokens/{app}/{member_id}", Scope::Tokens, handout::show))
        .service(post("/v1/commands", Scope::Operate, commands::take))
        .service(read("/v1/feed", feed::list))
        .service(read("/v1/stream", feed::stream))
        .service(read("/v1/forward", forward::list))
        .service(post("/v1/forward/retry", Scope::Operate, forward::retry))
        .service(post("/v1/forward/skip", Scope::Operate, forward::skip))
        .service(read("/v1/rejected", rejected::list))
        .service(post("/v1/rejected/redrive", Scope::Operate, rejected::redrive))
        .service(read("/v1/rejected/{id}", rejected::show))
        .default_service(web::to(problem::no_such_page));
}

/// A path that is read.
fn read<Args: FromRequest + 'static>(
    path: &str,
    handler: impl Handler<Args, Output: Responder + 'static>,
) -> impl HttpServiceFactory + 'static {
    let resource = web::resource(path).route(web::get().to(handler.clone())).route(web::head().to(handler));
    with_methods(resource, Scope::Read, "GET, HEAD, OPTIONS")
}

/// A path that takes a body: a question, or what changes something.
fn post<Args: FromRequest + 'static>(
    path: &str,
    scope: Scope,
    handler: impl Handler<Args, Output: Responder + 'static>,
) -> impl HttpServiceFactory + 'static {
    with_methods(web::resource(path).route(web::post().to(handler)), scope, "POST, OPTIONS")
}

fn with_methods(resource: Resource, scope: Scope, allow: &'static str) -> impl HttpServiceFactory + 'static {
    let options = move || ready(HttpResponse::NoContent().insert_header((header::ALLOW, allow)).finish());
    resource
        .route(web::method(Method::OPTIONS).to(options))
        .default_service(web::to(move || ready(Err::<HttpResponse, _>(Problem::WrongMethod(allow)))))
        .wrap(from_fn(move |request, next| access::needs(scope, request, next)))
}

#[cfg(test)]
mod tests;
