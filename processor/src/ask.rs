//! Questions over HTTP: who has the app, what happened, may this token call this method. And a page for people.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::{App, HttpServer, web};
use common::lifecycle::Stop;
use common::secret::Fingerprint;

use crate::folded::Folded;
use crate::processor::Shared;
use crate::store::Store;
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
pub struct Asked {
    /// What we know, once it is open.
    pub shared: Shared,
    /// What was folded lately.
    pub folded: Folded,
    /// Fingerprints of the tokens that may ask; none where nobody else can reach us.
    pub tokens: Arc<Vec<Fingerprint>>,
}

impl Asked {
    /// The store, or why there is none to ask.
    fn store(&self) -> Result<Arc<Store>, Problem> {
        self.shared.get().ok_or(Problem::NotOpen)
    }
}

/// A query body is never longer than this.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Askers are few and their questions small.
const WORKERS: usize = 2;

/// Binds the query server. Returns where it listens, and what serves until stopped.
pub fn serve(
    listen: SocketAddr,
    asked: Asked,
    stop: Stop,
) -> std::io::Result<(SocketAddr, impl Future<Output = std::io::Result<()>>)> {
    let listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(asked.clone()))
            .app_data(problem::json_config(BODY_BYTES_MAX))
            .app_data(problem::query_config())
            .wrap(from_fn(stale::mark))
            .wrap(from_fn(access::guard))
            .wrap(DefaultHeaders::new().add(("Cache-Control", "no-store")).add(("X-Content-Type-Options", "nosniff")))
            .configure(routes)
    })
    .workers(WORKERS)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    let serving = async move {
        tokio::select! {
            served = server => served,
            () = async { stop.wait().await; handle.stop(true).await } => Ok(()),
        }
    };
    Ok((address, serving))
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
