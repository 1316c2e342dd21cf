//! Logs, the metrics registry, and the admin server with `/livez`, `/readyz` and `/metrics`.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::panic::PanicHookInfo;

use actix_web::http::KeepAlive;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};
use prometheus::core::Collector;
use prometheus::{IntGauge, Opts, Registry, TEXT_FORMAT, TextEncoder};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::lifecycle::{Readiness, Stop};

/// Before the name of every metric.
const PREFIX: &str = "hookledger";

/// What is logged unless somebody wishes otherwise: the web server tells much at each start and end, and
/// of every request that is malformed, which strangers may send as many of as they like.
const FILTER: &str = "info,actix_server=warn,actix_http=off";

/// More than a Prometheus and a few people need.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// How long an answer that is being written may hold up the end of the admin server.
const ADMIN_SHUTDOWN_S_MAX: u64 = 1;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process' logger, to stderr, and has panics logged by it. `RUST_LOG` filters; without it,
/// everything of ours from `info` up is written. A process that has a logger keeps it.
pub fn init_logs(format: LogFormat) {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(wish) if !wish.is_empty() => {
            EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(wish)
        }
        _ => EnvFilter::new(FILTER),
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let installed = match format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).finish().try_init(),
    };
    if installed.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// Says where a panic happened and its message. A payload that is no text is not looked into.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let message = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(place, thread = thread.name(), backtrace, "panic: {message}");
}

/// A registry that puts `hookledger_` before every name, with `hookledger_build_info`.
pub fn registry() -> Registry {
    let registry = Registry::new_custom(Some(PREFIX.into()), None).expect("the prefix is not empty");
    let about = Opts::new("build_info", "Always 1; the label says which version runs.");
    let build_info =
        registered(&registry, IntGauge::with_opts(about.const_label("version", env!("CARGO_PKG_VERSION"))));
    build_info.set(1);
    registry
}

/// Registers a metric as it comes from its constructor, and hands it back.
pub fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("names and labels in the code are valid");
    registry.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}

/// Serves `/livez`, `/readyz` and `/metrics` until a stop was asked for and nothing is busy any more.
///
/// Returns the address it listens on. The future must be polled for the server to run; it may be dropped.
pub fn serve_admin(
    listen: SocketAddr,
    registry: Registry,
    readiness: Readiness,
    alive: impl Fn() -> bool + Send + Sync + Clone + 'static,
    stop: Stop,
) -> io::Result<(SocketAddr, impl Future<Output = io::Result<()>> + Send)> {
    let stopping = stop.clone();
    let routes = move || {
        let (alive, registry) = (alive.clone(), registry.clone());
        let (readiness, stopping) = (readiness.clone(), stopping.clone());
        App::new()
            .route("/livez", web::get().to(move || std::future::ready(livez(alive()))))
            .route("/readyz", web::get().to(move || std::future::ready(readyz(&readiness, &stopping))))
            .route("/metrics", web::get().to(move || std::future::ready(metrics(&registry))))
    };
    // An idle connection must not hold up the end: each is closed after its answer.
    let bound = HttpServer::new(routes)
        .workers(1)
        .max_connections(ADMIN_CONNECTIONS_MAX)
        .keep_alive(KeepAlive::Disabled)
        .disable_signals()
        .shutdown_timeout(ADMIN_SHUTDOWN_S_MAX)
        .bind(listen)?;
    let address = *bound.addrs().first().ok_or_else(|| io::Error::other("the admin server has no address"))?;
    let mut server = bound.run();
    let handle = server.handle();
    Ok((address, async move {
        let over = async {
            stop.wait().await;
            stop.idle().await;
        };
        tokio::select! {
            ended = &mut server => ended,
            () = over => {
                let ((), ended) = tokio::join!(handle.stop(true), server);
                ended
            }
        }
    }))
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

/// Ours, and the process collector's, which stand in the default registry under names of their own.
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
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use prometheus::IntCounterVec;

    use super::*;

    #[actix_web::test]
    async fn the_admin_server_says_how_the_process_is() {
        let (readiness, stop, alive) = (Readiness::default(), Stop::default(), Arc::new(AtomicBool::new(true)));
        let (kafka, store) = (readiness.pending("kafka: no metadata yet"), readiness.pending("store is not open"));
        let is_alive = alive.clone();
        let alive_now = move || is_alive.load(Ordering::Relaxed);
        let any_port = ([127, 0, 0, 1], 0).into();
        let (address, serving) =
            serve_admin(any_port, registry(), readiness, alive_now, stop.clone()).expect("a free port");
        let serving = tokio::spawn(serving);

        check(address, "/livez", "200 OK", "ok").await;
        alive.store(false, Ordering::Relaxed);
        check(address, "/livez", "503 Service Unavailable", "not alive").await;

        let missing = "kafka: no metadata yet\nstore is not open";
        check(address, "/readyz", "503 Service Unavailable", missing).await;
        drop((kafka, store));
        check(address, "/readyz", "200 OK", "ready").await;
        check(address, "/else", "404 Not Found", "").await;

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
        let (address, serving) =
            serve_admin(any_port, registry, Readiness::default(), || true, stop.clone()).expect("a free port");
        let serving = tokio::spawn(serving);
        let answer = get(address, "/metrics").await;
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
        let served = serve_admin(address, registry(), Readiness::default(), || true, Stop::default());
        assert_eq!(served.map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
    }

    /// The test starts itself as a process of its own, for a process has one logger and one panic hook.
    #[test]
    fn logs_are_one_json_object_a_line_and_panics_are_among_them() {
        const ROLE: &str = "HOOKLEDGER_TEST_LOGS";
        if std::env::var_os(ROLE).is_some() {
            init_logs(LogFormat::Json);
            tracing::info!(partition = 3, "opened");
            tracing::debug!("not shown");
            let text = std::thread::spawn(|| panic!("the {} broke", "disk"));
            let other = std::thread::spawn(|| std::panic::panic_any(b"hidden".to_vec()));
            assert!(text.join().is_err() && other.join().is_err());
            return;
        }
        let myself = std::env::current_exe().expect("a test has a file");
        let test = "telemetry::tests::logs_are_one_json_object_a_line_and_panics_are_among_them";
        let mut again = Command::new(myself);
        again.args([test, "--exact", "--nocapture"]).env(ROLE, "1").env_remove("RUST_LOG");
        let ended = again.output().expect("start the test's own program");
        assert!(ended.status.success());

        let lines = String::from_utf8(ended.stderr).expect("text");
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let field = |name: &str| -> Vec<_> { lines.iter().map(|line| line[name].as_str()).collect() };
        assert_eq!(lines[0]["partition"], 3);
        assert_eq!(field("level"), [Some("INFO"), Some("ERROR"), Some("ERROR")]);
        let mut messages = field("message");
        messages.sort_unstable();
        assert_eq!(messages, [Some("opened"), Some("panic: the disk broke"), Some("panic: without a message")]);
        assert!(field("place")[1].is_some_and(|place| place.contains("telemetry.rs:")));
        assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["target"].is_string()));
    }

    async fn check(address: SocketAddr, path: &'static str, status: &str, body: &str) {
        let answer = get(address, path).await;
        let (head, shown) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert_eq!((head.lines().next(), shown), (Some(format!("HTTP/1.1 {status}").as_str()), body), "{path}");
    }

    async fn get(address: SocketAddr, path: &'static str) -> String {
        let asked = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address)?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            io::Result::Ok(answer)
        });
        asked.await.expect("no panic").expect("an answer")
    }
}
