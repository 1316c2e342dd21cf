//! The admin port: `/livez`, `/readyz` and `/metrics`.
//!
//! It answers under any number of connections: a probe without an answer restarts a healthy process.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpResponse, web};
use anyhow::Context;
use http_edge::networks::Networks;
use http_edge::site::asks_for_another;
use http_edge::{Limits, Options, listener};
use primitives::Shutdown;
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};

use runtime::lifecycle::{Readiness, Stop};

mod connections;

pub use connections::Connections;

/// More connections than a Prometheus and a few operators need; beyond that, the longest idle one is closed.
pub const LIMITS: Limits = Limits {
    head_timeout: Duration::from_secs(5),
    body_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(5),
    connections_max: 64,
    request_bytes_max: 0,
    large_bytes_per_second: None,
};

const WRONG_HOST: &str = "this port is on loopback: Host must be localhost or a loopback address";

/// The longest time that shutdown waits for a response in progress.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(1);

/// Serves `/livez`, `/readyz` and `/metrics` until a stop is requested and no work is left.
///
/// Returns the bound address. The future must be polled for the server to run; it may be dropped.
pub fn serve(
    listen: SocketAddr,
    limits: Limits,
    registry: Registry,
    readiness: Readiness,
    alive: impl Fn() -> bool + Send + Sync + Clone + 'static,
    stop: Stop,
) -> anyhow::Result<(SocketAddr, impl Future<Output = std::io::Result<()>> + Send)> {
    let listener = listener::bind(listen).with_context(|| format!("listen on {listen} for the admin"))?;
    let options = Options {
        name: "admin",
        workers: 1,
        limits,
        body_bytes_max: 0,
        trusted_proxies: Networks::default(),
        proxy_protocol: false,
        tls: None,
        // An idle connection must not delay shutdown.
        keep_alive: false,
        retire: false,
        answer_wait_max: ANSWER_WAIT_MAX,
        observer: Arc::new(Connections::new(&registry, "admin")),
    };
    let over = Finished(stop.clone());
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let routes = move || {
        let (alive, registry) = (alive.clone(), registry.clone());
        let (readiness, stopping) = (readiness.clone(), stop.clone());
        App::new()
            .wrap(from_fn(move |request, next| refuse_other_hosts(is_local, request, next)))
            .route("/livez", web::get().to(move || std::future::ready(livez(alive()))))
            .route("/readyz", web::get().to(move || std::future::ready(readyz(&readiness, &stopping))))
            .route("/metrics", web::get().to(move || std::future::ready(metrics(&registry))))
    };
    http_edge::serve(listener, options, routes, over)
}

/// On loopback `Host` must be a loopback name: a website can point a name of its own at loopback, and read the answers
/// in a browser of this machine.
async fn refuse_other_hosts(
    is_local: bool,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if is_local && asks_for_another(request.request()) {
        let refusal = text(HttpResponse::build(StatusCode::MISDIRECTED_REQUEST), WRONG_HOST);
        return Ok(request.into_response(refusal));
    }
    next.call(request).await.map(ServiceResponse::map_into_boxed_body)
}

/// A requested stop with no work left: until then the port shows what the process is waiting for.
struct Finished(Stop);

impl Shutdown for Finished {
    fn requested(&self) -> bool {
        self.0.requested()
    }

    fn wait(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.0.wait().await;
            self.0.idle().await;
        })
    }
}

fn livez(alive: bool) -> HttpResponse {
    if alive { text(HttpResponse::Ok(), "ok") } else { text(HttpResponse::ServiceUnavailable(), "not alive") }
}

fn readyz(readiness: &Readiness, stop: &Stop) -> HttpResponse {
    let missing = readiness.missing();
    if stop.requested() {
        text(HttpResponse::ServiceUnavailable(), "stopping")
    } else if missing.is_empty() {
        text(HttpResponse::Ok(), "ready")
    } else {
        text(HttpResponse::ServiceUnavailable(), &missing.join("\n"))
    }
}

fn text(mut answer: actix_web::HttpResponseBuilder, body: &str) -> HttpResponse {
    answer.content_type(ContentType::plaintext()).body(body.to_owned())
}

/// Our metrics, and those of the process collector, which has names of its own in the default registry.
fn metrics(registry: &Registry) -> HttpResponse {
    let mut families = registry.gather();
    families.extend(prometheus::gather());
    match TextEncoder::new().encode_to_string(&families) {
        Ok(body) => HttpResponse::Ok().content_type(TEXT_FORMAT).body(body),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics");
            text(HttpResponse::InternalServerError(), "the metrics cannot be written")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus::{IntCounterVec, Opts};

    use super::*;
    use runtime::telemetry::{registered, registry};

    const HEAD: &str = "HTTP/1.1\r\nhost: 127.0.0.1";

    #[actix_web::test]
    async fn the_admin_server_says_how_the_process_is() {
        let (readiness, stop, alive) = (Readiness::default(), Stop::default(), Arc::new(AtomicBool::new(true)));
        let (kafka, store) = (readiness.pending("kafka: no metadata yet"), readiness.pending("store is not open"));
        let is_alive = alive.clone();
        let alive_now = move || is_alive.load(Ordering::Relaxed);
        let any_port = ([127, 0, 0, 1], 0).into();
        let serving = serve(any_port, LIMITS, registry(), readiness, alive_now, stop.clone());
        let (address, serving) = serving.expect("a free port");
        let serving = tokio::spawn(serving);

        check(address, "/livez", "200 OK", "ok").await;
        alive.store(false, Ordering::Relaxed);
        check(address, "/livez", "503 Service Unavailable", "not alive").await;

        let missing = "kafka: no metadata yet\nstore is not open";
        check(address, "/readyz", "503 Service Unavailable", missing).await;
        drop((kafka, store));
        check(address, "/readyz", "200 OK", "ready").await;
        check(address, "/else", "404 Not Found", "").await;

        for (head, answered) in [
            ("HTTP/1.1\r\nhost: rebound.example:9080", false),
            ("HTTP/1.1\r\nhost: localhost:9080", true),
            ("HTTP/1.0", true),
        ] {
            let line = get(address, "/metrics", head).await.lines().next().map(str::to_owned);
            let status = if answered { "200 OK" } else { "421 Misdirected Request" };
            assert!(line.as_ref().is_some_and(|line| line.ends_with(status)), "{head}: {line:?}");
        }

        let busy = stop.busy();
        stop.request();
        check(address, "/readyz", "503 Service Unavailable", "stopping").await;
        drop(busy);
        serving.await.expect("no panic").expect("an orderly end");
    }

    #[actix_web::test]
    async fn metrics_have_our_prefix_and_the_process_its_own_names() {
        let registry = registry();
        let about = Opts::new("ingress_events_total", "Webhooks, by what became of them.");
        let events = registered(&registry, IntCounterVec::new(about, &["outcome"]));
        events.with_label_values(&["kafka"]).inc();

        let stop = Stop::default();
        let any_port = ([127, 0, 0, 1], 0).into();
        let serving = serve(any_port, LIMITS, registry, Readiness::default(), || true, stop.clone());
        let (address, serving) = serving.expect("a free port");
        let serving = tokio::spawn(serving);
        let answer = get(address, "/metrics", HEAD).await;
        assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
        for line in [
            "# HELP hookledger_ingress_events_total Webhooks, by what became of them.",
            "# TYPE hookledger_ingress_events_total counter",
            "hookledger_ingress_events_total{outcome=\"kafka\"} 1",
            "# TYPE hookledger_build_info gauge",
            concat!("hookledger_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(answer.lines().any(|shown| shown == line), "{line} is not in {answer}");
        }
        assert!(answer.contains("# HELP process_cpu_seconds_total "), "{answer}");
        stop.request();
        serving.await.expect("no panic").expect("an orderly end");
    }

    #[actix_web::test]
    async fn a_port_that_is_taken_is_an_error_at_once() {
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = taken.local_addr().expect("an address");
        let served = serve(address, LIMITS, registry(), Readiness::default(), || true, Stop::default());
        let error = served.map(drop).expect_err("the port is taken");
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        assert_eq!(kind, Some(io::ErrorKind::AddrInUse), "{error:#}");
    }

    async fn check(address: SocketAddr, path: &'static str, status: &str, body: &str) {
        let answer = get(address, path, HEAD).await;
        let (head, shown) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert_eq!((head.lines().next(), shown), (Some(format!("HTTP/1.1 {status}").as_str()), body), "{path}");
    }

    async fn get(address: SocketAddr, path: &'static str, head: &'static str) -> String {
        let asked = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address)?;
            write!(stream, "GET {path} {head}\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            io::Result::Ok(answer)
        });
        asked.await.expect("no panic").expect("an answer")
    }
}
