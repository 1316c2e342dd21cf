//! The query API, and a status page.

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
use event_log::LogQuery;
use http_edge::networks::Networks;
use http_edge::{Limits, Options, listener};
use prometheus::Registry;
use runtime::lifecycle::Stop;
use tokio::sync::Semaphore;

use crate::run::recent_events::RecentEvents;
use crate::run::shared::Shared;
use crate::state::Store;
use commands::CommandLog;
use problem::Problem;
use tokens::{QueryToken, Scope};

mod access;
mod check;
pub mod commands;
mod filter;
mod history;
mod installations;
mod logs;
mod page;
mod parameters;
mod problem;
mod rejected;
mod stale;
pub mod tokens;
mod verify;
mod wait;

#[derive(Clone)]
pub struct QueryContext {
    pub shared: Shared,
    pub recent_events: RecentEvents,
    /// Empty on loopback without tokens.
    pub tokens: Arc<Vec<QueryToken>>,
    /// Permits for queries that wait for an event or a decision.
    pub waits: Arc<Semaphore>,
    /// Where commands go, and the permit to write there.
    pub commands: Arc<CommandLog>,
    pub writes: Arc<Semaphore>,
    /// The logs, for queries about what is not in the state.
    pub logs: Arc<dyn LogQuery>,
    /// Permits for queries that scan many installations.
    pub scans: Arc<Semaphore>,
    /// Permits for queries that read the logs, which may take long to answer.
    pub log_reads: Arc<Semaphore>,
}

impl QueryContext {
    /// At most half of `connections_max` may wait, so the others are answered.
    pub fn new(
        shared: Shared,
        recent_events: RecentEvents,
        tokens: Vec<QueryToken>,
        connections_max: usize,
        commands: Arc<CommandLog>,
        logs: Arc<dyn LogQuery>,
    ) -> Self {
        Self {
            commands,
            logs,
            writes: Arc::new(Semaphore::new(1)),
            shared,
            recent_events,
            tokens: Arc::new(tokens),
            waits: Arc::new(Semaphore::new((connections_max / 2).clamp(1, Semaphore::MAX_PERMITS))),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
            log_reads: Arc::new(Semaphore::new(LOG_READS_MAX)),
        }
    }

    fn store(&self) -> Result<Arc<Store>, Problem> {
        self.shared.get().ok_or(Problem::NotOpen)
    }
}

const BODY_BYTES_MAX: usize = 16 * 1024;
const COMMANDS_BYTES_MAX: usize = 512 * 1024;
/// Memory for all bodies, beyond the preallocated first part of each.
pub const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Concurrent scans of many installations; further ones queue.
const SCANS_MAX: usize = 4;
/// Concurrent reads of the logs; further ones queue.
const LOG_READS_MAX: usize = 2;
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
        .add(CONTENT_POLICY)
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(read("/", page::show))
        .service(read("/v1/installations", installations::list))
        .service(read("/v1/installations/{app}/{member_id}", installations::show))
        .service(read("/v1/installations/{app}/{member_id}/history", history::show))
        .service(read("/v1/installations/{app}/{member_id}/methods", installations::methods))
        .service(read("/v1/installations/{app}/{member_id}/principals", verify::principals))
        .service(ask("/v1/check", check::check))
        .service(ask("/v1/verify", verify::verify))
        .service(command("/v1/commands", commands::take))
        .service(read("/v1/rejected", rejected::list))
        .service(command("/v1/rejected/redrive", rejected::redrive))
        .service(read("/v1/rejected/{id}", rejected::show))
        .default_service(web::to(problem::no_such_page));
}

/// A path that is read.
fn read<F, Args>(path: &str, handler: F) -> impl HttpServiceFactory + 'static
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let resource = web::resource(path).route(web::get().to(handler.clone())).route(web::head().to(handler));
    with_methods(resource, Scope::Read, "GET, HEAD, OPTIONS")
}

/// A path that takes a question in a body.
fn ask<F, Args>(path: &str, handler: F) -> impl HttpServiceFactory + 'static
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    with_methods(web::resource(path).route(web::post().to(handler)), Scope::Read, "POST, OPTIONS")
}

/// A path that takes something that changes what is known.
fn command<F, Args>(path: &str, handler: F) -> impl HttpServiceFactory + 'static
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    with_methods(web::resource(path).route(web::post().to(handler)), Scope::Operate, "POST, OPTIONS")
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
