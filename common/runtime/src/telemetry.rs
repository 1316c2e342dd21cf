//! Logs and the metrics registry.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts, Registry};
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::util::SubscriberInitExt;

use primitives::plain;

const PREFIX: &str = "hookledger";

/// The default filter: the web server logs much at each start and end, and logs every malformed request, of which
/// strangers may send any number.
const FILTER: &str = "info,actix_server=warn,actix_http=off";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process' logger, to stderr, and logs panics with it. `RUST_LOG` filters; the default is `info` for
/// our own code. An existing logger stays.
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
            let logs = logs
                .with_ansi(has_colours(io::stderr().is_terminal(), &|name| std::env::var_os(name)))
                .fmt_fields(debug_fn(write_field));
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

/// By the conventions of <https://no-color.org> and `CLICOLOR`: any text in the one, `0` in the other switches them off.
fn has_colours(is_terminal: bool, variable: &dyn Fn(&str) -> Option<OsString>) -> bool {
    let is_off = variable("NO_COLOR").is_some_and(|value| !value.is_empty())
        || variable("CLICOLOR").is_some_and(|value| value == "0");
    is_terminal && !is_off
}

/// One field of an event in text format. Fields hold text of portals and servers; the subscriber's own
/// formatter passes the ESC of a field with `%`, and line breaks.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let shown = plain::line(&format!("{value:?}"));
    match field.name() {
        "message" => to.write_str(&shown),
        // The source of a library's line, which the subscriber has used already.
        name if name.starts_with("log.") => Ok(()),
        name => write!(to, " {}={shown}", name.strip_prefix("r#").unwrap_or(name)),
    }
}

/// Writes whole lines of JSON to stderr, one event at a time.
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

/// The place and the message of a panic, if the payload is text.
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

/// Prefixes every name with `hookledger_`, and holds `hookledger_build_info`.
pub fn registry() -> Registry {
    let registry = Registry::new_custom(Some(PREFIX.into()), None).expect("the prefix is not empty");
    let about = Opts::new("build_info", "Always 1; the label says which version runs.");
    let build_info =
        registered(&registry, IntGauge::with_opts(about.const_label("version", env!("CARGO_PKG_VERSION"))));
    build_info.set(1);
    registry
}

/// A metric whose name and labels stand in the code.
pub fn valid<M>(metric: prometheus::Result<M>) -> M {
    metric.expect("names and labels in the code are valid")
}

pub fn registered<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = valid(metric);
    registry.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}

/// Registers metrics that `refresh` sets whenever they are collected.
pub fn register_refreshed(
    registry: &Registry,
    metrics: Vec<Box<dyn Collector>>,
    refresh: impl Fn() + Send + Sync + 'static,
) {
    registry.register(Box::new(Refreshed { metrics, refresh })).expect("each metric is registered once");
}

struct Refreshed<F> {
    metrics: Vec<Box<dyn Collector>>,
    refresh: F,
}

impl<F: Fn() + Send + Sync> Collector for Refreshed<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.metrics.iter().flat_map(|metric| metric.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.refresh)();
        self.metrics.iter().flat_map(|metric| metric.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Arc, Mutex};

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

    #[test]
    fn colours_are_for_terminals_and_can_be_switched_off() {
        let has = |is_terminal, name: &'static str, value: &'static str| {
            has_colours(is_terminal, &|asked| (asked == name).then(|| value.into()))
        };
        assert!(has(true, "OTHER", "1") && has(true, "NO_COLOR", "") && has(true, "CLICOLOR", "1"));
        assert!(!has(true, "NO_COLOR", "1") && !has(true, "CLICOLOR", "0") && !has(false, "CLICOLOR", "1"));
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
        let written = String::from_utf8(written.lock().expect("no panic").clone()).expect("text");
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
            self.0.lock().expect("no panic").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
