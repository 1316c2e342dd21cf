//! Logs, the metrics registry, and the admin server with `/livez`, `/readyz` and `/metrics`.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::panic::PanicHookInfo;

use actix_web::http::KeepAlive;
use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, HttpServer, web};
use prometheus::core::Collector;
use prometheus::{IntGauge, Opts, Registry, TEXT_FORMAT, TextEncoder};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::util::SubscriberInitExt;

use crate::lifecycle::{Readiness, Stop};
use crate::plain;

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
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    let installed = match format {
        LogFormat::Text => {
            let logs = logs.with_ansi(io::stderr().is_terminal()).fmt_fields(debug_fn(write_field));
            logs.with_writer(io::stderr).finish().try_init()
        }
        LogFormat::Json => {
            let logs = logs.json().flatten_event(true).with_current_span(false);
            logs.with_writer(|| JsonLines).finish().try_init()
        }
    };
    if installed.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// One field of an event, on a line of text. What portals and servers say is among them; the subscriber's own
/// formatter passes the ESC of a field with `%` on, and line breaks.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let shown = plain::line(&format!("{value:?}"));
    match field.name() {
        "message" => to.write_str(&shown),
        // Where a library's line comes from; the subscriber has made use of it already.
        name if name.starts_with("log.") => Ok(()),
        name => write!(to, " {}={shown}", name.strip_prefix("r#").unwrap_or(name)),
    }
}

/// Lines of JSON on their way to stderr, whole ones: an event is written at once.
struct JsonLines;

impl Write for JsonLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(plain::json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
    use std::io::Read;
    use std::net::TcpStream;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

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

    /// What a stranger may have others log: orders to a terminal, a line of its own, letters that run backwards.
    const HOSTILE: &str = "evil\x1b[2J\u{9b}31m\u{7f}\r\nINFO forged: \u{202e}moc\u{200b}";

    #[test]
    fn nothing_that_is_logged_is_obeyed_by_a_terminal_or_makes_a_line_of_its_own() {
        const ROLE: &str = "HOOKLEDGER_TEST_HOSTILE_LOGS";
        const NAME: &str = "nothing_that_is_logged_is_obeyed_by_a_terminal_or_makes_a_line_of_its_own";
        if let Some(format) = std::env::var_os(ROLE) {
            init_logs(if format == "json" { LogFormat::Json } else { LogFormat::Text });
            let _span = tracing::info_span!("span", host = %HOSTILE).entered();
            tracing::info!(text = HOSTILE, shown = %HOSTILE, debugged = ?HOSTILE, "said {HOSTILE}");
            return;
        }
        let ended = |role: &str| {
            let myself = std::env::current_exe().expect("a test has a file");
            let mut again = Command::new(myself);
            again.args([&format!("telemetry::tests::{NAME}"), "--exact", "--nocapture"]).env(ROLE, role);
            let ended = again.env_remove("RUST_LOG").output().expect("start the test's own program");
            assert!(ended.status.success());
            String::from_utf8(ended.stderr).expect("text")
        };
        for role in ["text", "json"] {
            let logged = ended(role);
            assert_eq!(logged.matches('\n').count(), 1, "{logged:?}");
            assert_eq!(plain::lines(&logged), logged, "{logged:?}");
            assert!(logged.contains("moc"), "{logged:?}");
        }
        let line: serde_json::Value = serde_json::from_str(&ended("json")).expect("JSON");
        assert_eq!((line["text"].as_str(), line["shown"].as_str()), (Some(HOSTILE), Some(HOSTILE)));
        assert_eq!(line["message"], format!("said {HOSTILE}"));
    }

    /// With colours, as on a terminal: what is left of ESC is the logger's own.
    #[test]
    fn colours_are_the_loggers_own() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let logs = tracing_subscriber::fmt().with_ansi(true).fmt_fields(debug_fn(write_field));
        let logs = logs.with_writer(move || Sink(Arc::clone(&sink))).finish();
        tracing::subscriber::with_default(logs, || {
            let _span = tracing::info_span!("span", host = %HOSTILE).entered();
            tracing::info!(text = HOSTILE, shown = %HOSTILE, "said {HOSTILE}");
        });
        let written = String::from_utf8(written.lock().expect("nobody panicked").clone()).expect("text");
        let mut line = written.trim_end_matches('\n').to_owned();
        for colour in ["0", "1", "2", "32"] {
            line = line.replace(&format!("\x1b[{colour}m"), "");
        }
        assert!(line.contains("said evil"), "{line:?}");
        assert_eq!(plain::line(&line), line);
    }

    #[derive(Clone)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panicked").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
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
