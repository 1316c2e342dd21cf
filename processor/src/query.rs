//! Questions over HTTP: who has the app, what happened, may this token call this method. And a page for people.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, web};
use admin::Connections;
use anyhow::Context;
use http_edge::networks::Networks;
use http_edge::{Limits, Options, listener};
use primitives::secret::Fingerprint;
use prometheus::Registry;
use runtime::lifecycle::Stop;
use tokio::sync::Semaphore;

use crate::run::recent_events::RecentEvents;
use crate::run::shared::Shared;
use crate::state::Store;
use problem::Problem;

mod access;
mod check;
mod installations;
mod page;
mod problem;
mod stale;
mod wait;

/// What answers are made from.
#[derive(Clone)]
pub struct QueryContext {
    /// What we know, once it is open.
    pub shared: Shared,
    /// What was folded lately.
    pub recent_events: RecentEvents,
    /// Fingerprints of the tokens that may ask; none where nobody else can reach us.
    pub tokens: Arc<Vec<Fingerprint>>,
    /// Places for questions that wait for an event or a decision.
    pub waits: Arc<Semaphore>,
    /// Places for questions that look at many installations.
    pub scans: Arc<Semaphore>,
}

impl QueryContext {
    /// What answers are made from, for so many connections: at most half of them wait, so that the others are answered.
    pub fn new(shared: Shared, recent_events: RecentEvents, tokens: Vec<Fingerprint>, connections_max: usize) -> Self {
        Self {
            shared,
            recent_events,
            tokens: Arc::new(tokens),
            waits: Arc::new(Semaphore::new((connections_max / 2).clamp(1, Semaphore::MAX_PERMITS))),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
        }
    }

    /// The store, or why there is none to ask.
    fn store(&self) -> Result<Arc<Store>, Problem> {
        self.shared.get().ok_or(Problem::NotOpen)
    }
}

/// A query body is never longer than this.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// What bodies may take of memory in all, beyond the beginning of each that has its place anyway.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// How long a head may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a body may take.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// So many questions look at many installations at a time; others wait for their turn.
const SCANS_MAX: usize = 4;
/// At the end: how long questions that wait are awaited.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Askers are few and their questions small.
const WORKERS: usize = 2;
/// An answer is data: a browser that shows it loads nothing, runs nothing and puts it into no frame.
const CONTENT_POLICY: (&str, &str) = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");

/// Binds the query server. Returns where it listens, and what serves until stopped.
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
        body_bytes_max: BODY_BYTES_MAX,
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
            .app_data(problem::query_config())
            .wrap(from_fn(stale::mark))
            .wrap(from_fn(access::guard))
            .wrap(headers())
            .configure(routes)
    };
    http_edge::serve(listener, options, app, stop)
}

/// What every answer has, whatever it says.
fn headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add(("Cache-Control", "no-store"))
        .add(("X-Content-Type-Options", "nosniff"))
        .add(("Referrer-Policy", "no-referrer"))
        .add(CONTENT_POLICY)
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(page::show))
        .route("/v1/installations", web::get().to(installations::list))
        .route("/v1/installations/{app}/{member_id}", web::get().to(installations::show))
        .route("/v1/installations/{app}/{member_id}/history", web::get().to(installations::history))
        .route("/v1/installations/{app}/{member_id}/methods", web::get().to(installations::methods))
        .route("/v1/check", web::post().to(check::check))
        .default_service(web::to(problem::no_such_page));
}

#[cfg(test)]
mod tests;
