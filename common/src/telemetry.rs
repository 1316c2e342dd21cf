//! Logs, the metrics registry, and what is counted of the connections of each port.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use http_edge::{Ended, Observer};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Before the name of every metric.
const PREFIX: &str = "hookledger";

/// What is logged unless somebody wishes otherwise: the web server tells much at each start and end, and
/// of every request that is malformed, which strangers may send as many of as they like.
const FILTER: &str = "info,actix_server=warn,actix_http=off";

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

/// The connections of a port.
pub struct Connections {
    open: IntGauge,
    ended: [IntCounter; Ended::ALL.len()],
}

impl Connections {
    /// Registers them under the port's name.
    pub fn new(registry: &Registry, port: &str) -> Self {
        let about = format!("Connections of the {port} port that are open.");
        let open = registered(registry, IntGauge::new(format!("{port}_connections"), about));
        let about = format!("Connections of the {port} port that we ended, or that failed, by why.");
        let about = Opts::new(format!("{port}_connections_ended_total"), about);
        let ended = registered(registry, IntCounterVec::new(about, &["reason"]));
        Self { open, ended: Ended::ALL.map(|reason| ended.with_label_values(&[reason.label()])) }
    }
}

impl Observer for Connections {
    fn opened(&self) {
        self.open.inc();
    }

    fn closed(&self, why: Option<Ended>) {
        self.open.dec();
        if let Some(why) = why {
            self.ended[why as usize].inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

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
}
